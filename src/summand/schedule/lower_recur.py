"""Lower a recurrence: nests with carries, or a loop around the nests of its body.

    %9 = recur over t: h = a·h[t-1] + u     ->   nest d t: c = carry init next …; store
    %9 = recur over t: h = tanh(W h[t-1])   ->   loop t: nest i k: h[t] = fold …
    %9 = recur over i, j: …                 ->   `lower_rows.py`

The second form keeps its states in memory: the whole array where all positions are wanted, else the
latest one, with a copy for each earlier position that the body reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from summand.errors import InternalError
from summand.ir.index import Form
from summand.ir.nodes import Eqn, Recur, Var
from summand.loops.nodes import Carry, Last, Loop, Stmt
from summand.rewrite.plan.nodes import Stage, reads_of
from summand.rewrite.plan.units import product
from summand.rewrite.recur.carried import in_turns
from summand.schedule.coordinates import Coord, Storage, shifted
from summand.schedule.lower_rows import lower_rows
from summand.schedule.states import (
    copy_last,
    extents_of,
    fresh,
    local_memory,
    scratch_of,
    store_others,
)
from summand.schedule.task import NestBuilder, Task

LowerStage = Callable[[Task, Stage], tuple[Stmt, ...]]


def lower_recur(task: Task, eqn: Eqn, stage: Stage, lower: LowerStage) -> tuple[Stmt, ...]:
    """The statements of a recurrence; `lower` lowers a stage of its body."""
    if not isinstance(eqn.op, Recur):
        raise InternalError("lower: a recurrence is expected")
    if stage.carried is None:
        return _loop(task, eqn, eqn.op, stage, lower)
    if len(eqn.op.over) > 1:
        return lower_rows(task, eqn, eqn.op, stage)
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
    store_others(builder, eqn, stage, {**sizes, time: size})
    return builder.finish()


def _carry_of(builder: NestBuilder, ref: int, time: str) -> int:
    """The carry whose next value is `ref`; a new one where the state is not read earlier."""
    for k, instr in enumerate(builder.code.code):
        if isinstance(instr, Carry) and instr.next == ref:
            return k
    dtype = builder.code.dtype(ref)
    start = builder.code.const(0, dtype)
    return builder.code.emit(Carry(time, start, ref, dtype))


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
    names = [fresh(dim, task) for dim in op.over]
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
    body += [copy_last(task, v, source, last) for v, source in states.copies]
    return (*states.starts, *body)


def _ranking(task: Task, eqn: Eqn, op: Recur) -> dict[str, int]:
    """One order of dims for all scratch of a loop: as in the memory of what it makes and reads."""
    stored = [task.storage[v] for v in (*eqn.outs, *op.inits, *op.captured) if v in task.storage]
    dims = [d for s in stored for d, _ in sorted(s.strides, key=lambda x: -x[1])]
    return {d: k for k, d in enumerate(dict.fromkeys(dims))}


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
                once = task.between is None and all(
                    _updates(task, op, stage, p, op.body.results[k]) for p in params
                )
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
                task.earlier[param] = task.apart(_at(task, op, whole, read.shift))

    def _latest(self, task: Task, op: Recur, k: int, out: Var) -> None:
        result = op.body.results[k]
        whole = task.storage.get(out)
        if whole is None or any(f"{d}.o" in task.outer for d in result.type.names):
            # tiles that overlap would find each other's states in the result
            self.new.append(local_memory(task, out, result))
            if whole is not None:
                self.copies.append((out, self.new[-1]))
        else:
            self.new.append(whole)
        for param, read in zip(op.body.params, op.reads):
            if read.state == k:
                task.earlier[param] = local_memory(task, param)
                self.moves.append((param, self.new[-1], task.earlier[param]))

    def _turns(self, task: Task, op: Recur, k: int, out: Var, step: Form, halves: int) -> None:
        """Two halves of a buffer: step t writes half t % 2 and reads the other one; or a single
        one, where each element is read for the last time when it is written."""
        result = op.body.results[k]
        dims = extents_of(task, result)
        count = product(n for _, n in dims)
        name = f"turns {out}"
        task.add_scratch(name, result.type.dtype, halves * count)
        both = task.within(Storage.dense(name, result.type.dtype, dims))
        self.new.append(shifted(both, step % halves * count))
        before = task.apart(shifted(both, (step + 1) % halves * count))
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
    dims = (*zip(op.over, op.sizes, strict=True), *extents_of(task, result))
    return scratch_of(task, f"all {out}", result, dims)


def _at(task: Task, op: Recur, whole: Storage, shift: tuple[int, ...]) -> Storage:
    """The slice of a state at the position that lies `shift` back."""
    strides = dict(whole.strides)
    base = Form()
    for dim, s in zip(op.over, shift, strict=True):
        base = base + (task.positions[dim].form - s) * strides.pop(dim)
    return shifted(replace(whole, strides=tuple(strides.items())), base)


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
