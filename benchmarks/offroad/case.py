"""A row at given sizes and storage orders: its arrays, what Summand runs, and how right that is.

The gradient is checked without anybody's differentiation: along a random direction v of each
input, ⟨gradient, v⟩ must be the central difference of the float64 reference's Σ result².
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from optree import tree_leaves

import summand as sm
from summand import compiler
from summand.runtime.executable import Executable

from .row import Input, Pass, Row, Sizes, Work

PIECE = 1 << 20
DIRECTIONS = (1, 77)  # seed of the directions: like no input's, for one may be orthogonal to those
STEP = 1e-8  # of a central difference, relative to the input: small, for kinks are seldom met


class Runner:
    """A compiled pass of a case: called, it runs to its end."""

    def __init__(self, case: Case, which: Pass) -> None:
        self.dims = case.result_dims(which)
        self.arguments = case.arguments()
        self.compiled = sm.jit(case.function(which))
        self.peak_bytes = self.compiled.peak_bytes(*self.arguments)
        self._executable: Executable | None = None
        if case.seed is not None:
            self._shuffle(np.random.default_rng(case.seed))

    def __call__(self) -> None:
        if self._executable is None:
            sm.evaluate(self.compiled(*self.arguments))
        else:
            self._executable.run(self._buffers)

    def results(self) -> list[np.ndarray]:
        """The result; for the gradient its value, and gradients with the axes of their inputs."""
        if self._executable is None:
            leaves = tree_leaves(self.compiled(*self.arguments))
            return [leaf.numpy(*dims) for leaf, dims in zip(leaves, self.dims, strict=True)]
        made = self._executable.run(self._buffers)
        orders = [port.dims for port in self._executable.artifact.results]
        return [
            array.transpose([order.index(d.name) for d in dims])
            for array, order, dims in zip(made, orders, self.dims)
        ]

    def _shuffle(self, rng: np.random.Generator) -> None:
        """Ask for the results in orders that nobody chose."""
        request, self._buffers = self.compiled.request(*self.arguments)
        program = request.program
        spelled = [{d.name for d in dims} for dims in self.dims]
        if spelled == [set(r.type.names) for r in program.results]:  # no dim had to be renamed
            orders = [tuple(map(str, rng.permutation(sorted(names)))) for names in spelled]
            self._executable = compiler.compile(program, request.param_order, orders)


@dataclass(frozen=True)
class Case:
    """A row with its arrays.

    `orders`: for each input, its axes as they lie in memory. `seed`: of orders of the results, or
    None where they are the compiler's choice.
    """

    row: Row
    sizes: Sizes
    inputs: tuple[Input, ...]
    orders: tuple[tuple[int, ...], ...]
    seed: int | None = None

    def runner(self, which: Pass) -> Runner:
        """What is measured."""
        return Runner(self, which)

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

    def result_dims(self, which: Pass) -> list[tuple[sm.Dim, ...]]:
        """The natural order of each result's dims; a gradient's is that of its input."""
        if which == "fwd":
            return [self.row.result]
        return [(), *(self.inputs[i].dims for i in self.differentiated())]

    def work(self, which: Pass, written: int) -> Work:
        """What a pass cannot do without, bytes filled in; `written`: those of its results."""
        work = self.row.work(self.sizes)[which == "grad"]
        if work.bytes is not None:
            return work
        return replace(work, bytes=sum(a.values.nbytes for a in self.inputs) + written)

    @cached_property
    def expected(self) -> np.ndarray:
        """The result in float64."""
        return self._reference([_wide(a.values) for a in self.inputs])

    def _reference(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(self.row.reference(self.sizes, *inputs))

    def forward_error(self, result: np.ndarray) -> float:
        """The largest difference from the reference, relative to the reference's largest value."""
        expected = self.expected
        if result.shape != expected.shape:
            raise ValueError(f"row {self.row.key}: result {result.shape}, not {expected.shape}")
        both = np.isfinite(expected)
        if not np.array_equal(both, np.isfinite(result)):
            return math.inf
        difference = np.abs(result[both] - expected[both]).max(initial=0.0)
        return float(difference / max(np.abs(expected[both]).max(initial=0.0), 1e-30))

    def gradient_error(self, gradients: Sequence[np.ndarray]) -> float:
        """The largest |⟨gradient, v⟩ − difference along v| / ‖gradient‖, over the inputs."""
        worst = 0.0
        for gradient, (v, slope) in zip(gradients, self.slopes, strict=True):
            error = abs(_dot(gradient, v) - slope) / max(_dot(gradient, gradient) ** 0.5, 1e-30)
            worst = max(worst, error) if error == error else math.inf
        return worst

    @cached_property
    def slopes(self) -> list[tuple[np.ndarray, float]]:
        """A random direction for each differentiated input, and Σ result² along it."""
        rng = np.random.default_rng(DIRECTIONS)
        found = []
        for place in self.differentiated():
            own = self.inputs[place].values
            v = rng.standard_normal(own.shape, dtype=np.float32)
            step = STEP * max(float(np.abs(own).mean()), 1e-6)
            ends = [self._reference_moved(place, s * v.astype(np.float64)) for s in (step, -step)]
            found.append((v, float((ends[0] ** 2 - ends[1] ** 2).sum() / (2 * step))))
        return found

    def _reference_moved(self, place: int, by: np.ndarray) -> np.ndarray:
        by += self.inputs[place].values
        inputs = [by if i == place else _wide(a.values) for i, a in enumerate(self.inputs)]
        return self._reference(inputs)

    def forget(self) -> None:
        """Drop the reference's values, which may be large."""
        for name in ("expected", "slopes"):
            self.__dict__.pop(name, None)


def make(row: Row, sizes: Sizes | None = None, orders: int | None = None, seed: int = 0) -> Case:
    """A row's arrays; `orders` is the seed of random storage orders, None for the natural."""
    chosen = dict(row.sizes if sizes is None else sizes)
    inputs = row.inputs(chosen, np.random.default_rng(seed))
    places = [tuple(range(a.values.ndim)) for a in inputs]
    if orders is not None:
        rng = np.random.default_rng(orders)
        places = [tuple(int(axis) for axis in rng.permutation(len(p))) for p in places]
    return Case(row, chosen, inputs, tuple(places), orders)


def _stored(values: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    return np.ascontiguousarray(values.transpose(order)).transpose(np.argsort(order))


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """⟨a, b⟩ in float64, without a copy of either as large as they are."""
    flat = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1)
    pieces = (flat[0][at : at + PIECE].astype(np.float64) for at in range(0, a.size, PIECE))
    return sum(
        float(piece @ flat[1][at : at + PIECE].astype(np.float64))
        for at, piece in zip(range(0, a.size, PIECE), pieces)
    )


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64) if values.dtype.kind == "f" else values
