"""Cold and warm compile times, each in a fresh process, after its imports."""

from __future__ import annotations

import json
import sys
import time

import summand as sm
from benchmarks.fresh import cold_and_warm
from benchmarks.harness import Timing

from . import demo_step, programs

REPEATS = {"compile_kernel": 5, "compile_demo": 3}


def three(P: sm.Array, W: sm.Array, g: sm.Array) -> tuple[sm.Array, ...]:
    """The capsule convolution and both gradients, one program."""
    out, pullback = sm.vjp(programs.capsules, P, W)
    return out, *pullback(g)


def seconds(key: str) -> float:
    """Trace and compile once, in this process."""
    if key == "compile_kernel":
        inputs = programs.capsule_inputs()
        function, arguments = three, [sm.array(a.values, *a.dims) for a in inputs]
    else:
        function, arguments = demo_step.program()
    begin = time.perf_counter()
    sm.jit(function).compile(*arguments)
    return time.perf_counter() - begin


def measure(key: str) -> tuple[Timing, Timing]:
    """Cold and warm seconds."""
    cold, warm = Timing(), Timing()
    for _ in range(REPEATS[key]):
        first, second = cold_and_warm("benchmarks.core.compile_times", key)
        cold.seconds.append(float(first))
        warm.seconds.append(float(second))
    return cold, warm


if __name__ == "__main__":
    print(json.dumps(seconds(sys.argv[1])))
