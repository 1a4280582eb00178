"""Lower a recurrence over two dims: a loop over rows around the nest that walks a few of them.

    %9 = recur over i, j: D = f(D[i-1, j-1], D[i-1, j], D[i, j-1])
      ->  loop i: nest b j: c = carry …; store row; copy row                  one row at a time
      ->  loop i=n/2: nest b j: c = carry f(…, c); d = carry f(e, c, d); e = carry c; …    two

A step waits for the one before it in its row. Rows that are walked together, each a step behind
the one above it, are as many chains that do not wait for one another; all but the first of them
find the row above in registers. The first and last steps of such a nest lie outside of some rows:
what they compute there is not used.

The row before lies in scratch of its own: a nest that reads what it stores would have to run
without lanes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from summand.dtypes import accumulator, bool_
from summand.ir.index import Form
from summand.ir.nodes import Eqn, Recur, Var
from summand.loops.nodes import Carry, Guard, Loop, Ref, Stmt
from summand.rewrite.plan.nodes import Stage
from summand.schedule.coordinates import Coord, Storage, shifted
from summand.schedule.states import copy_last, extents_of, fresh, scratch_of, store_others
from summand.schedule.task import NestBuilder, Task
from summand.schedule.turn import turned

TOGETHER = 4  # rows
LINES = 160  # most equations of all rows of a nest
SHORT = 16  # steps of a row below which the rows' different starts cost more than they save


def lower_rows(task: Task, eqn: Eqn, op: Recur, stage: Stage) -> tuple[Stmt, ...]:
    """The statements of a recurrence over two dims that runs row by row."""
    rows, size = op.sizes
    together = _together(eqn, op, stage)
    states = [
        _Row.of(task, eqn, op, k, out in stage.roots, together - 1)
        for k, out in enumerate(eqn.outs)
    ]
    done = rows // together * together
    out = list(_Band(task, eqn, op, stage, states, 0, done // together, together).lower())
    if done < rows:
        out += _Band(task, eqn, op, stage, states, done, rows - done, 1).lower()
    end = {op.over[1]: Coord(Form.of(size - 1 if op.forward[1] else 0))}
    for k, var in enumerate(eqn.outs):
        now = states[k].now
        if now is not None and var in stage.roots and _kept(op, k) != "all":
            out.append(copy_last(task, var, now, end))
    return tuple(out)


def _kept(op: Recur, k: int) -> str:
    return op.keep[k] if op.keep else "all"


def _steps(op: Recur) -> list[tuple[int, int]]:
    """How many rows, and how many steps along its row, each read goes back."""
    down, right = (1 if f else -1 for f in op.forward)
    return [(r.shift[0] * down, r.shift[1] * right) for r in op.reads]


def _together(eqn: Eqn, op: Recur, stage: Stage) -> int:
    """How many rows one nest walks."""
    near = {(0, 1), (1, 0), (1, 1)}.issuperset(_steps(op))
    if not near or not set(stage.roots) <= set(eqn.outs) or op.sizes[1] < SHORT:
        return 1
    return max(1, min(TOGETHER, op.sizes[0], LINES // max(1, len(op.body.eqns))))


@dataclass(frozen=True, slots=True)
class _Row:
    """Scratch for a state along the last row of a nest, and along the row before its first one,
    where these are read. The former has room for steps at which the last row has not begun: a
    condition at its store would end the block of code in which the rows run side by side."""

    now: Storage | None
    before: Storage | None

    @staticmethod
    def of(task: Task, eqn: Eqn, op: Recur, k: int, wanted: bool, late: int) -> _Row:
        """Make it; `wanted`: the state is a result. The last row begins `late` steps late."""
        out, result = eqn.outs[k], op.body.results[k]  # several states may have one value
        along, size = op.over[1], op.sizes[1]
        each = extents_of(task, result)
        before = now = None
        if any(r.state == k and r.shift[0] for r in op.reads):
            before = scratch_of(task, f"row before {out}", result, ((along, size), *each))
        if before is not None or (wanted and _kept(op, k) != "all"):
            now = scratch_of(task, f"row {out}", result, ((along, size + late), *each))
            if op.forward[1]:
                now = shifted(now, Form.of(late * dict(now.strides)[along]))
        return _Row(now, before)


@dataclass(slots=True)
class _Band:
    """Rows from `first` on, `together` in each turn of a loop. Row by row the nest's code is made:
    `carries` has each state of the row above one step back, and two steps back."""

    task: Task
    eqn: Eqn
    op: Recur
    stage: Stage
    states: list[_Row]
    first: int
    turns: int
    together: int
    carries: dict[int, tuple[Ref, Ref]] = field(default_factory=dict)

    def lower(self) -> tuple[Stmt, ...]:
        """The loop."""
        op, task = self.op, self.task
        (down, along), (_, size) = op.over, op.sizes
        inner = replace(
            task, positions=dict(task.positions), outer=dict(task.outer), earlier=self._earlier()
        )
        name = fresh(down, task)
        inner.outer[name] = self.turns
        sizes = {d: n for r in op.body.results for d, n in r.type.dims}
        steps = size + self.together - 1
        inline = (*self.eqn.outs, *self.stage.roots)
        builder = NestBuilder.over(inner, {**sizes, along: steps}, inline, {self.eqn: along})
        if along not in builder.dims:
            builder.add(along, steps)
        builder.ordered = (along,)
        for r in range(self.together):
            self._row(builder, name, r)
        if self.together == 1:
            every = {**sizes, **dict(zip(op.over, op.sizes, strict=True))}
            store_others(builder, self.eqn, self.stage, every)
        walk = turned(inner, builder.finish(), along)
        moves = [
            _copy_row(inner, result, (along, size), row.now, row.before)
            for row, result in zip(self.states, op.body.results, strict=True)
            if row.now is not None and row.before is not None
        ]
        return (Loop(name, self.turns, (*walk, *moves)),)

    def _earlier(self) -> dict[Var, Storage]:
        """What each read of the row before reads, at the first row's place."""
        op, along = self.op, self.op.over[1]
        here = self._here(0)
        found = {}
        for param, read in zip(op.body.params, op.reads, strict=False):
            before = self.states[read.state].before
            if before is not None and read.shift[0]:
                strides = dict(before.strides)
                base = (here.form - read.shift[1]) * strides.pop(along)
                found[param] = shifted(replace(before, strides=tuple(strides.items())), base)
        return found

    def _here(self, r: int) -> Coord:
        """Where a row is at a step."""
        column = Form.of(self.op.over[1]) - r
        return Coord(column if self.op.forward[1] else Form.of(self.op.sizes[1] - 1) - column)

    # ---- one row

    def _row(self, builder: NestBuilder, name: str, r: int) -> None:
        """The code of row number `r` of the nest."""
        op, code = self.op, builder.code
        (down, along), (rows, size) = op.over, op.sizes
        row = Form.of(name) * self.together + (self.first + r)
        here = self._here(r)
        code.move({down: Coord(row if op.forward[0] else Form.of(rows - 1) - row), along: here})
        found = code.guard(Coord(Form.of(along) - r), size)
        guards = () if found is None else (found,)
        carried = self._read_registers(builder, r, guards)
        results = list(enumerate(zip(self.eqn.outs, op.body.results, strict=True)))
        refs = {}
        for k, (out, result) in results:
            if carried[k] or self.states[k].now is not None or out in self.stage.roots:
                refs[k] = code.value(result, builder.point(result.type.dims), guards)
        self._go_on(builder, r, carried, refs)
        for k, (out, result) in results:
            at, kept = {**builder.point(result.type.dims), along: here}, self.states[k].now
            if out in self.stage.roots and _kept(op, k) == "all":
                whole = {**at, down: code.positions[down]}
                address = code.address(self.task.storage[out], whole, guards)
                builder.store_at(self.task.storage[out], address, refs[k])
            if kept is not None and r == self.together - 1:
                builder.store(kept, at, refs[k])

    def _read_registers(
        self, builder: NestBuilder, r: int, guards: tuple[Guard, ...]
    ) -> dict[int, list[Ref]]:
        """Tell the code which registers this row's reads are; the carries of each state, whose next
        values are not known yet."""
        op, code = self.op, builder.code
        made: dict[int, list[Ref]] = {k: [] for k in range(len(self.eqn.outs))}
        steps = _steps(op)
        for n, ((up, back), read) in enumerate(zip(steps, op.reads, strict=True)):
            param = op.body.params[n]
            if up and r == 0:
                continue  # from memory
            point = builder.point(param.type.dims)
            if not up:
                ref = self._carry(builder, n)
                made[read.state].append(ref)
            elif not back:
                ref = self.carries[read.state][0]
            else:
                started = _reached(builder, op.over[1], r + 1)
                start = self._start(builder, n)
                two_back = self.carries[read.state][1]
                ref = code.apply("where", (started, two_back, start), code.dtype(start))
            code.know(param, point, guards, ref)
        if r + 1 < self.together:
            for k in {r_.state for r_, (up, _) in zip(op.reads, steps, strict=True) if up}:
                made[k] = made[k] or [self._bare(builder, op.body.results[k])]
        return made

    def _start(self, builder: NestBuilder, n: int) -> Ref:
        """The initial state that a read finds at a row's first step."""
        init, along = self.op.inits[n], self.op.over[1]
        first = Coord(Form.of(0 if self.op.forward[1] else self.op.sizes[1] - 1))
        point = builder.point((d, s) for d, s in init.type.dims if d != along)
        return builder.code.value(init, {**point, along: first})

    def _carry(self, builder: NestBuilder, n: int) -> Ref:
        start = self._start(builder, n)
        dtype = accumulator(self.op.inits[n].type.dtype)
        return builder.code.add_carry(Carry(self.op.over[1], start, start, dtype))

    def _bare(self, builder: NestBuilder, result: Var) -> Ref:
        """A carry of a state that its own row does not read."""
        dtype = accumulator(result.type.dtype)
        start = builder.code.const(0, dtype)
        return builder.code.add_carry(Carry(self.op.over[1], start, start, dtype))

    def _go_on(
        self, builder: NestBuilder, r: int, carried: dict[int, list[Ref]], refs: dict[int, Ref]
    ) -> None:
        """Give the carries of a row their next values: until it starts, the initial ones."""
        code, along = builder.code, self.op.over[1]
        self.carries = {}
        for k, made in carried.items():
            for ref in made:
                carry = code.code[ref]
                assert isinstance(carry, Carry)
                new = code.convert(refs[k], carry.dtype)
                if r:
                    started = _reached(builder, along, r)
                    new = code.apply("where", (started, new, carry.init), carry.dtype)
                code.code[ref] = replace(carry, next=new)
            if made and r + 1 < self.together:
                last = code.code[made[0]]
                assert isinstance(last, Carry)
                before = code.add_carry(replace(last, next=made[0]))
                self.carries[k] = (made[0], before)


def _reached(builder: NestBuilder, along: str, step: int) -> Ref:
    """Whether the nest has come to a step."""
    code = builder.code
    at = code.integer(Coord(Form.of(along)))
    return code.apply("ge", (at, code.const(step, code.dtype(at))), bool_)


def _copy_row(
    task: Task, var: Var, along: tuple[str, int], source: Storage, target: Storage
) -> Stmt:
    builder = NestBuilder.over(task, dict((along, *var.type.dims)))
    at = builder.point((along, *var.type.dims))
    builder.store(target, at, builder.code.load_from(source, at))
    return builder.finish()
