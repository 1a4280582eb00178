"""u ← u + κ/10 · (the four neighbours' sum - 4u) + u (1 - u²)/100,   40 steps, periodic

Reaction and diffusion with a coefficient of its own at each point.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

y, x = sm.dims("y x")
STEPS = 40
t = sm.Dim("t", STEPS)


def inputs(s, rng):
    return (
        Input(normal(rng, s, "y x"), (y, x)),
        Input(rng.random((s["y"], s["x"]), dtype=np.float32), (y, x)),
    )


def program(s, start, kappa):
    def step(u):
        u = u[t : t - 1]
        around = u[y : (y + 1) % s["y"]] + u[y : (y + s["y"] - 1) % s["y"]]
        around = around + u[x : (x + 1) % s["x"]] + u[x : (x + s["x"] - 1) % s["x"]]
        return u + 0.1 * kappa * (around - 4 * u) + 0.01 * u * (1 - u * u)

    return sm.recur(step, over=t, init=start)[t:-1]


def step(u, kappa, roll):
    around = roll(u, 1, 0) + roll(u, -1, 0) + roll(u, 1, 1) + roll(u, -1, 1)
    return u + 0.1 * kappa * (around - 4 * u) + 0.01 * u * (1 - u * u)


def reference(s, u, kappa):
    for _ in range(STEPS):
        u = step(u, kappa, np.roll)
    return u


def work(s):
    """Four additions, then u (1.01 - 0.01 u²) + κ/10 (…) in four; in reverse the steps again,
    the transposed step, and a product for κ."""
    each = STEPS * product(s, "y x")
    return Work(8 * each), Work(25 * each)


def in_torch(torch, s):
    def steps(u, kappa):
        for _ in range(STEPS):
            u = step(u, kappa, torch.roll)
        return u

    return steps


def in_jax(jax, s):
    def steps(u, kappa):
        def one(u, _):
            return step(u, kappa, jax.numpy.roll), None

        return jax.lax.scan(one, u, length=STEPS)[0]

    return steps


ROWS = (
    Row(
        "24",
        "Reaction-diffusion, 40 steps",
        extents(y=512, x=512),
        inputs,
        program,
        (y, x),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(y=5, x=4),
    ),
)
