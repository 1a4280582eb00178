"""`sm.concat` and `sm.stack`: several arrays as one.

sm.concat((a, b), k)     out[k] = a[k] where k < 3, else b[k - 3]         a{k=3}  b{k=5}
sm.stack((a, b), m)      out[m] = a where m = 0, else b                   m is new
"""

from __future__ import annotations

from collections.abc import Sequence

from summand.errors import ArgumentError, DimError
from summand.ir.index import Form
from summand.lang.array import Array, Dim, Number, dim_key, operand, wrap
from summand.lang.describe import message, source_row
from summand.lang.elementwise import elementwise, iota, weak_scalar
from summand.lang.graph import Sized
from summand.lang.location import here
from summand.lang.reindex import Edge, reindex, unknown_dim
from summand.lang.unsized import Value, force


def _values(arrays: Sequence[Array | Number], name: str) -> list[Sized]:
    if not isinstance(arrays, (tuple, list)) or not arrays:
        what = f"sm.{name} takes a tuple or list of one array or more"
        raise ArgumentError(message(what, source_row(here()), f"Write sm.{name}((a, b), k)."))
    return [force(operand(a), name, here()) for a in arrays]


def concat(arrays: Sequence[Array], over: Dim) -> Array:
    """Arrays one after the other along a dim that all of them have; other dims are united."""
    key = dim_key(over, "concat")
    values = _values(arrays, "concat")
    for value in values:
        if key not in value.dims:
            raise unknown_dim(value, key, "concat over", here())
    ends: list[int] = []
    for value in values:
        ends.append((ends[-1] if ends else 0) + value.type.sizes[key])
    if over.size is not None and over.size != ends[-1]:
        what = f"{over.name} has size {over.size}, but the parts have {ends[-1]} elements"
        raise DimError(message(what, source_row(here()), "Use a dim without a size."))
    position = iota(key, ends[-1])
    out: Value = values[-1]
    if len(values) > 1:
        out = _moved(values[-1], key, ends[-2])
    for number in range(len(values) - 2, -1, -1):
        start = ends[number - 1] if number else 0
        inside = elementwise("lt", position, weak_scalar(ends[number]))
        out = elementwise("where", inside, _moved(values[number], key, start), out)
    return wrap(force(out, "concat", here()))


def _moved(value: Sized, key: str, start: int) -> Value:
    """The value from position `start` on; what lies outside is never chosen."""
    return reindex(value, {key: Form.of(key) - start}, Edge("fill", 0))


def stack(arrays: Sequence[Array | Number], over: Dim) -> Array:
    """Arrays side by side along a new dim, in order; their own dims are united."""
    key = dim_key(over, "stack")
    values = _values(arrays, "stack")
    for value in values:
        if key in value.dims:
            what = f"stack along {over.name}, but an operand has that dim"
            raise DimError(message(what, source_row(here()), "Stack along a new dim, or concat."))
    if over.size is not None and over.size != len(values):
        what = f"{over.name} has size {over.size}, but there are {len(values)} arrays"
        raise DimError(message(what, source_row(here()), "Use a dim without a size."))
    position = iota(key, len(values))
    first = elementwise("eq", position, position)
    out: Value = elementwise("where", first, values[-1], values[-1])
    for number in range(len(values) - 2, -1, -1):
        chosen = elementwise("eq", position, weak_scalar(number))
        out = elementwise("where", chosen, values[number], out)
    return wrap(force(out, "stack", here()))
