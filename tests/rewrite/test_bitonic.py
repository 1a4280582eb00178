"""The sorting network against the interpreter's sort."""

import numpy as np
import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.fresh import Names
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import Sort, Type, While
from summand.ir.verify import verify
from summand.rewrite import bitonic
from summand.rewrite.expand import expand
from summand.rewrite.simplify.simplify import simplify


def values(dtype, shape):
    rng = np.random.default_rng(shape[-1])
    array = rng.integers(-3, 4, shape).astype(np.float64)
    if dtype.is_float:
        array[rng.uniform(size=shape) < 0.1] = np.nan
        array[rng.uniform(size=shape) < 0.1] = np.inf
    return (np.abs(array) if dtype.kind == "uint" else array).astype(dtype.numpy)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("size", [2, 3, 8, 13, 100])
@pytest.mark.parametrize("dtype", [dt.f32, dt.i8, dt.u32], ids=str)
def test_network(dtype, size, descending):
    type_ = Type.of(dtype, {"b": 2, "i": size})
    arg = Named(values(dtype, (2, size)), ("b", "i"))
    plain, network = Builder(), Builder()
    x = plain.param(type_)
    out = plain.emit(Sort(x, "i", descending), [type_, type_.with_dtype(dt.i32)])
    y = network.param(type_)
    names = Names(network.finish([y]))
    program = network.finish(bitonic.sort(network, names, y, "i", descending))
    verify(program)
    for wanted, found in zip(run(plain.finish(out), [arg]), run(program, [arg]), strict=True):
        np.testing.assert_array_equal(wanted.array, found.array)


def test_many_are_sorted_by_the_network():
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": bitonic.LARGE}))
    out = b.emit(Sort(x, "i"), [x.type, x.type.with_dtype(dt.i32)])
    after = simplify(expand(b.finish(out)))
    verify(after)
    assert any(isinstance(e.op, While) for e in after.eqns)
    array = values(dt.f32, (bitonic.LARGE,))
    found = run(after, [Named(array, ("i",))])
    np.testing.assert_array_equal(found[0].array, np.sort(array))
    np.testing.assert_array_equal(found[1].array, np.argsort(array, kind="stable"))
