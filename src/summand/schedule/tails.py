"""The last tile of a dim as a nest of its own: where tiles may not overlap,

    grid d_o=10                               grid d_o=10
      nest d=14 …, bound d to 137 - 14*d_o  ->  when 0 <= d_o < 9:      nest d=14 …
                                                when 0 <= d_o - 9 < 1:  nest d=11 …

and where it would compute again much of what the tile before it has.

    for j_o=3                                 for j_o=3
      let j_b = clip(24*j_o, 0, 40)             let j_b = clip(24*j_o, 0, 40)
        nest j=24: C[j_b + j] = …         ->      when 0 <= j_o < 2:      nest j=24: C[j_b + j] = …
                                                  when 0 <= j_o - 2 < 1:  nest j=16: C[j_b + j + 8]

A bound on a dim that is in registers is a condition on each of its points, in every tile; only the
last tile needs one, and knows its size beforehand. Of a reduction in few tiles, what is computed
twice is an eighth of the work and more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from summand.ir.index import Form
from summand.loops.nodes import Bound, Guard, Kernel, Let, Loop, Nest, Stmt, When
from summand.options import Target
from summand.schedule.moves import folded_dims, substitute
from summand.schedule.nests import with_cycles

MOST = 2  # dims that are cut; each doubles the code
WORTH = 0.04  # of the cycles that the last tile as a nest of its own must save
SHORT = 3  # a tile is not shorter than a whole one's third: it would be another kind of nest
LEAST = 10_000.0  # cycles that it must save: code takes time to make


def cut_tails(kernel: Kernel) -> Kernel:
    """The kernel with the last tiles of its tasks apart from the whole ones."""
    return replace(kernel, body=_apart(kernel.body, dict(kernel.grid), MOST))


def _apart(body: tuple[Stmt, ...], grid: dict[str, int], most: int) -> tuple[Stmt, ...]:
    out: list[Stmt] = []
    for stmt in body:
        if not isinstance(stmt, Nest):
            out.append(replace(stmt, body=_apart(stmt.body, grid, most)))
            continue
        bound = next((b for b in stmt.bounds if _is_tail(b, stmt, grid)), None) if most else None
        if bound is None:
            out.append(stmt)
            continue
        for guard, nest in _in_two(stmt, bound):
            out.append(When((guard,), _apart((nest,), grid, most - 1)))
    return tuple(out)


def _is_tail(bound: Bound, nest: Nest, grid: dict[str, int]) -> bool:
    """Whether a bound cuts off a dim of a nest in the last task along one dim of the grid."""
    if bound.lo or len(bound.hi) != 1 or bound.dim in folded_dims(nest):
        return False
    (form,) = bound.hi
    size = nest.extents[bound.dim]
    dims = tuple(form.dims)
    if len(dims) != 1 or dims[0] not in grid or form.coefficient(dims[0]) != -size:
        return False
    return form.is_affine and grid[dims[0]] == form.const // size + 1


def _in_two(nest: Nest, bound: Bound) -> list[tuple[Guard, Nest]]:
    """The nest of a whole tile and that of the last one, each with the tasks that run it."""
    (form,) = bound.hi
    (dim,) = form.dims
    size = nest.extents[bound.dim]
    number, rest = divmod(form.const, size)
    free = replace(nest, bounds=tuple(b for b in nest.bounds if b != bound))
    last = replace(free, dims=tuple((d, rest if d == bound.dim else n) for d, n in nest.dims))
    at = Form.of(dim)
    return [(Guard(at, number), free), (Guard(at - number, 1), last)]


# ---- tiles that overlap


@dataclass(frozen=True, slots=True)
class _Origin:
    """A tile's origin, `step` positions after the one before; the last of `number` tiles begins
    `overlap` positions earlier."""

    dim: str
    tile: str
    step: int
    number: int
    overlap: int


def shorten_last(kernel: Kernel, cycles: float, target: Target) -> Kernel:
    """The kernel, which takes so many cycles, with shorter last tiles where that saves many."""
    bits = {b.name: b.dtype.bits for b in (*kernel.params, *kernel.scratch)}
    shortened = _Shortened(bits, cycles, target)
    return replace(kernel, body=shortened.body(kernel.body, dict(kernel.grid), ()))


class _Shortened:
    """Rewrites the nests of a kernel."""

    def __init__(self, bits: Mapping[str, int], cycles: float, target: Target) -> None:
        self.bits, self.cycles, self.target = bits, cycles, target

    def body(
        self, stmts: tuple[Stmt, ...], sizes: Mapping[str, int], origins: tuple[_Origin, ...]
    ) -> tuple[Stmt, ...]:
        """The statements; `sizes` of the dims around them, and the tiles' origins among these."""
        out: list[Stmt] = []
        for stmt in stmts:
            match stmt:
                case Nest():
                    out += self._nest(stmt, origins, math.prod(sizes.values()))
                case Loop():
                    inner = self.body(stmt.body, {**sizes, stmt.dim: stmt.extent}, origins)
                    out.append(replace(stmt, body=inner))
                case Let():
                    found = _origin(stmt, sizes)
                    known = (*origins, found) if found is not None else origins
                    out.append(replace(stmt, body=self.body(stmt.body, sizes, known)))
                case When():
                    out.append(stmt)
                case _:
                    assert_never(stmt)
        return tuple(out)

    def _nest(self, nest: Nest, origins: tuple[_Origin, ...], runs: int) -> list[Stmt]:
        for origin in origins:
            dim = _moved_by(nest, origin)
            last = None if dim is None else self._last(nest, dim, origin, runs // origin.number)
            if last is not None:
                at, number = Form.of(origin.tile), origin.number - 1
                first = When((Guard(at, number),), (nest,))
                return [first, When((Guard(at - number, 1),), (last,))]
        return [nest]

    def _last(self, nest: Nest, dim: str, origin: _Origin, runs: int) -> Nest | None:
        """The nest of the last tile, which has so many runs, if it takes much less time."""
        rest = origin.step - origin.overlap
        pieces = nest.schedule.lanes if nest.schedule else ()
        lanes = math.prod(p.count for p in pieces if p.dim == dim)
        if (
            rest % lanes
            or rest * SHORT < origin.step
            or origin.overlap < WORTH * origin.step * origin.number
        ):
            return None
        short = substitute(nest, {dim: Form.of(dim) + origin.overlap})
        dims = tuple((d, rest if d == dim else n) for d, n in nest.dims)
        last, cycles = with_cycles(
            replace(short, dims=dims, schedule=None), self.bits, self.target, runs
        )
        saved = self.cycles / origin.number - cycles * runs
        return last if saved > max(LEAST, WORTH * self.cycles) else None


def _origin(let: Let, sizes: Mapping[str, int]) -> _Origin | None:
    """A let as the origin of tiles along one dim outside; None where no tile is moved back."""
    dims = tuple(let.form.dims)
    if len(dims) != 1 or dims[0] not in sizes or let.lo or not let.form.is_affine:
        return None
    step, number = let.form.coefficient(dims[0]), sizes[dims[0]]
    overlap = step * (number - 1) - let.hi
    if let.form.const or step <= 0 or not 0 < overlap < step:
        return None
    return _Origin(let.dim, dims[0], step, number, overlap)


def _moved_by(nest: Nest, origin: _Origin) -> str | None:
    """The dim of a nest whose positions in the results start at an origin."""
    if nest.schedule is None or any(s.combine or s.at.dynamic or s.at.guards for s in nest.stores):
        return None
    for dim, extent in nest.dims:
        forms = [s.at.form for s in nest.stores]
        alike = all(f.coefficient(dim) == f.coefficient(origin.dim) for f in forms)
        moved = all(f.coefficient(dim) and not f.coefficient(origin.tile) for f in forms)
        bounded = any(b.dim == dim for b in nest.bounds)
        if extent == origin.step and alike and moved and not bounded:
            return dim
    return None
