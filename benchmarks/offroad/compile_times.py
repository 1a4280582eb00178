"""Seconds in which both passes of a row are traced and compiled, in this process.

python -m benchmarks.offroad.compile_times 5c [SEED]   ->   {"fwd": 0.041, "grad": 0.122}
"""

from __future__ import annotations

import json
import sys
import time

import summand as sm
from benchmarks.fresh import cold_and_warm

from .peer import Job
from .row import PASSES


def seconds(key: str, seed: int | None) -> dict[str, float]:
    """Of each pass, imports and inputs not counted."""
    found = {}
    case = Job(key, "fwd", seed).case()
    arguments = case.arguments()
    sm.evaluate(sm.zeros({}) + 1.0)  # the thread pool's own code
    for which in PASSES:
        begin = time.perf_counter()
        sm.jit(case.function(which)).compile(*arguments)
        found[which] = time.perf_counter() - begin
    return found


def measure(key: str, seed: int | None) -> tuple[dict[str, float], dict[str, float]]:
    """Cold and warm seconds, each in a fresh process."""
    given = [key] if seed is None else [key, str(seed)]
    cold, warm = cold_and_warm("benchmarks.offroad.compile_times", *given)
    return json.loads(cold), json.loads(warm)


if __name__ == "__main__":
    print(json.dumps(seconds(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else None)))
