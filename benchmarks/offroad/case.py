"""A row at given sizes and storage orders: its arrays, what Summand runs, and how right that is.

The gradient is checked without anybody's differentiation: along a random direction v of each
input, ⟨gradient, v⟩ must be the central difference of the float64 reference's Σ result².
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

import summand as sm

from .row import Input, Pass, Row, Sizes, Work

STEP = 1e-6  # of a central difference, relative to the size of the input


@dataclass(frozen=True, slots=True)
class Case:
    """A row with its arrays. `orders`: for each input, its axes as they lie in memory."""

    row: Row
    sizes: Sizes
    inputs: tuple[Input, ...]
    orders: tuple[tuple[int, ...], ...]

    def arrays(self) -> list[np.ndarray]:
        """The inputs with their natural axes, strided where they lie in another order."""
        return [_stored(a.values, order) for a, order in zip(self.inputs, self.orders)]

    def arguments(self) -> list[sm.Array]:
        """The inputs as Summand arrays."""
        return [
            sm.array(np.ascontiguousarray(a.values.transpose(o)), *(a.dims[axis] for axis in o))
            for a, o in zip(self.inputs, self.orders)
        ]

    def differentiated(self) -> tuple[int, ...]:
        """Which inputs get a gradient."""
        return tuple(i for i, a in enumerate(self.inputs) if a.differentiated)

    def function(self, which: Pass) -> Callable[..., object]:
        """What Summand compiles for a pass."""
        row, sizes = self.row, self.sizes
        if which == "fwd":
            return lambda *arrays: row.program(sizes, *arrays)

        def loss(*arrays: sm.Array) -> sm.Array:
            return sm.sum[row.result](row.program(sizes, *arrays) ** 2)

        return sm.value_and_grad(loss, argnums=self.differentiated())

    def natural(self, gradients: Sequence[sm.Array]) -> list[np.ndarray]:
        """The gradients with the axes of their inputs."""
        dims = [self.inputs[i].dims for i in self.differentiated()]
        return [g.numpy(*d) for g, d in zip(gradients, dims, strict=True)]

    def work(self, which: Pass, written: int) -> Work:
        """What a pass cannot do without, bytes filled in; `written`: those of its results."""
        work = self.row.work(self.sizes)[which == "grad"]
        if work.bytes is not None:
            return work
        return replace(work, bytes=sum(a.values.nbytes for a in self.inputs) + written)

    def reference(self, inputs: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """The result in float64 (of other inputs in place of the case's own)."""
        given = [a.values for a in self.inputs] if inputs is None else inputs
        return np.asarray(self.row.reference(self.sizes, *map(_wide, given)))

    def forward_error(self, result: np.ndarray) -> float:
        """The largest difference from the reference, relative to the reference's largest value."""
        expected = self.reference()
        if result.shape != expected.shape:
            raise ValueError(f"row {self.row.key}: result {result.shape}, not {expected.shape}")
        both = np.isfinite(expected)
        if not np.array_equal(both, np.isfinite(result)):
            return math.inf
        difference = np.abs(result[both] - expected[both]).max(initial=0.0)
        return float(difference / max(np.abs(expected[both]).max(initial=0.0), 1e-30))

    def gradient_error(self, gradients: Sequence[np.ndarray], directions: int = 1) -> float:
        """The largest |⟨gradient, v⟩ − difference along v| / ‖gradient‖, over the inputs."""
        rng = np.random.default_rng(1)
        worst = 0.0
        for place, gradient in zip(self.differentiated(), gradients, strict=True):
            wide = gradient.astype(np.float64)
            size = max(float(np.linalg.norm(wide)), 1e-30)
            for _ in range(directions):
                v = rng.standard_normal(wide.shape)
                slope = self._slope(place, v)
                error = abs(float((wide * v).sum()) - slope) / size
                worst = max(worst, error) if error == error else math.inf
        return worst

    def _slope(self, place: int, v: np.ndarray) -> float:
        """The reference's Σ result² differentiated along v, at one input."""
        inputs = [_wide(a.values) for a in self.inputs]
        step = STEP * max(float(np.abs(inputs[place]).mean()), 1e-6)
        sums = []
        for sign in (1.0, -1.0):
            moved = [*inputs[:place], inputs[place] + sign * step * v, *inputs[place + 1 :]]
            sums.append(self.reference(moved) ** 2)
        return float((sums[0] - sums[1]).sum() / (2 * step))


def make(row: Row, sizes: Sizes | None = None, orders: int | None = None, seed: int = 0) -> Case:
    """A row's arrays; `orders` is the seed of a random storage order for each input."""
    chosen = dict(row.sizes if sizes is None else sizes)
    inputs = row.inputs(chosen, np.random.default_rng(seed))
    places = [tuple(range(a.values.ndim)) for a in inputs]
    if orders is not None:
        rng = np.random.default_rng(orders)
        places = [tuple(int(axis) for axis in rng.permutation(len(p))) for p in places]
    return Case(row, chosen, inputs, tuple(places))


def _stored(values: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    return np.ascontiguousarray(values.transpose(order)).transpose(np.argsort(order))


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) if values.dtype.kind == "f" else values
