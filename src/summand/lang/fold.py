"""Reductions on values: fold dims away, or fold into computed places.

sm.sum[k](e)                 Reduce      out[…] = Σ over k
sm.sum[p](e, at={a: idx})    ReduceAt    out[a] = Σ over the p with idx[p] = a
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from summand.errors import ArgumentError, DimError, DTypeError, IndexRangeError, Loc
from summand.ir.index import Form
from summand.ir.nodes import Index, Mode, Monoid, Reduce, ReduceAt, Type, Var
from summand.lang import keys
from summand.lang.describe import Names, message, row, source_row
from summand.lang.elementwise import elementwise, expand
from summand.lang.extents import ReadRange, ambiguous
from summand.lang.graph import Sized, emit
from summand.lang.location import here
from summand.lang.reindex import Place, reindex, unknown_dim
from summand.lang.unsized import Unsized, Value, force, force_together, loosely


def aligned(values: Sequence[Sized], what: str, loc: Loc | None) -> tuple[Sized, ...]:
    """Components with one set of dims."""
    sizes: dict[str, int] = {}
    for value in values:
        for dim, size in value.type.dims:
            if sizes.setdefault(dim, size) != size:
                force(elementwise("eq", values[0], value), what, loc)
    return tuple(expand(v, sizes) for v in values)


def what_of(name: str, dims: Sequence[str]) -> str:
    """How a message names a reduction: `sum over k`."""
    return f"{name} over {Names(dims).list(dims)}" if dims else name


def fold(
    name: str, monoid: Monoid, dims: tuple[str, ...], values: Sequence[Value], empty: bool = True
) -> tuple[Value, ...]:
    """Fold `dims` of the components away. `empty` says that folding no elements is allowed."""
    loc = here()
    what = what_of(name, dims)
    for dim in dims:
        if all(dim not in v.dims for v in values):
            raise unknown_dim(loosely(values[0], what, loc), dim, f"{name} over", loc)
    if not dims:
        return tuple(values)
    sources = [loosely(v, what, loc) for v in values]
    if len(sources) == 1 and isinstance(sources[0], Unsized):
        return (_fold_unsized(name, monoid, dims, sources[0], empty, loc),)
    sized = aligned([force(s, what, loc) for s in sources], what, loc)
    return _node(name, monoid, dims, sized, empty, loc)


def _node(
    name: str,
    monoid: Monoid,
    dims: tuple[str, ...],
    values: tuple[Sized, ...],
    empty: bool,
    loc: Loc | None,
) -> tuple[Sized, ...]:
    sizes = values[0].type.sizes
    none = [d for d in dims if sizes[d] == 0]
    if none and not empty:
        names = Names(values[0].dims)
        rows = [row(values[0], names, loc), *source_row(loc)]
        header = f"{name} over {names.list(none)}, which has no elements"
        advice = f"{name} of nothing has no value; see that {names[none[0]]} has a size >= 1."
        raise DimError(message(header, rows, advice))
    kept = tuple(x for x in values[0].type.dims if x[0] not in dims)
    types = [Type(v.dtype, kept) for v in values]
    weak = all(v.weak for v in values)
    return emit(lambda *args: Reduce(monoid, dims, args), values, types, loc, weak)


def _fold_unsized(
    name: str, monoid: Monoid, dims: tuple[str, ...], source: Unsized, empty: bool, loc: Loc | None
) -> Unsized:
    """Fold dims whose sizes are found, while others wait for theirs."""
    found = {k.dim: k.size for k in source.known}
    found.update({d: n for d in source.dims if (n := keys.info(d).size) is not None})
    missing = [d for d in dims if d not in found]
    if missing:
        raise ambiguous(missing, source.reads, what_of(name, dims), loc)
    inner = tuple((d, found[d]) for d in dims)
    return Unsized(
        dims=tuple(d for d in source.dims if d not in dims),
        dtype=source.dtype,
        weak=source.weak,
        known=tuple(k for k in source.known if k.dim not in dims),
        defaults=tuple(k for k in source.defaults if k.dim not in dims),
        reads=tuple(
            ReadRange(r.source, r.dim, r.form, (*inner, *r.bound), r.loc) for r in source.reads
        ),
        parts=(source,),
        build=lambda _, parts: _node(name, monoid, dims, parts, empty, loc)[0],
        loc=loc,
        inner=inner,
    )


# ---- into computed places


@dataclass(frozen=True, slots=True)
class Places:
    """Where elements go: for each new dim its index, and its size where that is said."""

    index: tuple[tuple[str, Place], ...]
    sizes: tuple[tuple[str, int], ...]
    mode: Mode


def fold_at(
    name: str, monoid: Monoid, dims: tuple[str, ...], values: Sequence[Value], at: Places
) -> tuple[Value, ...]:
    """Fold `dims` into the places `at`; places that nothing reaches hold the identity."""
    loc = here()
    what = what_of(name, dims)
    places = [i for _, i in at.index if not isinstance(i, Form)]
    forced = force_together([*values, *places], what, loc)
    sized, gathered = tuple(forced[: len(values)]), forced[len(values) :]
    union = {d: n for v in (*sized, *gathered) for d, n in v.type.dims}
    for dim in dims:
        if dim not in union:
            raise unknown_dim(sized[0], dim, f"{name} over", loc)
    sized = tuple(expand(v, union) for v in sized)
    index = dict(zip((d for d, i in at.index if not isinstance(i, Form)), gathered, strict=True))
    forms = {d: i for d, i in at.index if isinstance(i, Form)}
    sizes = _place_sizes(at, forms, union, what, loc)
    kept = {d: n for d, n in union.items() if d not in dims}
    for dim in sizes:
        if dim in kept:
            names = Names([*union, dim])
            header = f"{what} into {names[dim]}, but the operand keeps a dim {names[dim]}"
            rows = [row(sized[0], names, loc), *source_row(loc)]
            raise DimError(message(header, rows, "Give the places a dim of their own."))
    moved = {d: keys.new_key(keys.info(d).name, loc) for d in dims if d in sizes}
    if moved:
        sized, index, forms, dims = _renamed(moved, sized, index, forms, dims)
    types = [Type.of(v.dtype, {**kept, **sizes}) for v in sized]
    gather_dims = list(index)

    def op(*args: Var) -> ReduceAt:
        places: dict[str, Index] = {**forms}
        places.update(zip(gather_dims, args[len(sized) :], strict=True))
        ordered = tuple(sorted(places.items(), key=lambda i: i[0]))
        mode: Mode = "trusted" if at.mode == "raise" and not gather_dims else at.mode
        return ReduceAt(monoid, dims, args[: len(sized)], ordered, mode)

    return emit(op, (*sized, *index.values()), types, loc)


def _renamed(
    moved: Mapping[str, str],
    sized: tuple[Sized, ...],
    index: Mapping[str, Sized],
    forms: Mapping[str, Form],
    dims: tuple[str, ...],
) -> tuple[tuple[Sized, ...], dict[str, Sized], dict[str, Form], tuple[str, ...]]:
    """Reduced dims under fresh keys, where a place has the same dim as what is folded."""

    def one(value: Sized) -> Sized:
        names = {d: Form.of(new) for d, new in moved.items() if d in value.dims}
        return force(reindex(value, names), "rename", None)

    return (
        tuple(one(v) for v in sized),
        {d: one(v) for d, v in index.items()},
        {d: f.rename(moved) for d, f in forms.items()},
        tuple(moved.get(d, d) for d in dims),
    )


def _place_sizes(
    at: Places,
    forms: Mapping[str, Form],
    union: Mapping[str, int],
    what: str,
    loc: Loc | None,
) -> dict[str, int]:
    """Sizes of the new dims: said, or the least that holds every place of a form."""
    said = dict(at.sizes)
    sizes: dict[str, int] = {}
    for dim, place in at.index:
        size = said.get(dim, keys.info(dim).size)
        if isinstance(place, Form):
            missing = [d for d in place.dims if d not in union]
            if missing:
                raise ambiguous(missing, (), what, loc)
            size = _held(dim, place, union, size, at.mode, loc)
        elif size is None:
            raise ambiguous([dim], (), what, loc)
        sizes[dim] = size
    return sizes


def _held(
    dim: str, form: Form, union: Mapping[str, int], size: int | None, mode: Mode, loc: Loc | None
) -> int:
    if any(union[d] == 0 for d in form.dims):
        return size or 0
    lo, hi = form.range(union)
    size = hi + 1 if size is None else size
    if mode == "raise" and (lo < 0 or hi >= size):
        names = Names([dim, *form.dims])
        what = f"{names.form(form)} writes {names[dim]} at {lo} … {hi}, but it has size {size}"
        advice = 'Where that is meant, say mode="drop" or mode="clip".'
        raise IndexRangeError(message(what, source_row(loc), advice))
    return size


def check_integer(value: Value, dim: str, loc: Loc | None) -> None:
    """Raise DTypeError where an index is not an integer."""
    if not value.dtype.is_integer:
        what = f"the index of {keys.info(dim).name} is {value.dtype.name}, not an integer"
        advice = "Convert it, a.astype(sm.i32), or select with sm.where."
        raise DTypeError(message(what, source_row(loc), advice))


def check_mode(mode: str, loc: Loc | None) -> Mode:
    """A user's mode: raise, clip, fill (for scatters also drop)."""
    match mode:
        case "raise" | "clip" | "fill":
            return mode
        case "drop":
            return "fill"
        case _:
            what = f'mode is {mode!r}, not "raise", "clip", "fill" or "drop"'
            raise ArgumentError(message(what, source_row(loc), ""))
