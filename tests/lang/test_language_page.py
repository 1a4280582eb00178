"""Every program on the language page, run and compared with NumPy; interpreted and compiled."""

import numpy as np
import pytest

import summand as sm

n, x, y, kx, ky, ci, co, i, j, k = sm.dims("n x y kx ky ci co i j k")
t, u, d, s, head = sm.dims("t u d s head")


@pytest.fixture(params=["interpreted", "compiled"])
def way(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def capsules(P, W, stride=2):
    return sm.sum[kx, ky, ci, k](P[x : stride * x + kx, y : stride * y + ky] * W)


def softmax(z, over):
    e = sm.exp(z - sm.max[over](z))
    return e / sm.sum[over](e)


def attention(Q, K, V, score):
    z = score(sm.sum[d](Q * K[t:u]), t, u)
    return sm.sum[u](softmax(z, u) * V[t:u])


def causal_alibi(slope):
    return lambda z, q, kv: sm.where(q >= kv, z - slope * (q - kv), -sm.inf)


def max_plus(A, B):
    return sm.max[k](A + B)


def state_space(a, B, C, inp, h0):
    h = sm.recur(lambda h: a * h[t : t - 1] + B * inp, over=t, init=h0)
    return sm.sum[s](C * h)


def edit_distance(cost):
    return sm.recur(
        lambda D: sm.minimum(
            sm.minimum(D[i : i - 1], D[j : j - 1]) + 1, D[i : i - 1, j : j - 1] + cost
        ),
        over=(i, j),
        init=lambda p, q: sm.maximum(p, q) + 1,
    )


def f32(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def capsules_numpy(P, W, stride):
    n_, x_, y_, _, i_, _ = P.shape
    kx_, ky_, _, co_, _, j_ = W.shape
    ox, oy = (x_ - kx_) // stride + 1, (y_ - ky_) // stride + 1
    out = np.zeros((n_, ox, oy, co_, i_, j_))
    for a in range(ox):
        for b in range(oy):
            window = P[:, stride * a : stride * a + kx_, stride * b : stride * b + ky_]
            out[:, a, b] = np.einsum("nxycik,xycokj->noij", window.astype(float), W)
    return out


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_capsules(rng, stride):
    p, w = f32(rng, 2, 7, 6, 3, 4, 4), f32(rng, 3, 2, 3, 5, 4, 4)
    P, W = sm.array(p, n, x, y, ci, i, k), sm.array(w, kx, ky, ci, co, k, j)
    V = sm.jit(capsules)(P, W, stride=stride)
    expected = capsules_numpy(p, w, stride)
    np.testing.assert_allclose(V.numpy(n, x, y, co, i, j), expected, rtol=2e-5, atol=2e-5)


def test_softmax_over_any_dims(rng):
    z = f32(rng, 3, 4, 5)
    Z = sm.array(z, n, head, i)
    e = np.exp(z - z.max(1, keepdims=True))
    expected = e / e.sum(1, keepdims=True)
    np.testing.assert_allclose(softmax(Z, head).numpy(n, head, i), expected, rtol=1e-5)
    e = np.exp(z - z.max((0, 2), keepdims=True))
    expected = e / e.sum((0, 2), keepdims=True)
    np.testing.assert_allclose(softmax(Z, (n, i)).numpy(n, head, i), expected, rtol=1e-5)


def attention_numpy(q, k_, v, slope):
    z = np.einsum("...td,...ud->...tu", q, k_)
    T = z.shape[-1]
    rows, columns = np.arange(T)[:, None], np.arange(T)
    z = z - slope[:, None, None] * (rows - columns)
    z = np.where(rows >= columns, z, -np.inf)
    e = np.exp(z - z.max(-1, keepdims=True))
    return np.einsum("...tu,...ud->...td", e / e.sum(-1, keepdims=True), v)


def test_attention(rng):
    q, k_, v = (f32(rng, 2, 6, 4) for _ in range(3))
    slope = np.abs(f32(rng, 2))
    Q, K, V = (sm.array(a, head, t, d) for a in (q, k_, v))
    found = sm.jit(attention)(Q, K, V, causal_alibi(sm.array(slope, head)))
    expected = attention_numpy(q, k_, v, slope)
    np.testing.assert_allclose(found.numpy(head, t, d), expected, rtol=2e-5, atol=1e-6)


def test_attention_gradient_reaches_the_captured_slope(rng):
    q, k_, v = (rng.standard_normal((1, 5, 3)) for _ in range(3))
    slope = np.array([0.3])
    Q, K, V = (sm.array(a, head, t, d) for a in (q, k_, v))

    def loss(slope):
        return sm.sum[head, t, d](attention(Q, K, V, causal_alibi(slope)) ** 2)

    found = sm.grad(loss)(sm.array(slope, head)).numpy(head)
    step = 1e-6
    high = (attention_numpy(q, k_, v, slope + step) ** 2).sum()
    low = (attention_numpy(q, k_, v, slope - step) ** 2).sum()
    np.testing.assert_allclose(found[0], (high - low) / (2 * step), rtol=1e-6)


def test_max_plus(rng):
    a, b = f32(rng, 3, 4), f32(rng, 4, 5)
    found = max_plus(sm.array(a, i, k), sm.array(b, k, j)).numpy(i, j)
    np.testing.assert_array_equal(found, (a[:, :, None] + b[None]).max(1))


def test_state_space(rng):
    a, b, c = (f32(rng, 7, 3) for _ in range(3))
    inp, h0 = f32(rng, 7), f32(rng, 3)
    h, ys = h0, []
    for step in range(7):
        h = a[step] * h + b[step] * inp[step]
        ys.append((c[step] * h).sum())
    found = state_space(*(sm.array(m, t, s) for m in (a, b, c)), sm.array(inp, t), sm.array(h0, s))
    np.testing.assert_allclose(found.numpy(t), ys, rtol=1e-4, atol=1e-5)


def test_edit_distance():
    first, second = "kitten", "sitting"
    cost = np.array([[p != q for q in second] for p in first]).astype(np.int32)
    found = edit_distance(sm.array(cost, i, j))
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    table[:, 0], table[0] = range(len(first) + 1), range(len(second) + 1)
    for p in range(len(first)):
        for q in range(len(second)):
            steps = (table[p, q + 1] + 1, table[p + 1, q] + 1, table[p, q] + cost[p, q])
            table[p + 1, q + 1] = min(steps)
    np.testing.assert_array_equal(found.numpy(i, j), table[1:, 1:])
    assert int(found[i:-1, j:-1]) == 3


def test_attention_with_a_learned_bias_by_distance(rng):
    q, k_, v = (rng.standard_normal((2, 6, 4)) for _ in range(3))
    bias = rng.standard_normal((2, 11))
    Q, K, V = (sm.array(a, head, t, d) for a in (q, k_, v))
    r = sm.Dim("r")

    def by_distance(b):
        return lambda z, q, kv: 5 * sm.tanh(z / 5) + b[r : q - kv + 5]

    B = sm.array(bias, head, r)
    found = sm.jit(lambda B: attention(Q, K, V, by_distance(B)))(B)
    places = np.arange(6)[:, None] - np.arange(6) + 5

    def plain(bias):
        z = 5 * np.tanh(np.einsum("htd,hud->htu", q, k_) / 5) + bias[:, places]
        e = np.exp(z - z.max(-1, keepdims=True))
        return np.einsum("htu,hud->htd", e / e.sum(-1, keepdims=True), v)

    np.testing.assert_allclose(found.numpy(head, t, d), plain(bias), rtol=1e-10)

    def loss(B):
        return sm.sum[head, t, d](attention(Q, K, V, by_distance(B)) ** 2)

    gradient = sm.jit(sm.grad(loss))(B).numpy(head, r)
    step = np.zeros_like(bias)
    step[1, 7] = 1e-6
    difference = ((plain(bias + step) ** 2).sum() - (plain(bias - step) ** 2).sum()) / 2e-6
    np.testing.assert_allclose(gradient[1, 7], difference, rtol=1e-5)
