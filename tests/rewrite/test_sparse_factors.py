"""Sums of products with constants that are zero nearly everywhere."""

import numpy as np
import pytest

import summand as sm
from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import SUM, ReduceAt, Type
from summand.ir.text import text
from summand.ir.verify import verify
from summand.rewrite.places.sparse_factors import sparse_factors

SIZES = {"i": 4, "j": 5, "k": 6, "e": 7}
rng = np.random.default_rng(0)


def constant(places):
    c = np.zeros([SIZES[d] for d in "ijk"], np.float32)
    for place in places:
        c[place] = rng.standard_normal()
    return c


SCATTERED = constant([(0, 1, 2), (3, 4, 5), (2, 2, 2), (1, 0, 5), (0, 4, 0)])
ONE_PLACE = constant([(i, j, 3) for i in range(4) for j in range(4)])
CONSTANTS = {"scattered": SCATTERED, "one place": ONE_PLACE, "one element": constant([(3, 0, 1)])}


def program(c, over):
    b = Builder()
    x = b.param(Type.of(dt.f32, {d: SIZES[d] for d in "ei"}))
    y = b.param(Type.of(dt.f32, {d: SIZES[d] for d in "ej"}))
    table = b.table(c, ("i", "j", "k"), dt.f32)
    return b.finish(b.reduce(SUM, over, b.map("mul", b.map("mul", table, x), y)))


def arguments():
    return [
        Named(rng.standard_normal((7, 4)).astype(np.float32), ("e", "i")),
        Named(rng.standard_normal((7, 5)).astype(np.float32), ("e", "j")),
    ]


@pytest.mark.parametrize("which", CONSTANTS)
@pytest.mark.parametrize("over", ["ij", "i", "jk", "ijk", "eij", "eijk"])
def test_same_sums(which, over):
    before = program(CONSTANTS[which], list(over))
    after = sparse_factors(before)
    verify(after)
    assert text(after) != text(before)
    args = arguments()
    for a, b in zip(run(before, args), run(after, args), strict=True):
        np.testing.assert_allclose(a.array, b.array, rtol=1e-5, atol=1e-6)


def test_uneven_places_are_a_scatter():
    after = sparse_factors(program(ONE_PLACE, ["i", "j"]))
    assert any(isinstance(e.op, ReduceAt) for e in after.eqns)
    even = sparse_factors(program(SCATTERED, ["i", "j"]))
    assert not any(isinstance(e.op, ReduceAt) for e in even.eqns)


@pytest.mark.parametrize("c", [constant([]), rng.standard_normal((4, 5, 6)).astype(np.float32)])
def test_zeros_alone_and_dense_constants_stay(c):
    before = program(c, ["i", "j"])
    assert text(sparse_factors(before)) == text(before)


def test_what_meets_only_zeros_does_not_count():
    x, y = arguments()
    x.array[:, 1] = np.nan
    c = constant([(0, 1, 2), (3, 4, 5), (2, 2, 2)])
    (found,) = run(sparse_factors(program(c, ["i", "j"])), [x, y])
    assert np.isfinite(found.array).all()


@pytest.mark.parametrize("edges, units", [(1, 1), (5, 3), (17, 33)])
def test_a_captured_constant_and_gradients(edges, units):
    """As a user writes it: an array of NumPy's, read inside a compiled function."""
    e, u, i, j, k = sm.dims("e u i j k")
    X = rng.standard_normal((edges, units, 4)).astype(np.float32)
    Y = rng.standard_normal((edges, 5)).astype(np.float32)

    def product(X, Y):
        return sm.sum[i, j](sm.array(SCATTERED, i, j, k) * X * Y)

    def loss(X, Y):
        return sm.sum[e, u, k](product(X, Y) ** 2)

    f = sm.jit(sm.value_and_grad(loss, argnums=(0, 1)))
    value, (dX, dY) = f(sm.array(X, e, u, i), sm.array(Y, e, j))
    assert "table" in f.inspect("traced")
    C = SCATTERED.astype(np.float64)
    out = np.einsum("ijk,eui,ej->euk", C, X, Y)
    close = {"rtol": 1e-4, "atol": 1e-5}
    assert float(value) == pytest.approx((out**2).sum(), rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(
        dX.numpy(e, u, i), 2 * np.einsum("ijk,ej,euk->eui", C, Y, out), **close
    )
    np.testing.assert_allclose(dY.numpy(e, j), 2 * np.einsum("ijk,eui,euk->ej", C, X, out), **close)


def test_dense_captured_arrays_stay_arguments():
    i = sm.Dim("i")
    f = sm.jit(lambda x: x * sm.array(np.arange(1.0, 65.0, dtype=np.float32), i))
    f(sm.array(np.ones(64, np.float32), i))
    assert "table" not in f.inspect("traced")
