"""The cost model: cycles of a nest for given lanes and register tile, and of whole kernels.

    cycles = tiles * (steps * max(arithmetic, loads, latency) + epilogue)     of one nest
    cycles = max(sum of nests, bytes / bandwidth)                              of a kernel

Everything is counted in vector operations of one core. Values are grouped by the tiled dims that
they vary along, so that scoring one register tile is a handful of multiplications.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from summand.ir.prims import PRIMS
from summand.loops.code import address_refs, refs
from summand.loops.nodes import Apply, Bound, Carry, Const, Fold, Guard, Load, Piece
from summand.options import Target
from summand.schedule.accesses import Access, Facts
from summand.schedule.guard_costs import Asked, asked_of, is_decidable
from summand.schedule.slots import op_lines, operation_slots, readers_of

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

ENTRY = 12.0  # cycles to start a register tile: addresses, zeroed accumulators
ROUND = 3.0  # cycles of one round of a loop that reduces nothing
FETCH = 1.8  # cycles to fetch a line from the second cache, with its neighbours
ALONE = 1.8  # more for a line whose neighbours are fetched in other steps,
TOGETHER = 4  # unless it is one of so many
AT_ONCE = 4  # points at which exp and the like are evaluated together
MERGED = 2.8  # the same for each of as many vectors as there are lanes, all at once
WAIT = 3.0  # cycles that a store into a computed place waits for the one before, on average
DECISION = 1.5  # cycles of a comparison that decides for a step what a table's places need
FAR_STORE = 6.0  # cycles more for each lane that is stored to a line that was driven out
PAGE = 4096  # bytes; also what one way of the first cache holds
TURNED = 4.0  # shuffles for each vector of a transposed block
MOST_PLACES = 4096  # positions at which a bound is looked at
FLAT_STEPS = 32  # most steps of a reduction that is unrolled whole because windows overlap in it
FLAT_LINES = 600.0  # of code, then


@dataclass(frozen=True, slots=True)
class Pipes:
    """What was measured to differ between processors that compute one wide vector in a cycle, with
    many registers (AVX-512), and those that compute two shorter ones with few (AVX2).

    splat: load slots of one element in all lanes. slack: how much longer a chain takes that just
    fills the pipes, some of its links being late. alone: the same of exp and the like at one point,
    that four points take at once each. working: registers for temporaries, where loads do not join
    what reads them. line: what it costs, of a tile's time, that another tile reads the rest of a
    cache line from beyond the second cache. copies_rows: whether rows that meet in few sets of the
    second cache are copied; elsewhere asking for them early cost less. finds_stream: whether the
    lines of one stream need not be asked for. masks: registers of a vector's conditions, where
    there are none of their own for them.
    """

    splat: float
    slack: float
    alone: float
    working: int
    line: float
    copies_rows: bool
    finds_stream: bool
    masks: float


WIDE = Pipes(
    splat=0.5,
    slack=1.0,
    alone=1.0,
    working=2,
    line=0.02,
    copies_rows=False,
    finds_stream=True,
    masks=0.0,
)
NARROW = Pipes(
    splat=1.3,
    slack=1.2,
    alone=1.4,
    working=1,
    line=0.25,
    copies_rows=True,
    finds_stream=False,
    masks=1.0,
)


def pipes_of(target: Target) -> Pipes:
    """The kind of processor."""
    return NARROW if target.registers <= 16 else WIDE


def lane_kind(strides: Mapping[str, int], loose: frozenset[str], lanes: Sequence[Piece]) -> str:
    """How one vector of an operand lies in memory: splat, unit, reverse, chunk, window, gather."""
    moving = [p for p in lanes if p.count > 1]
    if any(p.dim in loose for p in moving):
        return "chunk" if _loose_run(strides, loose, moving) >= 4 else "gather"
    if all(strides.get(p.dim, 0) == 0 for p in moving):
        return "splat"
    run, expected, unbroken = 1, 1, True
    for piece in reversed(moving):
        unbroken = unbroken and strides.get(piece.dim, 0) == expected
        expected *= piece.count
        if unbroken:
            run = expected
    total = math.prod(p.count for p in moving)
    if run >= total:
        return "unit"
    if len(moving) == 1 and strides.get(moving[0].dim, 0) == -1:
        return "reverse"
    span = sum((p.count - 1) * abs(strides.get(p.dim, 0)) for p in moving)
    if span < 3 * total and any(strides.get(p.dim, 0) == 0 for p in moving):
        return "window"
    return "chunk" if run >= 4 else "gather"


def _loose_run(strides: Mapping[str, int], loose: frozenset[str], lanes: Sequence[Piece]) -> int:
    """Neighbours in memory that share a computed place: the innermost lanes that do not move it."""
    run = 1
    for piece in reversed(lanes):
        if piece.dim in loose or strides.get(piece.dim, 0) != run:
            break
        run *= piece.count
    return run


def load_cycles(kind: str, lanes: int) -> float:
    """Load slots of one vector."""
    match kind:
        case "splat":
            return 0.5
        case "unit":
            return 1.0
        case "reverse":
            return 2.0
        case "window":
            return 3.0
        case "chunk":
            return lanes / 4
        case _:
            return 1.3 * lanes


def shuffles(access: Access, kind: str, lanes: Sequence[Piece]) -> float:
    """Arithmetic slots of one vector's load: what puts its pieces together."""
    width = math.prod(p.count for p in lanes)
    match kind:
        case "window":
            return 1.0
        case "chunk":
            return width / 4 - 1
        case "gather" if not access.loose:
            span = sum((p.count - 1) * abs(access.stride(p.dim)) for p in lanes)
            return min(span / width, width - 1.0)  # a few vectors, or element by element
        case _:
            return 0.0


def masked_cycles(kind: str, lanes: int) -> float:
    """What a load of one vector costs more where each lane has a condition of its own."""
    match kind:
        case "splat" | "unit":
            return 2.0
        case "chunk":  # each has a mask of its own
            return 2.0 + lanes / 2
        case _:
            return 1.0 * lanes


def store_cycles(kind: str, lanes: int) -> float:
    """Cycles to store one vector."""
    match kind:
        case "splat" | "unit":
            return 1.0
        case "reverse":
            return 2.0
        case "chunk":
            return lanes / 4 + 1
        case _:
            return 1.6 * lanes


def code_lines(kind: str, lanes: int) -> float:
    """Lines of LLVM text of one vector load or store."""
    match kind:
        case "splat" | "unit":
            return 2.5
        case "reverse" | "window":
            return 5.0
        case "chunk":
            return 0.8 * lanes
        case _:
            return 3.0 * lanes


@dataclass(slots=True)
class Group:
    """Costs for each point of the tile, of all values that vary along the same tiled dims."""

    slots: float = 0.0  # each reduction step
    loads: float = 0.0
    vectors: float = 0.0  # loaded in each step
    streams: float = 0.0  # those of them that no other tile reads, of more than the first cache
    shared: float = 0.0  # registers of vectors of each step that several points of the tile read
    selected: float = 0.0  # registers of what each point has for itself
    sums: float = 0.0  # accumulators and carried states
    hoisted: float = 0.0  # registers of vectors that stay for the whole tile
    epilogue: float = 0.0  # cycles once for each tile
    step_lines: float = 0.0  # lines of code in a step
    lines: float = 0.0  # lines of code once for each tile


FIELDS = (  # of a group that count for each of its points; `shared` only for some tiles
    "slots",
    "loads",
    "sums",
    "vectors",
    "streams",
    "selected",
    "hoisted",
    "epilogue",
    "step_lines",
    "lines",
)


@dataclass(slots=True)
class Window:
    """A load whose places overlap along two dims: x[a·p + b·q] has a(P-1) + b(Q-1) + 1 of them.

    `first` and `second` are tiled dims; or `second` is None, and b·q runs over `reach` more places
    in the `steps` steps of a reduction that is unrolled whole.
    """

    dims: tuple[int, ...]  # the other tiled dims along which it varies
    first: int
    stride: int
    second: int | None
    along: int
    reach: int
    steps: int
    cost: Group

    def places(self, counts: Counts, flat: NDArray[np.bool_]) -> Floats:
        """Loads in each step, for each row of counts."""
        n: Floats = counts[:, self.dims].prod(axis=1).astype(float)
        one = counts[:, self.first]
        if self.second is not None:
            two = counts[:, self.second]
            n *= np.minimum(one * two, self.stride * (one - 1) + self.along * (two - 1) + 1)
            return n
        whole = np.minimum(one, (self.stride * (one - 1) + self.reach + 1) / self.steps)
        n *= np.where(flat, whole, one)
        return n


@dataclass(slots=True)
class Model:
    """A nest's costs for one choice of lanes."""

    dims: tuple[str, ...]  # dims that a tile may extend
    groups: tuple[tuple[tuple[int, ...], Group], ...]
    steps: int  # reduction steps of one tile
    latency: float  # cycles of one link of the chain, if nothing hides it
    single: bool  # a carried chain: more copies of accumulators do not help
    working: int  # registers for temporaries
    overhead: float = 0.0  # cycles once: packing
    packed: tuple[int, ...] = ()
    extents: dict[str, int] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    asked: tuple[Asked, ...] = ()
    flat: bool = False  # whether the reduction may be unrolled whole for its windows
    alone: float = 1.0  # how much longer operations take where one point has nothing beside it
    ragged: tuple[tuple[int, int], ...] = ()  # dims whose last vector is not full, and how many


class Score(NamedTuple):
    """Cycles of one register tile, and what they are made of."""

    cycles: float
    accumulators: int
    registers: float  # without those that can as well be read again
    copies: int
    lines: float  # of code, steps not unrolled
    step_lines: float
    flat: bool


@dataclass(frozen=True, slots=True)
class Scores:
    """The same of many register tiles: an element of each array for each."""

    cycles: Floats
    accumulators: Floats
    registers: Floats
    copies: Floats
    lines: Floats
    step_lines: Floats
    flat: NDArray[np.bool_]

    def __getitem__(self, number: int) -> Score:
        return Score(
            float(self.cycles[number]),
            int(self.accumulators[number]),
            float(self.registers[number]),
            int(self.copies[number]),
            float(self.lines[number]),
            float(self.step_lines[number]),
            bool(self.flat[number]),
        )


def score(model: Model, counts: Sequence[int], target: Target) -> Score:
    """Cycles of one register tile with `counts[q]` vectors along `model.dims[q]`."""
    return scores(model, np.array([counts], np.int64), target)[0]


def scores(model: Model, counts: Counts, target: Target) -> Scores:
    """Cycles of register tiles: `counts[t, q]` vectors along `model.dims[q]` in tile t."""
    points = counts.prod(axis=1)
    sums_of = np.zeros((len(FIELDS), len(counts)))
    live = np.zeros(len(counts))
    for dims, group in model.groups:
        n = counts[:, dims].prod(axis=1)
        sums_of += np.array([[getattr(group, f)] for f in FIELDS]) * n
        if group.shared:  # else each is used up before the next
            live += np.where(n < points, n * group.shared, 0.0)
    slots, loads, sums, vectors, streams, selected, hoisted, epilogue, step_lines, lines = sums_of
    per_cycle = target.fma_per_cycle
    slots *= 1.0 + (model.alone - 1.0) * np.maximum(0.0, AT_ONCE - points) / (AT_ONCE - 1)
    flat = np.full(len(counts), model.flat)
    if model.windows:
        whole = _in_windows(model, counts, np.full(len(counts), True))[2]
        flat &= model.steps * (step_lines + whole) <= FLAT_LINES
        read = _in_windows(model, counts, flat)
        loads, vectors, step_lines = loads + read[0], vectors + read[1], step_lines + read[2]
        live += read[1]
    for asked in model.asked:
        if asked.looped:
            loads, live = loads + asked.cost(counts), live + asked.registers(counts)
        else:
            epilogue = epilogue + asked.cost(counts)
    for dim, number in model.ragged:  # the last of them wants a mask
        live = live + np.where(counts[:, dim] == number, pipes_of(target).masks, 0.0)
    copies = np.ones(len(counts))
    chain = model.latency
    if chain and not model.single:
        some = np.maximum(1.0, sums)
        room = (target.registers - 2 - live) // some
        wanted = np.minimum(np.ceil(chain * per_cycle / some), np.minimum(room, model.steps))
        fits = (sums > 0) & (sums < chain * per_cycle)
        copies = np.where(fits, np.clip(wanted, 1, 4), 1.0)
    registers = sums * copies + live + selected + model.working
    slack = pipes_of(target).slack
    waiting = slack * chain / copies if model.steps > 1 else np.zeros(len(counts))
    waiting = np.where(flat, waiting / 2, waiting)  # the next tile goes on meanwhile
    spill = np.maximum(0.0, registers - target.registers) * 2.0
    loads = loads + np.minimum(
        hoisted, np.maximum(0.0, registers + hoisted - target.registers)
    )  # from the stack
    walked = model.steps * vectors * target.vector_bytes
    fetched = np.where(walked > target.l1, vectors, streams) * FETCH
    few = (streams > 0) & (streams < TOGETHER)
    fetched = fetched + np.where(few, ALONE * (TOGETHER - streams) / (TOGETHER - 1), 0.0)
    step = np.maximum(slots / per_cycle, loads / max(1.0, per_cycle))
    step = np.maximum(np.maximum(step, waiting), fetched)
    start = ENTRY if model.latency else ROUND
    cycles = model.steps * (step + spill) + epilogue / per_cycle + start
    if model.steps > 1:
        cycles = cycles + chain + (copies - 1) * sums
    repeated = np.where(flat, model.steps, model.steps if model.steps <= 8 else 1)
    lines = lines + step_lines * repeated
    return Scores(cycles, sums, registers, copies, lines, step_lines, flat)


def _in_windows(
    model: Model, counts: Counts, flat: NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats]:
    """Load slots, registers and lines of code of what is read through overlapping windows."""
    loads, vectors, lines = np.zeros((3, len(counts)))
    for window in model.windows:
        n = window.places(counts, flat)
        loads = loads + n * window.cost.loads
        vectors = vectors + np.minimum(n, 3.0) * window.cost.vectors  # used up before the next
        lines = lines + n * window.cost.step_lines
    return loads, vectors, lines


@lru_cache(maxsize=1024)
def share_within(bound: Bound, dims: tuple[tuple[str, int], ...]) -> float:
    """Which share of a bounded dim's positions is within the bound, on average."""
    extents = dict(dims)
    names = sorted({d for f in (*bound.lo, *bound.hi) for d in f.dims})
    if not all(d in extents for d in names) or math.prod(extents[d] for d in names) > MOST_PLACES:
        return 1.0
    places = list(itertools.product(*(range(extents[d]) for d in names)))
    total = 0
    for place in places:
        at = dict(zip(names, place, strict=True))
        low = max([0, *(f.evaluate(at) for f in bound.lo)])
        high = min([extents[bound.dim], *(f.evaluate(at) for f in bound.hi)])
        total += max(0, high - low)
    return total / (len(places) * extents[bound.dim])


def build_model(
    facts: Facts,
    lanes: Sequence[Piece],
    unrolled: frozenset[str],
    tileable: Sequence[str],
    target: Target,
    packed: frozenset[int] = frozenset(),
    turned: frozenset[int] = frozenset(),
    merged: int = 0,
    end: Sequence[Piece] = (),
) -> Model:
    """Count what every value of the nest costs, with these lanes.

    `packed` loads are contiguous, `turned` ones transposed in registers; `merged`: so many vectors
    are folded together into one, lane by lane. `end`: the lanes in which a result is stored, where
    it is transposed for that.
    """
    counter = _Counter(facts, tuple(lanes), unrolled, tuple(tileable), target, packed)
    counter.turned, counter.merged, counter.end = turned, merged, tuple(end)
    return counter.model()


class _Counter:
    """Collects the groups of a `Model`."""

    def __init__(
        self,
        facts: Facts,
        lanes: tuple[Piece, ...],
        unrolled: frozenset[str],
        tileable: tuple[str, ...],
        target: Target,
        packed: frozenset[int],
    ) -> None:
        self.facts, self.lanes, self.unrolled, self.tileable = facts, lanes, unrolled, tileable
        self.target, self.packed = target, packed
        self.turned: frozenset[int] = frozenset()
        self.merged = 0
        self.end: tuple[Piece, ...] = ()
        self.decided: set[Guard] = set()
        self.asked: list[Asked] = []
        self.readers = readers_of(facts)
        self.width = math.prod(p.count for p in lanes)
        self.lane_dims = frozenset(p.dim for p in lanes)
        self.looped = (facts.reduced | facts.carried) - unrolled
        self.groups: dict[frozenset[str], Group] = {}
        self.windows: list[Window] = []
        self.vector = target.vector_bytes * 8

    def group(self, deps: frozenset[str]) -> tuple[Group, float]:
        """The group of values that vary along `deps`; how often unrolling repeats each."""
        key = deps & frozenset(self.tileable)
        repeat = math.prod(self._vectors(d) for d in deps & self.unrolled if d not in key)
        return self.groups.setdefault(key, Group()), float(repeat)

    def wide(self, bits: int) -> float:
        """Registers that one vector of this element width takes."""
        return max(1.0, self.width * bits / self.vector)

    def share(self, bits: int) -> float:
        """The same in time: half a slot for half a register, where halves are computed in pairs."""
        least = 0.5 if self.target.takes_halves and self.width > 1 else 1.0
        return max(least, self.width * bits / self.vector)

    def model(self) -> Model:
        """The model."""
        for ref in range(len(self.facts.nest.code)):
            self._value(ref)
        for access in self.facts.loads:
            self._load(access)
        for access in self.facts.stores:
            self._store(access)
        position = {d: q for q, d in enumerate(self.tileable)}
        groups = tuple(
            (tuple(sorted(position[d] for d in key)), g)
            for key, g in sorted(self.groups.items(), key=lambda kv: sorted(kv[0]))
        )
        steps = 1
        for d in self.looped:
            steps *= -(-self.facts.extents[d] // self._lane_count(d))
        for bound in self.facts.nest.bounds:
            steps = max(1, round(steps * share_within(bound, self.facts.nest.dims)))
        code = self.facts.nest.code
        heavy = any(
            isinstance(i, Apply) and operation_slots(self.facts, r, self.readers) >= 8
            for r, i in enumerate(code)
        )
        latency, single = self._latency()
        pipes = pipes_of(self.target)
        flat = steps <= FLAT_STEPS and any(w.second is None for w in self.windows)
        return Model(
            self.tileable,
            groups,
            steps,
            latency,
            single,
            6 if heavy else pipes.working,
            extents=self.facts.extents,
            windows=tuple(self.windows),
            asked=tuple(self.asked),
            flat=flat,
            alone=pipes.alone if heavy else 1.0,
            ragged=tuple(
                (position[d], self._vectors(d))
                for d in self.tileable
                if self.facts.extents[d] % self._lane_count(d)
            ),
        )

    def _vectors(self, dim: str) -> int:
        return -(-self.facts.extents[dim] // self._lane_count(dim))

    def _lane_count(self, dim: str) -> int:
        return math.prod(p.count for p in self.lanes if p.dim == dim)

    def _value(self, ref: int) -> None:
        instr = self.facts.nest.code[ref]
        deps = self.facts.deps[ref]
        group, repeat = self.group(deps)
        slots = operation_slots(self.facts, ref, self.readers) * self.share(instr.dtype.bits)
        if isinstance(instr, Apply) and slots:
            self._lines(group, deps, op_lines(instr.fn) * repeat)
        match instr:
            case Fold():
                arg = self.facts.deps[instr.args[0]]
                inner, often = self.group(arg)
                self._lines(inner, arg, often * max(1, len(instr.combine.code)))
                if frozenset(instr.dims) & self.looped:
                    inner.slots += slots * often
                    group.sums += repeat * len(instr.args) * self.wide(instr.dtype.bits)
                    group.epilogue += self._horizontal(instr) * repeat
                elif deps & self.looped:
                    inner.slots += slots * often
                    group.slots += self._horizontal(instr) * repeat
                else:
                    inner.epilogue += slots * often
                    group.epilogue += self._horizontal(instr) * repeat
            case Carry():
                group.sums += repeat * self.wide(instr.dtype.bits)
            case _ if deps & self.looped:
                group.slots += slots * repeat
                if not isinstance(instr, Load) and deps & self.lane_dims and self._is_shared(ref):
                    group.shared += repeat * self.wide(instr.dtype.bits)
            case _:
                group.epilogue += slots * repeat
                if slots and self._read_in_loop(ref):
                    group.hoisted += repeat

    def _horizontal(self, fold: Fold) -> float:
        """Cycles to fold the lanes of one vector."""
        folded = math.prod(p.count for p in self.lanes if p.dim in fold.dims)
        if folded <= 1:
            return 0.0
        if self.merged and folded == self.width:
            return MERGED
        return 2.0 * math.log2(folded) + 1

    def _lines(self, group: Group, deps: frozenset[str], lines: float) -> None:
        if deps & self.looped:
            group.step_lines += lines
        else:
            group.lines += lines

    def _read_in_loop(self, ref: int) -> bool:
        return any(self.facts.deps[r] & self.looped for r in self.readers[ref]) or any(
            isinstance(self.facts.nest.code[r], Fold) for r in self.readers[ref]
        )

    def _is_shared(self, ref: int) -> bool:
        """Whether points of the tile that lie apart read the same value."""
        own = self.facts.deps[ref]
        others = frozenset(self.tileable) - own
        return any(self.facts.deps[r] & others for r in self.readers[ref])

    def _load(self, access: Access) -> None:
        group, repeat = self.group(self.facts.deps[access.ref])
        window = self._window(access)
        if window is not None:
            self.windows.append(window)
            group = window.cost
        kind = lane_kind(access.strides, access.loose, self.lanes)
        if access.ref in self.packed or access.ref in self.turned:
            kind = "unit"
        cycles = TURNED if access.ref in self.turned else 0.0
        share = 1.0 if kind == "splat" else self.share(access.bits)
        one = pipes_of(self.target).splat if kind == "splat" else load_cycles(kind, self.width)
        cycles += one * share
        asked = access.guarded and access.ref not in self.packed
        often = 0.0
        if asked:
            masked = masked_cycles(kind, self.width) * share
            each = masked if access.guarded & self.lane_dims else 2.5
            often = self._guards(access, 0.0 if window is not None else each, repeat)
            cycles += each * often if window is not None else 0.0  # for what is not read twice
        if address_refs(access.at):
            cycles += 1.0
        shuffled = shuffles(access, kind, self.lanes) * share
        lines = code_lines(kind, self.width)
        lines += (6.0 if often == 1 else 6.0 + lines) if asked else 0.0
        self._lines(group, self.facts.deps[access.ref], lines * repeat)
        if self.facts.deps[access.ref] & self.looped:
            group.loads += cycles * repeat
            group.slots += shuffled * repeat
            if kind != "splat":
                group.vectors += repeat * self.wide(access.bits)
                group.streams += repeat * self.wide(access.bits) * self._streams(access)
                if address_refs(access.at):  # begins long before it ends
                    group.selected += repeat * self.wide(access.bits)
                elif self._is_shared(access.ref):
                    group.shared += repeat * self.wide(access.bits)
            elif often > 0.5:  # addresses that are selected are all read at once
                group.selected += repeat
        else:
            if self.end:  # as it lies, or transposed as the result is
                there = lane_kind(access.strides, access.loose, self.end)
                cycles = min(cycles + TURNED, load_cycles(there, self.width) * share)
            group.epilogue += cycles * repeat
            if self._read_in_loop(access.ref) and kind != "splat":
                group.hoisted += repeat * self.wide(access.bits)

    def _guards(self, access: Access, cycles: float, repeat: float) -> float:
        """Count a load's guards; at which share of its places they are asked at least."""
        lanes = {p.dim: self._lane_count(p.dim) for p in self.lanes}
        fresh = {g for g in access.at.guards if g.dynamic} - self.decided
        group, _ = self.group(frozenset())
        group.loads += DECISION * sum(
            is_decidable(self.facts, g, lanes, self.looped) for g in fresh
        )
        self.decided |= fresh
        costs = cycles * repeat, pipes_of(self.target).masks * repeat
        asked = asked_of(self.facts, access, self.tileable, lanes, self.looped, *costs)
        self.asked.append(asked)
        return float(asked.share(np.ones((1, len(self.tileable)), np.int64))[0])

    def _streams(self, access: Access) -> float:
        """Of an array too large for the first cache whose elements are read for one result each:
        the share of its reads that come to an element first. Windows come to most of them again."""
        extents = self.facts.extents
        kept = (d for d in self.facts.kept if extents[d] > 1)
        elements = math.prod(extents[d] for d in access.dims)
        if elements * access.bits <= 8 * self.target.l1 or not all(d in access.dims for d in kept):
            return 0.0
        if access.loose:
            return 1.0
        span = 1 + sum(abs(access.stride(d)) * (extents[d] - 1) for d in access.dims)
        return min(1.0, span / elements)

    def _window(self, access: Access) -> Window | None:
        """How a load's places overlap along a tiled dim and another, or the whole reduction."""
        if access.loose or access.ref in self.packed or not access.dims & self.looped:
            return None
        place = {d: q for q, d in enumerate(self.tileable) if access.stride(d)}
        rows = [d for d in place if d not in self.lane_dims]
        steps = math.prod(self.facts.extents[d] for d in self.looped)
        short = steps <= FLAT_STEPS and not self.facts.nest.bounds and not self.facts.carried
        folded = sorted(d for d in self.looped - self.lane_dims if short and access.stride(d))
        for first in rows:
            for second in (*folded, *(d for d in rows if place[d] > place[first])):
                one, two = abs(access.stride(first)), abs(access.stride(second))
                small, large = min(one, two), max(one, two)
                if large % small or large > 3 * small:
                    continue
                others = tuple(q for d, q in place.items() if d not in (first, second))
                strides = one // small, two // small
                size = self.facts.extents[second]
                whole = second in folded
                return Window(
                    others,
                    place[first],
                    strides[0],
                    None if whole else place[second],
                    strides[1],
                    strides[1] * (size - 1) if whole else 0,
                    size if whole else 1,
                    Group(),
                )
        return None

    def _store(self, access: Access) -> None:
        deps = self.facts.deps[access.ref] | access.dims
        group, repeat = self.group(deps)
        lanes = self.end or self.lanes
        kind = "splat" if self.merged else lane_kind(access.strides, access.loose, lanes)
        cycles = store_cycles(kind, self.width) * self.wide(access.bits)
        cycles = (cycles + (TURNED if self.end else 0.0)) / max(1, self.merged)
        if kind == "gather" and self._stores_meet(access):
            cycles += FAR_STORE * self.width
        self._lines(
            group, deps, code_lines(kind, self.width) * (2 if access.combines else 1) * repeat
        )
        if access.combines:
            cycles += load_cycles(kind, self.width) + 1
            cycles += WAIT if access.at.dynamic else 0.0
        if access.guarded:
            cycles += 2.0
        if deps & self.looped:
            group.slots += cycles * repeat
        else:
            group.epilogue += cycles * repeat

    def _stores_meet(self, access: Access) -> bool:
        """Whether lanes are stored to pages of their own, more of them in one set of the first
        cache than it holds: a line is gone before the next vectors fill it."""
        steps = {p.dim: abs(access.stride(p.dim)) * access.bits // 8 for p in self.lanes}
        rows = (self.facts.extents[d] * math.gcd(step, PAGE) for d, step in steps.items())
        return min(steps.values()) >= PAGE and max(rows) >= self.target.l1

    def _latency(self) -> tuple[float, bool]:
        code = self.facts.nest.code
        each = float(self.target.fma_latency)
        carries = [r for r, i in enumerate(code) if isinstance(i, Carry)]
        if carries:
            return each * max(self._chain(r) for r in carries), True
        folds = [i for i in code if isinstance(i, Fold) and frozenset(i.dims) & self.looped]
        if not folds:
            return 0.0, False
        depth = max(
            1 if f.combine.fn else sum(isinstance(i, Apply) for i in f.combine.code) for f in folds
        )
        return each * depth, not all(f.combine.commutative for f in folds)

    def _chain(self, carry: int) -> float:
        """Operations on the longest path from a carry to its own next value."""
        code = self.facts.nest.code
        instr = code[carry]
        if not isinstance(instr, Carry):
            return 0.0
        depth: dict[int, float] = {carry: 0.0}
        for ref in range(len(code)):
            if isinstance(code[ref], Carry | Const | Load):
                continue
            below = [depth[a] for a in refs(code[ref]) if a in depth]
            if below:
                fn = code[ref]
                cost = PRIMS[fn.fn].flops if isinstance(fn, Apply) else 1.0
                depth[ref] = max(below) + max(1.0, cost)
        return max(1.0, depth.get(instr.next, 1.0))
