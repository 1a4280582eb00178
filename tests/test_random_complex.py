"""Random programs with complex numbers: split into pairs, and through the whole compiler."""

import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from summand import compiler
from summand.ir.interp import run
from summand.ir.text import text
from summand.ir.verify import verify
from summand.options import Options
from summand.rewrite.expand import expand
from summand.rewrite.simplify.simplify import simplify
from summand.rewrite.split_complex import PARTS, split_complex
from summand.runtime.executable import Executable
from tests.programs import COMPLEX, arguments, programs
from tests.rewrite.agreement import assert_close, narrowest

KINDS = (*COMPLEX, *COMPLEX, "select", "reindex", "gather", "fold", "scatter", "branch", "unary")


def evaluated(program, args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy on overflow
        return run(program, args)


def joined(found, dims):
    """Two real parts as one complex array."""
    array = found.transposed((*dims, PARTS)).array
    return array[..., 0] + 1j * array[..., 1]


def laid_out(value, order):
    """The values as a dense array with its axes in an order."""
    array = value.transposed(order).array
    return np.ascontiguousarray(array).reshape(array.shape)


@given(programs(KINDS, max_steps=10))
@settings(max_examples=150, deadline=None)
def test_pairs(program):
    after = simplify(split_complex(expand(simplify(program))))
    verify(after)
    assert "complex" not in text(after)
    args = arguments(program)
    wanted, found = evaluated(program, args), evaluated(after, args)
    for var, a, b, coarse in zip(program.results, wanted, found, narrowest(program), strict=True):
        b = joined(b, a.order) if var.type.dtype.is_complex else b.array
        assert_close(a.array, b, var.type.dtype, computed_in=coarse)


@given(programs(KINDS), st.data())
@settings(max_examples=60, deadline=None)
def test_compiled(program, data):
    def order(type_):
        return tuple(data.draw(st.permutations([d for d, _ in type_.dims])))

    params = tuple(order(p.type) for p in program.params)
    results = tuple(order(r.type) for r in program.results)
    asked = compiler.request(program, params, results, Options(verify=True))
    executable = Executable(compiler.build(asked, compiler.Log()))
    args = arguments(program)
    wanted = evaluated(program, args)
    found = executable.run([laid_out(a, o) for a, o in zip(args, params, strict=True)])
    coarse = narrowest(program)
    for k, var in enumerate(program.results):
        assert found[k].dtype == var.type.dtype.numpy
        right = laid_out(wanted[k], results[k])
        assert_close(right, found[k], var.type.dtype, computed_in=coarse[k])
