"""What guards cost: asked for every vector near a border, for none where they hold all over a tile.

    load u[y + b - 1] if 0 <= y + b - 1 < 56; lanes y8, b=3
      tile y=1   ->   asked at (8 - 1 + 3 - 1) / 56 of the places
      tile y=7   ->   everywhere, and the masks of all seven vectors are kept

Elsewhere there is code without guards (`codegen/cpu/versions.py`). A guard that reads a table is
decided in every step of the reduction, once for all vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from summand.loops.nodes import Guard
from summand.schedule.accesses import Access, Facts

TABLES = 0.15  # share of the steps in which what a table says is out of range for some vector


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a guard's value moves within a tile, and in how many places it holds.

    `moving`: of the tiled dims, the place in the tile, lanes, factor and extent. `masks`:
    registers of the conditions of one vector, which vary along the tiled dims `along`.
    """

    size: int
    inside: int
    moving: tuple[tuple[int, int, int, int], ...]
    along: tuple[int, ...]
    masks: float

    def positions(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """From the guard's least value in a tile to its greatest, for each row of counts."""
        span = np.full(len(counts), float(self.inside))
        for place, lanes, factor, extent in self.moving:
            span += factor * (np.minimum(extent, counts[:, place] * lanes) - 1)
        return span


@dataclass(frozen=True, slots=True)
class Asked:
    """The guards of one load: what each vector of it costs where they are asked."""

    along: tuple[int, ...]  # tiled dims along which the load varies
    cycles: float
    looped: bool
    fixed: float  # share of the places at which they are asked in every tile
    reaches: tuple[Reach, ...]

    def share(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """The share of the places at which the guards are asked, for each row of counts."""
        share = np.full(len(counts), self.fixed)
        for reach in self.reaches:
            share += reach.positions(counts) / reach.size
        least: NDArray[np.float64] = np.minimum(1.0, share)
        return least

    def cost(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Load slots of the guards, for each row of counts."""
        slots: NDArray[np.float64] = self.share(counts) * self.cycles
        slots *= counts[:, self.along].prod(axis=1)
        return slots

    def registers(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Registers of masks, where guards fail somewhere in every tile."""
        out = np.zeros(len(counts))
        for reach in self.reaches:
            vectors = counts[:, reach.along].prod(axis=1)
            out += np.where(reach.positions(counts) >= reach.size, vectors * reach.masks, 0.0)
        return out


def asked_of(
    facts: Facts,
    access: Access,
    tiled: Sequence[str],
    lanes: Mapping[str, int],
    looped: frozenset[str],
    cycles: float,
    masks: float,
) -> Asked:
    """The guards of a load: `cycles` of one vector, `masks` registers of one vector's conditions
    where these stay while a loop of the reduction runs."""
    place = {d: q for q, d in enumerate(tiled)}
    deps = facts.deps[access.ref]
    fixed, reaches = 0.0, []
    for guard in access.at.guards:
        if not guard.form.is_affine or facts.carried:
            fixed = 1.0
        elif guard.dynamic:
            fixed += TABLES if is_decidable(facts, guard, lanes, looped) else 1.0
        else:
            reaches.append(_reach(facts, guard, place, lanes, looped, masks))
    along = tuple(sorted(place[d] for d in deps if d in place))
    return Asked(along, cycles, bool(deps & looped), fixed, tuple(reaches))


def _reach(
    facts: Facts,
    guard: Guard,
    place: Mapping[str, int],
    lanes: Mapping[str, int],
    looped: frozenset[str],
    masks: float,
) -> Reach:
    dims = guard.form.dims
    inside, moving = 0, []
    for d in sorted(dims & facts.extents.keys()):
        factor, extent = abs(guard.form.coefficient(d)), facts.extents[d]
        if d in facts.reduced:
            inside += factor * (extent - 1)
        elif d in place and masks:  # else a load under a mask takes hardly longer
            moving.append((place[d], lanes.get(d, 1), factor, extent))
        else:
            inside += factor * (min(extent, lanes.get(d, 1)) - 1)
    kept = bool(dims & lanes.keys()) and not facts.reduced & looped <= dims
    along = tuple(sorted(place[d] for d in dims if d in place))
    return Reach(guard.size, inside, tuple(moving), along, masks if kept else 0.0)


def is_decidable(
    facts: Facts, guard: Guard, lanes: Mapping[str, int], looped: frozenset[str]
) -> bool:
    """Whether one comparison tells for all vectors of a step if what a table says keeps them in
    range."""
    moves = frozenset[str]().union(*(facts.deps[r] for r, _ in guard.dynamic))
    return not moves & lanes.keys() and bool(moves & looped)
