"""Copies of what is gathered and scattered against the order of its rows."""

import numpy as np
import pytest

import summand as sm
from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import parse
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import SUM, Interleave, Type
from summand.ir.text import text
from summand.ir.verify import verify
from summand.rewrite.places.rows import gather_rows

rng = np.random.default_rng(0)


def gather(c=8, y=5, p=20):
    b = Builder()
    x = b.param(Type.of(dt.f32, {"c": c, "y": y}))
    at = b.param(Type.of(dt.i32, {"p": p}))
    return b.finish([b.reindex(x, {"y": at}, {}, "clip")])


def scatter(c=8, y=5, p=20):
    b = Builder()
    x = b.param(Type.of(dt.f32, {"c": c, "p": p}))
    at = b.param(Type.of(dt.i32, {"p": p}))
    return b.finish(b.reduce_at(SUM, ["p"], [x], {"y": at}, {"y": y}, "clip"))


def copies(program):
    return sum(isinstance(e.op, Interleave) for e in program.eqns)


def test_a_parameter_gathered_along_its_innermost_dim_is_copied():
    before = gather()
    after = gather_rows(before, [("c", "y"), ("p",)], [None])
    verify(after)
    assert copies(after) == 1
    args = [
        Named(rng.standard_normal((8, 5)).astype(np.float32), ("c", "y")),
        Named(rng.integers(0, 5, 20).astype(np.int32), ("p",)),
    ]
    np.testing.assert_array_equal(run(before, args)[0].array, run(after, args)[0].array)


@pytest.mark.parametrize(
    "program, order",
    [
        (gather(), ("y", "c")),  # rows are contiguous
        (gather(c=4), ("c", "y")),  # rows are short
        (gather(p=9), ("c", "y")),  # few are read
    ],
)
def test_others_are_read_as_they_are(program, order):
    assert text(gather_rows(program, [order, ("p",)], [None])) == text(program)


def test_a_result_whose_innermost_dim_is_a_place_is_scattered_beside_and_copied():
    before = scatter()
    params = [("c", "p"), ("p",)]
    after = gather_rows(before, params, [("c", "y")])
    verify(after)
    assert copies(after) == 1
    assert copies(gather_rows(before, params, [("y", "c")])) == 0
    assert copies(gather_rows(before, params, [None])) == 0


@pytest.mark.parametrize("c, y, batch", [(32, 7, 4), (16, 1, 1), (17, 13, 3), (1, 5, 2)])
@pytest.mark.parametrize("order", ["bcy", "ycb", "cyb"])
def test_gathers_scatters_and_their_gradients(c, y, batch, order):
    """Compiled, in several orders, with places that repeat and some that are dropped."""
    dims = {name: sm.Dim(name) for name in "bcyp"}
    b_, c_, y_, p_ = (dims[n] for n in "bcyp")
    sizes = {"b": batch, "c": c, "y": y}
    values = rng.standard_normal([sizes[n] for n in order]).astype(np.float32)
    x = sm.array(values, *(dims[n] for n in order))
    places = rng.integers(-2, y + 2, (batch, 50))
    at = sm.array(places, b_, p_)

    def f(x):
        rows = x.at(mode="fill")[y_:at]
        back = sm.sum[p_](rows * rows, at={y_: at}, sizes={y_: y}, mode="drop")
        return sm.sum[b_, c_, y_](back * x)

    found, gradient = sm.jit(sm.value_and_grad(f))(x)
    full = values.transpose([order.index(n) for n in "bcy"]).astype(np.float64)
    count = np.zeros((batch, 1, y))
    for n in range(batch):
        inside = places[n][(places[n] >= 0) & (places[n] < y)]
        count[n, 0] = np.bincount(inside, minlength=y)
    np.testing.assert_allclose(float(found), (count * full**3).sum(), rtol=1e-4, atol=1e-4)
    expected = 3 * count * full**2
    np.testing.assert_allclose(gradient.numpy(b_, c_, y_), expected, rtol=1e-4, atol=1e-4)


def windows(n=3, x=64, a=5, b=5):
    """out[n, c, x, y] = u[n, c, x + a - 2, y + b - 2] for all a, b; 0 outside."""
    build = Builder()
    u = build.param(Type.of(dt.f32, {"n": n, "c": 4, "x": x, "y": x}))
    index = {"x": parse("x + a - 2"), "y": parse("y + b - 2")}
    return build.finish([build.reindex(u, index, {"x": x, "y": x, "a": a, "b": b}, "fill")])


def test_an_array_with_windows_and_a_short_innermost_dim_is_copied():
    before = windows()
    after = gather_rows(before, [("c", "x", "y", "n")], [None])
    verify(after)
    assert copies(after) == 1
    args = [Named(rng.standard_normal((3, 4, 64, 64)).astype(np.float32), ("n", "c", "x", "y"))]
    np.testing.assert_array_equal(run(before, args)[0].array, run(after, args)[0].array)


@pytest.mark.parametrize(
    "program, order",
    [
        (windows(), ("n", "c", "y", "x")),  # vectors along the innermost dim
        (windows(n=8), ("c", "x", "y", "n")),  # a vector of examples
        (windows(a=3), ("c", "x", "y", "n")),  # few are read
        (windows(x=16), ("c", "x", "y", "n")),  # a small array
    ],
)
def test_other_windows_are_read_as_they_are(program, order):
    assert text(gather_rows(program, [order], [None])) == text(program)
