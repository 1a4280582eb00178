"""out{i} = Σ_j exp(−‖x_i − y_j‖² / 2) · b_j: a Gaussian kernel times a vector."""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

i, j, d = sm.dims("i j d")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "i d"), (i, d)),
        Input(normal(rng, s, "j d"), (j, d)),
        Input(normal(rng, s, "j"), (j,)),
    )


def program(s, X, Y, B):
    return sm.sum[j](sm.exp(-0.5 * sm.sum[d]((X - Y) ** 2)) * B)


def reference(s, X, Y, B):
    rows = [np.exp(-0.5 * ((p[:, None] - Y) ** 2).sum(2)) @ B for p in np.array_split(X, 32)]
    return np.concatenate(rows)


def work(s):
    pairs, dims = product(s, "i j"), s["d"]
    forward = pairs * (dims + 9 + 1)  # ‖x‖² and ‖y‖² are of single points
    return Work(forward), Work(forward + pairs * (2 * dims + 4))


def in_torch(torch, s):
    """Squares of sums as sums of squares: a matrix product; rows that stay in the cache."""

    def gauss(X, Y, B):
        y = (Y * Y).sum(1) * 0.5
        sums = [
            torch.exp(torch.addmm(y, p, Y.T, beta=-1).sub_((p * p).sum(1, keepdim=True), alpha=0.5))
            @ B
            for p in X.split(128)
        ]
        return torch.cat(sums)

    return gauss


def in_torch_whole(torch, s):
    """One expression for torch.compile."""

    def gauss(X, Y, B):
        square = sum((X[:, None, k] - Y[None, :, k]) ** 2 for k in range(s["d"]))
        return (torch.exp(-0.5 * square) * B).sum(1)

    return gauss


def in_jax(jax, s):
    jnp = jax.numpy

    def gauss(X, Y, B):
        square = sum((X[:, None, k] - Y[None, :, k]) ** 2 for k in range(s["d"]))
        return (jnp.exp(-0.5 * square) * B).sum(1)

    return gauss


ROWS = (
    Row(
        "7a",
        "Gaussian kernel sum",
        extents(i=8192, j=8192, d=3),
        inputs,
        program,
        (i,),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(i=9, j=11, d=3),
        compile=in_torch_whole,
        lean=True,
    ),
)
