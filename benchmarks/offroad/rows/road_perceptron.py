"""out{b,o} = max(0, X W₁ + β₁) W₂ + β₂ − Y: the residual of a two-layer perceptron.

Its square is the loss, so value and gradient of Σ out² are the training step.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import CONTRACTION, Input, Row, Work, extents, normal, product

b, f, h, o = sm.dims("b f h o")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "b f"), (b, f), gradient=False),
        Input(normal(rng, s, "f h", s["f"] ** -0.5), (f, h)),
        Input(normal(rng, s, "h", 0.1), (h,)),
        Input(normal(rng, s, "h o", s["h"] ** -0.5), (h, o)),
        Input(normal(rng, s, "o", 0.1), (o,)),
        Input(normal(rng, s, "b o"), (b, o), gradient=False),
    )


def program(s, X, W1, b1, W2, b2, Y):
    return sm.sum[h](sm.relu(sm.sum[f](X * W1) + b1) * W2) + b2 - Y


def reference(s, X, W1, b1, W2, b2, Y):
    return np.maximum(X @ W1 + b1, 0) @ W2 + b2 - Y


def work(s):
    first, second = product(s, "b f h"), product(s, "b h o")
    return Work(first + second), Work(2 * first + 3 * second)


def in_torch(torch, s):
    relu = torch.nn.functional.relu

    def residual(X, W1, b1, W2, b2, Y):
        return torch.addmm(b2, relu(torch.addmm(b1, X, W1)), W2) - Y

    return residual


def in_jax(jax, s):
    def residual(X, W1, b1, W2, b2, Y):
        return jax.nn.relu(X @ W1 + b1) @ W2 + b2 - Y

    return residual


ROWS = (
    Row(
        "perceptron",
        "Two-layer perceptron, a training step",
        extents(b=512, f=1024, h=1024, o=256),
        inputs,
        program,
        (b, o),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(b=5, f=7, h=9, o=3),
        tolerance=1e-5,
        fraction=CONTRACTION,
        control=True,
    ),
)
