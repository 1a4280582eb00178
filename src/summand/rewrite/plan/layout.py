"""Choose the order in memory of the dims of each stored value, over its writer and all its readers.

    s{q,k} = sum{d} (Q{q,d} · K{k,d}); m = max{k} s; o{q,d} = sum{k} (s · V{k,d})
      ->  s is stored as [k, q]: with q in lanes every step but the loads of Q walks memory in order

Parameters and results keep the user's order. Every other value starts from one ranking of all dims.
Then, what is gathered first and then largest first, each gets the innermost dims that make its
nests cheapest; a nest is as cheap as its best choice of lanes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from summand.ir.nodes import Program, Recur, Var
from summand.rewrite.plan.nodes import Access, Cluster, Item, Stage
from summand.rewrite.plan.units import product

Order = tuple[str, ...]
Rank = tuple[int, int, int, int]
LAST: Rank = (0, 0, 1, 1 << 30)
VECTOR = 16  # elements of one vector
HALF = 8  # of them, as many as the shortest vectors have
TASKS = 16  # that share out the tiles of a dim that is summed
SHARE = 32  # how much of a shared dim one tile is taken to hold, if the cache has room
FAR = 1 << 40  # room without limit
LEAST = 2048  # elements below which the order of a value does not matter
STEP = 8.0  # vector operations of a recurrence's step, of which other nests count one
MERGE = 8.0  # vector operations to sum one vector's elements
PACK = 0.7  # vector operations to bring one element into the order of the lanes
BETTER = 0.05  # vector operations for each element that a change must save


@dataclass(frozen=True, slots=True)
class Walk:
    """How a nest's dims walk one value: nest dim to (the value's dim, whether step by step)."""

    var: Var
    moves: Mapping[str, tuple[str, bool]]
    elements: int
    slid: frozenset[str]  # dims that walk it together with another one
    moving: frozenset[str]  # the longest of each such group: where a window is, not what is in it
    computed: frozenset[str] = frozenset()  # dims on which gathered positions depend

    @staticmethod
    def of(access: Access, extents: Mapping[str, int], sizes: Mapping[str, int]) -> Walk:
        """An access in a nest of these extents, of which a tile holds all or a part of the size."""
        moves: dict[str, tuple[str, bool]] = {}
        for dim, form in access.at:
            for name in sorted(form.dims) if form is not None else ():
                plain = name not in moves and form is not None and abs(form.coefficient(name)) == 1
                moves[name] = (dim, plain)
        forms = [f for _, f in access.at if f is not None]
        groups = [f.dims for f in forms if len(f.dims) > 1]
        slid = frozenset[str]().union(*groups)
        moving = frozenset(max(g, key=lambda d: (sizes.get(d, 1), d)) for g in groups)
        elements = product(extents.get(d, 1) for d in {*moves, *access.computed})
        if not access.computed:  # a copy has each place of a window once
            elements = min(elements, access.var.type.count)
        return Walk(access.var, moves, elements, slid, moving, access.computed)

    def shared_out(self, steps: Mapping[str, int]) -> Walk:
        """As far as a copy of the value is made at each of so many steps along tiled dims: it lasts
        for the steps along which the value is not walked."""
        moved = {*self.moves, *self.computed}
        times = product(n for d, n in steps.items() if d not in moved)
        return replace(self, elements=-(-self.elements // max(times, 1)))


@dataclass(frozen=True, slots=True)
class Nest:
    """What the cost of a nest depends on: extents of its dims, folded dims, accesses."""

    extents: Mapping[str, int]
    folds: frozenset[str]
    walks: tuple[Walk, ...]
    points: int
    tiles: float  # how many times the nest runs
    held: frozenset[str]  # dims of which a tile holds a part only
    sequential: frozenset[str] = frozenset()  # dims of a recurrence: no lanes along them
    merges: Mapping[str, int] = field(default_factory=dict)  # sums of each dim within a step
    placed: frozenset[str] = frozenset()  # dims of a scatter's result at computed places


@dataclass(frozen=True, slots=True)
class Bodies:
    """What stands outside for the values of recurrences' bodies, and the steps of each dim."""

    outside: Mapping[Var, Var]
    steps: Mapping[str, int]

    @staticmethod
    def of(program: Program) -> Bodies:
        """States are what their recurrence makes, captured values what it is given."""
        outside: dict[Var, Var] = {}
        steps: dict[str, int] = {}
        for eqn in program.eqns:
            if isinstance(eqn.op, Recur):
                steps.update(zip(eqn.op.over, eqn.op.sizes, strict=True))
                given = (*(eqn.outs[r.state] for r in eqn.op.reads), *eqn.op.captured)
                outside.update(zip(eqn.op.body.params, given, strict=False))
                outside.update(zip(eqn.op.body.results, eqn.outs, strict=True))
        return Bodies(outside, steps)


def choose_orders(
    items: Sequence[Item],
    fixed: Mapping[Var, Order],
    values: Sequence[Var],
    bodies: Bodies,
    room: int = FAR,
) -> dict[Var, Order]:
    """Orders of all values with memory: `fixed` ones as they are. A tile has `room` in cache."""
    clusters = [item for item in items if isinstance(item, Cluster)]
    nests = [n for item in clusters for n in _nests(item, bodies, room, fixed)]
    touching: dict[Var, list[Nest]] = {}
    for nest in nests:
        for walk in nest.walks:
            touching.setdefault(walk.var, []).append(nest)
    rank = _ranking(nests, fixed, bodies.steps)
    orders = dict(fixed)
    for var in values:
        if var not in orders:
            orders[var] = tuple(sorted(var.type.names, key=lambda d: (rank.get(d, LAST), d)))
    free = frozenset(v for v in values if v not in fixed)
    for var, first in _batches(clusters, nests).items():
        if var in orders and var not in fixed:
            orders[var] = tuple(sorted(orders[var], key=lambda d: d not in first))
    for item in items:
        if isinstance(item, Cluster) and len(item.stages) > 1:
            own = [v for v in item.roots if v in free]
            _move_together(own, list(_nests(item, bodies, room, fixed)), orders)
    gathered = {w.var for n in nests for w in n.walks if w.computed}
    for var in sorted(values, key=lambda v: (v not in gathered, -v.type.count, v.id)):
        if var not in fixed and var.type.count >= LEAST:
            orders[var] = improved(var, touching.get(var, ()), orders)
    return orders


def _ranking(
    nests: Sequence[Nest], fixed: Mapping[Var, Order], steps: Iterable[str]
) -> dict[str, Rank]:
    """One order of all dims, outermost first, from which every value starts: dims of tiles,
    batches, those that windows slide along or recurrences run over (`steps`), then those that are
    mostly folded, last as in the parameters. Values that agree in it are walked together by long
    vectors."""
    points: dict[str, float] = {}
    tiled: dict[str, float] = {}
    folded: dict[str, float] = {}
    slid: set[str] = set()
    for nest in nests:
        weight = nest.tiles * max((w.elements for w in nest.walks), default=0)
        for dim in (*nest.extents, *sorted(nest.placed)):
            points[dim] = points.get(dim, 0.0) + weight
            if dim in nest.held:
                tiled[dim] = tiled.get(dim, 0.0) + weight
            if dim in nest.folds:
                folded[dim] = folded.get(dim, 0.0) + weight
        slid |= nest.sequential
        for walk in nest.walks:
            slid |= walk.slid
    place: dict[str, int] = {}
    for var in sorted(fixed, key=lambda v: (-v.type.count, v.id)):
        for dim in fixed[var]:
            place.setdefault(dim, len(place))
    moving = frozenset[str]().union(*(n.sequential for n in nests))
    moving = moving.union(*(w.moving for n in nests for w in n.walks))
    first = _leading(fixed, moving.difference(steps), slid)
    return {
        d: (
            -round(2 * tiled.get(d, 0.0) / max(n, 1.0)),
            -1 if d in first else 0 if d in slid else 1,
            -round(8 * folded.get(d, 0.0) / max(n, 1.0)),
            place.get(d, len(place)),
        )
        for d, n in points.items()
    }


def _leading(fixed: Mapping[Var, Order], moving: frozenset[str], slid: set[str]) -> set[str]:
    """Dims that are outermost in what the user hands over, around those along which windows move:
    batches. Of dims that are all outside of the windows the last one may fill the lanes."""
    found: set[str] = set()
    inside: set[str] = set()
    for order in fixed.values():
        where = [k for k, d in enumerate(order) if d in moving]
        if where:
            outer = order[: where[0]]
            within = [d for d in order[where[0] :] if d not in slid]
            found |= set(outer if within else outer[:-1])
            inside |= {*within, *(() if within else outer[-1:])}
    return found - inside


def _batches(clusters: Sequence[Cluster], nests: Sequence[Nest]) -> dict[Var, frozenset[str]]:
    """Dims along which computed places vary, of what is gathered or scattered at them: outermost,
    so that what one batch of places reaches lies together."""
    gathered: dict[Var, frozenset[str]] = {}
    for walk in (w for n in nests for w in n.walks if w.computed):
        own = frozenset(d for name, (d, _) in walk.moves.items() if name in walk.computed)
        gathered[walk.var] = gathered.get(walk.var, own) & own
    names = frozenset[str]().union(*gathered.values())
    roots = [r for c in clusters for s in c.stages if s.walked for r in s.roots]
    return {r: r.type.names & names for r in roots} | gathered


def _move_together(made: Sequence[Var], nests: Sequence[Nest], orders: dict[Var, Order]) -> None:
    """Give what a cluster makes one innermost dim, where that is cheaper for the cluster: a change
    of one value alone would only move the cost to its neighbour."""
    candidates: dict[Order, None] = {}
    for nest in nests:
        free = {d: size for d, size in nest.extents.items() if d not in nest.sequential}
        candidates |= {(d,): None for d, size in free.items() if size >= VECTOR}
        candidates |= dict.fromkeys(_pairs(nest, free, orders))
    least = sum(nest_cost(n, orders) for n in nests)
    saving = BETTER * max((v.type.count for v in made), default=0)
    best = {v: orders[v] for v in made}
    start = dict(best)
    for inner in candidates:
        for v in made:
            if start[v] and v.type.names.issuperset(inner):
                orders[v] = (*(d for d in start[v] if d not in inner), *inner)
        cost = sum(nest_cost(n, orders) for n in nests)
        if cost < least - saving:
            least, best = cost, {v: orders[v] for v in made}
        orders.update(start)
    orders.update(best)


def improved(var: Var, nests: Sequence[Nest], orders: dict[Var, Order]) -> Order:
    """The order whose innermost dims make the nests around a value cheapest."""
    start = best = orders[var]
    if len(best) < 2 or not nests:
        return best
    cost = sum(nest_cost(n, orders) for n in nests)
    saving = BETTER * var.type.count
    if cost - sum(n.points * n.tiles for n in nests) / VECTOR <= saving:
        return best
    least = cost - saving
    for inner in _inner_dims(var, nests):
        order = (*(d for d in start if d not in inner), *inner)
        if order == start:
            continue
        orders[var] = order
        cost = sum(nest_cost(n, orders) for n in nests)
        if cost < least:
            least, best = cost, order
    return best


def _inner_dims(var: Var, nests: Sequence[Nest]) -> list[Order]:
    """Candidates: a dim that fills a vector within a tile of every nest."""
    sizes = var.type.sizes
    held = {d: min(n.extents.get(d, sizes[d]) for n in nests) for d in sizes}
    return [(d,) for d in sizes if held[d] >= VECTOR]


def _pairs(nest: Nest, sizes: Mapping[str, int], orders: Mapping[Var, Order]) -> Iterable[Order]:
    """Two dims that fill a vector together, innermost of something that a nest walks."""
    for walk in nest.walks:
        pair = orders.get(walk.var, ())[-2:]
        if len(pair) == 2 and all(walk.moves.get(d) == (d, True) for d in pair):
            outer, inner = (sizes.get(d, 1) for d in pair)
            if 1 < inner < VECTOR <= inner * outer:
                yield pair


# ---- nests and their cost


def _nests(
    cluster: Cluster, bodies: Bodies, room: int, fixed: Mapping[Var, Order]
) -> Iterable[Nest]:
    held: dict[str, int] = {}
    if len(cluster.stages) > 1:
        share = _share(cluster, room)
        near = _beside_short(cluster, fixed)
        held = {d: share if n >= 4 * SHARE else 1 for d, n in cluster.shared}
        held |= {d: min(n, share) for d, n in cluster.shared if d in near}
        longest = max(cluster.shared, key=lambda x: x[1], default=None)
        if longest is not None and any(s.carried is not None for s in cluster.stages):
            held[longest[0]] = min(longest[1], share)  # lanes
    for block in cluster.blocks:
        held |= {block.dim: block.size, block.place: 1}
    steps = {d: n // held.get(d, n) // TASKS for d, n in cluster.shared if d in cluster.summed}
    made = frozenset(cluster.roots)
    for stage in cluster.stages:
        nest = nest_of(stage, held)
        walks = (w if w.var in made else w.shared_out(steps) for w in nest.walks)
        summed = {d for s in stage.sums for d in s.dims}
        runs = product(n / held.get(d, n) for d, n in cluster.shared if d in summed)
        walked = () if stage.body else tuple(walks)
        yield replace(nest, walks=walked, tiles=nest.tiles * runs)
        for part in stage.body:
            yield _nest_of_a_step(part, held, stage.over, bodies)


def _beside_short(cluster: Cluster, fixed: Mapping[Var, Order]) -> set[str]:
    """Shared dims that lie in memory around others too short for a vector, so that tiles hold
    several of their positions."""
    found: set[str] = set()
    for access in (a for s in cluster.stages for a in s.reads if a.var in fixed):
        order, sizes = fixed[access.var], access.var.type.sizes
        if len(order) > 2 and 1 < sizes[order[-1]] < VECTOR and access.is_identity(order[-2]):
            found.add(order[-2])
    return found


def _nest_of_a_step(
    part: Stage, held: Mapping[str, int], over: Sequence[str], bodies: Bodies
) -> Nest:
    """A nest of a recurrence's body; its values lie in the slices of those outside."""
    nest = nest_of(part, held)
    walks = tuple(replace(w, var=bodies.outside.get(w.var, w.var)) for w in nest.walks)
    return replace(nest, walks=walks, tiles=nest.tiles * product(bodies.steps[d] for d in over))


def _share(cluster: Cluster, room: int) -> int:
    """How much of a shared dim a tile holds: as far as its values have room. Recurrences take their
    lanes from a shared dim in any case."""
    if any(s.over for s in cluster.stages):
        return SHARE
    shared = {d for d, _ in cluster.shared}
    pieces = {
        v: product(n for d, n in v.type.dims if d not in shared) * v.type.dtype.bytes
        for v in cluster.scratch
    }
    most = max((sum(pieces[v] for v in alive) for alive in cluster.living()), default=0)
    fits = room // max(most, 1)
    return max(1, min(SHARE, max(fits * 3 // 4, min(fits, VECTOR))))


def nest_of(stage: Stage, held: Mapping[str, int]) -> Nest:
    """The facts of a stage's nest; `held` says how much of the shared dims one tile holds."""
    extents: dict[str, int] = {}
    tiled = {name: d for s in stage.sums for d, f in s.at if (name := f.as_dim()) is not None}
    held = {d: n for d, n in held.items() if all(d not in s.dims for s in stage.sums)} | {
        name: held[d] for name, d in tiled.items() if d in held
    }
    sizes = dict((*(x for r in stage.roots for x in r.type.dims), *stage.folds))
    placed = _placed(stage)
    sizes = {d: n for d, n in sizes.items() if d not in placed}
    for dim, size in sizes.items():
        extents[dim] = min(size, held.get(dim, size))
    over = stage.over
    if stage.carried is not None and isinstance(stage.carried.op, Recur):
        extents.update((d, n) for d, n in zip(over, stage.carried.op.sizes))
        for var in stage.carried.op.body.results:
            extents.update((d, min(n, held.get(d, n))) for d, n in var.type.dims)
    steps = product(extents.get(d, 1) for d in stage.walked) if placed else 1
    stored = (Walk.of(Access.of(r), extents, sizes) for r in stage.roots)
    walks = (
        *(Walk.of(a, extents, sizes) for a in stage.reads),
        *(replace(w, elements=w.elements * steps) for w in stored),
    )
    folds = frozenset(d for d, _ in stage.folds)
    whole = {x for r in stage.roots for x in r.type.dims if x[0] not in placed}
    tiles = product(n for _, n in whole) / max(product(extents[d] for d, _ in whole), 1)
    parts = frozenset(d for d, n in whole if extents[d] < n)
    merges = dict(Counter(d for d, _ in stage.folds)) if stage.carried is not None else {}
    points = product(extents.values())
    sequential = frozenset((*over, *stage.walked))
    return Nest(extents, folds, walks, points, tiles, parts, sequential, merges, placed)


def _placed(stage: Stage) -> frozenset[str]:
    """Dims of a scatter's result that its nest does not run over: those of the computed places."""
    if not stage.walked:
        return frozenset()
    names = frozenset[str]().union(*(r.type.names for r in stage.roots))
    forms = [f for a in stage.reads for _, f in a.at if f is not None]
    return names.difference(*(f.dims for f in forms), *(a.computed for a in stage.reads))


def nest_cost(nest: Nest, orders: Mapping[Var, Order]) -> float:
    """Vector operations of a nest with its best choice of lanes."""
    options = (lane_cost(nest, lanes, orders) for lanes in _lanes(nest, orders))
    return nest.tiles * min(options, default=0.0)


def best_lanes(nest: Nest, orders: Mapping[Var, Order]) -> Order:
    """The choice of lanes that `nest_cost` is about."""
    return min(_lanes(nest, orders), key=lambda lanes: lane_cost(nest, lanes, orders), default=())


def _lanes(nest: Nest, orders: Mapping[Var, Order]) -> list[Order]:
    """Innermost dims of the values: one that fills a vector, or the last two."""
    found: dict[Order, None] = {}
    for walk in nest.walks:
        by = {d: name for name, (d, plain) in walk.moves.items() if plain}
        inner = [by[d] for d in orders.get(walk.var, ())[-3:] if d in by]
        inner = [n for n in inner if nest.extents.get(n, 1) > 1 and n not in nest.sequential]
        if inner:
            found[(inner[-1],)] = None
            if len(inner) > 1 and nest.extents[inner[-1]] < VECTOR:
                found[(inner[-2], inner[-1])] = None
    if nest.sequential or not found:
        found.update(((d,), None) for d in nest.extents if d not in nest.sequential)
    return list(found)


def lane_cost(nest: Nest, lanes: Order, orders: Mapping[Var, Order]) -> float:
    """Vector operations of a nest whose vectors run along `lanes` (inner last)."""
    if not nest.points:
        return 0.0
    long = product(nest.extents[d] for d in lanes)
    wide = min(long, HALF)  # the last vector may be half of one
    cost = -(-long // wide) * wide / min(long, VECTOR) * nest.points / long
    if nest.sequential:  # steps cannot merge their sums together
        cost *= STEP
        sums = max((nest.merges.get(d, 0) for d in lanes), default=0)
        cost += MERGE * sums * nest.points / long
    elif any(d in nest.folds for d in lanes):
        cost += nest.points / product(nest.extents[d] for d in nest.folds)
    for walk in nest.walks:
        if is_scattered(walk, lanes, orders.get(walk.var, ())):
            cost += PACK * walk.elements
    return cost


def is_scattered(walk: Walk, lanes: Order, order: Order) -> bool:
    """Whether a vector's elements lie apart in memory: neither one element nor neighbours."""
    moved = [walk.moves[d] for d in lanes if d in walk.moves]
    if any(d in walk.computed for d in lanes):
        return True  # each lane has a computed position of its own
    if not moved:
        return False
    inner = order[-len(lanes) :]
    if any(d not in inner for d, _ in moved):
        return True
    dim, plain = walk.moves.get(lanes[-1], ("", False))
    return not plain or dim != order[-1]
