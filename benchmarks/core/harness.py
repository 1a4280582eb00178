"""Timing that holds on a shared, noisy machine: runtimes take turns, its limits in between.

Each round runs every contestant a few times after a pause (idle threads of one runtime spin into
another's time), and measures the FMA peak or the copy bandwidth right beside. Medians and spread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Thunk = Callable[[], object]
PAUSE = 0.25  # seconds between runtimes: longer than any of them spins


@dataclass(slots=True)
class Timing:
    """Seconds of each run."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        if len(self.seconds) < 4:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / self.median

    def record(self) -> dict[str, float]:
        """As written to JSON, in milliseconds."""
        return {
            "median_ms": self.median * 1e3,
            "min_ms": min(self.seconds) * 1e3,
            "spread": self.spread,
            "runs": len(self.seconds),
        }


def once(run: Thunk) -> float:
    """Seconds of one run."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def take_turns(
    contestants: dict[str, Thunk], limit: Callable[[], float], rounds: int = 5, budget: float = 0.4
) -> tuple[dict[str, Timing], list[float]]:
    """Time all contestants in turns; `limit` measures the machine at the start of each round.

    `budget`: seconds for each contestant and round (at least 2 runs, at most 50).
    """
    timings = {name: Timing() for name in contestants}
    limits = []
    for run in contestants.values():
        run()  # compile, allocate
    for _ in range(rounds):
        limits.append(limit())
        for name, run in contestants.items():
            time.sleep(PAUSE)
            first = once(run)  # wakes the threads; not counted
            count = max(2, min(50, int(budget / max(first, 1e-6))))
            timings[name].seconds += [once(run) for _ in range(count)]
    return timings, limits
