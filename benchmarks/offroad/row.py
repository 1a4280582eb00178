"""What a row of the suite is: the mathematics once as index notation, once as its float64
reference, and once as the best known formulation for each peer.

    ROWS = (Row("6", "Max-plus product", extents(i=512, k=512, j=512), inputs, program, …),)

Everything takes the sizes, so that they can be changed: `--perturb` and the tests do. A function
of a row has the row's inputs as arguments, in their order: as `sm.Array` in `program`, as float64
arrays (integers stay) in `reference`, as the peer's own arrays in what `torch` and `jax` return.
`torch`, `compile` and `jax` are given the peer's module, since rows are read where it may be
absent: they return a function of the arrays, and may prepare index tables before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import numpy as np

import summand as sm

Pass = Literal["fwd", "grad"]  # the result; value and gradient of Σ result² by every float input
PASSES: tuple[Pass, ...] = ("fwd", "grad")
Sizes = Mapping[str, int]
Formulation = Callable[[ModuleType, Sizes], Callable[..., object]]

CONTRACTION = (0.85, 0.75)  # of the FMA peak, forward and gradient
MEMORY = (0.8, 0.8)  # of the copy bandwidth
OWN = (0.5, 0.5)  # of the row's own bound


@dataclass(frozen=True, slots=True)
class Input:
    """An array, and the dims of its axes. Its natural storage order is that of its axes.

    `gradient`: whether the gradient pass wants its cotangent (never of integers).
    """

    values: np.ndarray
    dims: tuple[sm.Dim, ...]
    gradient: bool = True

    @property
    def differentiated(self) -> bool:
        """Whether the gradient pass differentiates by it."""
        return self.gradient and self.values.dtype.kind == "f"


@dataclass(frozen=True, slots=True)
class Work:
    """What a pass cannot do without.

    `slots`: vector operations on one element that need the FMA pipe: a multiply-add, add, multiply,
    maximum or comparison is 1, exp 9, log 12, tanh 12, a division or square root 4. `bytes`: memory
    traffic; None: every input read once and the result written once; for the gradient, every
    input read once and every cotangent written once.
    """

    slots: float
    bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel of the suite."""

    key: str  # "5c"
    title: str
    sizes: Sizes  # as the issue of the row lists them
    inputs: Callable[[Sizes, np.random.Generator], tuple[Input, ...]]
    program: Callable[..., sm.Array]  # (sizes, *arrays) -> the result
    result: tuple[sm.Dim, ...]  # its dims, in the order in which the reference and peers have them
    reference: Callable[..., np.ndarray]  # (sizes, *arrays in float64) -> the result
    work: Callable[[Sizes], tuple[Work, Work]]  # forward; value and gradient
    torch: Formulation
    jax: Formulation
    tiny: Sizes  # for tests
    compile: Formulation | None = None  # for torch.compile, where another than `torch` is best
    batch: tuple[str, ...] = ()  # sizes that may become 1
    fixed: tuple[str, ...] = ()  # sizes that `--perturb` must leave alone
    tolerance: float = 1e-4  # of the error relative to the reference; 1e-5 for contractions
    fraction: tuple[float, float] = OWN  # of the bound that each pass should reach
    lean: bool = False  # whether the forward should take no memory over inputs and outputs
    cold: float = 0.5  # seconds in which both passes should compile
    control: bool = False  # on the road: a kernel that the peers were built for


def extents(**sizes: int) -> dict[str, int]:
    """Sizes by name."""
    return sizes


def product(sizes: Sizes, names: str) -> float:
    """The product of named sizes, written with spaces."""
    return math.prod(float(sizes[name]) for name in names.split())


def normal(rng: np.random.Generator, sizes: Sizes, dims: str, scale: float = 1.0) -> np.ndarray:
    """Standard normal f32, times `scale`; `dims` names sizes, with spaces."""
    shape = tuple(sizes[d] for d in dims.split())
    return np.float32(scale) * rng.standard_normal(shape, dtype=np.float32)


def positive(rng: np.random.Generator, sizes: Sizes, dims: str, scale: float = 1.0) -> np.ndarray:
    """Absolute values of normals, times `scale`."""
    return np.float32(scale) * np.abs(normal(rng, sizes, dims))
