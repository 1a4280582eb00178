"""Products with matrices that an index chooses, in blocks of rows."""

import numpy as np
import pytest

import summand as sm
from summand import dtypes as dt
from summand.errors import IndexRangeError
from summand.ir.builder import Builder
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import SUM, Recur, Type
from summand.ir.text import text
from summand.ir.verify import verify
from summand.rewrite.places.grouped import grouped

t, s, e, d, h = sm.dims("t s e d h")
D, H = 32, 33
rng = np.random.default_rng(0)

CHOICES = {
    "unsorted": lambda n, k: rng.integers(0, k, n),
    "one matrix only": lambda n, k: np.full(n, k - 1),
    "none for the first": lambda n, k: rng.integers(1, k, n),
    "descending": lambda n, k: np.sort(rng.integers(0, k, n))[::-1],
}


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def program(rows, matrices=2, size=D * H):
    b = Builder()
    x = b.param(Type.of(dt.f32, {"t": rows, "d": size // H}))
    w = b.param(Type.of(dt.f32, {"e": matrices, "d": size // H, "h": H}))
    i = b.param(Type.of(dt.i32, {"t": rows}))
    chosen = b.reindex(w, {"e": i}, {}, "raise")
    return b.finish(b.reduce(SUM, ["d"], b.map("mul", x, chosen)))


def test_same_values():
    before = program(130)
    after = grouped(before)
    verify(after)
    assert any(isinstance(q.op, Recur) for q in after.eqns)
    args = [
        Named(normal(130, D), ("t", "d")),
        Named(normal(2, D, H), ("e", "d", "h")),
        Named(rng.integers(0, 2, 130).astype(np.int32), ("t",)),
    ]
    for a, b in zip(run(before, args), run(after, args), strict=True):
        np.testing.assert_allclose(a.array, b.array, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changed", [{"rows": 100}, {"rows": 9000, "matrices": 65}, {"size": 330}])
def test_few_rows_many_matrices_or_small_ones_stay(changed):
    before = program(**{"rows": 130} | changed)
    assert text(grouped(before)) == text(before)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("tokens, slots", [(130, 1), (71, 3)])
@pytest.mark.parametrize("index_type", [np.uint8, np.int8, np.int64])
def test_a_layer_and_its_gradient(choice, tokens, slots, index_type):
    matrices = 3
    places = CHOICES[choice](tokens * slots, matrices).reshape(tokens, slots).astype(index_type)
    X, W, G = normal(tokens, D), normal(matrices, D, H), normal(tokens, slots)

    def layer(X, W, G, index):
        return sm.sum[s](G * sm.tanh(sm.sum[d](X * W[e:index])))

    def loss(X, W, G, index):
        return sm.sum[t, h](layer(X, W, G, index) ** 2)

    args = (
        sm.array(X, t, d),
        sm.array(W, e, d, h),
        sm.array(G, t, s),
        sm.array(places, t, s),
    )
    value, (dX, dW, dG) = sm.jit(sm.value_and_grad(loss, argnums=(0, 1, 2)))(*args)
    chosen = W[places].astype(np.float64)
    z = np.tanh(np.einsum("td,tsdh->tsh", X, chosen))
    out = np.einsum("ts,tsh->th", G, z)
    assert float(value) == pytest.approx((out**2).sum(), rel=1e-4)
    by_z = 2 * out[:, None] * G[..., None] * (1 - z * z)
    expected = np.zeros(W.shape)
    np.add.at(expected, places, np.einsum("td,tsh->tsdh", X, by_z))
    close = {"rtol": 1e-3, "atol": 1e-2}
    np.testing.assert_allclose(dW.numpy(e, d, h), expected, **close)
    np.testing.assert_allclose(dX.numpy(t, d), np.einsum("tsh,tsdh->td", by_z, chosen), **close)
    np.testing.assert_allclose(dG.numpy(t, s), np.einsum("th,tsh->ts", 2 * out, z), **close)


def test_a_choice_out_of_range_is_an_error():
    f = sm.jit(lambda X, W, index: sm.sum[d](X * W[e:index]))
    places = rng.integers(0, 2, 130)
    places[77] = 2
    with pytest.raises(IndexRangeError, match="2"):
        f(sm.array(normal(130, D), t, d), sm.array(normal(2, D, H), e, d, h), sm.array(places, t))
