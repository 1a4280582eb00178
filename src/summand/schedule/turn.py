"""Bring rows that a nest walks in order to where its lanes find their elements side by side.

    nest b j, ordered j: load D[65536*b + j]   ->   nest b j: row[16*j + b] = D[65536*b + j]
                                                    nest b j, ordered j: load row[16*j + b]

A nest that carries states cannot take its lanes along the dim that it runs in order, and often
that is the dim of unit stride. Whole rows are transposed in blocks, a few shuffles for a vector.
Results are brought back in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from summand.dtypes import DType
from summand.ir.index import Form
from summand.loops.nodes import Address, Const, Guard, Load, Nest, Stmt, Store
from summand.schedule.task import Task

LONG = 16  # elements of a row from which blocks of it are worth transposing


def turned(task: Task, nest: Nest, along: str) -> tuple[Stmt, ...]:
    """The nest, with copies of rows before and after it."""
    code, stores = list(nest.code), list(nest.stores)
    before: list[Stmt] = []
    after: list[Stmt] = []
    for r, instr in enumerate(code):
        if isinstance(instr, Load) and _lies_across(nest, instr.at, along):
            row = _Row.of(task, nest, instr.at, along, instr.dtype)
            load = replace(instr, at=row.walked(instr.at))
            before.append(Nest(row.dims, (load,), (Store(row.name, Address(row.own), 0),)))
            before += row.rims(along, Const(instr.fill, instr.dtype))
            code[r] = Load(row.name, Address(row.seen), instr.dtype)
    for k, store in enumerate(stores):
        plain = store.combine is None and _window(nest, store.at, along) is not None
        if plain and _lies_across(nest, store.at, along):
            dtype = next(b.dtype for b in task.globals.values() if b.name == store.buffer)
            row = _Row.of(task, nest, store.at, along, dtype)
            load = Load(row.name, Address(row.own), dtype)
            back = Store(store.buffer, row.walked(store.at), 0)
            after.append(Nest(row.dims, (load,), (back,)))
            stores[k] = Store(row.name, Address(row.seen), store.value)
    return (*before, replace(nest, code=tuple(code), stores=tuple(stores)), *after)


def _lies_across(nest: Nest, at: Address, along: str) -> bool:
    """Whether neighbours in memory follow one another in order, and no other dim's do."""
    if at.dynamic or not at.form.is_affine or any(g.dynamic for g in at.guards):
        return False
    steps = [abs(at.form.coefficient(d)) for d in nest.extents if d != along]
    far = [s for s in steps if s]
    unit = abs(at.form.coefficient(along)) == 1
    return unit and bool(far) and min(far) > 1 and nest.extents[along] >= LONG


def _window(nest: Nest, at: Address, along: str) -> range | None:
    """The steps at which the guards hold; None where they read more than the step."""
    steps = range(nest.extents[along])
    for guard in at.guards:
        if guard.dynamic or guard.form - guard.form.const != Form.of(along):
            return None
        first = -guard.form.const
        steps = range(max(steps.start, first), min(steps.stop, first + guard.size))
    return steps if len(steps) else None


@dataclass(frozen=True, slots=True)
class _Row:
    """Scratch for a row: where an element lies for the copy (`own`), which walks memory upwards,
    and for the nest (`seen`); `turn` has the nest's step in terms of the copy's. A row whose guards
    hold in a window of steps is copied there, without them; `rim` is where it is not."""

    name: str
    dims: tuple[tuple[str, int], ...]
    own: Form
    seen: Form
    turn: dict[str, Form]
    rim: tuple[tuple[Form, int], ...]
    guarded: bool

    @staticmethod
    def of(task: Task, nest: Nest, at: Address, along: str, dtype: DType) -> _Row:
        """Make it."""
        size, step = nest.extents[along], Form.of(along)
        found = _window(nest, at, along)
        window = range(size) if found is None else found
        dims = [(d, n) for d, n in nest.dims if d != along and at.form.coefficient(d)]
        place, count = Form(), 1
        for d, n in reversed(dims):
            place, count = place + Form.of(d) * count, count * n
        seen, turn, start = step, step + window.start, window.start
        if at.form.coefficient(along) < 0:
            start = size - window.stop
            seen, turn = Form.of(size - 1) - step, Form.of(window.stop - 1) - step
        name = f"turned {len(task.scratch)}"
        task.add_scratch(name, dtype, count * size)
        rims = [(0, start), (start + len(window), size)]
        return _Row(
            task.local(name),
            (*dims, (along, len(window))),
            place + (step + start) * count,
            place + seen * count,
            {along: turn},
            tuple((place + (step + lo) * count, hi - lo) for lo, hi in rims if lo < hi),
            found is None,
        )

    def walked(self, at: Address) -> Address:
        """The address in the copy's order."""
        guards = tuple(Guard(g.form.substitute(self.turn), g.size) for g in at.guards)
        return Address(at.form.substitute(self.turn), (), guards if self.guarded else ())

    def rims(self, along: str, fill: Const) -> list[Stmt]:
        """What the copy leaves out is what the nest would have read there."""
        dims = self.dims[:-1]
        return [
            Nest((*dims, (along, n)), (fill,), (Store(self.name, Address(form), 0),))
            for form, n in self.rim
        ]
