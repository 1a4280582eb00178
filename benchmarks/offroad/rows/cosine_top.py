"""out_{i,·} = the ten greatest over j of (x_i · y_j) / (|x_i| |y_j|)

Retrieval by cosine similarity; the matrix of similarities need not exist.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

i, j, d = sm.dims("i j d")
best = sm.Dim("best", 10)


def inputs(s, rng):
    return Input(normal(rng, s, "i d"), (i, d)), Input(normal(rng, s, "j d"), (j, d))


def unit(z):
    return z * sm.rsqrt(sm.sum[d](z * z))


def program(s, X, Y):
    return sm.top_k(sm.sum[d](unit(X) * unit(Y)), j, best)[0]


def reference(s, X, Y):
    X, Y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (X, Y))
    return -np.partition(-(X @ Y.T), np.arange(10), 1)[:, :10]


def work(s):
    """A comparison for each similarity; only the ten best have a cotangent."""
    each = product(s, "i j")
    forward = each * (s["d"] + 1)
    return Work(forward), Work(forward + 40.0 * s["i"] * s["d"])


def in_torch(torch, s):
    unit = torch.nn.functional.normalize

    def retrieve(X, Y):
        return (unit(X) @ unit(Y).T).topk(10, 1).values

    return retrieve


def in_jax(jax, s):
    def unit(z):
        return z / jax.numpy.linalg.norm(z, axis=1, keepdims=True)

    def retrieve(X, Y):
        return jax.lax.top_k(unit(X) @ unit(Y).T, 10)[0]

    return retrieve


ROWS = (
    Row(
        "19",
        "Cosine similarity, top 10",
        extents(i=1024, j=16_384, d=64),
        inputs,
        program,
        (i, best),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(i=3, j=23, d=4),
        lean=True,
    ),
)
