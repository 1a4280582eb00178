"""Random well-typed programs of the tensor IR, and data for them.

    @given(programs())                      any equations
    @given(programs(kinds=ELEMENTWISE))     only some

A program shrinks to few equations with small sizes. Comparisons, rounding, sorting and the like are
applied only to values that are computed without rounding, so correct ways to run a program agree
up to rounding and no branch depends on the last bit. The kinds of equations are methods of `Grow`.
"""

from __future__ import annotations

import numpy as np
from hypothesis import note
from hypothesis import strategies as st

from summand import dtypes as dt
from summand.ir.named import Named
from summand.ir.nodes import Program
from summand.ir.text import text
from tests.growth.complex import Complex
from tests.growth.control import Control
from tests.growth.elementwise import SIZES
from tests.growth.folds import Folds, affine, arg_max

__all__ = ["affine", "arg_max", "arguments", "programs"]


class Grow(Folds, Control, Complex):
    """A program that grows by equations of every kind."""


ELEMENTWISE = ("unary", "binary", "bits", "select", "position", "conversion")
FOLDS = ("fold", "tuple_fold", "scatter", "pair_scatter", "scatter_two")
INDEXING = ("gather", "gather_rows", "reindex", "reindex")
CONTROL = ("recurrence", "two_states", "branch", "repeat")
ORDER = ("order", "random")
COMPLEX = ("complex_pair", "complex_unary", "complex_binary", "complex_part")
EVERYTHING = (*ELEMENTWISE, *FOLDS, *INDEXING, *CONTROL, *ORDER)


@st.composite
def programs(draw, kinds=EVERYTHING, max_steps=8, zero_sizes=False, sizes=SIZES) -> Program:
    """A random program. Its results are its last value and up to two others."""
    grow = Grow(draw, zero_sizes, sizes)
    for _ in range(draw(st.integers(1, 3))):
        grow.parameter()
    for _ in range(draw(st.integers(1, max_steps))):
        getattr(grow, draw(st.sampled_from(kinds)))()
    results = [grow.values[-1]]
    results += draw(st.lists(st.sampled_from(grow.values), max_size=2))
    program = grow.build.finish([r.var for r in dict.fromkeys(results)])
    note(text(program))
    return program


def arguments(program: Program, seed: int = 0) -> list[Named]:
    """Data for a program: floats in -2 … 2 (with few distinct values where that is harsher)."""
    rng = np.random.default_rng(seed)
    out = []
    for param in program.params:
        dtype, shape = param.type.dtype, [n for _, n in param.type.dims]
        values = rng.uniform(-2, 2, shape)
        if dtype is dt.bool_:
            array = values > 0
        elif dtype is dt.bf16:
            bits = values.astype(np.float32).view(np.uint32) if shape else np.float32(values)
            bits = np.asarray(bits, np.float32).view(np.uint32) if not shape else bits
            array = np.asarray(bits >> np.uint32(16)).astype(np.uint16)
        elif dtype.is_integer:
            array = rng.integers(0, 7, shape).astype(dtype.numpy)
        else:
            array = values.astype(dtype.numpy)
        out.append(Named(np.asarray(array), tuple(d for d, _ in param.type.dims)))
    return out
