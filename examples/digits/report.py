"""What the demo says at its end: the table, the learning curve, the comparison, the JSON."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

import summand as sm
from summand import compiler, explain
from summand.errors import MissingExtra

matplotlib.use("Agg")
from matplotlib import pyplot

FIRST = 5  # steps whose losses must agree; rounding grows from step to step afterwards
NEEDS = {"torch": ("torch", "torch"), "compile": ("torch", "torch"), "jax": ("jax", "jax jaxlib")}


class Peer(Protocol):
    """A training step of another system, or ours."""

    def step(
        self, image: np.ndarray, target: np.ndarray, margin: float, rate: float
    ) -> float | tuple[float, float]: ...


@dataclass(frozen=True, slots=True)
class Kernel:
    """One row of the kernel table: `rate` in GFLOP/s or GB/s, `fraction` of the measured limit."""

    name: str
    what: str
    share: float
    milliseconds: float
    rate: float
    unit: str
    fraction: float


@dataclass(slots=True)
class Numbers:
    """What a run measured."""

    step_times: list[float] = field(default_factory=list)
    train_seconds: float = 0.0
    test_accuracy: float = 0.0
    compile_cold_seconds: float = 0.0
    compile_warm_seconds: float = 0.0
    first_step_warm_seconds: float = 0.0
    kernels: list[Kernel] = field(default_factory=list)

    @property
    def steps_per_second(self) -> float:
        """By the median step."""
        return 1 / statistics.median(self.step_times) if self.step_times else 0.0


def measure(numbers: Numbers, step: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """Compile times with an empty and with a warm cache, and the time of each kernel."""
    before = os.environ.get("SUMMAND_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SUMMAND_CACHE_DIR"] = folder
        try:
            numbers.compile_cold_seconds = _compile(step, arguments)
            compiler.forget()
            begin = time.perf_counter()
            sm.evaluate(sm.jit(step)(*arguments))
            numbers.first_step_warm_seconds = time.perf_counter() - begin
            numbers.compile_warm_seconds = _compile(step, arguments)
        finally:
            if before is None:
                del os.environ["SUMMAND_CACHE_DIR"]
            else:
                os.environ["SUMMAND_CACHE_DIR"] = before
    profile = explain.profile(sm.jit(step), arguments)
    total = sum(k.seconds for k in profile.kernels)
    costly = sorted(profile.kernels, key=lambda k: -k.seconds)[:5]
    numbers.kernels = [_row(k, total, profile) for k in costly]


def _compile(step: Callable[..., object], arguments: tuple[object, ...]) -> float:
    compiler.forget()  # what this process holds in memory; the folder stays
    begin = time.perf_counter()
    sm.jit(step).compile(*arguments)
    return time.perf_counter() - begin


def _row(kernel: explain.KernelTime, total: float, profile: explain.Profile) -> Kernel:
    of_peak = kernel.flops / kernel.seconds / profile.peak_flops
    of_copy = kernel.bytes / kernel.seconds / profile.bandwidth
    arithmetic = of_peak >= of_copy
    rate = (kernel.flops if arithmetic else kernel.bytes) / kernel.seconds / 1e9
    return Kernel(
        kernel.name,
        _brief(kernel.note),
        kernel.seconds / total,
        kernel.seconds * 1e3,
        rate,
        "GFLOP/s" if arithmetic else "GB/s",
        max(of_peak, of_copy),
    )


def _brief(note: str) -> str:
    """The lines of the program that a kernel computes, without its equations."""
    lines = sorted({part.rsplit(":", 1)[1] for part in note.split("; ") if ":" in part})
    shown = ", ".join(lines[:6]) + (", …" if len(lines) > 6 else "")
    return f"{note.count(';') + 1} equations of lines {shown}"


def show(numbers: Numbers, console: Console) -> None:
    """Print the final tables."""
    summary = Table(title="Training", show_header=False)
    summary.add_row("test accuracy", f"{numbers.test_accuracy:.2%}")
    summary.add_row("training", f"{numbers.train_seconds:.1f} s")
    summary.add_row("steps/s", f"{numbers.steps_per_second:.1f}")
    summary.add_row("compile, cold", f"{numbers.compile_cold_seconds:.2f} s")
    summary.add_row("compile, warm cache", f"{numbers.compile_warm_seconds:.3f} s")
    summary.add_row("first step, warm cache", f"{numbers.first_step_warm_seconds:.3f} s")
    console.print(summary)
    table = Table(title="The five costliest kernels of a step")
    for heading in ("kernel", "computes", "share", "ms", "rate", "of limit"):
        table.add_column(heading)
    for k in numbers.kernels:
        rate = f"{k.rate:.0f} {k.unit}"
        table.add_row(
            k.name, k.what, f"{k.share:.0%}", f"{k.milliseconds:.3f}", rate, f"{k.fraction:.0%}"
        )
    console.print(table)


def draw_curve(curve: list[tuple[int, float, float, float]], path: Path) -> None:
    """Loss and accuracy by step, as PNG. `curve`: (step, loss, batch accuracy, test accuracy)."""
    steps, losses, batch, test = (list(c) for c in zip(*curve, strict=True))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.plot(steps, losses, color="tab:blue")
    left.set(title="Spread loss", xlabel="step", yscale="log")
    right.plot(steps, batch, color="tab:gray", label="batch")
    right.plot(steps, test, color="tab:green", label="held-out test")
    right.axhline(0.97, color="black", linewidth=0.8, linestyle=":")
    right.set(title="Accuracy", xlabel="step", ylim=(0, 1.01))
    right.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def peer(name: str, weights: dict[str, np.ndarray]) -> Peer:
    """The same network in another system; MissingExtra says what to install."""
    module, package = NEEDS[name]
    if find_spec(module) is None:
        raise MissingExtra(f"--compare {name} needs {module}: pip install {package}")
    if name == "jax":
        from .peer_jax import Trainer as JaxTrainer

        return JaxTrainer(weights)
    from .peer_torch import Trainer as TorchTrainer

    return TorchTrainer(weights, compiled=name == "compile")


def compared(
    losses: dict[str, list[float]], times: dict[str, list[float]], console: Console
) -> dict[str, dict[str, float]]:
    """Print and return the ratio of step times, and how far the first losses differ."""
    table = Table(title="The same network, the same batches")
    for heading in (
        "system",
        "ms a step",
        "ratio to ours",
        f"difference in loss, first {FIRST} steps",
    ):
        table.add_column(heading)
    found = {}
    ours = statistics.median(times["summand"][8:])
    for name, seconds in times.items():
        median = statistics.median(seconds[8:])
        apart = max(
            abs(a - b) for a, b in zip(losses[name][:FIRST], losses["summand"], strict=False)
        )
        found[name] = {"step_seconds": median, "ratio": median / ours, "loss_difference": apart}
        table.add_row(name, f"{median * 1e3:.1f}", f"{median / ours:.2f}", f"{apart:.1e}")
    console.print(table)
    return found


def as_json(numbers: Numbers, peers: dict[str, dict[str, float]]) -> dict[str, object]:
    """The numbers as they are written with --json."""
    return {
        "test_accuracy": numbers.test_accuracy,
        "train_seconds": numbers.train_seconds,
        "steps_per_second": numbers.steps_per_second,
        "compile_cold_seconds": numbers.compile_cold_seconds,
        "compile_warm_seconds": numbers.compile_warm_seconds,
        "first_step_warm_seconds": numbers.first_step_warm_seconds,
        "kernels": [asdict(k) for k in numbers.kernels],
        "peers": peers,
    }
