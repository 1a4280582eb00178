"""Cut the rims off a map whose conditions hold all over its middle: padding, periods, shifts.

    nest y x=512: load u[x - 1] if 0 <= x - 1 < 512; load u[x + 511] if 0 <= x + 511 < 512
      ->  nest y x=16: …;  nest y x=480: load u[x + 15];  nest y x=16: …

Only along the dim of the lanes, where a condition is a mask on every vector: one that is the same
for all lanes costs next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from summand.ir.index import Form
from summand.loops.nodes import Apply, Buffer, Const, Guard, Kernel, Load, Nest, Ref, Stmt
from summand.options import Target
from summand.schedule.code import CodeCopy
from summand.schedule.guards import drop_true_guards
from summand.schedule.moves import folded_dims, sequential_dims, substitute
from summand.schedule.nests import scheduled_nest

POINTS = 1 << 12  # of a nest that is worth the code of three
MIDDLE = 8  # vectors of the middle, at least


def cut_rims(kernel: Kernel, target: Target) -> Kernel:
    """The kernel with the middle of its scheduled nests apart from their rims."""
    buffers = {b.name: b for b in (*kernel.params, *kernel.scratch)}
    return replace(kernel, body=_cut(kernel.body, buffers, target))


def _cut(body: tuple[Stmt, ...], buffers: Mapping[str, Buffer], target: Target) -> tuple[Stmt, ...]:
    out: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, Nest):
            out += pieces_of(stmt, buffers, target)
        else:
            out.append(replace(stmt, body=_cut(stmt.body, buffers, target)))
    return tuple(out)


def pieces_of(nest: Nest, buffers: Mapping[str, Buffer], target: Target) -> tuple[Nest, ...]:
    """A scheduled nest, or its rims and its middle."""
    if nest.schedule is None or nest.schedule.streaming or len(nest.schedule.lanes) != 1:
        return (nest,)
    (lanes,) = nest.schedule.lanes
    fixed = folded_dims(nest) | sequential_dims(nest)
    combines = any(s.combine for s in nest.stores)
    if fixed or combines or nest.bounds or math.prod(nest.extents.values()) < POINTS:
        return (nest,)
    low, high = _middle(nest, lanes.dim, lanes.count)
    extent = nest.extents[lanes.dim]
    if (low, high) == (0, extent) or high - low < MIDDLE * lanes.count:
        return (nest,)
    cuts = [(a, b) for a, b in ((0, low), (low, high), (high, extent)) if a < b]
    done = (scheduled_nest(_piece(nest, lanes.dim, a, b), buffers, target) for a, b in cuts)
    return tuple(
        replace(n, schedule=replace(n.schedule, streaming=False)) for n in done if n.schedule
    )


def _middle(nest: Nest, dim: str, width: int) -> tuple[int, int]:
    """The positions between the rims; whole vectors."""
    extent = nest.extents[dim]
    low, high = 0, extent
    for instr in nest.code:
        for guard in instr.at.guards if isinstance(instr, Load) else ():
            for edge in _edges(guard, dim):
                if 0 < edge <= extent // 4:
                    low = max(low, edge)
                elif extent - extent // 4 <= edge < extent:
                    high = min(high, edge)
    low = -(-low // width) * width
    return (low, low + (high - low) // width * width) if high < extent else (low, extent)


def _edges(guard: Guard, dim: str) -> tuple[int, ...]:
    """Where a condition begins or ends to hold, if that is a matter of one dim alone."""
    form = guard.form
    sign = form.coefficient(dim)
    if guard.dynamic or abs(sign) != 1 or not (form - Form.of(dim) * sign).is_const:
        return ()
    return (
        (-form.const, guard.size - form.const)
        if sign > 0
        else (form.const + 1, form.const - guard.size + 1)
    )


def _piece(nest: Nest, dim: str, low: int, high: int) -> Nest:
    """The nest from one position to another, without the conditions that are decided there."""
    dims = tuple((d, high - low if d == dim else n) for d, n in nest.dims)
    moved = substitute(nest, {dim: Form.of(dim) + low})
    return _without_zeros(drop_true_guards(replace(moved, dims=dims, schedule=None)))


def _without_zeros(nest: Nest) -> Nest:
    copy = _Sums(nest.code)
    stores = tuple(
        replace(s, at=copy.address(s.at), value=copy.value(s.value)) for s in nest.stores
    )
    return replace(nest, code=tuple(copy.code), stores=stores)


class _Sums(CodeCopy):
    """Copies sums to which nothing is added as what they are of (but for the sign of a zero), and
    products of nothing as nothing."""

    def value(self, ref: Ref) -> Ref:
        """The copy of value `ref`."""
        instr = self.source[ref]
        if isinstance(instr, Apply) and instr.fn in ("add", "mul") and instr.dtype.is_float:
            zeros = [self._is_zero(a) for a in instr.args]
            if all(zeros):
                return self.value(instr.args[0])
            if any(zeros) and instr.fn == "add":
                return self.value(instr.args[zeros.index(False)])
        return super().value(ref)

    def _is_zero(self, ref: Ref) -> bool:
        """Whether a value is zero by what the conditions have become."""
        instr = self.source[ref]
        if isinstance(instr, Apply) and instr.fn in ("add", "mul"):
            return all(self._is_zero(a) for a in instr.args)
        return isinstance(instr, Const) and instr.dtype.is_float and instr.value == 0
