"""EM routing, three iterations, of votes V{b,i,j,d} with activations a{b,i} to capsules j:

μ = Σ_i r a V / Σ_i r a        σ² = Σ_i r a (V − μ)² / Σ_i r a + ε        α = sigmoid(λ(1 − cost))
r = softmax_j(−Σ_d (V − μ)² / 2σ² − Σ_d log σ + log α)                       out{b,j,d} = last μ
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, positive, product

b, i, j, d = sm.dims("b i j d")


def inputs(s, rng):
    V = Input(normal(rng, s, "b i j d"), (b, i, j, d))
    return V, Input(positive(rng, s, "b i"), (b, i))


def program(s, V, a):
    r, total, mean = 1.0 / s["j"], sm.sum[i](a / s["j"]) + 1e-8, sm.sum[i](a * V) / s["j"]
    for _ in range(2):
        variance = sm.sum[i](r * a * (V - mean / total) ** 2) / total + 1e-4
        half = sm.sum[d](0.5 * sm.log(variance))
        z = -sm.sum[d]((V - mean / total) ** 2 / (2 * variance)) - half
        e = sm.exp((z := z + sm.log(sm.sigmoid(0.01 - 1e-4 * half * total))) - sm.max[j](z))
        r = e / sm.sum[j](e)
        total, mean = sm.sum[i](r * a) + 1e-8, sm.sum[i](r * a * V)
    return mean / total


def reference(s, V, a):
    r = np.full(V.shape[:3], 1.0 / s["j"])
    for iteration in range(3):
        ra = r * a[:, :, None]
        total = ra.sum(1) + 1e-8
        mean = np.einsum("bij,bijd->bjd", ra, V) / total[:, :, None]
        if iteration == 2:
            return mean
        square = (V - mean[:, None]) ** 2
        variance = np.einsum("bij,bijd->bjd", ra, square) / total[:, :, None] + 1e-4
        half = 0.5 * np.log(variance).sum(-1)
        activation = 1 / (1 + np.exp(-0.01 * (1 - half * total * 0.01)))
        z = (
            -np.einsum("bijd,bjd->bij", square, 0.5 / variance)
            + (np.log(activation) - half)[:, None]
        )
        e = np.exp(z - z.max(2, keepdims=True))
        r = e / e.sum(2, keepdims=True)


def work(s):
    votes, pairs = product(s, "b i j d"), product(s, "b i j")
    forward = votes * (1 + 2 * (3 + 3 + 1)) + pairs * 2 * 14
    return Work(forward), Work(3 * forward)


def _em(s, V, a, ones, einsum, softmax, log, sigmoid):
    """What both peers run."""
    r = ones / s["j"]
    for iteration in range(3):
        ra = r * a[:, :, None]
        total = ra.sum(1)[:, :, None] + 1e-8
        mean = einsum("bij,bijd->bjd", ra, V) / total
        if iteration == 2:
            return mean
        square = (V - mean[:, None]) ** 2
        variance = einsum("bij,bijd->bjd", ra, square) / total + 1e-4
        half = (0.5 * log(variance)).sum(-1)
        activation = sigmoid(1e-2 * (1.0 - half * total[..., 0] * 1e-2))
        z = -(square / (2 * variance[:, None])).sum(-1) + (log(activation) - half)[:, None]
        r = softmax(z)


def in_torch(torch, s):
    ones = torch.ones(s["b"], s["i"], s["j"])
    return lambda V, a: _em(
        s, V, a, ones, torch.einsum, lambda z: torch.softmax(z, -1), torch.log, torch.sigmoid
    )


def in_jax(jax, s):
    jnp = jax.numpy
    ones = jnp.ones((s["b"], s["i"], s["j"]))
    return lambda V, a: _em(
        s, V, a, ones, jnp.einsum, lambda z: jax.nn.softmax(z, -1), jnp.log, jax.nn.sigmoid
    )


ROWS = (
    Row(
        "2",
        "EM routing, 3 iterations",
        extents(b=144, i=144, j=16, d=16),
        inputs,
        program,
        (b, j, d),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(b=2, i=5, j=3, d=4),
        batch=("b",),
        lean=True,
        cold=1.5,
    ),
)
