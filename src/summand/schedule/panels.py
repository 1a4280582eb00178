"""Panels: loops over the register tiles of a nest, and operands copied as these loops read them.

nest i=64 j=1000 k   tile j24           for j_o=42
  A[i, k] · B[k, j]               ->      let j_b = clip(24*j_o, 0, 976)
                                            nest i=64 j=24 k   A[i, k] · panels[j_o, k, j]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from summand.ir.index import Form
from summand.loops.nodes import Buffer, Kernel, Loop, Nest
from summand.options import Target
from summand.schedule.accesses import Facts, analyse
from summand.schedule.grid import free_units, spread, task_goal
from summand.schedule.moves import Chain, chain_of, may_repeat, substitute, tile
from summand.schedule.nests import (
    build_schedule,
    columns_of,
    is_map,
    packed_bytes,
    reach,
    reduction_order,
)
from summand.schedule.pack import pack_ahead
from summand.schedule.registers import Choice, Limits, choose_registers, width_of

SMALL_TILE = 100.0  # cycles of a register tile below which loops around the nest cost too much


def tile_loops(chain: Chain, facts: Facts, choice: Choice, target: Target) -> Chain:
    """Loops over register tiles that the nest cannot express: panels of what the first cache does
    not hold, and remainders moved back."""
    if is_map(facts, choice) or not may_repeat(chain.nest):
        return chain
    lanes = [p.dim for p in choice.lanes if p.dim in facts.kept]
    kept = [d for d in facts.kept if d not in facts.ordered]
    beside = columns_of(facts, choice)
    columns = sorted((d for d in kept if d in beside), key=lambda d: -reach(facts.stores, d))
    rows = sorted((d for d in kept if d not in beside), key=lambda d: -reach(facts.stores, d))
    open_ = [d for d in (*columns, *rows) if choice.step(d) < facts.extents[d]]
    packed = [a for a in facts.loads if a.ref in choice.packed]
    large = sum(packed_bytes(facts, choice).values()) > target.l1
    panels = {d for a in packed for d in a.dims if d in lanes and large}
    uneven = {d for d in open_ if facts.extents[d] % choice.step(d)}
    if choice.order:
        open_ = [d for d in choice.order if d in open_]
    last = max((k for k, d in enumerate(open_) if d in uneven), default=-1)
    uneven = set(open_[: last + 1])  # what is outside of an uneven dim stays outside of it
    if tile_cycles(facts, choice) < SMALL_TILE:
        uneven = set()
    outside = panels | uneven | (set(columns) if uneven & set(rows) else set())
    for dim in open_:
        if dim in outside:
            chain = tile(chain, dim, choice.step(dim))
    return chain


def tile_cycles(facts: Facts, choice: Choice) -> float:
    """Predicted cycles of one register tile."""
    number = math.prod(-(-facts.extents[d] // choice.step(d)) for d in facts.kept)
    return choice.cycles / max(1, number)


def lane_dims(choice: Choice) -> frozenset[str]:
    """The dims of the lanes."""
    return frozenset(p.dim for p in choice.lanes)


def packed_order(facts: Facts, choice: Choice, ref: int) -> list[str]:
    """Order of a packed operand's nest dims: kept rows, reduced dims, then the lanes."""
    access = next(a for a in facts.loads if a.ref == ref)
    lanes = [p.dim for p in choice.lanes]
    tiled = [p.dim for p in choice.tile if p.dim not in lanes]
    rows = [d for d in facts.kept if d in access.strides and d not in lanes]
    far = [d for d in rows if d not in tiled]
    near = [d for d in rows if d in tiled]
    reduced = [d for d in reduction_order(facts, choice) if d in access.strides]
    return [*far, *reduced, *near, *(d for d in lanes if d in access.strides)]


def apart(chain: Chain, facts: Facts, choice: Choice) -> tuple[Chain, Facts, Choice]:
    """Where several dims share the lanes of a packed operand, those with several vectors are split
    in two, the position within a vector and the number of it: so that vectors are contiguous.

    lanes j4 c4, c=12   ->   lanes j4 c4, ct=3 c=4, packed as [ct, j, c]
    """
    lanes = {p.dim: p.count for p in choice.lanes}
    packed = {d for a in facts.loads if a.ref in choice.packed for d in a.dims}
    for piece in choice.tile:
        dim, width = piece.dim, lanes.get(piece.dim, 0)
        inner = [p.dim for p in choice.lanes[1:]]
        if dim not in inner or dim not in packed or facts.extents[dim] % width:
            continue
        if chain.nest.extents[dim] != width * piece.count:
            continue
        number = chain.fresh(f"{dim}t")
        chain = chain.with_nest(_in_two(chain.nest, dim, number, width))
        bits = {a.buffer: a.bits for a in (*facts.loads, *facts.stores)}
        facts = analyse(_in_two(facts.nest, dim, number, width), bits)
        tile = tuple(replace(p, dim=number) if p == piece else p for p in choice.tile)
        steps = {**choice.steps, dim: width, number: piece.count}
        choice = replace(choice, tile=tile, steps=steps)
    return chain, facts, choice


def _in_two(nest: Nest, dim: str, number: str, width: int) -> Nest:
    """A dim as `width` positions and the number of them."""
    new = substitute(nest, {dim: Form.of(number) * width + dim})
    dims = [((number, n // width), (d, width)) if d == dim else ((d, n),) for d, n in nest.dims]
    return replace(new, dims=tuple(x for pair in dims for x in pair))


def packed_ahead(
    chain: Chain,
    facts: Facts,
    choice: Choice,
    refs: Sequence[int],
    target: Target,
    earlier: int = 0,
) -> tuple[Chain, list[Kernel], list[Buffer]]:
    """The nest with operands packed in the order of its walk, the kernels that pack them, and what
    they make; so many packed operands the kernel had `earlier`."""
    before: list[Kernel] = []
    made: list[Buffer] = []
    for number, ref in enumerate(refs, earlier):
        name = f"{chain.kernel.name}_packed{number}"
        order, width = packed_order(facts, choice, ref), width_of(facts, target)
        packed = pack_ahead(chain, ref, order, name, width, lane_dims(choice))
        assert packed.kernel is not None
        chain = packed.chain
        before.append(packing_kernel(packed.kernel, target))
        made.append(packed.buffer)
    return chain, before, made


def packing_kernel(kernel: Kernel, target: Target) -> Kernel:
    """Grid and schedule of a packing kernel: it reads in the order of its source."""
    chain = chain_of(kernel)
    assert chain is not None
    loops = [v for v in chain.levels if isinstance(v, Loop)]
    if len(loops) == len(chain.levels):
        dims = tuple((v.dim, v.extent) for v in loops)
        chain = Chain(kernel, (), replace(chain.nest, dims=(*dims, *chain.nest.dims)))
        loops = []
    bits = {b.name: b.dtype.bits for b in kernel.params}
    facts = analyse(chain.nest, bits)
    repeats = math.prod(v.extent for v in loops)
    choice = choose_registers(facts, Limits(runs=repeats), target)
    kept = sorted(facts.kept, key=lambda d: -reach(facts.loads, d))
    outer = [v.dim for v in loops] or [d for d in kept if choice.step(d) < facts.extents[d]]
    goal = task_goal(choice.cycles * repeats, packing=True)
    chain = spread(chain, free_units(chain, outer, choice.steps), goal)
    final = analyse(chain.nest, bits)
    schedule = build_schedule(final, choice)
    order = sorted(schedule.loops, key=lambda d: -reach(final.loads, d))
    schedule = replace(schedule, loops=tuple(order))
    return chain.with_nest(replace(chain.nest, schedule=schedule)).kernel_of()
