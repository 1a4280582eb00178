"""Recurrences: directions, several dims, states that are pytrees, what init may be."""

import numpy as np
import pytest

import summand as sm
from summand.errors import ArgumentError, DimError, RecurrenceError

i, j, t, s, b = sm.dims("i j t s b")
RNG = np.random.default_rng(5)
X = RNG.standard_normal((6, 3))
A = RNG.uniform(0.2, 0.9, (6, 3))


def test_forward_and_backward():
    x, a = sm.array(X, t, s), sm.array(A, t, s)
    h, expected = np.zeros(3), []
    for step in range(6):
        h = A[step] * h + X[step]
        expected.append(h)
    found = sm.recur(lambda h: a * h[t : t - 1] + x, over=t, init=0)
    np.testing.assert_allclose(found.numpy(t, s), expected)
    h, expected = np.zeros(3), []
    for step in reversed(range(6)):
        h = A[step] * h + X[step]
        expected.append(h)
    found = sm.recur(lambda h: a * h[t : t + 1] + x, over=t, init=0)
    np.testing.assert_allclose(found.numpy(t, s), expected[::-1])


def test_two_steps_back():
    n = sm.Dim("n", 10)
    found = sm.recur(lambda f: f[n : n - 1] + f[n : n - 2], over=n, init=1)
    np.testing.assert_array_equal(found.numpy(), [2, 3, 5, 8, 13, 21, 34, 55, 89, 144])
    assert found.dtype is sm.i32


def test_init_is_a_function_of_the_position():
    n = sm.Dim("n", 4)
    found = sm.recur(lambda f: f[n : n - 2], over=n, init=lambda p: 10 * p)
    np.testing.assert_array_equal(found.numpy(), [-20, -10, -20, -10])


def test_init_has_dims_that_the_step_has_not():
    x = sm.array(X[:, 0], t)
    h0 = sm.array(np.array([0.0, 1.0]), b)
    found = sm.recur(lambda h: h[t : t - 1] + x, over=t, init=h0)
    expected = np.cumsum(X[:, 0])[:, None] + [0.0, 1.0]
    np.testing.assert_allclose(found.numpy(t, b), expected)


def test_the_state_is_a_pytree():
    x = sm.array(X, t, s)

    def lstm(state):
        h, c = state["h"], state["c"]
        gate = sm.sigmoid(x + h[t : t - 1])
        c = gate * c[t : t - 1] + sm.tanh(x)
        return {"h": sm.tanh(c) * gate, "c": c}

    found = sm.recur(lstm, over=t, init={"h": 0.0, "c": sm.array(np.ones(3), s)})
    h, c = np.zeros(3), np.ones(3)
    for step in range(6):
        gate = 1 / (1 + np.exp(-(X[step] + h)))
        c = gate * c + np.tanh(X[step])
        h = np.tanh(c) * gate
    np.testing.assert_allclose(found["h"][t:-1].numpy(), h)
    np.testing.assert_allclose(found["c"][t:-1].numpy(), c)


def test_a_matrix_product_in_the_step():
    w = RNG.standard_normal((3, 3)) / 2
    x, W = sm.array(X, t, s), sm.array(w, s, j)

    def step(h):
        return sm.tanh(sm.sum[s](h[t : t - 1] * W)[j:s] + x)

    h = np.zeros(3)
    for now in X:
        h = np.tanh(h @ w + now)
    np.testing.assert_allclose(sm.recur(step, over=t, init=0.0)[t:-1].numpy(), h)


def test_other_dims_are_indexed_in_the_same_brackets():
    x = sm.array(X, t, s)
    zero = sm.zeros({s: 3})
    left = sm.recur(lambda h: h[t : t - 1].fill(0)[s : s - 1] + x, over=t, init=zero)
    h = np.zeros(3)
    for now in X:
        h = np.concatenate([[0], h[:-1]]) + now
    np.testing.assert_allclose(left[t:-1].numpy(), h)
    last = sm.recur(lambda h: h[t : t - 1, s:2] + x, over=t, init=zero)
    h = np.zeros(3)
    for now in X:
        h = h[2] + now
    np.testing.assert_allclose(last[t:-1].numpy(), h)


def test_the_position_inside_a_step():
    x = sm.array(X, t, s)
    found = sm.recur(lambda h: sm.where(t % 2 == 0, h[t : t - 1], 0) + x * t, over=t, init=0.0)
    h = np.zeros(3)
    for step in range(6):
        h = (h if step % 2 == 0 else 0) + X[step] * step
    np.testing.assert_allclose(found[t:-1].numpy(), h)


def test_reading_another_dim_at_the_position():
    table = RNG.standard_normal((3, 6))
    x = sm.array(X, t, s)
    w = sm.array(table, s, j)

    def step(h):
        return sm.sum[s]((h[t : t - 1] + x) * w)[j:t]

    h = 0.0
    expected = []
    for now in range(6):
        h = ((h + X[now]) * table[:, now]).sum()
        expected.append(h)
    np.testing.assert_allclose(sm.recur(step, over=t, init=0.0).numpy(), expected)


def test_paths_through_a_lattice():
    cost = RNG.standard_normal((4, 5))
    c = sm.array(cost, i, j)
    for flip_i in (False, True):
        for flip_j in (False, True):
            di, dj = (1 if flip_i else -1), (1 if flip_j else -1)

            def step(D, di=di, dj=dj):
                return c + sm.minimum(D[i : i + di], D[j : j + dj])

            found = sm.recur(step, over=(i, j), init=lambda p, q: sm.where(p * q == 1, 0.0, 99.0))
            flipped = cost[:: -1 if flip_i else 1, :: -1 if flip_j else 1]
            table = np.full((5, 6), 99.0)
            for p in range(4):
                for q in range(5):
                    table[p + 1, q + 1] = flipped[p, q] + min(table[p, q + 1], table[p + 1, q])
            expected = table[1:, 1:][:: -1 if flip_i else 1, :: -1 if flip_j else 1]
            np.testing.assert_allclose(found.numpy(i, j), expected)


def test_a_later_column_of_an_earlier_row_is_earlier():
    c = sm.array(np.ones((3, 4)), i, j)
    found = sm.recur(lambda D: c + D[i : i - 1, j : j + 1], over=(i, j), init=0.0)
    np.testing.assert_array_equal(found.numpy(i, j), [[1, 1, 1, 1], [2, 2, 2, 1], [3, 3, 2, 1]])


def test_a_recurrence_inside_a_recurrence():
    x = sm.array(X, t, s)
    inner = sm.Dim("inner", 3)

    def step(h):
        g = sm.recur(lambda g: 0.5 * g[inner : inner - 1] + x, over=inner, init=0.0)
        return 0.1 * h[t : t - 1] + g[inner:-1]

    h = np.zeros(3)
    for now in X:
        h = 0.1 * h + now * 1.75
    np.testing.assert_allclose(sm.recur(step, over=t, init=0.0)[t:-1].numpy(), h)


def test_a_recurrence_that_starts_from_the_outer_state():
    x = sm.array(X, t, s)
    inner = sm.Dim("inner", 3)

    def step(h):
        start = h[t : t - 1]
        g = sm.recur(lambda g: 0.5 * g[inner : inner - 1] + x * inner, over=inner, init=start)
        return g[inner:-1]

    h = np.zeros(3)
    for now in X:
        for at in range(3):
            h = 0.5 * h + now * at
    np.testing.assert_allclose(sm.recur(step, over=t, init=sm.zeros({s: 3}))[t:-1].numpy(), h)


def test_branches_and_loops_inside_a_step():
    x = sm.array(X[:, 0], t)

    def step(h):
        before = h[t : t - 1]
        jumped = sm.cond(before > 1, lambda: before - t, lambda: before + abs(x))
        halved = sm.while_loop(lambda v: abs(v) > 2, lambda v: v / 2, jumped)
        return sm.cond(x > 0, lambda: halved + 1, lambda: halved)

    h, expected = 0.0, []
    for at, now in enumerate(X[:, 0]):
        h = h - at if h > 1 else h + abs(now)
        while abs(h) > 2:
            h /= 2
        h = h + 1 if now > 0 else h
        expected.append(h)
    np.testing.assert_allclose(sm.recur(step, over=t, init=0.0).numpy(), expected)


def test_checkpoint_and_custom_derivatives_inside_a_step():
    x = sm.array(X, t, s)

    @sm.custom_vjp
    def clipped(v):
        return sm.clip(v, -1, 1) + 0 * t

    clipped.defvjp(lambda v: (clipped.function(v), v), lambda v, ct: (ct * 2,))

    def final(x, inside):
        h = sm.recur(lambda h: inside(h[t : t - 1] + x), over=t, init=0.0)
        return sm.sum[s](h[t:-1])

    plain = final(x, lambda v: sm.clip(v, -1, 1))
    np.testing.assert_allclose(float(final(x, clipped)), float(plain))
    found = sm.grad(lambda x: final(x, clipped))(x).numpy(t, s)
    np.testing.assert_allclose(found, np.broadcast_to(2.0 ** np.arange(6, 0, -1)[:, None], (6, 3)))

    def smooth(v):
        return sm.tanh(v) * sm.exp(-(v**2))

    kept = sm.grad(lambda x: final(x, smooth))(x).numpy(t, s)
    again = sm.grad(lambda x: final(x, sm.checkpoint(smooth)))(x).numpy(t, s)
    np.testing.assert_allclose(again, kept)


def test_types_meet():
    x = sm.array(X.astype(np.float32), t, s)
    assert sm.recur(lambda h: h[t : t - 1] + x, over=t, init=0).dtype is sm.f32
    h0 = sm.array(np.zeros(3), s)
    assert sm.recur(lambda h: h[t : t - 1] + x, over=t, init=h0).dtype is sm.f64


def test_zero_steps():
    x = sm.array(np.zeros((0, 3)), t, s)
    found = sm.recur(lambda h: h[t : t - 1] + x, over=t, init=0.0)
    assert found.numpy(t, s).shape == (0, 3)


def test_a_state_without_the_dim_that_is_indexed():
    x = sm.array(X, t, s)
    with pytest.raises(DimError, match=r"give it to init: init=sm\.zeros"):
        sm.recur(lambda h: h[t : t - 1, s:2] + x, over=t, init=0.0)


def test_large_states_that_are_read_at_other_places_only():
    size, n = 30_000, sm.Dim("n", 40)
    x = np.sin(np.arange(size)).astype(np.float32)

    def mirrored(x):
        step = lambda h: h[n : n - 1][i : (i + 1) % size] * 0.5 + x  # noqa: E731
        return sm.recur(step, over=n, init=lambda _: x)[i : size - 1 - i]

    found = sm.jit(mirrored)(sm.array(x, i)).numpy(n, i)
    h = x
    for row in found:
        h = np.roll(h, -1) * 0.5 + x
        np.testing.assert_allclose(row, h[::-1], rtol=1e-5, atol=1e-6)


def test_refused():
    x = sm.array(X, t, s)
    with pytest.raises(RecurrenceError, match="fixed distance"):
        sm.recur(lambda h: h[t : 2 * t] + x, over=t, init=0)
    with pytest.raises(RecurrenceError, match="step returns"):
        sm.recur(lambda h: (h[t : t - 1] + x, x), over=t, init=0)
    with pytest.raises(RecurrenceError, match="over="):
        sm.recur(lambda h: h[t : t - 1] + x, over=(t, t), init=0)
    with pytest.raises(RecurrenceError, match="re-indexes its own state"):
        sm.recur(lambda h: (h[t : t - 1] + x)[t : 5 - t], over=t, init=0)
    with pytest.raises(ArgumentError, match="used whole"):
        sm.recur(lambda h: sm.exp(h), over=t, init=0)
    with pytest.raises(DimError):
        sm.recur(lambda h: h[t : t - 1] + x, over=t, init=sm.array(np.zeros(4), s))


def test_gradients_flow_through():
    a = sm.array(A, t, s)

    def loss(a, h0):
        h = sm.recur(lambda h: a * h[t : t - 1] + 1.0, over=t, init=h0)
        return sm.sum[s](h[t:-1])

    ga, gh = sm.grad(loss, argnums=(0, 1))(a, sm.array(np.ones(3), s))
    np.testing.assert_allclose(gh.numpy(), A.prod(0))
    before = [np.ones(3)]
    for row in A:
        before.append(row * before[-1] + 1)
    after = np.cumprod(np.concatenate([np.ones((1, 3)), A[:0:-1]]), axis=0)[::-1]
    np.testing.assert_allclose(ga.numpy(t, s), np.array(before[:-1]) * after)
