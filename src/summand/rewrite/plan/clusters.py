"""Join units into clusters that run as one tile loop.

    s = sum{j} e; y = e / s, both with dims i   ->   one cluster with shared dims {i}

Two clusters are joined where that saves more than it costs: bytes of the values between them (and
a launch) against products that lose their own tiling, operands read again for each tile, and tasks.
Shared dims are those along which every unit is tileable and reads the others at its own position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from summand.ir.nodes import Interleave, Map, Recur, Reduce, Reindex, Var
from summand.options import Target
from summand.rewrite.plan.costs import move_cycles, slot_cycles
from summand.rewrite.plan.nodes import Access, Sum, is_control, is_launched
from summand.rewrite.plan.stages import local_values
from summand.rewrite.plan.units import Unit, product

LAUNCH = 6000.0  # cycles between two kernels that depend on one another
SMALL = 30_000.0  # cycles of work below which one task is enough
HEAVY = 24.0  # operations for each element read or stored that make a product worth its own tiling
LANES = 16  # elements of a vector
FEWEST_TILES = 8  # from which values of a tile take less memory than whole ones
STRIP = 512  # bytes of a row below which a tile reads memory much slower than whole rows
LINE = 64  # the same in the last cache: less than a line is no vector
TRIFLE = 64  # how many times the work of one group makes that of another nothing beside it
TILING_LOSS = 0.12  # of a heavy product's time, where it shares its tiles with others

Dims = frozenset[tuple[str, int]]


@dataclass(slots=True)
class Group:
    """Units that run together. `shared` dims may be tiled."""

    units: list[Unit]
    shared: Dims
    fixed: bool = False  # what nothing joins
    slots: float = 0.0
    carries: bool = False  # holds a recurrence whose lanes run along a shared dim
    made: set[Var] = field(default_factory=set)
    private: set[Var] = field(default_factory=set)  # made and read here only
    reads: dict[Var, tuple[Access, ...]] = field(default_factory=dict)
    sums: dict[Var, Sum] = field(default_factory=dict)  # roots that fold shared dims

    @staticmethod
    def of(unit: Unit) -> Group:
        """A unit by itself."""
        reads: dict[Var, tuple[Access, ...]] = {}
        for access in unit.reads:
            reads[access.var] = (*reads.get(access.var, ()), access)
        # parts that lie between each other are products with nests of their own
        parts = isinstance(unit.eqn.op, Interleave) and bool(unit.folds)
        fixed = is_control(unit.eqn) or is_launched(unit.eqn) or parts
        made = set(unit.roots)
        return Group([unit], unit.tileable, fixed, unit.slots, unit.carries, made, set(), reads)

    @staticmethod
    def of_all(units: Sequence[Unit], readers: Mapping[Var, Sequence[Unit]]) -> Group:
        """Units together; `readers` of each value are all that there are."""
        whole = Group.of(units[0])
        inside = {u.number for u in units}
        for unit in units[1:]:
            one = Group.of(unit)
            whole.shared = _shared(whole, one)
            whole.units.append(unit)
            whole.made |= one.made
            for var, accesses in one.reads.items():
                whole.reads[var] = (*whole.reads.get(var, ()), *accesses)
        for var in whole.made:
            if all(u.number in inside for u in readers.get(var, ())):
                whole.private.add(var)
        return whole

    def between(self, other: Group) -> list[Var]:
        """Values made here that the other reads, in the order of the program."""
        if len(self.made) < len(other.reads):
            found = [v for v in self.made if v in other.reads]
        else:
            found = [v for v in other.reads if v in self.made]
        return sorted(found, key=lambda v: v.id)


def solitary(units: Sequence[Unit]) -> list[Group]:
    """Every unit by itself."""
    return [Group.of(u) for u in units]


FindSum = Callable[[Unit, Group], Sum | None]


def join(
    units: Sequence[Unit],
    results: frozenset[Var],
    target: Target,
    orders: Mapping[Var, tuple[str, ...]],
    streamed: frozenset[Var] = frozenset(),
    find_sum: FindSum | None = None,
) -> list[Group]:
    """Groups in an order in which each reads only earlier ones. Roots in `streamed` are summed
    beside what they fold, where `find_sum` still says how. `orders`: of arrays in memory, as far
    as they are known."""
    return _Joining(results, target, orders, streamed, find_sum).run(units)


@dataclass(slots=True)
class _Joining:
    results: frozenset[Var]
    target: Target
    orders: Mapping[Var, tuple[str, ...]]
    streamed: frozenset[Var]
    find_sum: FindSum | None
    groups: dict[int, Group] = field(default_factory=dict)
    owner: dict[int, int] = field(default_factory=dict)  # unit -> group
    maker: dict[Var, int] = field(default_factory=dict)  # value -> unit
    readers: dict[Var, set[int]] = field(default_factory=dict)  # value -> groups
    below: dict[int, int] = field(default_factory=dict)  # group -> bits of groups that it reaches
    large: set[Var] = field(default_factory=set)  # read values that a core's cache does not hold
    found_orders: dict[Var, tuple[str, ...]] = field(default_factory=dict)  # of values asked for
    succ: dict[int, set[int]] = field(default_factory=dict)
    pred: dict[int, set[int]] = field(default_factory=dict)

    def run(self, units: Sequence[Unit]) -> list[Group]:
        """Producers first: each unit tries to join the groups that it reads from."""
        self._set_up(units)
        for unit in units:
            self._join_producers(unit.number)
        self._join_siblings()
        if self.find_sum is not None:
            self._join_sums([u for u in units if u.roots[0] in self.streamed], self.find_sum)
        return [self.groups[k] for k in self._order()]

    def _set_up(self, units: Sequence[Unit]) -> None:
        for unit in units:
            n = unit.number
            self.groups[n] = Group.of(unit)
            if unit.roots[0] in self.streamed:
                self.groups[n].fixed = True
            self.owner[n] = n
            self.succ[n], self.pred[n] = set(), set()
            self.maker.update(dict.fromkeys(unit.roots, n))
        for unit in units:
            for var in self.groups[unit.number].reads:
                if var.type.nbytes > self.target.l2:
                    self.large.add(var)
                self.readers.setdefault(var, set()).add(unit.number)
                made = self.maker.get(var)
                if made is not None:
                    self.succ[made].add(unit.number)
                    self.pred[unit.number].add(made)
        for unit in reversed(units):
            bits = 0
            for s in self.succ[unit.number]:
                bits |= (1 << s) | self.below[s]
            self.below[unit.number] = bits

    # ---- joining

    def _join_producers(self, number: int) -> None:
        """Join with producers, those first from which most bytes come."""
        merged = True
        while merged:
            merged = False
            me = self.owner[number]
            for p in sorted(self.pred[me], key=lambda p: (-self._bytes(p, me), p)):
                if p in self.pred[me] and self._gain(p, me) > 0:
                    self._merge(p, me)
                    merged = True

    def _bytes(self, a: int, b: int) -> int:
        return sum(v.type.nbytes for v in self.groups[a].between(self.groups[b]))

    def _join_siblings(self) -> None:
        """Groups that read the same large value along their shared dims, and not one another."""
        for var in sorted(self.readers, key=lambda v: (-v.type.nbytes, v.id)):
            if var.type.nbytes <= self.target.l2:
                continue
            found = sorted(self.readers[var])
            while len(found) > 1:
                first = found.pop(0)
                for other in found:
                    if self._gain(first, other, var) > 0:
                        self._merge(first, other)
                        break

    def _join_sums(self, units: Sequence[Unit], find_sum: FindSum) -> None:
        """Sum each of these beside the group that makes most of what it folds."""
        for unit in units:
            me = unit.number
            for p in sorted(self.pred[me], key=lambda p: (-self._bytes(p, me), p)):
                group = self.groups[p]
                found = None if self._path_around(p, me) else find_sum(unit, group)
                if found is not None and not group.fixed and not self._better_alone(p, me):
                    shared = group.shared
                    self._merge(me, p)
                    group.shared = shared
                    group.sums[unit.roots[0]] = found
                    break

    def _better_alone(self, a: int, b: int) -> bool:
        """Whether a heavy product loses more in tiles made for a sum of it than the sum saves."""
        one, two = self.groups[a], self.groups[b]
        if len(one.units) > 1 or not is_heavy(one.units[0]):
            return False
        saved = LAUNCH + self._saved(one, two, self._private(a, b), one.shared)
        return saved < TILING_LOSS * slot_cycles(one.units[0].points, 32, self.target)

    def _path_around(self, a: int, b: int) -> bool:
        """Whether group `a` reaches `b` through a third one, so that joining them makes a cycle."""
        return any(s != b and (self.below[s] >> b) & 1 for s in self.succ[a])

    def _gain(self, a: int, b: int, sibling: Var | None = None) -> float:
        """Cycles saved by joining two groups; not positive where they cannot be."""
        one, two = self.groups[a], self.groups[b]
        if one.fixed or two.fixed or self._path_around(a, b) or self._path_around(b, a):
            return 0.0
        shared = _shared(one, two)
        if self._is_trifle(a, b, shared):
            return 0.0
        small = slot_cycles(one.slots + two.slots, 32, self.target) < SMALL
        if not small and product(n for _, n in shared) < 2 * self.target.threads:
            return 0.0
        if not small and (self._across(a, b, shared) or _narrows(one, two, shared)):
            return 0.0
        if not small and self._walks_strips(one, two, shared):
            return 0.0
        private = self._private(a, b)
        if one.carries or two.carries:
            private -= local_values((*one.units, *two.units), private)
        scratch = sum(_piece(v, shared) for v in private)
        if one.carries or two.carries:
            scratch *= LANES
        room = self.target.l2 * 3 // 4
        if one.carries or two.carries:  # what leaves the cache would be in memory otherwise
            room = max(room, sum(v.type.nbytes for v in private) // FEWEST_TILES)
        if not small and scratch > room:
            return 0.0
        saved = LAUNCH + self._saved(one, two, private, shared)
        if sibling is not None:
            if not _along(one, two, sibling, shared):
                return 0.0
            saved += move_cycles(sibling.type.nbytes, self.target) / 2
        return saved - (0.0 if small else self._loss(one, two, shared, scratch))

    def _is_trifle(self, a: int, b: int, shared: Dims) -> bool:
        """Whether joining one of the groups, next to no work and little to move, would cost the
        other dims that it may be tiled by."""
        one, two = self.groups[a], self.groups[b]
        least, most = (one, two) if one.slots < two.slots else (two, one)
        if least.slots * TRIFLE >= most.slots or not shared < most.shared:
            return False
        saved = self._saved(one, two, self._private(a, b), shared)
        return saved * TRIFLE < slot_cycles(most.slots, 32, self.target)

    def _across(self, a: int, b: int, shared: Dims) -> bool:
        """Whether tiles would read a large value across the tiles that it was made in."""
        made = self.groups[a].made | self.groups[b].made
        for var in self.large & (self.groups[a].reads.keys() | self.groups[b].reads.keys()):
            if var in made or var not in self.maker:
                continue
            maker = self.groups[self.owner[self.maker[var]]]
            if len(maker.units) > 1 and not maker.shared & shared:
                return True
        return False

    def _walks_strips(self, one: Group, two: Group, shared: Dims) -> bool:
        """Whether tiles would walk an array that one of the groups reads in narrow strips."""
        extents = {d: n for u in (*one.units, *two.units) for d, n in u.space}
        return any(
            self._in_strips(access, shared, extents)
            for group in (one, two)
            for var in self.large & group.reads.keys()
            for access in group.reads[var]
        )

    def _in_strips(self, access: Access, shared: Dims, extents: Mapping[str, int]) -> bool:
        """Whether tiles that stay in cache would be narrow strips of a large array's rows."""
        var = access.var
        least = STRIP if var.type.nbytes > self.target.l3 else LINE
        spans = {d: _span(access, d, shared, extents) for d in var.type.names}
        run = var.type.dtype.bytes
        points = self.target.l2 // max(product(held for held, _ in spans.values()) * run, 1)
        for dim in reversed(self._order_of(var)):
            held, steps = spans[dim]
            if steps > 1:
                run *= held * max(1, min(steps, points))
                if steps > points:
                    return run < least
                points //= steps
            else:
                run *= var.type.sizes[dim]
        return False

    def _order_of(self, var: Var) -> tuple[str, ...]:
        """A value's order in memory: its own, or that of an array with its dims; else none."""
        found = self.found_orders.get(var)
        if found is None:
            names = var.type.names
            known = (o for o in self.orders.values() if names.issubset(o))
            order = self.orders.get(var) or next(known, ())
            found = self.found_orders[var] = tuple(d for d in order if d in names)
        return found

    def _private(self, a: int, b: int) -> set[Var]:
        """Values that only the two groups together know."""
        one, two = self.groups[a], self.groups[b]
        private = one.private | two.private
        both = {a, b}
        for var in (*one.between(two), *two.between(one)):
            if var not in self.results and self.readers[var] <= both:
                private.add(var)
        return private

    def _saved(self, one: Group, two: Group, private: set[Var], shared: Dims) -> float:
        """Cycles of moving what one reads from the other, as far as a tile keeps it in the cache;
        less those of moving what a tile of each had kept alone."""
        cycles = 0.0
        for var in one.between(two):
            if self._stays(var, shared):
                moved = move_cycles(var.type.nbytes, self.target)
                cycles += moved if var in private else moved / 2
        for group in (one, two):
            if group.shared > shared:
                for var in group.made & group.reads.keys():
                    if self._stays(var, group.shared) and not self._stays(var, shared):
                        cycles -= move_cycles(var.type.nbytes, self.target) / 2
        return cycles / self.target.threads

    def _stays(self, var: Var, shared: Dims) -> bool:
        """Whether what a tile has of a value stays in the cache from nest to nest."""
        return _piece(var, shared) <= self.target.l2 // 2

    def _loss(self, one: Group, two: Group, shared: Dims, scratch: int) -> float:
        """Cycles that heavy products lose without a tiling and packing of their own, and operands
        that each tile reads again."""
        lost = 0.0
        for group in (one, two):
            if len(group.units) == 1 and is_heavy(group.units[0]):
                cycles = slot_cycles(group.units[0].points, 32, self.target)
                lost += TILING_LOSS * cycles / self.target.threads
            lost += self._read_again(group, shared, scratch)
            if len(group.units) > 1:
                alone = sum(_piece(v, group.shared) for v in group.private)
                lost -= self._read_again(group, group.shared, alone)
        return lost

    def _read_again(self, group: Group, shared: Dims, scratch: int) -> float:
        """Cycles to read what each tile of a group reads whole."""
        tiles = product(n for _, n in shared) * (scratch + 64) / (self.target.l2 / 2)
        names = {d for d, _ in shared}
        large = (
            var.type.nbytes
            for var, accesses in group.reads.items()
            if var.type.nbytes > self.target.l2 // 4 and not _moves(accesses, names)
        )
        return max(tiles, 1.0) * sum(large) / 16 / self.target.threads

    # ---- bookkeeping

    def _merge(self, a: int, b: int) -> None:
        """Join group `a` into `b`."""
        private = self._private(a, b)
        one, two = self.groups.pop(a), self.groups[b]
        two.shared = _shared(one, two)
        two.units = sorted((*one.units, *two.units), key=lambda u: u.number)
        two.slots += one.slots
        two.carries |= one.carries
        two.made |= one.made
        two.private = private
        for var, accesses in one.reads.items():
            two.reads[var] = (*two.reads.get(var, ()), *accesses)
            self.readers[var] = (self.readers[var] - {a}) | {b}
        for unit in one.units:
            self.owner[unit.number] = b
        self._relink(a, b)

    def _relink(self, a: int, b: int) -> None:
        for links, back in ((self.succ, self.pred), (self.pred, self.succ)):
            mine = links.pop(a)
            for k in mine:
                back[k].discard(a)
                if k != b:
                    back[k].add(b)
            links[b] = (links[b] | mine) - {a, b}
        gone = (1 << a) | (1 << b)
        below = (self.below.pop(a) | self.below[b]) & ~gone
        self.below[b] = below
        for k, bits in self.below.items():
            if bits & gone:
                self.below[k] = (bits & ~gone) | (1 << b) | below

    def _order(self) -> list[int]:
        """Groups so that each comes after those it reads, earliest units first."""
        waiting = {k: len(p) for k, p in self.pred.items()}
        ready = sorted((k for k, n in waiting.items() if n == 0), key=self._first)
        order: list[int] = []
        while ready:
            k = ready.pop(0)
            order.append(k)
            for s in self.succ[k]:
                waiting[s] -= 1
                if waiting[s] == 0:
                    ready.append(s)
            ready.sort(key=self._first)
        return order

    def _first(self, group: int) -> int:
        return self.groups[group].units[0].number


def _shared(one: Group, two: Group) -> Dims:
    """Dims along which all units of both are tileable and read one another in place."""
    shared = one.shared & two.shared
    for first, second in ((one, two), (two, one)):
        for var in first.between(second):
            for access in second.reads[var]:
                shared = frozenset(x for x in shared if access.is_identity(x[0]))
    return shared


def _narrows(one: Group, two: Group, shared: Dims) -> bool:
    """Whether what follows a recurrence would take a shared dim from it: tasks and lanes, for
    little, since it does not need the states at all positions any more."""
    for carrying, other in ((one, two), (two, one)):
        if carrying.carries and not other.carries and not carrying.shared <= shared:
            over = {d for u in carrying.units if u.carries for d in u.over}
            if not any(over & {d for d, _ in u.space} for u in other.units):
                return True
    return False


def _along(one: Group, two: Group, var: Var, shared: Dims) -> bool:
    """Whether both read a value at the same place along the shared dims."""
    accesses: Iterable[Access] = (*one.reads.get(var, ()), *two.reads.get(var, ()))
    return bool(shared) and all(a.is_identity(d) for a in accesses for d, _ in shared)


def _moves(accesses: Iterable[Access], names: set[str]) -> bool:
    """Whether a value is read elsewhere from tile to tile."""
    return any(a.computed & names or any(f and f.dims & names for _, f in a.at) for a in accesses)


def _span(access: Access, dim: str, shared: Dims, extents: Mapping[str, int]) -> tuple[int, int]:
    """How many positions of a dim are read at one point of the shared dims; and at how many places
    along it those are."""
    form, size = dict(access.at)[dim], access.var.type.sizes[dim]
    names = {d for d, _ in shared}
    if form is None or not form.dims & names:
        return size, 1
    inner = (abs(form.coefficient(d)) * (extents.get(d, 1) - 1) for d in form.dims - names)
    return min(size, 1 + sum(inner)), product(n for d, n in shared if d in form.dims)


@lru_cache(maxsize=65536)
def _piece(var: Var, shared: Dims) -> int:
    """Bytes of a value at one point of the shared dims."""
    return product(n for d, n in var.type.dims if (d, n) not in shared) * var.type.dtype.bytes


def is_heavy(unit: Unit) -> bool:
    """A product whose operands are read many times: a tiling and packing of its own pays."""
    if not isinstance(unit.eqn.op, Map | Reduce | Reindex) or not unit.folds:
        return isinstance(unit.eqn.op, Recur)
    moved = product(n for _, n in unit.out) + sum(a.var.type.count for a in unit.reads)
    return unit.points / max(moved, 1) > HEAVY
