"""What `explain` says that a kernel did."""

import numpy as np

import summand as sm
from summand.explain.profile import profile
from summand.rewrite.recur import carried

STEPS, CELLS = 6, 64
t, x = sm.Dim("t", STEPS), sm.Dim("x")


def heat(u):
    """Steps of a stencil; each is launched by itself."""

    def step(u):
        u = u[t : t - 1]
        return 0.5 * u + 0.25 * (u[x : (x + 1) % CELLS] + u[x : (x + CELLS - 1) % CELLS])

    return sm.recur(step, over=t, init=u)[t:-1]


def test_rounds_count_once(monkeypatch):
    """A launch of a round is its part of the kernel's work."""
    monkeypatch.setattr(carried, "POINTS", 1)
    found = profile(heat, [sm.array(np.ones(CELLS, np.float32), x)])
    (step,) = [k for k in found.kernels if k.launches == STEPS]
    assert 4 * STEPS * CELLS <= step.flops <= 6 * STEPS * CELLS  # at the border one is added more
    assert step.bytes <= 4 * 4 * STEPS * CELLS
