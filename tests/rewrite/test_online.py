"""A maximum and the sums below it, block by block."""

import numpy as np
import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import MAX, SUM, Reduce, Type
from summand.options import Target
from summand.rewrite.online import online
from tests.rewrite.agreement import assert_same_results
from tests.rewrite.golden import assert_golden

TINY = Target("x86_64-unknown-linux-gnu", "generic", "", l1=1 << 8, l2=1 << 10, l3=1 << 12)


def softmax(rows, columns, over="i", factor=False, dtype=dt.f32, power=1):
    """Maximum, sum, a weighed sum and the quotient over one dim of an array in order i, j; and the
    sum of a power of the exponentials, where that is more than one."""
    b = Builder()
    x = b.param(Type.of(dtype, {"i": rows, "j": columns}))
    g = b.param(Type.of(dtype, {"i": rows}))
    (top,) = b.reduce(MAX, [over], x)
    e = b.map("exp", b.map("sub", x, top))
    (total,) = b.reduce(SUM, [over], e)
    results = [top, total, b.map("div", e, total)]
    if factor:
        results += b.reduce(SUM, [over], b.map("mul", b.map("mul", e, g), b.map("log", total)))
    raised = e
    for _ in range(power - 1):
        raised = b.map("mul", raised, e)
    results += b.reduce(SUM, [over], raised) if power > 1 else ()
    program = b.finish(results)
    return program, {x: ("i", "j"), g: ("i",)}


def folds(program):
    return sum(isinstance(e.op, Reduce) for e in program.eqns)


def test_columns_in_blocks_of_rows():
    def rewrite(program):
        return online(program, TINY, {program.params[0]: ("i", "j")})

    assert_golden(
        rewrite,
        """\
        program (%0: f32{i=256,j=300}) {
          %1: f32{j=300} = reduce max {i} %0
          %2: f32{i=256,j=300} = sub %0 %1
          %3: f32{i=256,j=300} = exp %2
          %4: f32{j=300} = reduce sum {i} %3
          return %1, %4
        }
        """,
        """\
        program (%0: f32{i=256,j=300}) {
          %1: f32{i.b=8,i.r=32,j=300} = reindex %0 {i: 32*i.b + i.r} trusted
          %2: f32{i.b=8,j=300} = reduce max {i.r} %1
          %3: f32{j=300} = reduce max {i.b} %2
          %4: f32{i=256,j=300} = sub %0 %3
          %5: f32{i=256,j=300} = exp %4
          %6: f32{} = constant -3.4028234663852886e+38
          %7: f32{i.b=8,j=300} = max %2 %6
          %8: f32{i.b=8,i.r=32,j=300} = reindex %0 {i: 32*i.b + i.r} trusted
          %9: f32{i.b=8,i.r=32,j=300} = sub %8 %7
          %10: f32{i.b=8,i.r=32,j=300} = exp %9
          %11: f32{i.b=8,j=300} = reduce sum {i.r} %10
          %12: f32{i.b=8,j=300} = sub %2 %3
          %13: f32{i.b=8,j=300} = exp %12
          %14: f32{i.b=8,j=300} = mul %11 %13
          %15: f32{j=300} = reduce sum {i.b} %14
          return %3, %15
        }
        """,
    )


@pytest.mark.parametrize("rows", [64, 256, 257, 331])
@pytest.mark.parametrize("dtype", [dt.f32, dt.f64])
def test_the_results_are_the_same(rows, dtype):
    program, orders = softmax(rows, 300, factor=True, dtype=dtype)
    found = online(program, TINY, orders)
    assert folds(found) == (3 if rows % 2 else 2) * folds(program)
    assert_same_results(program, found)


@pytest.mark.parametrize("power", [2, 3])
@pytest.mark.parametrize("rows", [256, 257])
def test_an_exponential_may_be_a_factor_twice(rows, power):
    """As in the gradient of Σ softmax²."""
    program, orders = softmax(rows, 300, power=power)
    found = online(program, TINY, orders)
    assert folds(found) == (3 if rows % 2 else 2) * folds(program)
    assert_same_results(program, found)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [256, 257])
def test_what_is_not_finite_gives_what_it_gave(bad, rows):
    program, orders = softmax(rows, 300, factor=True)
    x = np.random.default_rng(0).normal(-200, 5, (rows, 300)).astype(np.float32)
    x[5, 0] = x[:, 1] = x[:64, 2] = x[100:, 3] = bad
    x[7, 4], x[8, 4], x[-1, 5] = np.inf, -np.inf, bad
    args = [Named(x, ("i", "j")), Named(np.ones(rows, np.float32), ("i",))]
    with np.errstate(all="ignore"):
        wanted, got = run(program, args), run(online(program, TINY, orders), args)
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_allclose(b.transposed(a.order).array, a.array, rtol=1e-5, atol=1e-5)


def test_rows_that_a_tile_holds_stay():
    program, orders = softmax(64, 200, over="j")
    assert online(program, TINY, orders) is program


def test_long_rows_are_cut_where_they_lie():
    program, orders = softmax(4, 3000, over="j")
    found = online(program, TINY, orders)
    assert folds(found) == 2 * folds(program)
    assert_same_results(program, found)


def test_a_small_array_and_an_unknown_order_stay():
    program, orders = softmax(32, 20)
    assert online(program, TINY, orders) is program
    program, _ = softmax(256, 300)
    assert online(program, TINY, {}) is program
