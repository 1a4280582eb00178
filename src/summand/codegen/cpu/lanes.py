"""Lanes: which points of which dims one vector holds, and moving values from lane to lane.

    Lanes.of(((co, 4), (j, 4)))     lane l holds co + l//4, j + l%4
    transpose        V vectors of V lanes: element (i, j) -> (j, i)
    fold_lanes       fold over some of the lanes of a vector
    merge            V vectors, each to be folded to one number -> one vector of the V results

A fold of V vectors merged takes V - 1 combines and 2 V - 2 shuffles, against V log V of each when
every vector is folded alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from summand.codegen.cpu.text import Function, Value, poison
from summand.errors import InternalError
from summand.loops.nodes import Piece

Combiner = Callable[[list[Value], list[Value], int], list[Value]]  # left, right, lanes


@dataclass(frozen=True, slots=True)
class Lanes:
    """`count` lanes; `volume`: how many steps of each dim; `offsets`: each lane's place on it."""

    count: int
    volume: Mapping[str, int]
    offsets: Mapping[str, tuple[int, ...]]

    @staticmethod
    def of(pieces: Sequence[Piece]) -> Lanes:
        """Lanes of pieces listed outer first."""
        count = 1
        for piece in pieces:
            count *= piece.count
        volume: dict[str, int] = {}
        offsets: dict[str, list[int]] = {}
        seen = 1
        for piece in reversed(pieces):
            base = volume.get(piece.dim, 1)
            along = offsets.setdefault(piece.dim, [0] * count)
            for lane in range(count):
                along[lane] += lane // seen % piece.count * base
            seen *= piece.count
            volume[piece.dim] = base * piece.count
        if count & (count - 1):
            raise InternalError(f"codegen: {count} lanes are not a power of two")
        return Lanes(count, volume, {d: tuple(v) for d, v in offsets.items()})

    def bits(self, dims: frozenset[str]) -> tuple[int, ...]:
        """Distances between lanes that differ along `dims` only, as powers of two."""
        found = []
        bit = 1
        while bit < self.count:
            moved = {d for d, along in self.offsets.items() if along[bit] != along[0]}
            if moved <= dims:
                found.append(bit)
            bit *= 2
        return tuple(found)

    def alike(self, dims: frozenset[str]) -> int:
        """How many lanes after one another lie at one place along `dims`."""
        bit = 1
        while bit < self.count and not any(
            self.offsets[d][bit] != self.offsets[d][0] for d in dims & self.offsets.keys()
        ):
            bit *= 2
        return bit


# ---- moving values between lanes


@cache
def _exchange(lanes: int, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Picks of one step of a transpose for vectors `step` apart."""
    low = tuple(k if not k & step else lanes + k - step for k in range(lanes))
    high = tuple(k + step if not k & step else lanes + k for k in range(lanes))
    return low, high


def transpose(fn: Function, rows: Sequence[Value]) -> list[Value]:
    """V vectors of V lanes, transposed in V log V shuffles."""
    rows = list(rows)
    lanes = len(rows)
    step = 1
    while step < lanes:
        low, high = _exchange(lanes, step)
        for k in range(lanes):
            if not k & step:
                a, b = rows[k], rows[k | step]
                rows[k], rows[k | step] = fn.shuffle(a, b, low), fn.shuffle(a, b, high)
        step *= 2
    return rows


def fold_lanes(
    fn: Function,
    parts: list[Value],
    lanes: int,
    bits: Sequence[int],
    combine: Combiner,
) -> list[Value]:
    """Fold the lanes that are `bits` apart; all of them hold the result (one lane: a scalar)."""
    if not bits:
        return parts
    if 1 << len(bits) < lanes:
        for bit in bits:
            picks = [k ^ bit for k in range(lanes)]
            parts = combine(parts, [fn.shuffle(v, None, picks) for v in parts], lanes)
        return parts
    while lanes > 1:
        half = lanes // 2
        low = [fn.shuffle(v, None, range(half)) for v in parts]
        high = [fn.shuffle(v, None, range(half, lanes)) for v in parts]
        if half == 1:
            low = [fn.extract(v, 0) for v in parts]
            high = [fn.extract(v, 1) for v in parts]
        parts = combine(low, high, half)
        lanes = half
    return parts


def merge(
    fn: Function, rows: Sequence[list[Value] | None], identity: list[Value], combine: Combiner
) -> list[Value]:
    """Lane l of the result is row l folded over all its lanes. Rows that are None do not matter."""
    lanes = len(rows)
    rows = list(rows)
    step = 1
    while step < lanes:
        straight = [k if not k & step else lanes + k for k in range(lanes)]
        crossed = [k ^ step if not k & step else lanes + (k ^ step) for k in range(lanes)]
        for k in range(0, lanes, 2 * step):
            a, b = rows[k], rows[k + step]
            if a is None and b is None:
                continue
            left, right = a or identity, b or identity
            same = [fn.shuffle(x, y, straight) for x, y in zip(left, right, strict=True)]
            other = [fn.shuffle(x, y, crossed) for x, y in zip(left, right, strict=True)]
            rows[k] = combine(same, other, lanes)
        step *= 2
    return rows[0] or identity


def gather_lanes(fn: Function, sources: Sequence[tuple[Value, int] | None]) -> Value:
    """A vector whose lane l is the given lane of the given vector; None does not matter."""
    lanes = len(sources)
    known: dict[str, Value] = {}
    for s in sources:
        if s is not None:
            known.setdefault(s[0].name, s[0])
    if not known:
        raise InternalError("codegen: a vector of no lanes at all")
    names = list(known)
    out: Value | None = None
    for name in names:
        value = known[name]
        if out is None:
            picks = [s[1] if s and s[0].name == name else -1 for s in sources]
            out = fn.shuffle(value, None, picks)
            continue
        picks = [
            lanes + s[1] if s and s[0].name == name else (k if s else -1)
            for k, s in enumerate(sources)
        ]
        out = fn.shuffle(out, value, picks)
    return out if out is not None else poison(known[names[0]].type)
