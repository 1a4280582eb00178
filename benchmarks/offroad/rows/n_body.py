"""out{i,d} = Σ_j m_j (x_j − x_i) (‖x_j − x_i‖² + ε)^(−3/2): gravity of all on each."""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, positive, product

i, j, d = sm.dims("i j d")
SOFTENING = 1e-2


def inputs(s, rng):
    return Input(normal(rng, s, "i d"), (i, d)), Input(positive(rng, s, "i"), (i,))


def program(s, X, M):
    away = X[i:j] - X
    return sm.sum[j](M[i:j] * away * (sm.sum[d](away**2) + SOFTENING) ** -1.5)


def reference(s, X, M):
    rows = []
    for p in np.array_split(X, 32):
        away = X[None] - p[:, None]
        weight = M * ((away**2).sum(2) + SOFTENING) ** -1.5
        rows.append(np.einsum("ij,ijd->id", weight, away))
    return np.concatenate(rows)


def work(s):
    pairs, dims = product(s, "i i"), s["d"]
    forward = pairs * (3 * dims + 9)  # difference, square, sum; r⁻³ by a reciprocal root
    return Work(forward), Work(forward + pairs * (4 * dims + 5))


def in_torch(torch, s):
    """Rows that stay in the cache; the weighted sum of differences is a matrix product."""

    def bodies(X, M):
        out = []
        for p in X.split(64):
            away = X[None] - p[:, None]
            r2 = (away * away).sum(2) + SOFTENING
            weight = M * torch.rsqrt(r2) / r2
            out.append(weight @ X - weight.sum(1, keepdim=True) * p)
        return torch.cat(out)

    return bodies


def in_torch_whole(torch, s):
    """One expression for torch.compile."""

    def bodies(X, M):
        away = [X[None, :, k] - X[:, None, k] for k in range(s["d"])]
        r2 = sum(a * a for a in away) + SOFTENING
        weight = M * torch.rsqrt(r2) / r2
        return torch.stack([(weight * a).sum(1) for a in away], 1)

    return bodies


def in_jax(jax, s):
    jnp = jax.numpy

    def bodies(X, M):
        away = [X[None, :, k] - X[:, None, k] for k in range(s["d"])]
        r2 = sum(a * a for a in away) + SOFTENING
        weight = M * jax.lax.rsqrt(r2) / r2
        return jnp.stack([(weight * a).sum(1) for a in away], 1)

    return bodies


ROWS = (
    Row(
        "7b",
        "N-body",
        extents(i=4096, d=3),
        inputs,
        program,
        (i, d),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(i=9, d=3),
        compile=in_torch_whole,
        lean=True,
    ),
)
