"""Timing that holds on a shared, noisy machine: runtimes take turns, its limits beside each turn.

    timings = take_turns({"summand": here(ours), "torch": here(theirs)}, limit=fma_peak)
    timings["summand"].median             seconds
    timings["summand"].fraction(2e9)      of the limit, for so many operations a run

A turn runs one contestant a few times after a pause (idle threads of one runtime spin into
another's time) and measures the FMA peak or the copy bandwidth before and after. A turn in which
the machine was slow (a virtual machine's cores may share a real one for a while) is done again;
where no turn found it at its usual speed, the timing says that it was disturbed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from summand.runtime import measure

Thunk = Callable[[], object]
Contestant = Callable[[float], tuple[float, ...]]  # runs for so long; the seconds of each run
Limit = Callable[[], float]

PAUSE = 0.25  # seconds between runtimes: longer than any of them spins
STEADY = 0.9  # of the best limit seen: below it the machine was slow
ATTEMPTS = 4  # turns until one finds the machine at its usual speed
MOST_RUNS = 50


@dataclass(slots=True)
class Timing:
    """Seconds of each run, and the limit measured beside it."""

    seconds: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    disturbed: bool = False

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    @property
    def limit(self) -> float:
        """The median limit."""
        return statistics.median(self.limits)

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        if len(self.seconds) < 4:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median

    def fraction(self, work: float) -> float:
        """Work a second, over the limit beside it (in 1e9 a second): the median of all runs."""
        pairs = zip(self.seconds, self.limits, strict=True)
        return statistics.median(work / s / 1e9 / limit for s, limit in pairs)

    def record(self) -> dict[str, float]:
        """As written to JSON, in milliseconds."""
        return {
            "median_ms": self.median * 1e3,
            "min_ms": min(self.seconds) * 1e3,
            "spread": self.spread,
            "runs": len(self.seconds),
            "disturbed": self.disturbed,
        }


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds of runs of one contestant, and the limits before and after."""

    seconds: tuple[float, ...]
    before: float
    after: float

    def steady(self, best: float) -> bool:
        """Whether the machine ran at its usual speed throughout."""
        return min(self.before, self.after) >= STEADY * best


def fma_peak() -> float:
    """GFLOP/s, measured briefly."""
    return measure.fma_peak(seconds=0.04)


def copy_bandwidth() -> float:
    """GB/s, measured briefly."""
    return measure.copy_bandwidth(repeats=3)


def once(run: Thunk) -> float:
    """Seconds of one run."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def here(run: Thunk) -> Contestant:
    """A contestant of this process: 2 to 50 runs (or a slow one), after one that is not counted."""

    def runs(budget: float) -> tuple[float, ...]:
        first = once(run)  # wakes the threads
        count = max(2 if first < budget else 1, min(MOST_RUNS, int(budget / max(first, 1e-6))))
        return tuple(once(run) for _ in range(count))

    return runs


def take_turns(
    contestants: dict[str, Contestant],
    limit: Limit = fma_peak,
    rounds: int = 5,
    budget: float = 0.4,
) -> dict[str, Timing]:
    """Time all contestants in turns, `limit` beside each; `budget`: seconds of one turn."""
    turns: dict[str, list[Turn]] = {name: [] for name in contestants}
    for run in contestants.values():
        run(0.0)  # compile, allocate
    best = 0.0
    for _ in range(rounds):
        for name, run in contestants.items():
            for _ in range(ATTEMPTS):
                turn = _take(run, limit, budget)
                best = max(best, turn.before, turn.after)
                if turn.steady(best) or sum(turn.seconds) > budget:  # too slow to do it again
                    break
            turns[name].append(turn)
    return {name: _timing(found, best) for name, found in turns.items()}


def _take(run: Contestant, limit: Limit, budget: float) -> Turn:
    time.sleep(PAUSE)
    before = limit()
    seconds = run(budget)
    time.sleep(PAUSE)
    return Turn(seconds, before, limit())


def _timing(turns: list[Turn], best: float) -> Timing:
    """All runs of the steady turns; of all turns where there is no steady one."""
    steady = [t for t in turns if t.steady(best)]
    timing = Timing(disturbed=not steady)
    for turn in steady or turns:
        timing.seconds += turn.seconds
        timing.limits += [(turn.before + turn.after) / 2] * len(turn.seconds)
    return timing
