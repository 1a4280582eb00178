"""Cut reductions of what a recurrence makes step by step, so that its own loop can fold them.

    h = recur t: …  {b, d, s, t}             p = sum{d} (h · u) at d.block: d//16
    C = sum{d} (h · u)                 ->    C = sum{d.block} p
    A = sum{b, t} (h · v)              ->    q = sum{t} (h · v);  A = sum{b} q

States at all positions are large; folded where they are made, they need not be stored at all.
Tasks share out dims of the states (here b and d), so what is folded over these is folded in parts:
whole blocks of the dim that fills the vectors, and every position of the others. The first
reductions choose which dims stay within a task, as long as enough is left to share out.

Needs what fusion needs. Keeps every result up to the order of sums. Leaves 16-bit sums alone, whose
parts would be rounded, and monoids of several components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from summand.ir.fresh import Names
from summand.ir.index import Form
from summand.ir.nodes import (
    SCALAR_OP,
    Eqn,
    Map,
    Program,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Type,
    Var,
)
from summand.options import Target
from summand.rewrite.plan.costs import inputs
from summand.rewrite.rebuild import Rebuild
from summand.rewrite.recur.carried import in_registers, separable

MARK = ".block"  # in the names of dims that count blocks, and of no others
ENOUGH = 256  # points to be shared out by tasks and lanes


@dataclass(frozen=True, slots=True)
class Block:
    """A fold in parts: position `place` of the result has the elements of `dim` in its block."""

    dim: str
    place: str
    size: int


def block_of(op: object) -> Block | None:
    """The block of a fold in parts; None of any other equation."""
    if not isinstance(op, ReduceAt) or len(op.index) != 1 or op.monoid.name not in SCALAR_OP:
        return None
    place, form = op.index[0]
    if MARK not in place or op.monoid.combine is not None or isinstance(form, Var):
        return None
    for dim, n in op.args[0].type.dims:
        for size in {atom.by for atom, _ in form.terms if not isinstance(atom, str)}:
            if dim in op.dims and n > size and form == Form.of(dim) // size:
                return Block(dim, place, size)
    return None


@dataclass(slots=True)
class _Family:
    """Recurrences whose states have the same dims: those of positions, and those shared out."""

    over: frozenset[str]
    tasks: dict[str, int]


def partial_folds(program: Program, target: Target) -> Program:
    """The program with such reductions cut."""
    families = _families(program, target)
    if not families:
        return program
    new = Rebuild(program)
    names = Names(program)
    for eqn in program.eqns:
        family = _family_of(eqn, families)
        if family is None or not _cut(new, eqn, family, names, target):
            new.copy(eqn)
        if isinstance(eqn.op, Map | Reindex):
            _pass_on(eqn, families)
    return new.done(program)


def _families(program: Program, target: Target) -> dict[Var, _Family]:
    """The large values that recurrences in registers make at all positions."""
    found: dict[Var, _Family] = {}
    known: dict[frozenset[tuple[str, int]], _Family] = {}
    for eqn in program.eqns:
        if not isinstance(eqn.op, Recur) or not in_registers(eqn.op):
            continue
        shared = separable(eqn.op)
        for out in eqn.outs:
            if out.type.nbytes > target.l2 and set(eqn.op.over) <= out.type.names:
                family = known.setdefault(shared, _Family(frozenset(eqn.op.over), dict(shared)))
                found[out] = family
    return found


def _family_of(eqn: Eqn, families: Mapping[Var, _Family]) -> _Family | None:
    return next((families[v] for v in inputs(eqn) if v in families), None)


def _pass_on(eqn: Eqn, families: dict[Var, _Family]) -> None:
    """What is computed from a state at its own place along the shared dims belongs to it."""
    family = _family_of(eqn, families)
    if family is None or not family.over <= eqn.out.type.names:
        return
    if isinstance(eqn.op, Reindex):
        for dim, form in eqn.op.index:
            read = form.type.names if isinstance(form, Var) else form.dims
            if (read | {dim}) & family.tasks.keys():
                return
    families[eqn.out] = family


def _cut(new: Rebuild, eqn: Eqn, family: _Family, names: Names, target: Target) -> bool:
    """Emit a reduction in two steps, where its dims are shared out."""
    op = eqn.op
    if not isinstance(op, Reduce) or len(op.args) > 1 or op.monoid.name not in SCALAR_OP:
        return False
    sizes, dtype = op.args[0].type.sizes, eqn.out.type.dtype
    shared = [d for d in op.dims if d in family.tasks]
    if not shared or op.monoid.combine is not None or dtype.bits < 32:
        return False
    inner = tuple(d for d in op.dims if d not in shared)
    new.loc = eqn.loc
    arg = new.of(op.args[0])
    if not set(op.dims) & family.over:
        left = {d: n for d, n in family.tasks.items() if d not in shared}
        if Type.of(dtype, left).count >= ENOUGH:
            family.tasks = left
            return False
        block = max(shared, key=lambda d: (sizes[d], d))
        size = target.lanes(dtype.bits)
        if sizes[block] <= size:
            return False
        place = names.fresh(f"{block}{MARK}")
        form = Form.of(block) // size
        kept = {d: n for d, n in sizes.items() if d not in inner and d != block}
        kept[place] = -(-sizes[block] // size)
        cut = ReduceAt(op.monoid, (*inner, block), (arg,), ((place, form),))
        (part,) = new.emit(cut, [Type.of(dtype, kept)])
        shared = [place if d == block else d for d in shared]
    else:
        kept = {d: n for d, n in sizes.items() if d not in inner}
        (part,) = new.emit(Reduce(op.monoid, inner, (arg,)), [Type.of(dtype, kept)])
    new.bind(eqn.outs, new.emit(Reduce(op.monoid, tuple(shared), (part,)), [eqn.out.type]))
    new.loc = None
    return True
