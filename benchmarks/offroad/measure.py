"""Measure one row and pass: times in turns with the peers, bound, memory, compile time, error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.harness import Contestant, Timing, copy_bandwidth, fma_peak, here, take_turns
from benchmarks.processes import ProcessError, guarded

from .case import Case
from .peer import SHOWN, Job, PeerProcess
from .row import Pass, Work

WRONG = 100.0  # times the row's tolerance: a peer that is so far off computes something else


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machine can do: GFLOP/s and GB/s."""

    peak: float
    bandwidth: float

    def in_memory(self, work: Work) -> bool:
        """Whether traffic bounds some work, and not arithmetic."""
        return (work.bytes or 0.0) / self.bandwidth > 2 * work.slots / self.peak


@dataclass(slots=True)
class Measured:
    """A row and pass. Times in seconds."""

    case: Case
    which: Pass
    ours: Timing
    work: Work
    fraction: float
    peak_bytes: int
    error: float
    compile_cold: float = math.nan
    compile_warm: float = math.nan
    peers: dict[str, Timing] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    peer_error: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> tuple[str, float] | None:
        """The fastest peer that computes the row, and its median."""
        bar = WRONG * self.case.row.tolerance
        medians = {
            name: t.median for name, t in self.peers.items() if self.peer_error.get(name, 0.0) < bar
        }
        return min(medians.items(), key=lambda item: item[1], default=None)

    @property
    def ratio(self) -> float:
        """Best peer's time over ours; NaN without a peer."""
        return self.best[1] / self.ours.median if self.best else math.nan

    @property
    def bound(self) -> float:
        """Seconds of the roofline, as measured beside our runs."""
        return self.ours.median * self.fraction

    @property
    def right(self) -> bool:
        """Whether the error is within the row's tolerance."""
        return self.error <= self.case.row.tolerance

    def record(self) -> dict[str, object]:
        """As written to JSON."""
        peers: dict[str, object] = {name: {"failed": why} for name, why in self.failed.items()}
        for name, timing in self.peers.items():
            extra = {"first": self.first[name], "error": self.peer_error.get(name)}
            peers[name] = _times(timing) | extra
        return {
            "row": self.case.row.key,
            "pass": self.which,
            "title": self.case.row.title,
            "sizes": dict(self.case.sizes),
            "ours": _times(self.ours),
            "peers": peers,
            "ratio": _plain(self.ratio),
            "bound": self.bound,
            "fraction": self.fraction,
            "bar": self.case.row.fraction[self.which == "grad"],
            "compile_cold": _plain(self.compile_cold),
            "compile_warm": _plain(self.compile_warm),
            "peak_bytes": self.peak_bytes,
            "error": self.error,
        }


def _times(timing: Timing) -> dict[str, object]:
    return {
        "median": timing.median,
        "min": min(timing.seconds),
        "spread": timing.spread,
        "runs": len(timing.seconds),
        "disturbed": timing.disturbed,
    }


def _plain(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def measure(
    case: Case, job: Job, peers: Mapping[str, PeerProcess], limits: Limits, rounds: int
) -> Measured:
    """One row and pass."""
    run = case.runner(job.which)
    results = run.results()
    error = _error(case, job.which, results)
    written = sum(_held(a) for a in results)
    work = case.work(job.which, written)
    if sum(a.nbytes for a in results) > SHOWN:  # peers' results are not seen
        case.forget()
    in_memory = limits.in_memory(work)
    contestants: dict[str, Contestant] = {"summand": here(run)}
    first, wrong, failed = {}, {}, {}
    for name, peer in peers.items():
        try:
            first[name], arrays = peer.start(job)
            peer.runs(0.0)
        except ProcessError as failure:
            failed[name] = str(failure)
            continue
        contestants[name] = guarded(peer, failed)
        if arrays:
            wrong[name] = _error(case, job.which, arrays)
    limit = copy_bandwidth if in_memory else fma_peak
    timings = take_turns(contestants, limit, rounds)
    ours = timings.pop("summand")
    fraction = ours.fraction(work.bytes or 0.0) if in_memory else ours.fraction(2 * work.slots)
    return Measured(
        case,
        job.which,
        ours,
        work,
        fraction,
        run.peak_bytes,
        error,
        peers={name: t for name, t in timings.items() if name not in failed},
        first=first,
        peer_error=wrong,
        failed=failed,
    )


def _held(array: np.ndarray) -> int:
    """Bytes of memory behind an array: a view with stride zero shows one element many times."""
    moved = (n for n, step in zip(array.shape, array.strides, strict=True) if step)
    return array.itemsize * math.prod(moved)


def _error(case: Case, which: Pass, results: Sequence[np.ndarray]) -> float:
    """Of the result, or of the gradients (the value is in front of them)."""
    if which == "fwd":
        return case.forward_error(results[0])
    return case.gradient_error(results[1:])
