"""Measure each kernel of a compiled function inside whole runs of it.

    profile(f, (x, w))  ->  Profile(kernels=(KernelTime("k0_reduce", seconds=4.1e-3, …), …), …)

The program runs as always, in one native call; a clock is read before and after each launch. So the
caches are as warm or cold as they are in real runs. What kernels have in common with the machine's
ceilings is measured just before: see `runtime/measure`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from summand import compiler
from summand.api import Jit, jit
from summand.assemble import launched, rounds
from summand.loops.nodes import Kernel, Module
from summand.runtime import measure
from summand.runtime.executable import Executable
from summand.schedule.outcome import predict

LEAST_SECONDS = 0.3  # of measuring; and at least so many runs:
LEAST_RUNS = 5


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One kernel of a program. Seconds, flops and bytes are those of all its launches in one run.

    `flops` counts operations of the FMA pipe, fused ones twice; `bytes` what is read and written
    in global memory. `seconds` is the median over runs, `predicted` the cost model's; `bound` is
    the least that arithmetic and memory allow.
    """

    name: str
    note: str
    launches: int
    seconds: float
    flops: float
    bytes: int
    predicted: float
    bound: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Kernels in the order of their first launch, and the machine's ceilings.

    `peak_flops` and `bandwidth` are in flops and bytes a second; `seconds` is the median of a run.
    """

    kernels: tuple[KernelTime, ...]
    seconds: float
    peak_flops: float
    bandwidth: float


def profile(function: Callable[..., object], arguments: Sequence[object]) -> Profile:
    """Run a function on arguments until the time of each kernel is known."""
    compiled = function if isinstance(function, Jit) else jit(function)
    request, inputs = compiled.request(*arguments)
    module = compiler.lowered(request, compiler.Log())
    executable = compiler.compile(
        request.program, request.param_order, request.result_order, request.options
    )
    return profile_module(module, request, executable, inputs)


def profile_module(
    module: Module,
    request: compiler.Request,
    executable: Executable,
    inputs: Sequence[np.ndarray],
) -> Profile:
    """The same for a program that is lowered already."""
    peak = measure.fma_peak() * 1e9
    bandwidth = measure.copy_bandwidth() * 1e9
    runs, walls = _runs(executable, inputs)
    order = [step.kernel for step in launched(module.steps)]
    parts = rounds(module.steps)
    kernels = []
    for number in dict.fromkeys(order):
        own = [k for k, kernel in enumerate(order) if kernel == number]
        counts = runs[0]
        launches = sum(counts[k].count for k in own)
        if not launches:
            continue  # in a branch that was not taken
        seconds = statistics.median(sum(run[k].seconds for k in own) for run in runs)
        kernel = module.kernels[number]
        whole = launches // parts.get(number, 1)
        kernels.append(_row(kernel, request, launches, whole, seconds, peak, bandwidth))
    return Profile(tuple(kernels), statistics.median(walls), peak, bandwidth)


def _row(
    kernel: Kernel,
    request: compiler.Request,
    launches: int,
    whole: int,
    seconds: float,
    peak: float,
    bandwidth: float,
) -> KernelTime:
    """What a kernel did in so many launches, which ran its `whole` grid that often."""
    found = predict(kernel, request.target)
    hertz = cycles_per_second(request, peak)
    cores = max(1, min(found.tasks, request.target.threads))
    return KernelTime(
        name=kernel.name,
        note=kernel.note,
        launches=launches,
        seconds=seconds,
        flops=whole * found.flops,
        bytes=whole * found.bytes,
        predicted=whole * found.cycles / cores / hertz,
        bound=whole * max(found.pipe / request.target.threads / hertz, found.bytes / bandwidth),
    )


def cycles_per_second(request: compiler.Request, peak: float) -> float:
    """The clock of one core under load, from the peak that was measured."""
    target = request.target
    return peak / (2 * target.lanes(32) * target.fma_per_cycle * target.threads)


@dataclass(frozen=True, slots=True)
class _Launch:
    count: int
    seconds: float


def _runs(
    executable: Executable, inputs: Sequence[np.ndarray]
) -> tuple[list[list[_Launch]], list[float]]:
    """Timed runs: for each, all launches; and the seconds of each run as a caller sees it."""
    executable.run(inputs)
    tick = executable.pool.seconds_of_a_tick()
    runs: list[list[_Launch]] = []
    walls: list[float] = []
    began = time.perf_counter()
    while len(runs) < LEAST_RUNS or time.perf_counter() - began < LEAST_SECONDS:
        start = time.perf_counter()
        _, ticks = executable.run_timed(inputs)
        walls.append(time.perf_counter() - start)
        runs.append([_Launch(count, spent * tick) for count, spent in ticks])
    return runs, walls
