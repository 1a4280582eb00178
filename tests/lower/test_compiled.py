"""Fused kernels at sizes that no tile, vector or register tile divides, compiled and run."""

import numpy as np
import pytest

from tests.lower.agreement import assert_compiles
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
    assert_compiles(program, args)
