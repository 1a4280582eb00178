"""grad, vjp, jvp, jacobian, hessian, vmap: forms of arguments, nesting, further dims."""

import numpy as np
import pytest

import summand as sm
from summand.errors import ArgumentError, DerivativeError, DimError

i, i2, j, k, n = sm.dims("i i2 j k n")
V = np.array([0.5, -1.0, 2.0])
M = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])


def v():
    return sm.array(V, i)


def m():
    return sm.array(M, k, i)


def numeric(f, x, step=1e-6):
    out = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        for sign in (1, -1):
            moved = x.copy()
            moved[at] += sign * step
            out[at] += sign * f(moved) / (2 * step)
    return out


def test_gradients_have_the_form_of_the_arguments():
    def loss(params, x):
        return sm.sum[k](sm.tanh(sm.sum[i](params["w"] * x) + params["b"][0]) ** 2)

    params = {"w": v(), "b": [sm.array(0.25), None]}
    value, grads = sm.value_and_grad(loss)(params, m())
    assert set(grads) == {"w", "b"}
    assert grads["b"][1] is None

    def plain(w, b):
        return (np.tanh(M @ w + b) ** 2).sum()

    np.testing.assert_allclose(float(value), plain(V, 0.25))
    np.testing.assert_allclose(grads["w"].numpy(), numeric(lambda w: plain(w, 0.25), V), rtol=1e-6)
    np.testing.assert_allclose(
        float(grads["b"][0]), numeric(lambda b: plain(V, b), np.array(0.25)), rtol=1e-6
    )


def test_argnums_and_aux():
    def f(a, b):
        return sm.sum[i](a * b**2), {"twice": 2 * a, "name": "f"}

    (ga, gb), aux = sm.grad(f, argnums=(0, 1), has_aux=True)(v(), v() + 1)
    np.testing.assert_allclose(ga.numpy(), (V + 1) ** 2)
    np.testing.assert_allclose(gb.numpy(), 2 * V * (V + 1))
    np.testing.assert_allclose(aux["twice"].numpy(), 2 * V)
    assert aux["name"] == "f"
    (value, aux), gb = sm.value_and_grad(f, argnums=-1, has_aux=True)(v(), v() + 1)
    np.testing.assert_allclose(float(value), (V * (V + 1) ** 2).sum())
    np.testing.assert_allclose(gb.numpy(), 2 * V * (V + 1))


def test_python_floats_are_differentiable():
    assert float(sm.grad(lambda x: x**3)(2.0)) == 12.0
    assert float(sm.grad(sm.grad(lambda x: x**3))(2.0)) == 12.0
    assert float(sm.grad(sm.grad(sm.grad(lambda x: sm.exp(2 * x))))(0.0)) == 8.0


def test_a_result_that_does_not_depend_on_the_argument():
    np.testing.assert_array_equal(sm.grad(lambda x: sm.sum[k](m())[i:0])(v()).numpy(), np.zeros(3))


def test_stop_gradient():
    g = sm.grad(lambda x: sm.sum[i](sm.stop_gradient(x) * x))(v())
    np.testing.assert_allclose(g.numpy(), V)


def test_vjp_and_jvp_are_transposes():
    def f(a, b):
        return sm.sin(a) * sm.sum[k](b), a[i : 2 - i]

    rng = np.random.default_rng(0)
    tangents = (sm.array(rng.standard_normal(3), i), sm.array(rng.standard_normal((2, 3)), k, i))
    cotangents = (sm.array(rng.standard_normal(3), i), sm.array(rng.standard_normal(3), i))
    out, pushed = sm.jvp(f, (v(), m()), tangents)
    again, pull = sm.vjp(f, v(), m())
    pulled = pull(cotangents)
    np.testing.assert_allclose(out[0].numpy(), again[0].numpy())
    left = sum(float(sm.sum[i](p * c)) for p, c in zip(pushed, cotangents, strict=True))
    right = float(sm.sum[i](pulled[0] * tangents[0])) + float(sm.sum[i, k](pulled[1] * tangents[1]))
    np.testing.assert_allclose(left, right)


def test_tangents_of_integers_are_zero():
    out, tangent = sm.jvp(lambda x: (x * 2, sm.argmax[i](x)), (v(),), (v(),))
    np.testing.assert_allclose(tangent[0].numpy(), 2 * V)
    assert int(tangent[1]) == 0
    assert int(out[1]) == 2


def test_further_dims_are_batching():
    batch = sm.array(np.eye(3), n, i)
    _, tangent = sm.jvp(lambda x: x**2, (v(),), (batch,))
    np.testing.assert_allclose(tangent.numpy(n, i), np.diag(2 * V))
    _, pull = sm.vjp(lambda x: x**2, v())
    np.testing.assert_allclose(pull(batch)[0].numpy(n, i), np.diag(2 * V))


def test_jacobian():
    def f(x):
        return sm.sin(x) * sm.sum[i](x)

    found = sm.jacobian(f, rename={i: i2})(v()).numpy(i, i2)
    expected = np.diag(np.cos(V)) * V.sum() + np.sin(V)[:, None]
    np.testing.assert_allclose(found, expected)
    to_k = sm.jacobian(lambda x: sm.sum[i](m() * x))(v())
    np.testing.assert_allclose(to_k.numpy(k, i), M)
    tree = sm.jacobian(lambda p: {"y": p["a"] * sm.sum[i](p["b"])})({"a": sm.array(2.0), "b": v()})
    np.testing.assert_allclose(float(tree["y"]["a"]), V.sum())
    np.testing.assert_allclose(tree["y"]["b"].numpy(), [2, 2, 2])


def test_hessian():
    found = sm.hessian(lambda x: sm.sum[i](x**3) + sm.prod[i](x), rename={i: i2})(v())
    a, b, c = V
    expected = np.diag(6 * V) + np.array([[0, c, b], [c, 0, a], [b, a, 0]])
    np.testing.assert_allclose(found.numpy(i, i2), expected)


def test_hessian_asks_for_names():
    with pytest.raises(DimError, match="both the result and the argument have the dim i"):
        sm.hessian(lambda x: sm.sum[i](x**2))(v())


def test_vmap_hides_a_dim():
    def loss(w, x):
        assert n not in x.dims
        return sm.sum[x.dims](w * x**2)

    x = sm.array(np.arange(6.0).reshape(2, 3), n, i)
    per_example = sm.vmap(sm.grad(loss), n)(sm.array(V, i), x)
    np.testing.assert_allclose(per_example.numpy(n, i), np.arange(6.0).reshape(2, 3) ** 2)


def test_vmap_keeps_apart_a_dim_of_the_same_name_inside():
    outer = sm.array(np.arange(2.0), n)

    def f(x):
        return sm.sum[n](outer * x)

    x = sm.array(np.array([1.0, 10.0, 100.0]), n)
    np.testing.assert_allclose(sm.vmap(f, n)(x).numpy(), [1, 10, 100])
    with pytest.raises(DimError, match="gives a result with a dim n"):
        sm.vmap(lambda x: outer * x, n)(x)
    with pytest.raises(DimError, match="no argument has that dim"):
        sm.vmap(f, n)(v())


def test_vmap_of_control_flow():
    x = sm.array(np.array([0.5, 3.0, 40.0]), n)

    def halve(v):
        return sm.while_loop(lambda s: s[0] > 1, lambda s: (s[0] / 2, s[1] + 1), (v, 0))

    value, steps = sm.vmap(halve, n)(x)
    np.testing.assert_allclose(value.numpy(), [0.5, 0.75, 0.625])
    np.testing.assert_array_equal(steps.numpy(), [0, 2, 6])
    found = sm.vmap(lambda v: sm.cond(v > 1, lambda: v * 2, lambda: -v), n)(x)
    np.testing.assert_allclose(found.numpy(), [-0.5, 6, 80])

    steps = sm.vmap(lambda v: sm.recur(lambda h: h[i : i - 1] * v + m()[k:0], over=i, init=v), n)(x)
    for number, start in enumerate([0.5, 3.0, 40.0]):
        h = start
        for at in range(3):
            h = h * start + M[0, at]
            np.testing.assert_allclose(steps[n:number, i:at].numpy(), h)


def test_transforms_nest_in_any_order():
    x = sm.array(np.arange(6.0).reshape(2, 3) / 3, n, i)

    def f(v):
        return sm.sum[i](sm.sin(v) * v**2)

    jitted = sm.jit(sm.vmap(sm.jit(sm.grad(f)), n))(x).numpy(n, i)
    a = np.arange(6.0).reshape(2, 3) / 3
    np.testing.assert_allclose(jitted, np.cos(a) * a**2 + 2 * a * np.sin(a), rtol=1e-6)

    def directional(v):
        return sm.jvp(sm.grad(f), (v,), (v,))[1]

    hv = sm.hessian(f, rename={i: i2})(v())
    expected = hv.numpy(i, i2) @ V
    np.testing.assert_allclose(directional(v()).numpy(), expected)
    reverse = sm.grad(lambda u: sm.sum[i](sm.grad(f)(u) * sm.stop_gradient(u)))(v())
    np.testing.assert_allclose(reverse.numpy(), expected)


def test_a_gradient_of_a_function_with_a_gradient_inside():
    def energy(x):
        return sm.sum[i](x**4)

    def loss(scale):
        force = sm.grad(energy)(scale * v())
        return sm.sum[i](force**2)

    np.testing.assert_allclose(
        float(sm.grad(loss)(0.5)), numeric(lambda s: ((4 * (s * V) ** 3) ** 2).sum(), np.array(0.5))
    )


def test_closures_over_traced_values():
    def outer(a):
        return sm.sum[i](sm.grad(lambda b: sm.sum[i](a * b**2))(v()))

    np.testing.assert_allclose(sm.grad(outer)(v()).numpy(), 2 * V)


def test_refused():
    with pytest.raises(ArgumentError, match="by argument 2"):
        sm.grad(lambda x: x, argnums=2)(1.0)
    with pytest.raises(DerivativeError, match="grad needs a real float result"):
        sm.grad(lambda x: sm.sum[i](x) * 1j)(v())
    with pytest.raises(DerivativeError, match="one result"):
        sm.grad(lambda x: (x, x))(1.0)
    with pytest.raises(ArgumentError, match="returns \\(result, aux\\)"):
        sm.grad(lambda x: x, has_aux=True)(1.0)
    with pytest.raises(ArgumentError, match="tangents have the form"):
        sm.jvp(lambda x: x, (v(),), (v(), v()))
    _, pull = sm.vjp(lambda x: x, v())
    with pytest.raises(DimError, match="differs in i"):
        pull(sm.array(np.ones(4), i))
    with pytest.raises(DerivativeError):
        sm.grad(lambda x: sm.while_loop(lambda s: s < 3, lambda s: s * 2, x))(1.0)
