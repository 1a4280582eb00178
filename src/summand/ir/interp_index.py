"""The meaning of `reindex`: forms and gathered indices as NumPy index arrays.

out[…] = arg[… dim: index(…)]     every axis of `arg` gets an index array over the result's axes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from summand.errors import IndexRangeError, InternalError, Loc, layout
from summand.ir.index import Form
from summand.ir.named import Named
from summand.ir.nodes import Mode, Reindex, Type
from summand.ir.scalars import scalar

Index = Form | Named


def out_of_range(dim: str, size: int, loc: Loc | None) -> str:
    """The message of an index that leaves its dim; `{value}` stands for the index."""
    rows = [(loc.text, loc)] if loc else []
    what = f"index {{value}} is out of range for {dim}, which has size {size}"
    return layout(what, rows, 'Where that is meant, say mode="clip" or mode="fill".')


def reindex(
    op: Reindex, arg: Named, indices: Mapping[str, Index], out: Type, loc: Loc | None
) -> Named:
    """Read `arg` at computed places."""
    renamed = _as_rename(arg, indices)
    if renamed is not None and out.sizes == renamed.sizes:
        return renamed
    kept = [d for d in arg.order if d not in indices]
    new = [d for i in indices.values() for d in dims_of(i)]
    order = tuple(dict.fromkeys([*kept, *new]))
    sizes = {**{d: n for d, n in arg.sizes.items() if d not in indices}, **out.sizes}
    for index in indices.values():
        if isinstance(index, Named):
            sizes.update(index.sizes)
    places, outside = [], np.zeros((1,) * len(order), bool)
    for dim, size in zip(arg.order, arg.array.shape, strict=True):
        place = positions(indices.get(dim, Form.of(dim)), order, sizes)
        place, bad = in_range(place, dim, size, op.mode, loc)
        places.append(place)
        outside = outside | bad
    return Named(_read(arg.array, places, outside, op, out, [sizes[d] for d in order]), order)


def _read(
    array: np.ndarray,
    places: Sequence[np.ndarray],
    outside: np.ndarray,
    op: Reindex,
    out: Type,
    shape: Sequence[int],
) -> np.ndarray:
    fill = scalar(op.fill, out.dtype)
    if array.size == 0:
        return np.full(shape, fill)
    values = array[tuple(places)] if places else array
    values = np.broadcast_to(values, shape)
    if op.mode != "fill":
        return np.array(values)
    return np.where(outside, fill, values)


def _as_rename(arg: Named, indices: Mapping[str, Index]) -> Named | None:
    """The same array under other names, where every index is one fresh dim."""
    names: dict[str, str] = {}
    for dim, index in indices.items():
        name = index.as_dim() if isinstance(index, Form) else None
        if name is None:
            return None
        names[dim] = name
    order = tuple(names.get(d, d) for d in arg.order)
    return Named(arg.array, order) if len(set(order)) == len(order) else None


def dims_of(index: Index) -> tuple[str, ...]:
    """The dims that an index reads, in a fixed order."""
    return tuple(sorted(index.dims)) if isinstance(index, Form) else index.order


def positions(index: Index, order: Sequence[str], sizes: Mapping[str, int]) -> np.ndarray:
    """An index as an i64 array over the axes `order` (size 1 where it does not depend on one)."""
    if isinstance(index, Named):
        return index.aligned(order).astype(np.int64)
    at = {d: Named(np.arange(sizes[d], dtype=np.int64), (d,)).aligned(order) for d in index.dims}
    flat = _evaluate(index, at)
    return flat if flat.ndim else flat.reshape((1,) * len(order))


def _evaluate(form: Form, at: Mapping[str, np.ndarray]) -> np.ndarray:
    total = np.asarray(form.const, np.int64)
    for atom, coefficient in form.terms:
        if isinstance(atom, str):
            value = at[atom]
        else:
            inner = _evaluate(atom.form, at)
            value = inner // atom.by if atom.op == "//" else inner % atom.by
        total = total + coefficient * value
    return total


def in_range(
    place: np.ndarray, dim: str, size: int, mode: Mode, loc: Loc | None
) -> tuple[np.ndarray, np.ndarray]:
    """Places moved into 0 … size-1, and where they were outside."""
    bad = (place < 0) | (place >= size)
    if mode in ("raise", "trusted") and bad.any():
        value = int(place[bad].flat[0])
        message = out_of_range(dim, size, loc).replace("{value}", str(value))
        raise (
            InternalError(f"trusted: {message}") if mode == "trusted" else IndexRangeError(message)
        )
    return np.clip(place, 0, max(size - 1, 0)), bad
