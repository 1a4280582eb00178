"""Reads that wrap around once are two reads side by side.

    reindex a {x: (x + 1)%512}      ->   (reindex a {x: x + 1} fill -0)
                                          + (reindex a {x: x - 511} fill -0)
    reduce_at m {x} a {x: (x + 1)%512}   ->   the same of {x: (x + 511)%512}: each place has one

A remainder in an address has no stride, so a vector of it is read element by element; with guards
the reads are vectors, and adding -0 keeps every float.

Needs a verified Program without complex values. Keeps every result but for the sign of zeros.
Leaves remainders that wrap more than once, and forms of several parts.
"""

from __future__ import annotations

from summand.dtypes import DType
from summand.ir.index import Form, Quasi
from summand.ir.nodes import Index, Program, ReduceAt, Reindex, Scalar, Var
from summand.rewrite.rebuild import Rebuild, inside


def wrapped(program: Program) -> Program:
    """Rewrite every read that wraps around once, in sub-programs too."""
    new = Rebuild(program)
    for eqn in program.eqns:
        op = inside(eqn.op, wrapped)
        value = None
        match op:
            case Reindex(mode="trusted"):
                value = _read(new, op, eqn.out.type.sizes)
            case ReduceAt():
                back = _turned_back(op, eqn.outs[0])
                value = _read(new, back, eqn.out.type.sizes) if back is not None else None
        if value is None:
            new.copy(eqn, op)
        else:
            new.bind(eqn.outs, [value])
    return new.done(program)


def _read(new: Rebuild, op: Reindex, sizes: dict[str, int]) -> Var | None:
    """The read as a sum of two, or None where it does not wrap around once."""
    for dim, index in op.index:
        inner = _remainder(index, op.arg.type.sizes[dim])
        if inner is None:
            continue
        size = op.arg.type.sizes[dim]
        low, high = (end // size for end in inner.range(sizes))
        if high != low + 1:
            continue
        fn, none = _nothing(op.arg.type.dtype)
        parts = []
        for turn in (low, high):
            at = {d: inner - turn * size if d == dim else _of(new, i) for d, i in op.index}
            parts.append(new.reindex(new.of(op.arg), at, sizes, "fill", none))
        return new.map(fn, *parts)
    return None


def _nothing(dtype: DType) -> tuple[str, Scalar]:
    """An op, and what it leaves the other operand alone for."""
    if dtype.kind == "bool":
        return "or", False
    return "add", -0.0 if dtype.is_float else 0


def _of(new: Rebuild, index: Index) -> Index:
    return new.of(index) if isinstance(index, Var) else index


def _remainder(index: Index, size: int) -> Form | None:
    """The affine form whose remainder by the whole size of a dim an index is."""
    if isinstance(index, Var) or index.const or len(index.terms) != 1:
        return None
    ((atom, factor),) = index.terms
    if not isinstance(atom, Quasi) or atom.op != "%" or atom.by != size or factor != 1:
        return None
    return atom.form if atom.form.is_affine else None


def _turned_back(op: ReduceAt, out: Var) -> Reindex | None:
    """A sum in which each place gets one element, turned round a dim, as a read."""
    if len(op.args) != 1 or len(op.dims) != 1 or len(op.index) != 1:
        return None
    (arg,), (dim,), ((place, index),) = op.args, op.dims, op.index
    size = out.type.sizes[place]
    inner = _remainder(index, size)
    if inner is None or arg.type.sizes.get(dim) != size or inner.dims != {dim}:
        return None
    if inner.coefficient(dim) != 1:
        return None
    back = (Form.of(place) + (-inner.const) % size) % size
    return Reindex(arg, ((dim, back),), "trusted")
