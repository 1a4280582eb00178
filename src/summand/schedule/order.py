"""The order in which a nest walks its register tiles, by what stays in the caches.

    nest g c x y p q, tile c8 y8                         loops g x | y c | p q
      W[g, p, q, x, y] · I[g, c, x + p, y + q]     ->      W of one x: every line is read once,
                                                           and again for other c while it is near

The dims inside of a cache's boundary are those among which all that the nest touches fits it: of
such sets the one with which the least is fetched, each line once for every step of the dims
outside. So for the second cache, and for the first among the dims that are inside.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from summand.loops.nodes import Ref
from summand.options import Target
from summand.schedule.accesses import Access, Facts
from summand.schedule.cost import ALONE, FETCH, PAGE
from summand.schedule.grid import L3_BYTES
from summand.schedule.pack import LINE, sets_met

MOST_DIMS = 6  # of tiles that are ordered
HELD = 0.6  # of a cache, that a nest's own data has
SAME = 0.98  # of the lines that are fetched: what differs less counts as equal
HIDDEN = 0.7  # of the arithmetic's time, in which lines arrive unnoticed
FORESEEN = 16  # lines or even steps, in which the processor finds a run and reads ahead
READ_AHEAD = 1.0  # cycles for a line of such a run
READERS = 4  # tiles that read the same lines, for which they are kept near
WORTH = 0.15  # of the arithmetic's time that another order must save


def lines_of(access: Access, extents: Mapping[str, int], deps: Sequence[frozenset[str]]) -> int:
    """Cache lines that an access touches over a box; windows that overlap count once. `deps` are
    the dims that each value of the nest varies along.

    What the steps of a table find is apart; but a guard says in how many places x + d[a] stays.
    """
    box = {d: n for d, n in extents.items() if n > 1}
    walks = [(abs(access.stride(d)), n) for d, n in box.items() if access.stride(d)]
    lines = _lines(access, walks) * _steps((r for r, _ in access.at.dynamic), box, deps)
    if any(g.dynamic for g in access.at.guards):
        lines = min(lines, _lines_within(access, box, deps))
    return lines


def _lines(access: Access, directions: Sequence[tuple[int, int]]) -> int:
    """Lines of a box of places: stride and number along each of its directions."""
    size = max(1, access.bits // 8)
    groups = _groups(size, directions)
    near = [g for g in groups if g[0] < LINE]
    run = max(step * (count - 1) for step, count in near) + size
    rows = math.prod(count for step, count in groups if step >= LINE)
    rows *= math.prod(count for step, count in near[:-1] if step * count > LINE)
    begins = math.gcd(LINE, *(step for step, _ in groups if step >= LINE))
    if begins < LINE:  # at any multiple of it within a line
        return math.ceil((max(0, run - begins) / LINE + 1) * rows)
    return math.ceil(run / LINE) * rows


def _groups(size: int, directions: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Distance and number of the places of a box, near ones first; what overlaps is one."""
    groups: list[list[int]] = []
    for stride, n in [(size, 1), *sorted((stride * size, n) for stride, n in directions)]:
        if groups and stride <= groups[-1][0] * groups[-1][1]:
            groups[-1][1] += max(1, stride // groups[-1][0]) * (n - 1)
        else:
            groups.append([stride, n])
    return [(step, count) for step, count in groups]


def _share_of_sets(access: Access, extents: Mapping[str, int]) -> float:
    """Which share of a cache's sets the lines of a box fall into, as far as the place within a page
    says; where pages lie nobody knows."""
    walks = [(abs(access.stride(d)), n) for d, n in extents.items() if access.stride(d) and n > 1]
    covered = 1
    for step, count in _groups(max(1, access.bits // 8), walks):
        if step < LINE:
            covered *= max(1, step * count // LINE)
        else:
            covered *= sets_met(step, count)
    return min(1.0, covered * LINE / PAGE)


def _lines_within(access: Access, box: Mapping[str, int], deps: Sequence[frozenset[str]]) -> int:
    """Lines where the places that a guard bounds are one direction: x + d[a] is within its size."""
    moves = {d: abs(access.stride(d)) for d in box if access.stride(d)}
    open_ = dict(access.at.dynamic)
    bound: list[tuple[int, int]] = []
    for guard in access.at.guards:
        affine = {d: abs(k) for d, k in guard.form.terms if isinstance(d, str) and d in moves}
        strides = {open_.get(ref, 0) // factor for ref, factor in guard.dynamic if factor}
        strides |= {moves[d] // k for d, k in affine.items()}
        if guard.dynamic and len(strides) == 1 and (stride := abs(strides.pop())):
            reach = 1 + sum(k * (box[d] - 1) for d, k in affine.items())
            reach *= _steps((r for r, _ in guard.dynamic), box, deps)
            bound.append((stride, min(guard.size, reach)))
            open_ = {ref: k for ref, k in open_.items() if ref not in dict(guard.dynamic)}
            moves = {d: k for d, k in moves.items() if d not in affine}
    walks = [*((stride, box[d]) for d, stride in moves.items()), *bound]
    return _lines(access, walks) * _steps(open_, box, deps)


def _steps(computed: Iterable[Ref], box: Mapping[str, int], deps: Sequence[frozenset[str]]) -> int:
    """How many different sets of computed values a box has."""
    dims = frozenset[str]().union(*(deps[ref] for ref in computed))
    return math.prod(box[d] for d in dims if d in box)


class Walk:
    """What a nest fetches, by the dims that are inside of a cache's boundary, with so many bytes
    `beside` it."""

    def __init__(self, facts: Facts, steps: Mapping[str, int], beside: int = 0) -> None:
        self.facts = facts
        self.accesses = (*facts.loads, *facts.stores)
        self.beside = beside // LINE
        self.tile = {
            d: n if d in facts.reduced else min(n, steps.get(d, 1))
            for d, n in facts.extents.items()
        }
        self.trips = {d: -(-facts.extents[d] // self.tile[d]) for d in facts.kept}
        self._lines: dict[frozenset[str], int] = {}
        self._fits: dict[tuple[frozenset[str], int], bool] = {}

    def box(self, inside: frozenset[str]) -> dict[str, int]:
        """What is walked with the dims inside: all of these, of others a tile."""
        return {d: self.facts.extents[d] if d in inside else n for d, n in self.tile.items()}

    def touched(self, inside: frozenset[str]) -> list[tuple[Access, int]]:
        """The lines that each access touches there."""
        box = self.box(inside)
        seen = {(a.buffer, a.at): a for a in self.accesses}
        return [(a, lines_of(a, box, self.facts.deps)) for a in seen.values()]

    def lines(self, inside: frozenset[str]) -> int:
        """Lines that are touched while the dims inside are walked once."""
        found = self._lines.get(inside)
        if found is None:
            touched = sum(n for _, n in self.touched(inside))
            found = self._lines[inside] = self.beside + touched
        return found

    def fits(self, inside: frozenset[str], cache: int) -> bool:
        """Whether what the dims inside touch stays in a cache of so many bytes; not so where its
        lines meet in few of the cache's sets."""
        found = self._fits.get((inside, cache))
        if found is None:
            found = self.lines(inside) * LINE <= HELD * cache
            if found:
                box, touched = self.box(inside), self.touched(inside)
                found = all(n * LINE <= _share_of_sets(a, box) * cache for a, n in touched)
            self._fits[(inside, cache)] = found
        return found

    def fetched(self, inside: frozenset[str], around: str | None) -> int:
        """Lines that are fetched in all, where what the dims inside touch stays from one step of
        the loop around them to the next: of windows that move, only what is new."""
        whole = inside if around is None else inside | {around}
        return self.lines(whole) * math.prod(n for d, n in self.trips.items() if d not in whole)

    def of_order(self, order: Sequence[str], cache: int) -> int:
        """Lines that are fetched in an order, outer dims first."""
        inside = frozenset[str]()
        if not self.fits(inside, cache):
            return self.fetched(inside, None)
        for dim in reversed(order):
            if not self.fits(inside | {dim}, cache):
                return self.fetched(inside, dim)
            inside |= {dim}
        return self.fetched(inside, None)

    def best(self, dims: Sequence[str], cache: int) -> list[list[str]]:
        """The dims with which the least is fetched: the loop around those whose lines fit, and
        these; the fewest such dims, in every way that is as good."""
        ways = list[list[str]]()
        least = math.inf
        for count in range(len(dims) + 1):
            found: list[tuple[int, list[str]]] = []
            for chosen in itertools.combinations(dims, count):
                inside = frozenset(chosen)
                if not self.fits(inside, cache):
                    continue
                outside: list[str | None] = [d for d in dims if d not in inside]
                for around in outside or [None]:
                    way = [d for d in (around, *chosen) if d is not None]
                    found.append((self.fetched(inside, around), way))
            fewest = min((lines for lines, _ in found), default=math.inf)
            if fewest < SAME * least:
                least = fewest
                ways = [way for lines, way in found if SAME * lines <= least]
        return ways


def fetched_again(facts: Facts, steps: Mapping[str, int], target: Target) -> float:
    """Cycles to fetch what a reduction's tiles read again because one tile's strips of it overflow
    the second cache."""
    walk = Walk(facts, steps)
    strip, whole = walk.lines(frozenset()), walk.lines(frozenset(walk.trips))
    if strip * LINE <= HELD * target.l2:
        return 0.0
    again = walk.fetched(frozenset(), None) - whole
    return max(0, again) * LINE / _pace(whole, target)


def held_up(
    facts: Facts, steps: Mapping[str, int], lanes: frozenset[str], cycles: float, target: Target
) -> int:
    """Bytes of the lines that one tile's pass over a reduction takes from the second cache, where
    its `cycles` of arithmetic wait for them and other tiles read the same ones; else 0.

    A long run of memory, or of even steps, arrives in time; rows of a few lines each do not.
    """
    vectors = [a for a in facts.loads if a.dims & lanes and a.dims & facts.reduced]
    walk = Walk(facts, steps)
    again = math.prod(n for d, n in walk.trips.items() if not any(d in a.dims for a in vectors))
    fetched = walk.lines(frozenset()) * LINE
    if again < READERS or fetched <= target.l1:
        return 0
    time = 0.0
    for load, lines in walk.touched(frozenset()):
        directions = [(abs(load.stride(d)), n) for d, n in walk.tile.items() if load.stride(d)]
        (_, run), *further = _groups(max(1, load.bits // 8), directions)
        even = max([run * load.bits // (8 * LINE), *(count for _, count in further[:1])])
        time += lines * (READ_AHEAD if even >= FORESEEN else FETCH + ALONE)
    return fetched if time > HIDDEN * cycles else 0


def _pace(lines: int, target: Target) -> float:
    """Bytes in a cycle from where so many lines lie."""
    return L3_BYTES if lines * LINE <= target.l3 // 2 else target.dram_bytes_per_cycle


def tile_order(
    facts: Facts,
    steps: Mapping[str, int],
    default: Sequence[str],
    cycles: float,
    target: Target,
    beside: int = 0,
) -> tuple[str, ...]:
    """Kept dims, outer first, where another order than the default one saves much; else (). So many
    bytes `beside` what the nest touches are taken to stay near."""
    walk = Walk(facts, steps, beside)
    open_ = [d for d in default if walk.trips[d] > 1]
    large, small = target.l2, target.l1
    fits = walk.fits(frozenset(open_), large)
    if not 1 < len(open_) <= MOST_DIMS or fits or not walk.fits(frozenset(), large):
        return ()
    pace = _pace(walk.lines(frozenset(open_)), target)

    def cost(tried: Sequence[str]) -> float:
        return walk.of_order(tried, large) * LINE / pace + walk.of_order(tried, small) * FETCH

    order = min(_orders(walk, open_, large, small), key=cost)
    if cost(open_) - cost(order) < WORTH * max(cycles, cost(order)):
        return ()
    return tuple(order)


def _orders(walk: Walk, dims: Sequence[str], large: int, small: int) -> Iterator[list[str]]:
    """Orders in which each of two caches fetches the least."""
    for far in walk.best(dims, large):
        for near in walk.best(far[1:], small) or [[]]:
            outside = [d for d in dims if d not in far] + far[:1]
            yield outside + [d for d in far[1:] if d not in near] + near
