"""Cotangents: what reverse mode passes from an equation's results to its operands.

A cotangent has the element type of its value, and some of its dims: along a dim that it lacks it is
constant. So `sum` hands its cotangent on as it is, and a product's cotangent is summed only over
the dims that the factor lacks:

    m = mul a{i,k} b{k,j}; c = sum{k} m     ->   ca = sum{j} mul(cc{i,j}, b)

No cotangent at all is a zero. A `Selected` cotangent is zero but at one position along some dims
(what `max` selected); elementwise equations pass it on at that position only, so that the gradient
of max_k a{i,k} + b{k,j} touches i·j elements and not i·j·k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from summand.ir.builder import Builder
from summand.ir.nodes import SUM, Type, Var


@dataclass(frozen=True, slots=True)
class Selected:
    """`values` where each dim of `at` is at its position, and zero elsewhere.

    A position may lie outside its dim (it selects nothing). `values` has none of the dims of `at`.
    """

    values: Var
    at: tuple[tuple[str, Var], ...]


Cotangent = Var | Selected


def scaled(b: Builder, x: Var, by: int) -> Var:
    """`x` times a whole number."""
    return x if by == 1 else b.map("mul", x, b.constant(by, x.type.dtype))


def sum_to(b: Builder, x: Var, target: Type, full: Mapping[str, int]) -> Var:
    """Sum `x`, a cotangent over the dims `full`, over those that `target` lacks.

    Along a dim that `x` itself lacks it is constant: that sum is a product with the size.
    """
    gone = [d for d in full if d not in target.names]
    x = scaled(b, x, math.prod(full[d] for d in gone if d not in x.type.names))
    dims = tuple(sorted(d for d in gone if d in x.type.names))
    return b.reduce(SUM, dims, x)[0] if dims else x


def place_sum(b: Builder, values: Var, at: Sequence[tuple[str, Var]], target: Type) -> Var:
    """Sum `values` into a value of type `target`, each at its place along the dims of `at`."""
    reads = {d: n for _, position in at for d, n in position.type.dims}
    values = b.expand(values, reads)
    places = {d: target.sizes[d] for d, _ in at}
    fold = tuple(sorted(d for d in values.type.names if d not in target.names - places.keys()))
    return b.reduce_at(SUM, fold, [values], dict(at), places, "fill")[0]


def settle(
    b: Builder, values: Var, at: Sequence[tuple[str, Var]], target: Type, full: Mapping[str, int]
) -> Cotangent:
    """A selected cotangent over the dims `full` as one of a value of type `target`.

    `full` are the dims of the equation's result without those of `at`.
    """
    kept = tuple((d, p) for d, p in at if d in target.names)
    if not kept:
        return sum_to(b, values, target, full)
    present = values.type.names.union(*(p.type.names for _, p in kept))
    gone = [d for d in full if d not in target.names]
    values = scaled(b, values, math.prod(full[d] for d in gone if d not in present))
    if any(d in present for d in gone):
        return place_sum(b, values, kept, target)
    return Selected(values, kept)


def dense(b: Builder, ct: Cotangent, target: Type) -> Var:
    """The cotangent of a value of type `target` as an array."""
    if isinstance(ct, Var):
        return ct
    here = None
    for d, position in ct.at:
        place = b.convert(b.iota(d, target.sizes[d]), position.type.dtype)
        hit = b.map("eq", place, position)
        here = hit if here is None else b.map("and", here, hit)
    if here is None:
        return ct.values
    return b.map("where", here, ct.values, b.constant(0, ct.values.type.dtype))


def total(b: Builder, parts: Sequence[Cotangent], target: Type) -> Cotangent:
    """The sum of what several readers contribute."""
    if len(parts) == 1:
        return parts[0]
    arrays = [dense(b, p, target) for p in parts]
    out = arrays[0]
    for a in arrays[1:]:
        out = b.map("add", out, a)
    return out
