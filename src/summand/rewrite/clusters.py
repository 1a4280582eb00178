"""Join units into clusters that run as one tile loop.

    s = sum{j} e; y = e / s, both with dims i   ->   one cluster with shared dims {i}

Two clusters are joined where that saves more than it costs: bytes of the values between them (and
a launch) against products that lose their own tiling, operands read again for each tile, and tasks.
Shared dims are those along which every unit is tileable and reads the others at its own position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from summand.ir.nodes import Map, Recur, Reduce, Reindex, Var
from summand.options import Target
from summand.rewrite.costs import move_cycles, slot_cycles
from summand.rewrite.plan import is_control
from summand.rewrite.units import Unit, product

LAUNCH = 6000.0  # cycles between two kernels that depend on one another
SMALL = 30_000.0  # cycles of work below which one task is enough
HEAVY = 24.0  # operations for each element read or stored that make a product worth its own tiling
TILING_LOSS = 0.12  # of a heavy product's time, where it shares its tiles with others

Dims = frozenset[tuple[str, int]]


@dataclass(slots=True)
class Group:
    """Units that run together. `shared` dims may be tiled."""

    units: list[Unit]
    shared: Dims
    fixed: bool = False  # control flow, which nothing joins

    @property
    def slots(self) -> float:
        """Vector slots of all units."""
        return sum(u.slots for u in self.units)


def solitary(units: Sequence[Unit]) -> list[Group]:
    """Every unit by itself."""
    return [Group([u], u.tileable, is_control(u.eqn)) for u in units]


def join(units: Sequence[Unit], results: frozenset[Var], target: Target) -> list[Group]:
    """Groups in an order in which each reads only earlier ones."""
    return _Joining(units, results, target).run()


@dataclass(slots=True)
class _Joining:
    units: Sequence[Unit]
    results: frozenset[Var]
    target: Target
    groups: dict[int, Group] = field(default_factory=dict)
    owner: dict[int, int] = field(default_factory=dict)  # unit -> group
    maker: dict[Var, int] = field(default_factory=dict)  # value -> unit
    readers: dict[Var, list[int]] = field(default_factory=dict)  # value -> units
    below: dict[int, int] = field(default_factory=dict)  # group -> bits of groups that it reaches
    succ: dict[int, set[int]] = field(default_factory=dict)
    pred: dict[int, set[int]] = field(default_factory=dict)

    def run(self) -> list[Group]:
        """Producers first: each unit tries to join the groups that it reads from."""
        self._set_up()
        for unit in self.units:
            self._join_producers(unit.number)
        self._join_siblings()
        return [self.groups[k] for k in self._order()]

    def _set_up(self) -> None:
        for unit in self.units:
            n = unit.number
            self.groups[n] = Group([unit], unit.tileable, is_control(unit.eqn))
            self.owner[n] = n
            self.succ[n], self.pred[n] = set(), set()
            for root in unit.roots:
                self.maker[root] = n
        for unit in self.units:
            for var in dict.fromkeys(a.var for a in unit.reads):
                self.readers.setdefault(var, []).append(unit.number)
                made = self.maker.get(var)
                if made is not None:
                    self.succ[made].add(unit.number)
                    self.pred[unit.number].add(made)
        for unit in reversed(self.units):
            bits = 0
            for s in self.succ[unit.number]:
                bits |= (1 << s) | self.below[s]
            self.below[unit.number] = bits

    # ---- joining

    def _join_producers(self, number: int) -> None:
        tried: set[tuple[int, int]] = set()
        while True:
            me = self.owner[number]
            options = [
                (gain, p)
                for p in sorted(self.pred[me])
                if (p, me) not in tried and (gain := self._gain(p, me)) > 0
            ]
            if not options:
                return
            gain, best = max(options, key=lambda o: (o[0], -o[1]))
            tried.add((best, me))
            self._merge(best, me)

    def _join_siblings(self) -> None:
        """Groups that read the same large value along their shared dims, and not one another."""
        for var in sorted(self.readers, key=lambda v: (-v.type.nbytes, v.id)):
            if var.type.nbytes <= self.target.l2:
                continue
            found = list(dict.fromkeys(self.owner[n] for n in self.readers[var]))
            while len(found) > 1:
                first = found.pop(0)
                for other in found:
                    if self._gain(first, other, var) > 0:
                        kept = self._merge(first, other)
                        found = [kept, *(f for f in found if f != other)]
                        break

    def _path_around(self, a: int, b: int) -> bool:
        """Whether group `a` reaches `b` through a third one, so that joining them makes a cycle."""
        return any(s != b and (self.below[s] >> b) & 1 for s in self.succ[a])

    def _gain(self, a: int, b: int, sibling: Var | None = None) -> float:
        """Cycles saved by joining two groups; not positive where they cannot be."""
        one, two = self.groups[a], self.groups[b]
        if one.fixed or two.fixed or self._path_around(a, b) or self._path_around(b, a):
            return 0.0
        shared = self._shared(one, two)
        work = slot_cycles(one.slots + two.slots, 32, self.target)
        small = work < SMALL
        if not small and not self._enough(one, two, shared):
            return 0.0
        if not small and not self._fits(one, two, shared):
            return 0.0
        saved = LAUNCH + self._saved(one, two)
        if sibling is not None:
            if not self._along(one, two, sibling, shared):
                return 0.0
            saved += move_cycles(sibling.type.nbytes, self.target) / 2
        return saved - (0.0 if small else self._loss(one, two, shared))

    def _shared(self, one: Group, two: Group) -> Dims:
        """Dims along which all units of both are tileable and read one another in place."""
        shared = one.shared & two.shared
        for first, second in ((one, two), (two, one)):
            made = {r for u in first.units for r in u.roots}
            for unit in second.units:
                for access in unit.reads:
                    if access.var in made:
                        shared = frozenset(x for x in shared if access.is_identity(x[0]))
        return shared

    def _enough(self, one: Group, two: Group, shared: Dims) -> bool:
        """Whether the shared dims give work for all threads."""
        return product(n for _, n in shared) >= 2 * self.target.threads

    def _inner_values(self, one: Group, two: Group) -> list[tuple[Var, bool]]:
        """Values that are made and read in the two, and whether no one else reads them."""
        inside = {u.number for u in (*one.units, *two.units)}
        found = []
        for unit in (*one.units, *two.units):
            for root in unit.roots:
                reading = self.readers.get(root, [])
                if reading and any(r in inside for r in reading):
                    private = root not in self.results and all(r in inside for r in reading)
                    found.append((root, private))
        return found

    def _fits(self, one: Group, two: Group, shared: Dims) -> bool:
        """Whether the smallest tile's values fit in cache."""
        need = 0
        for var, private in self._inner_values(one, two):
            if private:
                need += product(n for x, n in var.type.dims if (x, n) not in shared) * (
                    var.type.dtype.bytes
                )
        return need <= self.target.l2 * 3 // 4

    def _saved(self, one: Group, two: Group) -> float:
        made = {r for u in one.units for r in u.roots}
        cycles = 0.0
        private = {v for v, alone in self._inner_values(one, two) if alone}
        for var in dict.fromkeys(a.var for u in two.units for a in u.reads):
            if var in made:
                moved = move_cycles(var.type.nbytes, self.target)
                cycles += moved if var in private else moved / 2
        return cycles / self.target.threads

    def _along(self, one: Group, two: Group, var: Var, shared: Dims) -> bool:
        """Whether both read a value at the same place along the shared dims."""
        for group in (one, two):
            for unit in group.units:
                for access in unit.reads:
                    if access.var == var and not all(access.is_identity(d) for d, _ in shared):
                        return False
        return bool(shared)

    def _loss(self, one: Group, two: Group, shared: Dims) -> float:
        """Cycles that heavy products lose without a tiling and packing of their own, and operands
        that each tile reads again."""
        lost = 0.0
        scratch = 64
        for var, private in self._inner_values(one, two):
            if private:
                scratch += product(n for x, n in var.type.dims if (x, n) not in shared) * (
                    var.type.dtype.bytes
                )
        whole = product(n for _, n in shared)
        tiles = max(whole * scratch / (self.target.l2 / 2), 1.0)
        for unit in (*one.units, *two.units):
            alone = one.units == [unit] or two.units == [unit]
            if alone and is_heavy(unit):
                cycles = slot_cycles(unit.points, 32, self.target)
                lost += TILING_LOSS * cycles / self.target.threads
            for access in unit.reads:
                apart = not any((d, n) in shared for d, n in access.var.type.dims)
                if apart and access.var.type.nbytes > self.target.l2 // 4:
                    lost += tiles * access.var.type.nbytes / 16 / self.target.threads
        return lost

    # ---- bookkeeping

    def _merge(self, a: int, b: int) -> int:
        """Join group `a` into `b`; returns the group's number."""
        one, two = self.groups.pop(a), self.groups[b]
        shared = self._shared(one, two)
        two.units = sorted((*one.units, *two.units), key=lambda u: u.number)
        two.shared = shared
        for unit in one.units:
            self.owner[unit.number] = b
        self.succ[b] = (self.succ[b] | self.succ.pop(a)) - {a, b}
        self.pred[b] = (self.pred[b] | self.pred.pop(a)) - {a, b}
        for links in (self.succ, self.pred):
            for k, others in links.items():
                if a in others:
                    others.discard(a)
                    if k != b:
                        others.add(b)
        below = (self.below.pop(a) | self.below[b]) & ~((1 << a) | (1 << b))
        self.below[b] = below
        for k, bits in self.below.items():
            if (bits >> a) & 1 or (bits >> b) & 1:
                self.below[k] = (bits & ~(1 << a)) | (1 << b) | below
        return b

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


def is_heavy(unit: Unit) -> bool:
    """A product whose operands are read many times: a tiling and packing of its own pays."""
    if not isinstance(unit.eqn.op, Map | Reduce | Reindex) or not unit.folds:
        return isinstance(unit.eqn.op, Recur)
    moved = product(n for _, n in unit.out) + sum(a.var.type.count for a in unit.reads)
    return unit.points / max(moved, 1) > HEAVY
