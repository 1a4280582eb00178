"""Values whose sizes are not all known yet, and how they become sized.

    z = P[x: 2*x + kx]          x and kx have no size yet: an Unsized, which holds its reads
    y = z * W                   still one, which knows kx from W
    sm.sum[kx](y)               `force` solves for x and builds the graph's nodes

A dim used as a number, a comparison of dims, a window read: all stay Unsized until what they meet
gives their sizes. Elementwise operations, reductions and re-indexing of an Unsized give an Unsized.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from summand.dtypes import DType
from summand.errors import Loc
from summand.ir.index import Form
from summand.lang import keys
from summand.lang.extents import Known, ReadRange, ambiguous, bare_uses, solve
from summand.lang.graph import Sized

Sizes = Mapping[str, int]
Build = Callable[[Sizes, tuple[Sized, ...]], Sized]
Rebuild = Callable[[tuple["Value", ...]], "Value"]


@dataclass(frozen=True, slots=True, eq=False)
class Unsized:
    """A value that `build` makes once its dims have sizes.

    dims: every dim of the value, in order of first occurrence.
    known, defaults, reads: what the sizes follow from (`lang/extents.py`).
    parts: the values that it is made of; they are built first and given to `build`.
    inner: sizes of dims that the parts have and the value has not (reduced away).
    form: the index form, where the value is one. rebuild: the same operation on other parts.
    moved: the value at other positions of its free dims (dim -> form or integer value).
    """

    dims: tuple[str, ...]
    dtype: DType
    weak: bool
    known: tuple[Known, ...]
    defaults: tuple[Known, ...]
    reads: tuple[ReadRange, ...]
    parts: tuple[Value, ...]
    build: Build
    loc: Loc | None
    inner: tuple[tuple[str, int], ...] = ()
    form: Form | None = None
    rebuild: Rebuild | None = None
    moved: Callable[[Mapping[str, Form | Value]], Value] | None = None


Value = Sized | Unsized


def known_of(value: Value) -> tuple[Known, ...]:
    """What a value says about the sizes of its dims."""
    return bare_uses(value) if isinstance(value, Sized) else value.known


def sizes_of(value: Value, what: str, loc: Loc | None) -> dict[str, int]:
    """The sizes that can be found; those of a Sized value are all known."""
    if isinstance(value, Sized):
        return value.type.sizes
    return solve(value.dims, value.known, value.defaults, value.reads, what, loc)


def gather_known(values: Sequence[Value]) -> tuple[Known, ...]:
    """What several values say about sizes, each fact once."""
    return tuple(dict.fromkeys(k for v in values for k in known_of(v)))


def combine(
    values: Sequence[Value],
    dtype: DType,
    weak: bool,
    build: Build,
    loc: Loc | None,
    rebuild: Rebuild | None = None,
) -> Unsized:
    """The value of an elementwise operation on `values`."""
    unsized = [v for v in values if isinstance(v, Unsized)]
    return Unsized(
        dims=tuple(dict.fromkeys(d for v in values for d in v.dims)),
        dtype=dtype,
        weak=weak,
        known=gather_known(values),
        defaults=tuple(dict.fromkeys(d for v in unsized for d in v.defaults)),
        reads=tuple(dict.fromkeys(r for v in unsized for r in v.reads)),
        parts=tuple(values),
        build=build,
        loc=loc,
        rebuild=rebuild,
    )


def settle(value: Unsized) -> Value:
    """Build at once where bare uses give every dim a size and agree; else leave it for later."""
    sizes: dict[str, int] = {}
    for use in value.known:
        if sizes.setdefault(use.dim, use.size) != use.size:
            return value
    for dim in value.dims:
        own = keys.info(dim).size
        if own is not None and sizes.setdefault(dim, own) != own:
            return value
    if any(d not in sizes for d in value.dims):
        return value
    return force(value, "expression", value.loc)


def force(value: Value, what: str, loc: Loc | None, look: bool = False) -> Sized:
    """The sized value. Raises DimError where a size is ambiguous or there are two.

    `what` says which operation asks, for the message: "sum over k". With `look` that is no
    operation, so two sizes are blamed on the elementwise operation that brought them together.
    """
    if isinstance(value, Sized):
        return value
    if look:
        sizes = sizes_of(value, "elementwise operation", value.loc)
    else:
        sizes = sizes_of(value, what, loc)
    missing = [d for d in value.dims if d not in sizes]
    if missing:
        raise ambiguous(missing, value.reads, what, loc)
    return instantiate(value, sizes)


def force_together(values: Sequence[Value], what: str, loc: Loc | None) -> list[Sized]:
    """Several values that will be part of one operation: each may tell the others sizes."""
    facts = gather_known(values)
    out = []
    for value in values:
        if isinstance(value, Unsized):
            own = tuple(f for f in facts if f.dim in value.dims)
            value = replace(value, known=tuple(dict.fromkeys((*value.known, *own))))
        out.append(force(value, what, loc))
    return out


def loosely(value: Value, what: str, loc: Loc | None) -> Value:
    """The sized value where all sizes can be found, else the value with those found made fast."""
    if isinstance(value, Sized):
        return value
    sizes = sizes_of(value, what, loc)
    if all(d in sizes for d in value.dims):
        return instantiate(value, sizes)
    fixed = tuple(Known(d, n, None) for d, n in sizes.items())
    return replace(value, known=tuple(dict.fromkeys((*value.known, *fixed))))


def instantiate(root: Unsized, sizes: Sizes) -> Sized:
    """Build a value and its parts, each part once; without recursion, since chains can be long."""
    done: dict[tuple[int, tuple[tuple[str, int], ...]], Sized] = {}

    def key(value: Unsized, scope: Sizes) -> tuple[int, tuple[tuple[str, int], ...]]:
        return (id(value), tuple((d, scope[d]) for d in value.dims))

    stack: list[tuple[Unsized, Sizes]] = [(root, sizes)]
    while stack:
        value, scope = stack[-1]
        own = key(value, scope)
        if own in done:
            stack.pop()
            continue
        inside = {**scope, **dict(value.inner)}
        pending = [
            (p, inside)
            for p in value.parts
            if isinstance(p, Unsized) and key(p, inside) not in done
        ]
        if pending:
            stack.extend(pending)
            continue
        stack.pop()
        parts = (p if isinstance(p, Sized) else done[key(p, inside)] for p in value.parts)
        done[own] = value.build(scope, tuple(parts))
    return done[key(root, sizes)]
