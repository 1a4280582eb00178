"""Cold and warm compile times, each in a fresh process: cold with an empty cache folder, warm with
the folder that the cold process left. Imports are done before the clock starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

import summand as sm
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
        with tempfile.TemporaryDirectory() as folder:
            cold.seconds.append(_process(key, folder))
            warm.seconds.append(_process(key, folder))
    return cold, warm


def _process(key: str, folder: str) -> float:
    command = [sys.executable, "-m", "benchmarks.core.compile_times", key]
    environment = {**os.environ, "SUMMAND_CACHE_DIR": folder}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    print(json.dumps(seconds(sys.argv[1])))
