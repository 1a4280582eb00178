"""out{i,r} = Σ_{j,k} T{i,j,k} · B{j,r} · C{k,r}

Matricised tensor times Khatri-Rao product, the step of a CP decomposition.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import CONTRACTION, Input, Row, Work, extents, normal, product

i, j, k, r = sm.dims("i j k r")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "i j k"), (i, j, k)),
        Input(normal(rng, s, "j r"), (j, r)),
        Input(normal(rng, s, "k r"), (k, r)),
    )


def program(s, T, B, C):
    return sm.sum[j, k](T * B * C)


def reference(s, T, B, C):
    return np.einsum("ijr,jr->ir", T @ C, B)


def work(s):
    """T is read in one product, and multiplied again for the gradients of B and of C; its own
    cotangent is an outer product."""
    slots = product(s, "i j k r")
    return Work(slots), Work(3 * slots)


def in_torch(torch, s):
    def mttkrp(T, B, C):
        return torch.einsum("ijr,jr->ir", T @ C, B)

    return mttkrp


def in_jax(jax, s):
    def mttkrp(T, B, C):
        return jax.numpy.einsum("ijr,jr->ir", T @ C, B)

    return mttkrp


ROWS = (
    Row(
        "23",
        "MTTKRP",
        extents(i=192, j=192, k=192, r=32),
        inputs,
        program,
        (i, r),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(i=5, j=4, k=6, r=3),
        tolerance=1e-5,
        fraction=CONTRACTION,
    ),
)
