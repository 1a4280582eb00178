"""Reindexing: forms in place of computed indices, two reindexes as one, reindexing the operands.

    reindex %0 {k: %i}, %i = 2*iota t            ->   reindex %0 {k: 2*t}
    reindex (reindex %0 {k: 2*t + 1}) {t: u//3}  ->   reindex %0 {k: 2*(u//3) + 1}
    reindex (exp %0) {k: u}                      ->   exp (reindex %0 {k: u})

A reindex moves to a map's operands where that computes the map at no more points than before, and
only if nobody else reads the map, or it is a cheap one of parameters, positions and constants.
"""

from __future__ import annotations

from collections.abc import Mapping

from summand.ir.index import Form
from summand.ir.nodes import Constant, Index, Iota, Map, Mode, Reindex, Type, Var
from summand.ir.prims import PRIMS
from summand.rewrite.simplify.smart import Smart

_CHEAP = 2.0  # a map of so many flops may be computed twice


def simple_reindex(new: Smart, op: Reindex, type_: Type) -> Var | None:
    """What stands for the reindex, or None where no rule fits."""
    if 0 in type_.sizes.values() or op.arg.type.count == 0:
        return None
    index, mode = _known_forms(new, op, type_)
    if not index:
        return op.arg
    if index != dict(op.index) or mode != op.mode:
        return _emit(new, op, op.arg, index, mode, type_)
    made = new.made(op.arg)
    if made is None:
        return None
    if isinstance(made.op, Reindex):
        return _composed(new, op, made.op, type_)
    if isinstance(made.op, Map):
        spread = _of_spread(new, op, type_)
        if spread is not None:
            return spread
        return _through_map(new, op, made.op, type_)
    if isinstance(made.op, Iota):
        return _renamed_iota(new, op, made.op, type_)
    return None


def _emit(
    new: Smart, op: Reindex, arg: Var, index: Mapping[str, Index], mode: Mode, type_: Type
) -> Var:
    """The same reindex of another value or with other indices; its type is the old one's."""
    kept = tuple(sorted((d, i) for d, i in index.items()))
    if not kept:
        return arg
    fill = 0 if mode == "trusted" else op.fill
    return new.emit(Reindex(arg, kept, mode, fill), [type_.with_dtype(arg.type.dtype)])[0]


def _known_forms(new: Smart, op: Reindex, type_: Type) -> tuple[dict[str, Index], Mode]:
    """Computed indices that are forms, forms made simple, and reads that are in range trusted."""
    sizes, given = type_.sizes, op.arg.type.sizes
    index: dict[str, Index] = {}
    safe = True
    for dim, old in op.index:
        at: Index = old
        if isinstance(old, Var):
            form = new.facts.forms.get(old)
            if form is not None and form.dims == old.type.names:
                at = form
        if isinstance(at, Form):
            at = at.simplify(sizes)
            lo, hi = at.range(sizes)
            inside = lo >= 0 and hi < given[dim]
            if not inside and isinstance(old, Var) and op.mode in ("raise", "trusted"):
                at = old  # it must be checked where it runs
            elif inside and at.as_dim() == dim and sizes[dim] == given[dim]:
                continue
            safe = safe and (inside or op.mode == "trusted")
        if isinstance(at, Var):
            lo, hi = new.facts.ranges.get(at, (-1, 0))
            safe = safe and lo >= 0 and hi < given[dim]
        index[dim] = at
    if {*_dims(op.arg, index)} != type_.names:
        return dict(op.index), op.mode
    return index, "trusted" if safe else op.mode


def _dims(arg: Var, index: Mapping[str, Index]) -> set[str]:
    """The dims of the result."""
    found = {d for d in arg.type.names if d not in index}
    for at in index.values():
        found |= at.dims if isinstance(at, Form) else at.type.names
    return found


# ---- two reindexes


def _composed(new: Smart, outer: Reindex, inner: Reindex, type_: Type) -> Var | None:
    """arg[inner][outer] as one reindex of arg, where the modes allow it."""
    mode, fill = _joint_mode(outer, inner)
    if mode is None:
        return None
    first, second = dict(inner.index), dict(outer.index)
    index: dict[str, Index] = {}
    for dim, _ in inner.arg.type.dims:
        at = first.get(dim, Form.of(dim))
        if isinstance(at, Var):
            moved = _moved_index(new, at, outer, type_)
            if moved is None:
                return None
            index[dim] = moved
            continue
        name = at.as_dim()
        if name is not None and name in second:
            index[dim] = second[name]
            continue
        forms = {d: i for d, i in second.items() if isinstance(i, Form)}
        if at.dims & (second.keys() - forms.keys()):
            return None
        index[dim] = at.substitute(forms)
    kept = {d: i for d, i in index.items() if i != Form.of(d) or _resized(inner, type_, d)}
    if _dims(inner.arg, kept) != type_.names:
        return None
    whole = Reindex(inner.arg, tuple(sorted(kept.items(), key=lambda x: x[0])), mode, fill)
    if not kept:
        return inner.arg
    return new.emit(whole, [type_])[0]


def _resized(inner: Reindex, type_: Type, dim: str) -> bool:
    return inner.arg.type.sizes[dim] != type_.sizes.get(dim)


def _joint_mode(outer: Reindex, inner: Reindex) -> tuple[Mode | None, bool | int | float | complex]:
    """The mode of both together. None: an element that one of them replaces would be lost."""
    if inner.mode == "raise":
        return None, 0
    if outer.mode == "trusted":
        return inner.mode, inner.fill
    gathers = any(isinstance(i, Var) for _, i in outer.index)
    renames = inner.mode == "trusted" and _renames_only(inner, outer.arg.type)
    if outer.mode == "raise" and gathers and not renames:
        return None, 0
    if renames:
        return outer.mode, outer.fill
    same = inner.fill == outer.fill and type(inner.fill) is type(outer.fill)
    if outer.mode == inner.mode == "fill" and same and _covers(outer, inner):
        return "fill", inner.fill
    return None, 0


def _renames_only(op: Reindex, type_: Type) -> bool:
    """True where each index is one dim alone, of the same size: then both have the same range."""
    names = [i.as_dim() if isinstance(i, Form) else None for _, i in op.index]
    sizes = [type_.sizes.get(name or "") for name in names]
    same = sizes == [op.arg.type.sizes[d] for d, _ in op.index]
    return same and len(set(names)) == len(names)


def _covers(outer: Reindex, inner: Reindex) -> bool:
    """True where leaving the padded box always leaves the inner array as well: a padding of a
    padding. Each inner index is  dim + c  over a box that holds the whole inner dim."""
    given, padded = inner.arg.type.sizes, outer.arg.type.sizes
    for dim, index in inner.index:
        if not isinstance(index, Form) or not index.is_affine or len(index.terms) != 1:
            return False
        atom, coefficient = index.terms[0]
        if abs(coefficient) != 1 or not isinstance(atom, str):
            return False
        lo, hi = index.range(padded)
        if lo > 0 or hi < given[dim] - 1:
            return False
    read = {d for _, i in inner.index if isinstance(i, Form) for d in i.dims}
    return {d for d, _ in outer.index} <= read and len(read) == len(inner.index)


def _moved_index(new: Smart, at: Var, outer: Reindex, type_: Type) -> Var | None:
    """A gathered index, itself reindexed by the outer forms, where that gathers no more."""
    own = {d: i for d, i in outer.index if d in at.type.names}
    if not own:
        return at
    fewer = type_.count <= outer.arg.type.count and new.is_read_once(outer.arg)
    if not fewer or outer.mode != "trusted" or any(isinstance(i, Var) for i in own.values()):
        return None
    return new.reindex(at, own, type_.sizes, "trusted")


# ---- maps


def _of_spread(new: Smart, op: Reindex, type_: Type) -> Var | None:
    """Dims over which the operand was spread need no index, where the index is in range."""
    under = new.peeled(op.arg)
    if under == op.arg:
        return None
    sizes = type_.sizes
    for dim, index in op.index:
        if dim not in under.type.names and op.mode in ("fill", "raise"):
            size = op.arg.type.sizes[dim]
            lo, hi = (-1, 0)
            if isinstance(index, Form):
                lo, hi = index.range(sizes)
            else:
                lo, hi = new.facts.ranges.get(index, (lo, hi))
            if lo < 0 or hi >= size:
                return None
    own = {d: i for d, i in op.index if d in under.type.names}
    inner = Type.of(type_.dtype, {d: sizes[d] for d in _dims(under, own)})
    return new.spread(_emit(new, op, under, own, op.mode, inner), sizes)


def _through_map(new: Smart, op: Reindex, made: Map, type_: Type) -> Var | None:
    """The map of the reindexed operands."""
    forms = {d: i for d, i in op.index if isinstance(i, Form)}
    if op.mode != "trusted" or len(forms) != len(op.index) or made.fn == "barrier":
        return None
    if type_.count > op.arg.type.count:
        return None
    cheap = PRIMS[made.fn].flops <= _CHEAP and all(_is_leaf(new, a) for a in made.args)
    if not cheap and not new.is_read_once(op.arg):
        return None
    args = [_of_operand(new, a, forms, type_) for a in made.args]
    return new.map(made.fn, *args, dtype=type_.dtype)


def _is_leaf(new: Smart, var: Var) -> bool:
    """True of what costs nothing to compute again."""
    made = new.made(new.peeled(var))
    return made is None or isinstance(made.op, Constant | Iota)


def _of_operand(new: Smart, arg: Var, forms: Mapping[str, Form], type_: Type) -> Var:
    own: dict[str, Index] = {d: i for d, i in forms.items() if d in arg.type.names}
    return new.reindex(arg, own, type_.sizes, "trusted") if own else arg


def _renamed_iota(new: Smart, op: Reindex, made: Iota, type_: Type) -> Var | None:
    ((_, index),) = op.index
    name = index.as_dim() if isinstance(index, Form) else None
    if name is None or op.mode != "trusted":
        return None
    return new.emit(Iota(name), [type_])[0]
