"""Computed places: any integer type, repeated and unsorted ones, none at all, sizes of 0 and 1."""

import numpy as np
import pytest

import summand as sm
from summand.errors import IndexRangeError

n, p, c = sm.dims("n p c")
rng = np.random.default_rng(0)
TYPES = [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64]


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def attention(x, source, target):
    """A softmax over the edges that end in a node, as in graph attention."""
    at, sizes = {n: target}, {n: x.sizes[n]}
    z = sm.sum[c](x)[n:source] + sm.sum[c](x * x)[n:target]
    w = sm.exp(z - sm.stop_gradient(sm.max[p](z, at=at, sizes=sizes))[n:target])
    share = w / sm.sum[p](w, at=at, sizes=sizes)[n:target]
    return sm.sum[p](share * x[n:source], at=at, sizes=sizes)


def expected_attention(x, source, target):
    x = x.astype(np.float64)
    z = x.sum(1)[source] + (x * x).sum(1)[target]
    out = np.zeros_like(x)
    for node in range(len(x)):
        edges = np.flatnonzero(target == node)
        if edges.size:
            w = np.exp(z[edges] - z[edges].max())
            out[node] = (w / w.sum()) @ x[source[edges]]
    return out


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize("nodes, edges, width", [(7, 40, 16), (7, 3, 5), (1, 1, 1), (1, 9, 2)])
def test_segments_in_any_order(dtype, nodes, edges, width):
    """Nodes without an edge hold zeros, and their gradient is that of nothing."""
    source, target = rng.integers(0, nodes, (2, edges)).astype(dtype)
    x = normal(nodes, width)
    args = sm.array(x, n, c), sm.array(source, p), sm.array(target, p)
    loss = lambda x: sm.sum[n, c](attention(x, *args[1:]) ** 2)  # noqa: E731
    value, gradient = sm.jit(sm.value_and_grad(loss))(args[0])
    expected = expected_attention(x, source.astype(int), target.astype(int))
    found = sm.jit(attention)(*args).numpy(n, c)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert float(value) == pytest.approx((expected**2).sum(), rel=1e-4, abs=1e-6)
    step = 1e-6 * normal(nodes, width).astype(np.float64)
    sums = [
        (expected_attention(x + s * step, source.astype(int), target.astype(int)) ** 2).sum()
        for s in (1, -1)
    ]
    slope = (sums[0] - sums[1]) / 2
    assert (gradient.numpy(n, c) * step).sum() == pytest.approx(slope, rel=1e-2, abs=1e-8)


def test_no_edge_at_all():
    none = sm.array(np.zeros(0, np.int32), p)
    x = sm.array(normal(3, 4), n, c)
    value, gradient = sm.jit(sm.value_and_grad(lambda x: sm.sum[n, c](attention(x, none, none))))(x)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient.numpy(n, c), 0.0)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: np.dtype(t).name)
def test_places_out_of_range(dtype):
    at = np.array([0, 1, 9, 2], dtype)
    x = sm.array(normal(4), p)
    with pytest.raises(IndexRangeError, match="9"):
        sm.jit(lambda x: sm.sum[p](x, at={n: sm.array(at, p)}, sizes={n: 5}))(x).numpy(n)
    dropped = sm.sum[p](x, at={n: sm.array(at, p)}, sizes={n: 5}, mode="drop")
    expected = np.zeros(5, np.float32)
    expected[:3] = x.numpy(p)[[0, 1, 3]]
    np.testing.assert_array_equal(dropped.numpy(n), expected)


@pytest.mark.parametrize("heads, width", [(5, 17), (3, 400), (1, 1), (4, 16)])
@pytest.mark.parametrize("batch", [1, 3])
def test_rows_of_every_length(heads, width, batch):
    """Scatters of short rows, of long ones that tasks share out, several beside each other."""
    b, h = sm.dims("b h")
    x, at = normal(batch, 50, heads, width), rng.integers(0, 6, (batch, 50))
    f = sm.jit(lambda x, at: sm.sum[p](x, at={n: at}, sizes={n: 6}))
    found = f(sm.array(x, b, p, h, c), sm.array(at, b, p)).numpy(b, n, h, c)
    expected = np.zeros((batch, 6, heads, width))
    for number in range(batch):
        np.add.at(expected[number], at[number], x[number])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_tasks_share_out_what_is_gathered_from():
    """Every place along k may read any row of x: tasks share out e, along which x is read once."""
    e, k, z, u, i = sm.dims("e k z u i")
    x = sm.array(normal(512, 9, 32), e, i, u)
    at = sm.array(rng.integers(0, 9, (8, 24)), k, z)
    f = sm.jit(lambda x, at: sm.sum[z](x[i:at] * x[i:at]))
    found = f(x, at).numpy(e, k, u)
    rows = x.numpy(e, i, u)[:, at.numpy(k, z)]
    np.testing.assert_allclose(found, (rows**2).sum(2), rtol=1e-4)
    (grid,) = [g for g in f.inspect("loops").splitlines() if "grid" in g and "e_o" in g]
    assert "k_o" not in grid
