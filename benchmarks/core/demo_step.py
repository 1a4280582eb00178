"""The demo's training step against the same network in PyTorch and JAX."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from examples.digits import capsules as net
from examples.digits import report, train

from benchmarks.harness import Contestant, Timing, here, take_turns

MARGIN, RATE = 0.5, 1e-3


def batch() -> tuple[train.Run, np.ndarray, np.ndarray]:
    """Initial weights and one batch."""
    run, data = train.fresh(0), train.load_data(0)
    index = train.batches(data, 0, 0, 1)[0]
    return run, data.train_x[index], data.train_y[index]


def program() -> tuple[Callable[..., object], tuple[object, ...]]:
    """The step and the arguments that it is compiled for."""
    run, image, target = batch()
    return net.step, train.Trainer(run).arguments(image, target, MARGIN, RATE)


def survives(name: str) -> bool:
    """Whether a peer gets through a few steps in a process of its own.

    torch.compile 2.13 crashes in the backward pass that it makes of this network on some machines;
    that must not end the benchmark.
    """
    command = [sys.executable, "-m", "benchmarks.core.demo_step", name]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        print(f"demo_step: {name} fails on this machine (exit status {done.returncode}); left out")
    return done.returncode == 0


def try_peer(name: str) -> None:
    """A few steps of one peer."""
    run, image, target = batch()
    runner = report.peer(name, run.weights)
    for _ in range(20):
        runner.step(image, target.astype(np.int64), MARGIN, RATE)


def measure(rounds: int) -> dict[str, Timing]:
    """Step times of every installed system, and the FMA peak beside them."""
    run, image, target = batch()
    runners: dict[str, report.Peer] = {"summand": train.Trainer(run)}
    for name, package in (("torch", "torch"), ("compile", "torch"), ("jax", "jax")):
        if find_spec(package) and survives(name):
            runners[name] = report.peer(name, run.weights)
    wide = target.astype(np.int64)

    def contestant(name: str, runner: report.Peer) -> Contestant:
        label = target if name == "summand" else wide
        return here(lambda: runner.step(image, label, MARGIN, RATE))

    contestants = {name: contestant(name, runner) for name, runner in runners.items()}
    return take_turns(contestants, rounds=rounds, budget=1.5)


if __name__ == "__main__":
    try_peer(sys.argv[1])
