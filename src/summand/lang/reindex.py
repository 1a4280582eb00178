"""`A[dim: index]`: read an array at computed places.

    K[t: u]                  rename          P[x: 2*x + kx]       window, stride
    A[k: 3], A[k: -1]        select          A[x: b*4 + r]        unblock (r has size 4)
    A[n: i]  (i an array)    gather          A.fill(0)[x: x - 1]  shift with zeros

Sizes of the new dims are inferred (`lang/extents.py`); forms are proven in range before anything
runs, gathered indices are checked when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from summand.errors import DimError, IndexRangeError, Loc
from summand.ir.index import Form
from summand.ir.nodes import Index, Mode, Scalar, Type, Var
from summand.ir.nodes import Reindex as ReindexOp
from summand.lang import keys
from summand.lang.describe import Names, message, row, source_row
from summand.lang.elementwise import elementwise, expand, form_value, weak_scalar
from summand.lang.extents import Known, ReadRange, ambiguous, check_read
from summand.lang.graph import Sized, constant, emit
from summand.lang.location import here
from summand.lang.trace import stepped_over
from summand.lang.unsized import (
    Sizes,
    Unsized,
    Value,
    gather_known,
    loosely,
    settle,
)

Place = Form | Value  # an index: a form over dims, or an integer value


@dataclass(frozen=True, slots=True)
class Edge:
    """What a read beyond the range means: an error, the nearest element, or `fill`."""

    mode: Mode = "raise"
    fill: Scalar = 0


STRICT = Edge()


def reindex(value: Value, index: Mapping[str, Place], edge: Edge = STRICT) -> Value:
    """out[…] = value[… dim: index(…)]. Dims without an index stay."""
    loc = here()
    if not index:
        return value
    _check_dims(value, list(index), loc)
    source = loosely(value, "index", loc)
    if isinstance(source, Unsized):
        return _of_unsized(source, index, edge, loc)
    return _of_sized(source, index, edge, loc)


def _check_dims(value: Value, dims: Sequence[str], loc: Loc | None) -> None:
    for dim in dims:
        if dim not in value.dims:
            raise unknown_dim(value, dim, "index", loc)


def unknown_dim(value: Value, dim: str, what: str, loc: Loc | None) -> DimError:
    """The error for a dim that the operand lacks."""
    names = Names([dim, *value.dims])
    rows = [row(value, names, loc)] if isinstance(value, Sized) else []
    header = f"{what} {names[dim]}, but the operand has no dim {names[dim]}"
    own = keys.info(dim)
    same = [d for d in value.dims if keys.info(d).name == own.name]
    if dim in stepped_over():
        advice = (
            f"In the step of a recurrence over {names[dim]}, a state has one position along it."
        )
    elif same:
        advice = f"{names[dim]} and {names[same[0]]} are two dims of one spelling: use one of them."
    else:
        advice = f"It has {names.list(sorted(value.dims, key=keys.by_name))}."
    if stepped_over() and dim not in stepped_over():
        advice += "\nIf the state should have that dim, give it to init: init=sm.zeros({k: 64})."
    return DimError(message(header, rows + source_row(loc), names.advice(advice)))


# ---- of a sized array


def _of_sized(source: Sized, index: Mapping[str, Place], edge: Edge, loc: Loc | None) -> Value:
    sizes = source.type.sizes
    forms = {d: _counted(source, d, i, edge, loc) for d, i in index.items() if isinstance(i, Form)}
    gathers = {d: i for d, i in index.items() if not isinstance(i, Form)}
    kept = tuple(d for d in sizes if d not in index)
    new = [d for f in forms.values() for d in sorted(f.dims, key=keys.by_name)]
    new += [d for g in gathers.values() for d in g.dims]
    dims = tuple(dict.fromkeys((*kept, *new)))
    known = [Known(d, sizes[d], source) for d in kept]
    known += gather_known(tuple(gathers.values()))
    known += _renames(source, forms, edge, known)
    unsized = [g for g in gathers.values() if isinstance(g, Unsized)]
    reads = [r for g in unsized for r in g.reads]
    defaults = [d for g in unsized for d in g.defaults]
    if edge.mode == "raise":
        reads += [ReadRange(source, d, f, (), loc) for d, f in forms.items() if f.dims]
    else:
        defaults += [Known(d, sizes[d], source) for d, i in index.items() if d in i.dims]
        defaults += _whole(source, forms)

    def build(at: Sizes, parts: tuple[Sized, ...]) -> Sized:
        places = dict(zip(gathers, parts[1:], strict=True))
        return _node(parts[0], forms, places, at, edge, loc)

    value = Unsized(
        dims=dims,
        dtype=source.dtype,
        weak=source.weak,
        known=tuple(dict.fromkeys(known)),
        defaults=tuple(defaults),
        reads=tuple(reads),
        parts=(source, *gathers.values()),
        build=build,
        loc=loc,
        moved=lambda other: reindex(source, _composed(index, other, loc), edge),
    )
    return _settled(value)


def _composed(
    index: Mapping[str, Place], other: Mapping[str, Place], loc: Loc | None
) -> dict[str, Place]:
    """The places of `A[index]` read at the places `other` of its new dims."""
    out: dict[str, Place] = {}
    for dim, place in index.items():
        if isinstance(place, Form):
            moved = _form_at(place, other) if place.dims & other.keys() else place
            out[dim] = moved.form if isinstance(moved, Unsized) and moved.form else moved
        else:
            out[dim] = substitute(place, other, loc)
    return out


def _settled(value: Unsized) -> Value:
    for read in value.reads:
        check_read(read, _sizes_so_far(value))
    return settle(value)


def _sizes_so_far(value: Unsized) -> dict[str, int]:
    sizes = {k.dim: k.size for k in reversed(value.known)}
    for dim in value.dims:
        own = keys.info(dim).size
        if own is not None:
            sizes.setdefault(dim, own)
    return sizes


def _counted(source: Sized, dim: str, form: Form, edge: Edge, loc: Loc | None) -> Form:
    """A constant index, negative ones counted from the end as in NumPy; others as they are."""
    if not form.is_const or edge.mode != "raise":
        return form
    size, at = source.type.sizes[dim], form.const
    if -size <= at < size:
        return Form.of(at % size)
    names = Names(source.dims)
    what = f"index {at} is out of range for {names[dim]}, which has size {size}"
    rows = [row(source, names, loc), *source_row(loc)]
    raise IndexRangeError(message(what, rows, f"Indices go from {-size} to {size - 1}."))


def _renames(
    source: Sized, forms: Mapping[str, Form], edge: Edge, known: Sequence[Known]
) -> list[Known]:
    """`K[t: u]` gives u the size of t, unless u has a size from elsewhere."""
    taken = {k.dim for k in known}
    out = []
    for dim, form in forms.items():
        new = form.as_dim()
        if new is None or new in taken or keys.info(new).size is not None:
            continue
        if edge.mode == "raise" and not _read_otherwise(new, dim, forms):
            out.append(Known(new, source.type.sizes[dim], source))
    return out


def _read_otherwise(new: str, dim: str, forms: Mapping[str, Form]) -> bool:
    return any(new in f.dims for d, f in forms.items() if d != dim)


def _whole(source: Sized, forms: Mapping[str, Form]) -> list[Known]:
    """Renames through `fill` keep the size as well."""
    renamed = ((d, f.as_dim()) for d, f in forms.items())
    return [Known(new, source.type.sizes[d], source) for d, new in renamed if new is not None]


def _node(
    source: Sized,
    forms: Mapping[str, Form],
    gathers: Mapping[str, Sized],
    at: Sizes,
    edge: Edge,
    loc: Loc | None,
) -> Sized:
    out = {d: n for d, n in source.type.dims if d not in forms and d not in gathers}
    for form in forms.values():
        out.update({d: at[d] for d in form.dims})
    for gathered in gathers.values():
        out.update(gathered.type.sizes)
    if edge.mode == "raise":
        for dim, form in forms.items():
            check_read(ReadRange(source, dim, form, (), loc), at)
    type_ = Type.of(source.dtype, out)
    empty = [d for d in (*forms, *gathers) if source.type.sizes[d] == 0]
    if empty and type_.count > 0:
        return _of_nothing(source, empty[0], type_, edge, loc)
    mode: Mode = "trusted" if edge.mode == "raise" and not gathers else edge.mode
    names = list(gathers)

    def op(arg: Var, *places: Var) -> ReindexOp:
        index: dict[str, Index] = {**forms, **dict(zip(names, places, strict=True))}
        return ReindexOp(arg, tuple(sorted(index.items(), key=lambda i: i[0])), mode, edge.fill)

    return emit(op, (source, *gathers.values()), (type_,), loc, source.weak)[0]


def _of_nothing(source: Sized, dim: str, type_: Type, edge: Edge, loc: Loc | None) -> Sized:
    """A read of an array that has no elements: `fill` everywhere, else an error."""
    if edge.mode == "fill":
        everywhere = constant(edge.fill, source.dtype, source.weak)
        return expand(everywhere, type_.sizes)
    names = Names([*source.dims, dim])
    what = f"an element of {names[dim]} is read, which has none"
    rows = [row(source, names, loc), *source_row(loc)]
    advice = f"To read beyond the edge, say what is there: a.fill(0)[{names[dim]}: ...]."
    raise IndexRangeError(message(what, rows, advice))


# ---- of a value without sizes


def _of_unsized(source: Unsized, index: Mapping[str, Place], edge: Edge, loc: Loc | None) -> Value:
    free = {d for d in source.dims if d not in {k.dim for k in source.known}}
    free = {d for d in free if keys.info(d).size is None}
    if any(d in free for d in index):
        return substitute(source, index, loc)
    return _lifted(source, index, edge, loc)


def _lifted(source: Unsized, index: Mapping[str, Place], edge: Edge, loc: Loc | None) -> Value:
    """Re-index dims whose sizes are known, while others wait for theirs."""
    known = {k.dim: k for k in source.known}
    inner = tuple((d, known[d].size if d in known else keys.info(d).size or 0) for d in index)
    forms = {d: i for d, i in index.items() if isinstance(i, Form)}
    gathers = tuple(i for i in index.values() if not isinstance(i, Form))
    kept = tuple(d for d in source.dims if d not in index)
    new = [d for f in forms.values() for d in sorted(f.dims, key=keys.by_name)]
    dims = tuple(dict.fromkeys((*kept, *new, *(d for g in gathers for d in g.dims))))
    facts = [k for k in source.known if k.dim not in index] + list(gather_known(gathers))
    facts += [
        Known(f.as_dim() or "", dict(inner)[d], None)
        for d, f in forms.items()
        if f.as_dim() and keys.info(f.as_dim() or "").size is None
    ]
    names = [d for d, i in index.items() if not isinstance(i, Form)]

    def build(at: Sizes, parts: tuple[Sized, ...]) -> Sized:
        places = dict(zip(names, parts[1:], strict=True))
        counted = {d: _counted(parts[0], d, f, edge, loc) for d, f in forms.items()}
        return _node(parts[0], counted, places, at, edge, loc)

    reads = tuple(
        ReadRange(r.source, r.dim, r.form, (*r.bound, *inner), r.loc) for r in source.reads
    )
    return Unsized(
        dims=dims,
        dtype=source.dtype,
        weak=source.weak,
        known=tuple(dict.fromkeys(facts)),
        defaults=tuple(k for k in source.defaults if k.dim not in index),
        reads=reads,
        parts=(source, *gathers),
        build=build,
        loc=loc,
        inner=inner,
    )


def substitute(value: Value, index: Mapping[str, Place], loc: Loc | None) -> Value:
    """A function of positions at other positions: (q >= kv)[q: t + 1] is t + 1 >= kv."""
    if not set(value.dims) & set(index):
        return value
    if isinstance(value, Unsized) and value.form is not None:
        return _form_at(value.form, index)
    if isinstance(value, Unsized) and value.moved is not None:
        return value.moved(index)
    if isinstance(value, Unsized) and value.rebuild is not None:
        return value.rebuild(tuple(substitute(p, index, loc) for p in value.parts))
    missing = [d for d in index if d in value.dims]
    raise ambiguous(missing, value.reads if isinstance(value, Unsized) else (), "index", loc)


def _form_at(form: Form, index: Mapping[str, Place]) -> Value:
    values = {d: i for d, i in index.items() if not isinstance(i, Form)}
    forms = {d: i for d, i in index.items() if isinstance(i, Form)}
    if not form.dims & values.keys():
        return form_value(form.substitute(forms))
    total: Value = weak_scalar(form.const)
    for atom, coefficient in form.terms:
        if isinstance(atom, str):
            term = values[atom] if atom in values else form_value(Form.of(atom).substitute(forms))
        else:
            op = "floordiv" if atom.op == "//" else "mod"
            term = elementwise(op, _form_at(atom.form, index), weak_scalar(atom.by))
        total = elementwise("add", total, elementwise("mul", term, weak_scalar(coefficient)))
    return total
