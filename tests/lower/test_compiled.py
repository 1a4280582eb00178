"""Fused kernels at sizes that no tile, vector or register tile divides, compiled and run."""

import numpy as np
import pytest

from summand import compiler
from summand.ir.interp import run
from tests.lower.agreement import order_of
from tests.lower.cases import (
    attention,
    layer_norm,
    recurrent,
    routing,
    scan,
    softmax,
    two_layers,
)
from tests.programs import arguments
from tests.rewrite.agreement import assert_close

PROGRAMS = {
    "softmax over rows": softmax(1031, 517, "j"),
    "softmax over columns": softmax(517, 1031, "i"),
    "layer norm": layer_norm(1031, 67),
    "attention": attention(1, 3, 131, 24),
    "routing": routing(37, 19, 7),
    "scan": scan(3, 37, 5, 33),
    "scan backward": scan(3, 37, 5, 33, forward=False),
    "recurrent": recurrent(9, 33, 5),
    "two layers": two_layers(67, 33, 129, 31),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name):
    program = PROGRAMS[name]
    args = arguments(program)
    if name == "routing":  # weights that cancel would make the means ill-conditioned
        for arg in args:
            arg.array[...] = np.abs(0.1 * arg.array) + 0.01
    params = [order_of(p) for p in program.params]
    executable = compiler.compile(program, params, [order_of(r) for r in program.results])
    arrays = [np.ascontiguousarray(a.transposed(o).array) for a, o in zip(args, params)]
    found = executable.run(arrays)
    for var, wanted, got in zip(program.results, run(program, args), found, strict=True):
        assert_close(wanted.transposed(order_of(var)).array, got, var.type.dtype)
