"""Sizes of a cluster's tiles: how much of each shared dim one task holds.

    softmax over j of {i=4096, j=4096}   ->   i in tiles of 4: scratch 64 KB, 1024 tasks

Speed is flat within a range, so the limits decide: whole cache lines of what is walked along a
shared dim, enough points for every nest, enough rows for what is read again by each tile; and from
above the cache and the number of tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from summand.ir.nodes import ReduceAt, Var
from summand.options import Target
from summand.rewrite.plan.clusters import STRIP
from summand.rewrite.plan.layout import HALF, VECTOR
from summand.rewrite.plan.nodes import Access, Cluster, Graph, Stage, Tile
from summand.rewrite.plan.units import product

Order = tuple[str, ...]
LINE = 64  # contiguous elements to take along a shared dim (256 bytes of f32)
LONG = 4096  # the same of an array that no cache holds, as long as the tile is a small part of one
POINTS = 1024  # points of the smallest large nest; below, entry and latency show
PANEL = 2048  # elements of an operand that several rows had better read together
FAR = 1 << 40  # room without limit
STEP_ROWS = 16  # rows of a recurrence that is a loop around products
ROWS = 32  # rows that read one panel together
LANES = 16
FOLDED = 20.0  # cycles to fold the lanes of one sum together and add it
SHARE = 0.15  # of a tile's time that this may take
ADDED = 64  # positions of each of several summed dims between two additions to the results


def choose_tiles(
    graph: Graph,
    cluster: Cluster,
    orders: Mapping[Var, Order],
    target: Target,
) -> tuple[Tile, ...]:
    """The tiles of a cluster, outer first. Shared dims of one element need none."""
    sizes = {d: n for d, n in cluster.shared if n > 1}
    if not sizes:
        return ()
    walks = _walks(cluster, orders)
    rank = _rank(sizes, walks)
    tiles = dict.fromkeys(sizes, 1)
    if cluster.blocks:
        tiles |= {b.dim: b.size for b in cluster.blocks}
        return tuple(Tile(d, sizes[d], tiles[d]) for d in reversed(rank))
    for walk in _long_walks(walks):
        _lengthen(tiles, walk, sizes, cluster, target)
    if any(s.body for s in cluster.stages):
        steps = [part for s in cluster.stages for part in s.body]
        if any(_panel(steps, d) >= PANEL for d in rank):
            _grow_all(tiles, rank, STEP_ROWS, sizes, cluster, target, target.threads)
        tiles = _exact(graph, cluster, sizes, tiles)
        return tuple(Tile(d, sizes[d], tiles[d]) for d in reversed(rank))
    if any(s.carried is not None for s in cluster.stages):
        # steps without lanes cost far more than values of a tile that leave the cache
        want = min(sizes[rank[0]], VECTOR)
        _grow(tiles, rank[0], want, sizes, cluster, target, FAR, tasks=target.threads)
    else:
        panels = {d: _panel(cluster.stages, d) for d in rank}
        if max(panels.values()) >= PANEL:
            by_panel = sorted(rank, key=lambda d: -panels[d])
            most = min(VECTOR, sizes[by_panel[0]])
            _grow(tiles, by_panel[0], most, sizes, cluster, target, target.l2)
            _grow_all(tiles, by_panel, ROWS, sizes, cluster, target)
        for d in (d for d in rank if d in cluster.summed and len(cluster.summed) > 1):
            most = max(min(sizes[d], ADDED), tiles[d])
            _grow(tiles, d, most, sizes, cluster, target, target.l2 // 2)
    largest = max(_points(stage) for stage in cluster.stages) // product(sizes.values())
    _grow_all(tiles, rank, -(-POINTS // max(largest, 1)), sizes, cluster, target)
    _grow_for_sums(tiles, rank, sizes, cluster, target)
    tiles = _exact(graph, cluster, sizes, tiles)
    return tuple(Tile(d, sizes[d], tiles[d]) for d in reversed(rank))


def _grow_for_sums(
    tiles: dict[str, int],
    rank: Sequence[str],
    sizes: Mapping[str, int],
    cluster: Cluster,
    target: Target,
) -> None:
    """Grow tiles along dims that stages sum over, where the sums have no dim for the lanes: theirs
    are folded together for each tile, which should cost little beside making what is summed."""
    shared = product(sizes.values())
    added = work = 0.0
    folded: set[str] = set()
    for stage in cluster.stages:
        work += _points(stage) / shared / LANES
        for root, found in zip(stage.roots, stage.sums, strict=False):
            own = [n for d, n in root.type.dims if d not in sizes]
            if max(own, default=1) < LANES:
                added += FOLDED * product(own)
            folded |= {*found.dims} & tiles.keys()
    if folded:
        added *= product(t for d, t in tiles.items() if d not in folded)
        along = [d for d in rank if d in folded]
        _grow_all(tiles, along, round(added / (SHARE * work)), sizes, cluster, target)


def _exact(
    graph: Graph, cluster: Cluster, sizes: Mapping[str, int], tiles: dict[str, int]
) -> dict[str, int]:
    """Tiles that divide their dims, where a task updates global memory more than once, so that no
    other may share elements."""
    eqns = (graph.eqn(v) for v in cluster.roots if v not in cluster.scratch)
    if not any(eqn is not None and isinstance(eqn.op, ReduceAt) for eqn in eqns):
        return tiles
    return {d: _divisor(sizes[d], t) for d, t in tiles.items()}


def _divisor(size: int, most: int) -> int:
    """The largest divisor of `size` that is at most `most`."""
    return next(t for t in range(most, 0, -1) if size % t == 0)


@dataclass(frozen=True, slots=True)
class _Walk:
    """How the nests walk one value in global memory: their dims in the value's order, outermost
    first, with the sizes that it has along them. Where no one dim moves there is a blank."""

    var: Var
    order: Order
    sizes: tuple[int, ...]

    @staticmethod
    def of(access: Access, orders: Mapping[Var, Order]) -> _Walk:
        """An access in a nest."""
        at, sizes = dict(access.at), access.var.type.sizes
        names = [f.as_dim() if (f := at[d]) is not None else None for d in orders[access.var]]
        order = tuple(n or "" for n in names)
        return _Walk(access.var, order, tuple(sizes[d] for d in orders[access.var]))

    def inside(self, place: int) -> int:
        """Elements between neighbours along the dim at a place of the order."""
        return product(self.sizes[place + 1 :])


def _walks(cluster: Cluster, orders: Mapping[Var, Order]) -> list[_Walk]:
    """What the cluster reads and stores in global memory. A sum over tiles gets memory in the order
    that suits its stage."""
    found: dict[_Walk, None] = {}
    for stage in cluster.stages:
        made = () if stage.sums else map(Access.of, stage.roots)
        for access in (*stage.reads, *made):
            if access.var not in cluster.scratch and access.var in orders:
                found[_Walk.of(access, orders)] = None
    return list(found)


def _points(stage: Stage) -> int:
    """Points of a stage's nest, over all tiles."""
    dims = {x for r in stage.roots for x in r.type.dims} | set(stage.folds)
    return product(n for _, n in dims)


def _panel(stages: Sequence[Stage], dim: str) -> int:
    """Elements of the largest operand that products read again for each position along `dim`."""
    operands = [a for s in stages if s.folds for a in s.reads]
    return max((a.var.type.count for a in operands if not _walks_along(a, dim)), default=0)


def _walks_along(access: Access, dim: str) -> bool:
    return any(f is not None and dim in f.dims for _, f in access.at)


def _rank(sizes: Mapping[str, int], walks: Sequence[_Walk]) -> list[str]:
    """Shared dims, innermost in memory first."""

    def weight(dim: str) -> tuple[float, str]:
        total = 0.0
        for w in walks:
            if dim in w.order:
                total += w.var.type.count / max(w.inside(w.order.index(dim)), 1)
        return (-total, dim)

    return sorted(sizes, key=weight)


def _long_walks(walks: Sequence[_Walk]) -> list[_Walk]:
    """How most of the memory traffic goes, largest values first."""
    largest = max((w.var.type.count for w in walks), default=0)
    large = [w for w in walks if w.var.type.count * 16 >= largest]
    return sorted(large, key=lambda w: (-w.var.type.count, w.var.id))


def _lengthen(
    tiles: dict[str, int],
    walk: _Walk,
    sizes: Mapping[str, int],
    cluster: Cluster,
    target: Target,
) -> None:
    """Grow tiles, innermost dims first, until a value is walked in long enough runs."""
    run = 1
    for dim, whole in reversed(list(zip(walk.order, walk.sizes, strict=True))):
        if run >= LINE:
            return
        if dim in tiles:
            want = min(sizes[dim], max(-(-LINE // max(run, 1)), tiles[dim]))
            _grow(tiles, dim, want, sizes, cluster, target, target.l2, streams=True)
            narrow = run * tiles[dim] * walk.var.type.dtype.bytes < STRIP
            if walk.var.type.nbytes > target.l3:
                want = min(sizes[dim], -(-LONG // run))
                _grow(tiles, dim, want, sizes, cluster, target, target.l2 // 8)
            elif narrow and _overflows(cluster, tiles, target):
                # read again from the last cache in any case: whole rows come from there much
                # faster, which pays for values of the tile that go there, too, where they are few
                made = sum(v.type.nbytes for v in cluster.scratch)
                read = sum(v.type.nbytes for v in _reads(cluster, tiles, {dim}))
                room = target.l3 // 4 if made < 2 * read else target.l2
                _grow(tiles, dim, sizes[dim], sizes, cluster, target, room, streams=True)
            run *= tiles[dim]
            if tiles[dim] < sizes[dim]:
                return
        else:
            run *= whole


def _overflows(cluster: Cluster, tiles: Mapping[str, int], target: Target) -> bool:
    """Whether a tile does not fit in the second cache, and what it reads alone nearly fills it."""
    whole = tile_bytes(cluster, tiles, streams=False)
    return whole > target.l2 and whole - tile_bytes(cluster, tiles, streams=True) >= target.l2 // 2


def tile_bytes(cluster: Cluster, tiles: Mapping[str, int], streams: bool) -> int:
    """Bytes of the values that live within one tile, and of what it reads along the tiled dims. Of
    values that recurrences walk, a step's part: they pass through the cache."""
    walked = _walked(cluster)
    reads = {} if streams else _reads(cluster, tiles, tiles.keys())
    scratch = {v: _bytes_within(v, tiles, walked) for v in cluster.scratch}
    most = max((sum(scratch[v] for v in alive) for alive in cluster.living()), default=0)
    return most + sum(reads.values())


def _walked(cluster: Cluster) -> frozenset[str]:
    """Dims along which recurrences run."""
    return frozenset(d for stage in cluster.stages for d in stage.over)


def _reads(cluster: Cluster, tiles: Mapping[str, int], moving: Collection[str]) -> dict[Var, int]:
    """Bytes that a tile reads of each array that tiled dims among `moving` move."""
    walked = _walked(cluster)
    found: dict[Var, int] = {}
    for stage in cluster.stages:
        for access in stage.reads:
            moved = any(f is not None and not f.dims.isdisjoint(moving) for _, f in access.at)
            if moved and access.var not in cluster.scratch:
                held = _bytes_read(access, stage, tiles, walked)
                found[access.var] = max(found.get(access.var, 0), held)
    return found


def _bytes_read(
    access: Access, stage: Stage, tiles: Mapping[str, int], walked: frozenset[str]
) -> int:
    """Bytes that a tile reads of an array which tiled dims move."""
    along = {d: f for d, f in access.at if f is not None and f.dims & tiles.keys()}
    extents = {**dict(stage.folds), **{d: n for r in stage.roots for d, n in r.type.dims}, **tiles}
    held = access.var.type.dtype.bytes
    for dim, n in access.var.type.dims:
        if dim in along:
            moves = (abs(along[dim].coefficient(d)) * (extents[d] - 1) for d in along[dim].dims)
            held *= min(n, 1 + sum(moves))
        elif dim not in walked:
            held *= n
    return held


def _bytes_within(var: Var, tiles: Mapping[str, int], walked: frozenset[str]) -> int:
    held = product(tiles.get(d, n) for d, n in var.type.dims if d not in walked)
    return held * var.type.dtype.bytes


def _grow_all(
    tiles: dict[str, int],
    rank: Sequence[str],
    goal: int,
    sizes: Mapping[str, int],
    cluster: Cluster,
    target: Target,
    tasks: int = 0,
) -> None:
    """Grow tiles, innermost dims first, until they hold `goal` points together."""
    for dim in rank:
        held = product(tiles.values())
        if held >= goal:
            return
        want = min(sizes[dim], -(-goal * tiles[dim] // held))
        _grow(tiles, dim, want, sizes, cluster, target, target.l2 // 2, tasks=tasks)


def _grow(
    tiles: dict[str, int],
    dim: str,
    want: int,
    sizes: Mapping[str, int],
    cluster: Cluster,
    target: Target,
    room: int,
    streams: bool = False,
    tasks: int = 0,
) -> None:
    """Set a tile to about `want`, as long as the cache has room and there are tasks enough.

    Where `streams` says so, what the tile reads only passes through the cache. Where one position
    fills the room, by what it reads of all other dims, a tile may take a part of it more.
    """
    least = tiles[dim]
    alone = tile_bytes(cluster, tiles, streams)
    if least == 1:
        room = max(room, alone + room // 2)
    while want > least:
        size = _even(sizes[dim], want)
        new = {**tiles, dim: size}
        count = product(-(-sizes[d] // t) for d, t in new.items())
        if tile_bytes(cluster, new, streams) <= room and count >= (tasks or 4 * target.threads):
            tiles[dim] = max(size, least)
            return
        want //= 2


def _even(size: int, want: int) -> int:
    """A tile of about `want` that divides `size`, or else whole vectors as even as can be."""
    for t in range(want, max(want // 2, 1), -1):
        if size % t == 0:
            return t
    if want < HALF:
        return want
    want -= want % HALF
    least = -(-size // -(-size // want))
    return -(-least // HALF) * HALF
