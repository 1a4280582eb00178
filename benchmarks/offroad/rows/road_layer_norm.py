"""out{i,j} = (X − mean_j X) / √(var_j X + ε) · γ{j} + β{j}"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import MEMORY, Input, Row, Work, extents, normal, product

i, j = sm.dims("i j")
EPSILON = 1e-5


def inputs(s, rng):
    return (
        Input(normal(rng, s, "i j"), (i, j)),
        Input(1 + normal(rng, s, "j", 0.1), (j,)),
        Input(normal(rng, s, "j", 0.1), (j,)),
    )


def program(s, X, gamma, beta):
    centred = X - sm.mean[j](X)
    return centred * (sm.mean[j](centred**2) + EPSILON) ** -0.5 * gamma + beta


def reference(s, X, gamma, beta):
    centred = X - X.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + EPSILON) * gamma + beta


def work(s):
    slots = product(s, "i j")
    return Work(5 * slots), Work(14 * slots)


def in_torch(torch, s):
    F = torch.nn.functional
    return lambda X, gamma, beta: F.layer_norm(X, (s["j"],), gamma, beta, EPSILON)


def in_jax(jax, s):
    def layer_norm(X, gamma, beta):
        centred = X - X.mean(1, keepdims=True)
        variance = (centred * centred).mean(1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + EPSILON) * gamma + beta

    return layer_norm


ROWS = (
    Row(
        "layer-norm",
        "Layer norm with affine",
        extents(i=8192, j=1024),
        inputs,
        program,
        (i, j),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(i=5, j=9),
        fraction=MEMORY,
        control=True,
    ),
)
