"""What every step of a recurrence reads from rows a page apart is packed once, before the loop."""

from dataclasses import replace

import numpy as np
import pytest

import summand as sm
from summand.rewrite.recur import carried
from summand.runtime import machine

b, h, k, q, s, t, w = sm.dims("b h k q s t w")


def gated(x, weights):
    """h' = tanh(x + sum{k} h W) with a gate of its own: x{b,q,h,t}  weights{q,h,k}."""

    def step(state):
        z = x + sm.sum[k](state[t : t - 1][h:k] * weights)
        return sm.sigmoid(z[q:0]) * sm.tanh(z[q:1])

    return sm.recur(step, over=t, init=sm.zeros({h: x.sizes[h]}))


def arguments(batch, size, steps, heads=0):
    """Weights in the order k, q, h: rows of the sum are 2·size elements apart."""
    rng = np.random.default_rng(size)

    def normal(scale, *shape):
        return scale * rng.standard_normal(shape, np.float32)

    many, names = ((heads,), (w,)) if heads else ((), ())
    x = sm.array(normal(1.0, *many, steps, batch, 2, size), *names, t, b, q, h)
    weights = sm.array(normal(size**-0.5, *many, size, 2, size), *names, k, q, h)
    return x, weights


def packing(text):
    return [line for line in text.splitlines() if line.startswith("kernel") and "_pack_" in line]


@pytest.fixture
def few_registers(monkeypatch):
    """A processor with short vectors and a small second cache, on which it pays."""
    target = replace(machine.target(), l2=1 << 19)
    monkeypatch.setattr(machine, "target", lambda: target)


@pytest.mark.parametrize("heads", [0, 2])
@pytest.mark.usefixtures("few_registers")
def test_rows_a_page_apart_are_packed_once(heads):
    text = sm.jit(gated).inspect("loops", *arguments(16, 512, 20, heads))
    assert len(packing(text)) == 1
    steps = text[text.rindex("for t=20") :]
    assert "_packed0[" in steps


@pytest.mark.usefixtures("few_registers")
def test_one_step_is_not_worth_a_copy():
    assert not packing(sm.jit(gated).inspect("loops", *arguments(16, 512, 1)))


@pytest.mark.parametrize("sizes", [(16, 512, 3), (16, 520, 5), (3, 264, 7), (1, 512, 4)])
@pytest.mark.parametrize("heads", [0, 3])
def test_agrees_with_the_interpreter(sizes, heads):
    given = arguments(*sizes, heads)
    names = (*((w,) if heads else ()), b, h, t)
    found = sm.jit(gated)(*given).numpy(*names)
    with sm.interpret():
        wanted = gated(*given).numpy(*names)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", [0, 2])
def test_gradients_agree_with_the_interpreter(heads):
    given = arguments(8, 256, 5, heads)
    names = (w,) if heads else ()
    loss = sm.grad(lambda *a: sm.sum[(*names, b, h, t)](gated(*a) ** 2), argnums=(0, 1))
    orders = (*names, b, q, h, t), (*names, k, q, h)
    found = [g.numpy(*o) for g, o in zip(sm.jit(loss)(*given), orders, strict=True)]
    with sm.interpret():
        wanted = [g.numpy(*o) for g, o in zip(loss(*given), orders, strict=True)]
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


def nested(x, y, weights):
    """Steps of t that are recurrences over s: h' = x + the last of u' = y tanh(sum{k} u W)."""

    def inner(u):
        return y * sm.tanh(sm.sum[k](u[s : s - 1][h:k] * weights))

    def step(state):
        end = sm.recur(inner, over=s, init=state[t : t - 1])
        return x + end[s : y.sizes[s] - 1]

    return sm.recur(step, over=t, init=sm.zeros({b: x.sizes[b], h: x.sizes[h]}))


def test_steps_within_a_launched_step(monkeypatch):
    """What a launched step packs would be packed with each launch: it is left as it is."""
    monkeypatch.setattr(carried, "POINTS", 1)
    rng = np.random.default_rng(0)
    x = sm.array(rng.standard_normal((3, 8, 1024), np.float32), t, b, h)
    y = sm.array(rng.standard_normal(20, np.float32), s)
    weights = sm.array(0.03 * rng.standard_normal((1024, 1024), np.float32), k, h)
    given = x, y, weights
    found = sm.jit(nested)(*given).numpy(b, h, t)
    with sm.interpret():
        wanted = nested(*given).numpy(b, h, t)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
