"""cond, while_loop, checkpoint, custom_vjp, random numbers."""

import numpy as np
import pytest

import summand as sm
from summand.errors import ArgumentError, DimError

i, k, n = sm.dims("i k n")
X = np.array([1.0, -2.0, 3.0])


def x():
    return sm.array(X, i)


@pytest.mark.parametrize("sign", [1, -1])
def test_cond_takes_one_branch(sign):
    def f(v):
        return sm.cond(sm.sum[i](v) > 0, lambda v: {"a": v * 2}, lambda v: {"a": -v}, v)

    expected = X * 2 if sign > 0 else X
    np.testing.assert_allclose(f(sign * x())["a"].numpy(), expected)
    np.testing.assert_allclose(sm.jit(f)(sign * x())["a"].numpy(), expected)


def test_branches_meet_in_dims_and_types():
    found = sm.cond(True, lambda: 1, lambda: x())
    np.testing.assert_array_equal(found.numpy(), np.ones(3))
    assert found.dtype is sm.f64


def test_branches_close_over_what_they_like():
    scale = x()

    def f(v):
        return sm.sum[i](sm.cond(v > 0, lambda: scale * v, lambda: scale - v))

    for value in (2.0, -2.0):
        expected = X.sum() if value > 0 else -3.0
        np.testing.assert_allclose(float(sm.grad(f)(value)), expected)


def test_while_loop():
    def halve(v):
        return sm.while_loop(
            lambda state: sm.max[i](abs(state[0])) > 1, lambda state: (state[0] / 2, state[1] + 1),
            (v, 0),
        )  # fmt: skip

    value, steps = halve(x())
    np.testing.assert_allclose(value.numpy(), X / 4)
    assert int(steps) == 2
    value, steps = sm.jit(halve)(x())
    assert int(steps) == 2


def test_a_loop_state_may_gain_dims():
    v = x()
    found = sm.while_loop(lambda h: sm.max[h.dims](h) < 5, lambda h: h + abs(v), 0.0)
    np.testing.assert_allclose(found.numpy(), np.abs(X) * 2)


def test_checkpoint_changes_nothing():
    def f(v):
        return sm.sum[i](sm.exp(sm.sin(v)) * v)

    v = x()
    np.testing.assert_allclose(float(sm.checkpoint(f)(v)), float(f(v)))
    np.testing.assert_allclose(
        sm.grad(sm.checkpoint(f))(v).numpy(), sm.grad(f)(v).numpy(), rtol=1e-12
    )


def test_custom_vjp():
    scale = sm.array(np.array([1.0, 10.0, 100.0]), i)

    @sm.custom_vjp
    def f(v, power, w):
        return {"out": v**power * w * scale}

    def forward(v, power, w):
        return f.function(v, power, w), (v, w)

    def backward(saved, cotangent):
        v, _ = saved
        return cotangent["out"] * 7 * scale, None, sm.sum[i](cotangent["out"] * v)

    f.defvjp(forward, backward)
    v, w = x(), sm.array(2.0)
    np.testing.assert_allclose(f(v, 2, w)["out"].numpy(), X**2 * 2 * [1, 10, 100])
    gv, gw = sm.grad(lambda v, w: sm.sum[i](f(v, 2, w)["out"]), argnums=(0, 1))(v, w)
    np.testing.assert_allclose(gv.numpy(), 7 * np.array([1.0, 10.0, 100.0]))
    np.testing.assert_allclose(float(gw), X.sum())


def test_custom_vjp_refuses():
    @sm.custom_vjp
    def f(v):
        return v

    with pytest.raises(ArgumentError, match="no derivative yet"):
        f(x())
    f.defvjp(lambda v: v, lambda saved, ct: (ct,))
    with pytest.raises(ArgumentError, match="does not return"):
        f(x())
    f.defvjp(lambda v: (v, v), lambda saved, ct: (ct, ct))
    with pytest.raises(ArgumentError, match="gives 2 cotangents"):
        f(x())
    f.defvjp(lambda v: (v, v), lambda saved, ct: (sm.sum[i](ct) * sm.ones({k: 2}),))
    with pytest.raises(DimError, match="a cotangent is"):
        f(x())


# ---- random numbers


def test_a_key_gives_the_same_numbers():
    key = sm.random.key(3)
    first = sm.random.normal(key, {i: 4, k: 5}).numpy(i, k)
    again = sm.jit(lambda key: sm.random.normal(key, {i: 4, k: 5}))(key).numpy(i, k)
    np.testing.assert_array_equal(first, again)
    other = sm.random.normal(sm.random.key(4), {i: 4, k: 5}).numpy(i, k)
    assert not np.any(first == other)


def test_bits_are_threefry():
    # Random123's known answer for Threefry-2x32 with 20 rounds, key 0, counter 0.
    assert int(sm.random.bits(sm.random.key(0), {i: 1})[i:0]) == 0x6B200159


def test_split_keys_differ():
    key = sm.random.key(0)
    keys = [int(k) for k in sm.random.split(key, 50)]
    assert len(set(keys)) == 50
    many = sm.random.split(key, sm.Dim("n", 8))
    draws = sm.random.uniform(many, {i: 100})
    assert {d.name for d in draws.dims} == {"n", "i"}
    flat = draws.numpy(*draws.dims).ravel()
    assert len(set(flat.tolist())) > 790


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_distributions(dtype):
    key = sm.random.key(11)
    u = sm.random.uniform(key, {n: 20000}, dtype=dtype)
    assert u.dtype.name == dtype
    values = u.numpy().astype(float)
    assert values.min() >= 0
    assert values.max() <= 1
    assert abs(values.mean() - 0.5) < 0.01
    z = sm.random.normal(key, {n: 20000}, dtype=dtype).numpy().astype(float)
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 1) < 0.02
    assert np.isfinite(z).all()


def test_integers_choices_and_permutations():
    key = sm.random.key(5)
    draws = sm.random.randint(key, {n: 3000}, -2, 3).numpy()
    assert set(draws.tolist()) == {-2, -1, 0, 1, 2}
    order = sm.random.permutation(key, n, 100).numpy()
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() != list(range(100))
    coins = sm.random.bernoulli(key, {n: 3000}, 0.25).numpy()
    assert abs(coins.mean() - 0.25) < 0.03
    kept = sm.random.dropout(key, sm.ones({n: 3000}), 0.5).numpy()
    assert set(kept.tolist()) == {0.0, 2.0}
    low = sm.random.uniform(key, {n: 1000}, -3, -1).numpy()
    assert low.min() >= -3
    assert low.max() < -1
    with pytest.raises(ArgumentError, match="no integer"):
        sm.random.randint(key, {n: 3}, 2, 2)
    with pytest.raises(ArgumentError, match="a random key is u64"):
        sm.random.normal(sm.array(1.0), {n: 3})
