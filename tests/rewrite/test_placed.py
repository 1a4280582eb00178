"""One element in each row is a comparison."""

import numpy as np
import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import parse
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import MAX, SUM, ReduceAt, Type
from summand.ir.verify import verify
from summand.rewrite.places.placed import placed


def scatter(dtype, mode, dims=(), monoid=SUM):
    b = Builder()
    a = b.param(Type.of(dt.f32, {"n": 6}))
    label = b.param(Type.of(dtype, {"n": 6}))
    (out,) = b.reduce_at(monoid, dims, [a], {"k": label}, {"k": 300}, mode)
    return b.finish([out])


def is_scattered(program):
    return any(isinstance(e.op, ReduceAt) for e in program.eqns)


@pytest.mark.parametrize("dtype", [dt.u8, dt.i16, dt.i32, dt.i64, dt.u64])
@pytest.mark.parametrize("mode", ["trusted", "fill", "clip"])
def test_one_element_in_each_row(dtype, mode):
    program = scatter(dtype, mode)
    new = placed(program)
    verify(new)
    assert not is_scattered(new)
    labels = np.array([0, 7, 255, 3, 3, 200], dtype.numpy)
    if mode != "trusted" and dtype.bits > 8:
        labels[[1, 3]] = 300, 2**15 - 1
    if mode != "trusted" and dtype.kind == "int":
        labels[0] = -1
    if mode != "trusted" and dtype is dt.i64:
        labels[4] = 2**32 + 5
    values = np.arange(1, 7, dtype=np.float32)
    args = [Named(values, ("n",)), Named(labels, ("n",))]
    (wanted,), (found,) = run(program, args), run(new, args)
    back = [wanted.order.index(d) for d in found.order]
    np.testing.assert_array_equal(wanted.array.transpose(back), found.array)


def test_a_form_places_a_diagonal():
    b = Builder()
    a = b.param(Type.of(dt.f32, {"x": 4}))
    (out,) = b.reduce_at(SUM, [], [a], {"u": parse("x")}, {"u": 4})
    new = placed(b.finish([out]))
    verify(new)
    values = np.arange(1, 5, dtype=np.float32)
    (found,) = run(new, [Named(values, ("x",))])
    np.testing.assert_array_equal(found.array, np.diag(values))


def test_sums_and_other_monoids_stay():
    assert is_scattered(placed(scatter(dt.i32, "fill", ["n"])))
    assert is_scattered(placed(scatter(dt.i32, "fill", monoid=MAX)))
