"""The demo's training step, and the same network in PyTorch and JAX."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from examples.digits import capsules as net
from examples.digits import report, train

from benchmarks.harness import Thunk

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


def ours() -> Thunk:
    """One training step after the other."""
    run, image, target = batch()
    trainer = train.Trainer(run)
    return lambda: trainer.step(image, target, MARGIN, RATE)


def peer(name: str) -> Thunk:
    """The same in another system."""
    run, image, target = batch()
    trainer, label = report.peer(name, run.weights), target.astype(np.int64)
    return lambda: trainer.step(image, label, MARGIN, RATE)
