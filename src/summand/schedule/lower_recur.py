"""Lower a recurrence: nests with carries, or a loop around the nests of its body.

    %9 = recur over t: h = a·h[t-1] + u     ->   nest d t: c = carry init next …; store
    %9 = recur over i, j: D = f(D[i-1, j-1], D[i, j-1])
                                            ->   loop i: nest b j: c = carry …; store row; copy row
    %9 = recur over t: h = tanh(W h[t-1])   ->   loop t: nest i k: h[t] = fold …

The last form keeps its states in memory: the whole array where all positions are wanted, else the
latest one, with a copy for each earlier position that the body reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from summand.errors import InternalError
from summand.ir.index import Form
from summand.ir.nodes import Eqn, Recur, Var
from summand.loops.nodes import Carry, Last, Loop, Stmt
from summand.rewrite.plan.nodes import Stage, reads_of
from summand.rewrite.plan.units import product
from summand.rewrite.recur.carried import in_turns
from summand.schedule.coordinates import Coord, Storage, shifted
from summand.schedule.task import NestBuilder, Task
from summand.schedule.turn import turned

LowerStage = Callable[[Task, Stage], tuple[Stmt, ...]]


def lower_recur(task: Task, eqn: Eqn, stage: Stage, lower: LowerStage) -> tuple[Stmt, ...]:
    """The statements of a recurrence; `lower` lowers a stage of its body."""
    if not isinstance(eqn.op, Recur):
        raise InternalError("lower: a recurrence is expected")
    if stage.carried is None:
        return _loop(task, eqn, eqn.op, stage, lower)
    if len(eqn.op.over) > 1:
        return _rows(task, eqn, eqn.op, stage)
    return (_registers(task, eqn, eqn.op, stage),)


# ---- states in registers


def _registers(task: Task, eqn: Eqn, op: Recur, stage: Stage) -> Stmt:
    """One nest over the states' dims and the time dim, in order."""
    (time,), (forward,), (size,) = op.over, op.forward, op.sizes
    sizes = {d: n for r in op.body.results for d, n in r.type.dims}
    inline = (*eqn.outs, *stage.roots)
    builder = NestBuilder.over(task, {**sizes, time: size}, inline, {eqn: time})
    if time not in builder.dims:
        builder.add(time, size)
    form = Form.of(time) if forward else Form.of(size - 1) - Form.of(time)
    builder.code.positions[time] = Coord(form)
    builder.ordered = (time,)
    keep = op.keep or ("all",) * len(eqn.outs)
    for out, result, kept in zip(eqn.outs, op.body.results, keep, strict=True):
        if out not in stage.roots:
            continue
        at = builder.point(result.type.dims)
        ref = builder.code.value(result, at)
        if kept == "all":
            builder.store(task.storage[out], {**at, time: Coord(form)}, ref)
        else:
            carry = _carry_of(builder, ref, time)
            last = builder.code.emit(Last(carry, builder.code.dtype(ref)))
            builder.store(task.storage[out], at, last)
    _store_others(builder, eqn, stage, {**sizes, time: size})
    return builder.finish()


def _carry_of(builder: NestBuilder, ref: int, time: str) -> int:
    """The carry whose next value is `ref`; a new one where the state is not read earlier."""
    for k, instr in enumerate(builder.code.code):
        if isinstance(instr, Carry) and instr.next == ref:
            return k
    dtype = builder.code.dtype(ref)
    start = builder.code.const(0, dtype)
    return builder.code.emit(Carry(time, start, ref, dtype))


# ---- rows: states in registers along the row, in memory from one row to the next


def _rows(task: Task, eqn: Eqn, op: Recur, stage: Stage) -> tuple[Stmt, ...]:
    """A loop over rows around the nest of one row. The row before lies in scratch of its own: a
    nest that reads what it stores would have to run without lanes."""
    (down, along), (forward, right), (rows, size) = op.over, op.forward, op.sizes
    inner = replace(task, positions=dict(task.positions), outer=dict(task.outer), earlier={})
    name = _fresh(down, task)
    inner.outer[name] = rows
    inner.positions[down] = Coord(Form.of(name) if forward else Form.of(rows - 1) - Form.of(name))
    sizes = {d: n for r in op.body.results for d, n in r.type.dims}
    builder = NestBuilder.over(
        inner, {**sizes, along: size}, (*eqn.outs, *stage.roots), {eqn: along}
    )
    if along not in builder.dims:
        builder.add(along, size)
    here = Coord(Form.of(along) if right else Form.of(size - 1) - Form.of(along))
    builder.code.positions[along] = here
    builder.ordered = (along,)
    keep = op.keep or ("all",) * len(eqn.outs)
    moves: list[Stmt] = []
    last: list[Stmt] = []
    states = [_Row.of(inner, op, k, (along, size), here) for k in range(len(eqn.outs))]
    for k, (out, result) in enumerate(zip(eqn.outs, op.body.results, strict=True)):
        row, at = states[k], builder.point(result.type.dims)
        wanted = out in stage.roots
        if row.before is None and not wanted:
            continue
        ref = builder.code.value(result, at)
        if wanted and keep[k] == "all":
            builder.store(task.storage[out], {**at, **builder.point(zip(op.over, op.sizes))}, ref)
            wanted = False
        if row.before is not None or wanted:
            builder.store(row.now, {**at, along: here}, ref)
        if row.before is not None:
            moves.append(_copy_row(inner, result, (along, size), row.now, row.before))
        if wanted:
            end = {along: Coord(Form.of(size - 1 if right else 0))}
            last.append(_copy_last(task, out, row.now, end))
    _store_others(builder, eqn, stage, {**sizes, **dict(zip(op.over, op.sizes, strict=True))})
    row_nests = turned(inner, builder.finish(), along)
    return (Loop(name, rows, (*row_nests, *moves)), *last)


@dataclass(frozen=True, slots=True)
class _Row:
    """Scratch for a state along this row, and along the one before where that is read."""

    now: Storage
    before: Storage | None

    @staticmethod
    def of(task: Task, op: Recur, k: int, along: tuple[str, int], here: Coord) -> _Row:
        """Make it; `task.earlier` then says what each read of the row before reads."""
        result = op.body.results[k]
        dims = (along, *_extents(task, result))
        now = _scratch(task, f"row {result}", result, dims)
        before: Storage | None = None
        for param, read in zip(op.body.params, op.reads, strict=False):
            if read.state != k or not read.shift[0]:
                continue
            if before is None:
                before = _scratch(task, f"row before {result}", result, dims)
            strides = dict(before.strides)
            base = (here.form - read.shift[1]) * strides.pop(along[0])
            task.earlier[param] = shifted(replace(before, strides=tuple(strides.items())), base)
        return _Row(now, before)


def _copy_row(
    task: Task, var: Var, along: tuple[str, int], source: Storage, target: Storage
) -> Stmt:
    builder = NestBuilder.over(task, dict((along, *var.type.dims)))
    at = builder.point((along, *var.type.dims))
    builder.store(target, at, builder.code.load_from(source, at))
    return builder.finish()


def _store_others(builder: NestBuilder, eqn: Eqn, stage: Stage, sizes: Mapping[str, int]) -> None:
    """Store what else the nest computes from the states."""
    for dim, n in sizes.items():
        builder.reuse(dim, n, dim)
    for root in stage.roots:
        if root not in eqn.outs:
            at = builder.point(root.type.dims)
            builder.store(builder.task.storage[root], at, builder.code.value(root, at))


# ---- states in memory


def _loop(task: Task, eqn: Eqn, op: Recur, stage: Stage, lower: LowerStage) -> tuple[Stmt, ...]:
    inner = replace(
        task,
        positions=dict(task.positions),
        outer=dict(task.outer),
        earlier=dict(task.earlier),
        begun=set(task.begun),
        rank=_ranking(task, eqn, op),
    )
    names = [_fresh(dim, task) for dim in op.over]
    for dim, name, forward, size in zip(op.over, names, op.forward, op.sizes, strict=True):
        inner.outer[name] = size
        form = Form.of(name) if forward else Form.of(size - 1) - Form.of(name)
        inner.positions[dim] = Coord(form)
    states = _States.of(inner, eqn, op, stage, names)
    written = dict(reversed(list(zip(op.body.results, states.new, strict=True))))
    done: set[Var] = set()
    body: list[Stmt] = []
    for part in stage.body:
        for root in part.roots:
            inner.storage[root] = written.get(root) or local_memory(inner, root)
            done.add(root)
        body += lower(inner, part)
    for result, to in zip(op.body.results, states.new, strict=True):
        if result not in done or written[result] != to:
            body.append(_copy_value(inner, result, to))
    body += [_move(inner, v, source, target) for v, source, target in states.moves]
    for name, size in reversed(list(zip(names, op.sizes, strict=True))):
        body = [Loop(name, size, tuple(body))]
    last = {d: Coord(Form.of(n - 1 if f else 0)) for d, f, n in zip(op.over, op.forward, op.sizes)}
    body += [_copy_last(task, v, source, last) for v, source in states.copies]
    return (*states.starts, *body)


def _ranking(task: Task, eqn: Eqn, op: Recur) -> dict[str, int]:
    """One order of dims for all scratch of a loop: as in the memory of what it makes and reads."""
    stored = [task.storage[v] for v in (*eqn.outs, *op.inits, *op.captured) if v in task.storage]
    dims = [d for s in stored for d, _ in sorted(s.strides, key=lambda x: -x[1])]
    return {d: k for k, d in enumerate(dict.fromkeys(dims))}


def _fresh(name: str, task: Task) -> str:
    while name in task.outer:
        name += "'"
    return name


@dataclass(slots=True)
class _States:
    """The memory of a loop's states.

    `new`: where each state at this position goes. `moves`: what each step ends with, so that the
    next one finds its earlier states. `copies`: results taken from a whole array after the loop.
    `starts`: initial states put in their place before it.
    """

    new: list[Storage]
    moves: list[tuple[Var, Storage, Storage]]
    copies: list[tuple[Var, Storage]]
    starts: list[Stmt]

    @staticmethod
    def of(task: Task, eqn: Eqn, op: Recur, stage: Stage, names: Sequence[str]) -> _States:
        """Decide it; `task.earlier` then says what each read of the body reads."""
        keep = op.keep or ("all",) * len(eqn.outs)
        states = _States([], [], [], [])
        turns = in_turns(op)
        for k, out in enumerate(eqn.outs):
            if k in turns:
                params = [p for p, r in zip(op.body.params, op.reads) if r.state == k]
                once = all(_updates(task, op, stage, p, op.body.results[k]) for p in params)
                states._turns(task, op, k, out, Form.of(names[0]), 1 if once else 2)
                continue
            shifts = [r.shift for r in op.reads if r.state == k]
            far = len(op.over) > 1 or any(abs(s) > 1 for shift in shifts for s in shift)
            if keep[k] == "all" and out in task.storage:
                states._whole(task, op, k, task.storage[out])
            elif keep[k] == "all" or (far and shifts):
                whole = _whole(task, op, out, op.body.results[k])
                states._whole(task, op, k, whole)
                if keep[k] != "all" and out in task.storage:
                    states.copies.append((out, whole))
            else:
                states._latest(task, op, k, out)
        return states

    def _whole(self, task: Task, op: Recur, k: int, whole: Storage) -> None:
        self.new.append(_at(task, op, whole, (0,) * len(op.over)))
        for param, read in zip(op.body.params, op.reads):
            if read.state == k:
                task.earlier[param] = _at(task, op, whole, read.shift)

    def _latest(self, task: Task, op: Recur, k: int, out: Var) -> None:
        result = op.body.results[k]
        self.new.append(task.storage.get(out) or local_memory(task, out, result))
        for param, read in zip(op.body.params, op.reads):
            if read.state == k:
                task.earlier[param] = local_memory(task, param)
                self.moves.append((param, self.new[-1], task.earlier[param]))

    def _turns(self, task: Task, op: Recur, k: int, out: Var, step: Form, halves: int) -> None:
        """Two halves of a buffer: step t writes half t % 2 and reads the other one; or a single
        one, where each element is read for the last time when it is written."""
        result = op.body.results[k]
        dims = _extents(task, result)
        count = product(n for _, n in dims)
        name = f"turns {out}"
        task.add_scratch(name, result.type.dtype, halves * count)
        both = task.within(Storage.dense(name, result.type.dtype, dims))
        self.new.append(shifted(both, step % halves * count))
        before = shifted(both, (step + 1) % halves * count)
        number = next(n for n, r in enumerate(op.reads) if r.state == k)
        self.starts.append(
            _start(task, op, number, result, shifted(both, Form.of((halves - 1) * count)))
        )
        for param, read in zip(op.body.params, op.reads):
            if read.state == k:
                task.earlier[param] = before
                task.begun.add(param)
        if out in task.storage:
            last = shifted(both, Form.of((op.sizes[0] - 1) % halves * count))
            self.copies.append((out, last))


def _updates(task: Task, op: Recur, stage: Stage, param: Var, result: Var) -> bool:
    """Whether a nest may write a state where it found the earlier one: no nest behind it reads
    that, and no pass of its own but the one that writes."""
    makers = [k for k, part in enumerate(stage.body) if result in part.roots]
    reading = [k for k, part in enumerate(stage.body) for a in part.reads if a.var == param]
    if not makers or (reading and max(reading) > makers[0]):
        return False
    roots = frozenset(r for part in stage.body for r in part.roots)
    loose = [r for r in op.body.results if r not in roots]  # copied when the step ends
    if any(r == param or param in reads_of(task.graph, roots, (r,)) for r in loose):
        return False
    part = stage.body[makers[0]]
    own = [a for a in part.reads if a.var == param]
    others = set(part.roots) - {result}
    once = not any(others & set(reads_of(task.graph, frozenset(others), (r,))) for r in part.roots)
    return once and not part.body and all(a.is_identity(d) for a in own for d, _ in a.at)


def _start(task: Task, op: Recur, read: int, like: Var, to: Storage) -> Stmt:
    """Put the initial state of a read where its first position looks for it."""
    builder = NestBuilder.over(task, like.type.sizes)
    at = builder.point(like.type.dims)
    first = {d: Coord(Form.of(0 if f else n - 1)) for d, f, n in zip(op.over, op.forward, op.sizes)}
    init = op.inits[read]
    point = {d: c for d, c in {**at, **first}.items() if d in init.type.names}
    builder.store(to, at, builder.code.value(init, point))
    return builder.finish()


def _whole(task: Task, op: Recur, out: Var, result: Var) -> Storage:
    """Memory for a state at all positions, of which only the last one is wanted."""
    dims = (*zip(op.over, op.sizes, strict=True), *_extents(task, result))
    return _scratch(task, f"all {out}", result, dims)


def _at(task: Task, op: Recur, whole: Storage, shift: tuple[int, ...]) -> Storage:
    """The slice of a state at the position that lies `shift` back."""
    strides = dict(whole.strides)
    base = Form()
    for dim, s in zip(op.over, shift, strict=True):
        base = base + (task.positions[dim].form - s) * strides.pop(dim)
    return shifted(replace(whole, strides=tuple(strides.items())), base)


def _extents(task: Task, var: Var) -> tuple[tuple[str, int], ...]:
    last = len(task.rank)
    dims = sorted(var.type.dims, key=lambda x: (task.rank.get(x[0], last), x[0]))
    return tuple((d, task.inner.get(d, n)) for d, n in dims)


def local_memory(task: Task, var: Var, like: Var | None = None) -> Storage:
    """Scratch for a value that lives within a task: as large as a tile of it."""
    return _scratch(task, f"{var}", like or var, _extents(task, like or var))


def _scratch(task: Task, name: str, var: Var, dims: tuple[tuple[str, int], ...]) -> Storage:
    task.add_scratch(name, var.type.dtype, product(n for _, n in dims))
    return task.within(Storage.dense(name, var.type.dtype, dims))


def _copy_value(task: Task, var: Var, to: Storage) -> Stmt:
    builder = NestBuilder.over(task, var.type.sizes)
    at = builder.point(var.type.dims)
    builder.store(to, at, builder.code.value(var, at))
    return builder.finish()


def _move(task: Task, var: Var, source: Storage, target: Storage) -> Stmt:
    """Copy a latest state to where the next position reads it."""
    builder = NestBuilder.over(task, var.type.sizes)
    at = builder.point(var.type.dims)
    builder.store(target, at, builder.code.load_from(source, at))
    return builder.finish()


def _copy_last(task: Task, out: Var, whole: Storage, last: dict[str, Coord]) -> Stmt:
    builder = NestBuilder.over(task, out.type.sizes)
    at = builder.point(out.type.dims)
    builder.store(task.storage[out], at, builder.code.load_from(whole, {**at, **last}))
    return builder.finish()
