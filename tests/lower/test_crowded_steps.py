"""What a step of a recurrence reads from rows that meet in one set of the cache is copied first."""

import re

import numpy as np
import pytest

import summand as sm

b, d, s, t = sm.dims("b d s t")


def scan(u, step, a, x, y):
    """A selective scan: u, step{b,d,t}  a{d,s}  x, y{b,s,t}."""
    decay, drive = sm.exp(step * a), step * u * x
    h = sm.recur(lambda h: decay * h[t : t - 1] + drive, over=t, init=0.0)
    return sm.sum[s](h * y)


def arguments(steps, states=16, channels=32, batch=2):
    rng = np.random.default_rng(steps)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    u = sm.array(normal(batch, channels, steps), b, d, t)
    step = sm.array(0.5 + rng.random((batch, channels, steps), np.float32), b, d, t)
    a = sm.array(-0.5 - rng.random((channels, states), np.float32), d, s)
    x = sm.array(normal(batch, states, steps), b, s, t)
    y = sm.array(normal(batch, states, steps), b, s, t)
    return u, step, a, x, y


@pytest.mark.parametrize(("steps", "copied"), [(1024, True), (2048, True), (1000, False)])
def test_copies(steps, copied):
    """Rows of 1024 floats are a page apart, those of 1000 are not."""
    text = sm.jit(scan).inspect("loops", *arguments(steps))
    nest = text[: text.index("ordered(t)")].rindex("nest")
    step = re.split(r"\n +nest ", text[nest:])[0]
    assert (f"{steps}*s" not in step) == copied


@pytest.mark.parametrize("steps", [1024, 2048, 1000])
@pytest.mark.parametrize("states", [16, 13])
def test_agrees_with_the_interpreter(steps, states):
    given = arguments(steps, states)
    found = sm.jit(scan)(*given).numpy(b, d, t)
    with sm.interpret():
        wanted = scan(*given).numpy(b, d, t)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
