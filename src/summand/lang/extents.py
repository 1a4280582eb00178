"""Sizes of dims, inferred from what an expression reads.

    P[x: 2*x + kx] * W      P{x=9}  W{kx=3}     ->   kx = 3 (W has it), x = 4 (so that 2*3 + 2 <= 8)

In this order: bare uses (an operand has the dim; `Dim("w", 2)` says its own size), then one unknown
at a time: the greatest size for which every read is in range. What stays unknown is ambiguous.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from summand.errors import DimError, IndexRangeError, Loc
from summand.ir.index import Form
from summand.lang import keys
from summand.lang.describe import Names, Row, message, row, source_row
from summand.lang.graph import Sized

_TRIED = 1 << 20  # so many points of a quasi-affine form are evaluated to prove it in range
_UNBOUNDED = 1 << 48  # a read that stays in range up to here says nothing about the size


@dataclass(frozen=True, slots=True)
class Known:
    """A bare use: `source` has `dim` in this size."""

    dim: str
    size: int
    source: Sized | None


@dataclass(frozen=True, slots=True)
class ReadRange:
    """`source[dim: form]` must stay in 0 … size-1. `bound` has the sizes of dims reduced away."""

    source: Sized
    dim: str
    form: Form
    bound: tuple[tuple[str, int], ...]
    loc: Loc | None

    @property
    def size(self) -> int:
        """Size of the dim that is read."""
        return self.source.type.sizes[self.dim]


def bare_uses(value: Sized) -> tuple[Known, ...]:
    """What an array says about the sizes of its own dims."""
    return tuple(Known(d, n, value) for d, n in value.type.dims)


def solve(
    dims: Iterable[str],
    known: Sequence[Known],
    defaults: Sequence[Known],
    reads: Sequence[ReadRange],
    what: str,
    loc: Loc | None,
) -> dict[str, int]:
    """The sizes that can be found; dims that are missing from the result are ambiguous.

    Raises DimError where a dim has two sizes, IndexRangeError where a read leaves its array.
    """
    sizes = _bare(dims, known, what, loc)
    for use in defaults:
        sizes.setdefault(use.dim, use.size)
    progress = True
    while progress:
        progress = False
        for unknown in _single_unknowns(reads, sizes):
            bounds = [_largest(r, unknown, sizes) for r in reads if _only(r, sizes) == unknown]
            found = [b for b in bounds if b is not None]
            if found:
                sizes[unknown] = min(found)
                progress = True
                break
    for read in reads:
        check_read(read, sizes)
    return sizes


def _bare(
    dims: Iterable[str], known: Sequence[Known], what: str, loc: Loc | None
) -> dict[str, int]:
    first: dict[str, Known] = {}
    for use in known:
        other = first.setdefault(use.dim, use)
        if other.size != use.size:
            raise two_sizes(other, use, what, loc)
    sizes = {d: use.size for d, use in first.items()}
    for dim in dims:
        own = keys.info(dim).size
        if own is not None and sizes.setdefault(dim, own) != own:
            raise two_sizes(Known(dim, own, None), first[dim], what, loc)
    return sizes


def two_sizes(a: Known, b: Known, what: str, loc: Loc | None) -> DimError:
    """The error for one dim in two sizes; names both arrays and both of their lines."""
    values = [u.source for u in (a, b) if u.source is not None]
    names = Names(d for v in values for d in v.dims)
    dim = names[a.dim]
    rows: list[Row] = []
    for use in (a, b):
        if use.source is None:
            rows.append((f'Dim("{keys.info(a.dim).name}", {use.size})', keys.info(a.dim).loc))
        else:
            rows.append(row(use.source, names, loc))
    rows += source_row(loc)
    label = rows[1][0].split(":")[0]
    target = label if label.isidentifier() else "a"
    advice = f"Slice one operand, or rename its {dim}: {target}[{dim}: {dim}2]."
    return DimError(message(f"{what}, but {dim} has two sizes", rows, names.advice(advice)))


def ambiguous(
    missing: Sequence[str], reads: Sequence[ReadRange], what: str, loc: Loc | None
) -> DimError:
    """The error for dims to which nothing gives a size."""
    names = Names([*missing, *(d for r in reads for d in (*r.form.dims, *r.source.dims))])
    first = names[missing[0]]
    header = f"{what}, but nothing gives {names.list(missing)} a size"
    rows = [_read_row(r, names) for r in reads if r.form.dims & set(missing)]
    rows += source_row(loc)
    bare = keys.info(missing[0]).name
    advice = f'Give {first} a size: sm.Dim("{bare}", 512).'
    return DimError(message(header, rows, names.advice(advice)))


def _read_row(read: ReadRange, names: Names) -> Row:
    left, _ = row(read.source, names, None)
    name, shown = left.split(": ", 1)
    return (f"{name}[{names[read.dim]}: {names.form(read.form)}]: {shown}", read.loc)


def _free(read: ReadRange, sizes: Mapping[str, int]) -> set[str]:
    bound = {d for d, _ in read.bound}
    return {d for d in read.form.dims if d not in sizes and d not in bound}


def _only(read: ReadRange, sizes: Mapping[str, int]) -> str | None:
    free = _free(read, sizes)
    return next(iter(free)) if len(free) == 1 else None


def _single_unknowns(reads: Sequence[ReadRange], sizes: Mapping[str, int]) -> list[str]:
    found = (_only(r, sizes) for r in reads)
    return list(dict.fromkeys(d for d in found if d is not None))


def _range(read: ReadRange, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Range of the form; a dim of size 0 counts as 1, so that a window over it still has a size."""
    merged = {**sizes, **dict(read.bound)}
    return read.form.range({d: max(1, merged[d]) for d in read.form.dims})


def _largest(read: ReadRange, dim: str, sizes: Mapping[str, int]) -> int | None:
    """The greatest size of `dim` for which the read is in range; None where every size is."""

    def fits(size: int) -> bool:
        lo, hi = _range(read, {**sizes, dim: size})
        return lo >= 0 and hi < read.size

    if fits(_UNBOUNDED):
        return None
    if not fits(1):
        lo, hi = _range(read, {**sizes, dim: 1})
        step = max(1, read.form.coefficient(dim))
        if read.size > 0 and (lo < 0 or hi - step >= read.size):
            raise out_of_range(read, {**sizes, dim: 1})
        return 0
    low, high = 1, _UNBOUNDED
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def check_read(read: ReadRange, sizes: Mapping[str, int]) -> None:
    """Prove a read in range; reads whose sizes are not all known are left for later."""
    merged = {**sizes, **dict(read.bound)}
    if any(d not in merged for d in read.form.dims):
        zeros = dict.fromkeys(read.form.dims, 1)
        if read.size > 0 and read.form.range({**zeros, **merged_positive(merged)})[0] < 0:
            raise out_of_range(read, {**zeros, **merged})
        return
    if any(merged[d] == 0 for d in read.form.dims):
        return
    lo, hi = _exact_range(read.form, merged)
    if lo < 0 or hi >= read.size:
        raise out_of_range(read, merged)


def _exact_range(form: Form, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Least and greatest value. Intervals are exact for affine forms; others are tried out.

    A quasi-affine form with too many points keeps its interval, which may be too wide.
    """
    form = form.simplify({d: sizes[d] for d in form.dims})
    count = math.prod(sizes[d] for d in form.dims)
    if form.is_affine or count > _TRIED:
        return form.range(sizes)
    order = sorted(form.dims)
    grids = np.meshgrid(*(np.arange(sizes[d]) for d in order), indexing="ij", sparse=True)
    values = form.evaluate(dict(zip(order, grids, strict=True)))  # type: ignore[arg-type]
    return int(np.min(values)), int(np.max(values))


def merged_positive(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes with 1 in place of 0, for which ranges are defined."""
    return {d: max(1, n) for d, n in sizes.items()}


def out_of_range(read: ReadRange, sizes: Mapping[str, int]) -> IndexRangeError:
    """The error for a form that leaves its dim; names the dim, the range and the line."""
    names = Names([*read.form.dims, *read.source.dims])
    lo, hi = _exact_range(read.form, merged_positive(sizes))
    form, dim = names.form(read.form), names[read.dim]
    reach = f"{lo} … {hi}" if lo != hi else f"{lo}"
    allowed = f"0 … {read.size - 1}" if read.size else "empty"
    what = f"{form} reads {dim} at {reach}, but {dim} is {allowed}"
    over = [(d, sizes[d]) for d in sorted(read.form.dims, key=keys.by_name) if d in sizes]
    rows = [row(read.source, names, read.loc)]
    if over:
        shown = ", ".join(f"{names[d]}={n}" for d, n in over)
        rows.append((f"{form} over {shown}", read.loc))
    rows += source_row(read.loc)
    source = rows[0][0].split(":")[0]
    target = source if source.isidentifier() else "a"
    advice = f"To read beyond the edge, say what is there: {target}.fill(0)[{dim}: {form}]."
    return IndexRangeError(message(what, rows, names.advice(advice)))
