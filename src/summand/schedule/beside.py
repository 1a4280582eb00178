"""Walk a long reduction at several places side by side.

    nest i=8388608: fold add {i} a[i]   ->   nest h=4 i=2097152: fold add {h i} a[2097152*h + i]

A processor asks for the next lines of one stream only so early; of four streams it asks for four
times as much. Only for what is read once from memory, with nothing else beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from summand.ir.index import Form
from summand.loops.nodes import Fold, Nest
from summand.options import Target
from summand.schedule.accesses import Facts, analyse
from summand.schedule.moves import substitute
from summand.schedule.pack import LINE
from summand.schedule.registers import Choice

STREAMS = 4  # in all
LONG = 256 << 10  # bytes of each stream, at least


def side_by_side(
    facts: Facts, choice: Choice, bits: Mapping[str, int], target: Target
) -> tuple[Facts, Choice]:
    """The same, in several streams where only one or two would be read."""
    dim = _streamed(facts, choice, target)
    if dim is None:
        return facts, choice
    walked = [a for a in facts.loads if a.stride(dim)]
    count, extent = STREAMS // len(walked), facts.extents[dim]
    size = max(a.bits for a in walked) // 8
    if count < 2 or extent % (count * LINE) or extent // count * size < LONG:
        return facts, choice
    place = f"{dim}_h"
    while place in facts.extents:
        place += "h"
    nest = _split(facts.nest, dim, place, count)
    copies = max(choice.copies, STREAMS)
    return analyse(nest, bits), replace(
        choice, unrolled=choice.unrolled | {place}, copies=copies, order=()
    )


def _streamed(facts: Facts, choice: Choice, target: Target) -> str | None:
    """The dim along which a nest reads large arrays once, if it does nothing else."""
    if len(choice.lanes) != 1 or choice.tile or choice.packed or choice.end_lanes:
        return None
    (lanes,) = choice.lanes
    if facts.reduced != {lanes.dim} or facts.nested or facts.ordered or facts.nest.bounds:
        return None
    folds = [i for i in facts.nest.code if isinstance(i, Fold)]
    if not all(f.combine.fn is not None and f.combine.commutative for f in folds):
        return None
    for load in facts.loads:
        points = math.prod(n for d, n in facts.extents.items() if d in load.dims)
        if load.guarded or load.loose or load.stride(lanes.dim) not in (0, 1):
            return None
        if load.stride(lanes.dim) and points * load.bits // 8 <= 2 * target.l2:
            return None
    return lanes.dim


def _split(nest: Nest, dim: str, place: str, count: int) -> Nest:
    """A nest with a dim for the places, folded with the dim that they divide."""
    size = nest.extents[dim] // count
    code = tuple(
        replace(i, dims=tuple(x for d in i.dims for x in ((place, d) if d == dim else (d,))))
        if isinstance(i, Fold)
        else i
        for i in nest.code
    )
    new = substitute(replace(nest, code=code), {dim: Form.of(place) * size + dim})
    dims = [((place, count), (d, size)) if d == dim else ((d, n),) for d, n in nest.dims]
    return replace(new, dims=tuple(x for pair in dims for x in pair))
