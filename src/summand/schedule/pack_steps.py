"""Packing for loops: what each step of a loop reads from the same places is packed once, ahead.

    kernel:                                        kernel: panels[…] = W[…]
      for t=64                                     kernel:
        nest b=16 h=256 k=256              ->        for t=64
          s[b, h] = fold add {k} W[k, h] …             for h_o=16
                                                         nest b=16 h=16 k=256 … panels[h_o, k, h]

Without it a step that finds the rows of W pages apart fetches them anew for each of its tiles, and
so does the next step. One step alone would not be worth the copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import assert_never

from summand.loops.nodes import Buffer, Kernel, Let, Loop, Nest, Stmt, When
from summand.options import Target
from summand.schedule.accesses import analyse
from summand.schedule.guards import narrowed
from summand.schedule.moves import Chain, Level, folded_dims, nests_of, wrapped
from summand.schedule.nests import best_form, build_schedule, is_plain, simplified
from summand.schedule.panels import apart, packed_ahead, tile_loops
from summand.schedule.registers import Limits

LEAST_STEPS = 64  # of a reduction whose operands may be packed
LEAST_WORK = 1 << 14  # points of its nest


def pack_for_steps(
    kernel: Kernel, target: Target
) -> tuple[tuple[Kernel, ...], Kernel, tuple[Buffer, ...]]:
    """The kernels that pack, the kernel with those of its nests scheduled that read what they pack,
    and the packed operands."""
    stored = {s.buffer for n in nests_of(kernel.body) for s in n.stores}
    stay = frozenset(b.name for b in kernel.params) - stored
    steps = _Steps(kernel, stay, target)
    body = steps.within(kernel.body, ())
    made = tuple(steps.made)
    params = (*kernel.params, *made)
    return tuple(steps.packing), replace(kernel, body=body, params=params), made


@dataclass(slots=True)
class _Steps:
    kernel: Kernel
    stay: frozenset[str]
    target: Target
    packing: list[Kernel] = field(default_factory=list)
    made: list[Buffer] = field(default_factory=list)

    def within(self, body: tuple[Stmt, ...], around: tuple[Level, ...]) -> tuple[Stmt, ...]:
        """The statements inside of some loops."""
        out: list[Stmt] = []
        for stmt in body:
            match stmt:
                case Nest():
                    out += self._nest(stmt, around)
                case Loop() | Let():
                    level = replace(stmt, body=())
                    out.append(replace(stmt, body=self.within(stmt.body, (*around, level))))
                case When():
                    out.append(replace(stmt, body=self.within(stmt.body, around)))
                case _:
                    assert_never(stmt)
        return tuple(out)

    def _nest(self, nest: Nest, around: tuple[Level, ...]) -> tuple[Stmt, ...]:
        steps = math.prod(v.extent for v in around if isinstance(v, Loop))
        if steps < 2 or not self._is_worth_a_look(nest):
            return (nest,)
        bits = {b.name: b.dtype.bits for b in (*self.kernel.params, *self.kernel.scratch)}
        grid = dict(self.kernel.grid)
        limits = Limits(
            may_pack=True,
            packed_for=steps,
            stay=self.stay,
            around=frozenset(grid),
            runs=steps * math.prod(grid.values()),
        )
        facts, choice = best_form(simplified(nest), bits, limits, self.target)
        if not choice.packed:
            return (nest,)
        levels = (*(Loop(d, n, ()) for d, n in self.kernel.grid), *around)
        bare = replace(self.kernel, grid=(), scratch=(), body=())
        chain = tile_loops(Chain(bare, levels, facts.nest), facts, choice, self.target)
        chain, facts, choice = apart(chain, facts, choice)
        earlier = len(self.made)
        chain, before, made = packed_ahead(
            chain, facts, choice, choice.packed, self.target, earlier
        )
        self.packing += before
        self.made += made
        bits |= {b.name: b.dtype.bits for b in made}
        schedule = build_schedule(analyse(chain.nest, bits), choice)
        return wrapped((replace(chain.nest, schedule=schedule),), chain.levels[len(levels) :])

    def _is_worth_a_look(self, nest: Nest) -> bool:
        if not is_plain(nest) or narrowed(nest, self.target.lanes(32)) is not nest:
            return False
        folded = folded_dims(nest)
        steps = math.prod(nest.extents[d] for d in folded)
        work = math.prod(nest.extents.values())
        return steps >= LEAST_STEPS and work >= LEAST_WORK
