"""out{i,j} = exp(Z − max_j Z) / Σ_j exp(Z − max_j Z)"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import MEMORY, Input, Row, Work, extents, normal, product

i, j = sm.dims("i j")


def inputs(s, rng):
    return (Input(normal(rng, s, "i j"), (i, j)),)


def program(s, Z):
    e = sm.exp(Z - sm.max[j](Z))
    return e / sm.sum[j](e)


def reference(s, Z):
    e = np.exp(Z - Z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def work(s):
    slots = product(s, "i j")
    return Work(13 * slots), Work(17 * slots)


def in_torch(torch, s):
    return lambda Z: torch.softmax(Z, 1)


def in_jax(jax, s):
    return lambda Z: jax.nn.softmax(Z, 1)


ROWS = (
    Row(
        "softmax",
        "Softmax",
        extents(i=4096, j=4096),
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
