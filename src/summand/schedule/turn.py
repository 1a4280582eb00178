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
from summand.loops.nodes import Address, Guard, Load, Nest, Stmt, Store
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
            code[r] = Load(row.name, Address(row.seen), instr.dtype)
    for k, store in enumerate(stores):
        plain = store.combine is None and not store.at.guards
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


@dataclass(frozen=True, slots=True)
class _Row:
    """Scratch for a row: where an element lies for the copy (`own`), which walks memory upwards,
    and for the nest (`seen`)."""

    name: str
    dims: tuple[tuple[str, int], ...]
    own: Form
    seen: Form
    turn: dict[str, Form]

    @staticmethod
    def of(task: Task, nest: Nest, at: Address, along: str, dtype: DType) -> _Row:
        """Make it."""
        size = nest.extents[along]
        dims = [(d, n) for d, n in nest.dims if d != along and at.form.coefficient(d)]
        own, step = Form(), 1
        for d, n in reversed(dims):
            own, step = own + Form.of(d) * step, step * n
        own = own + Form.of(along) * step
        turn = {}
        if at.form.coefficient(along) < 0:
            turn = {along: Form.of(size - 1) - Form.of(along)}
        name = f"turned {len(task.scratch)}"
        task.add_scratch(name, dtype, step * size)
        whole = (*dims, (along, size))
        return _Row(task.local(name), whole, own, own.substitute(turn), turn)

    def walked(self, at: Address) -> Address:
        """The address in the copy's order."""
        guards = tuple(Guard(g.form.substitute(self.turn), g.size) for g in at.guards)
        return Address(at.form.substitute(self.turn), (), guards)
