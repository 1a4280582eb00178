"""out = silu(z) · (norm(x) γ + β), mean and variance over y, x and the channels of a group

Gated group norm, channels last: c = 4g + k.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

n, y, x, g, k = sm.dims("n y x g k")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n y x g k"), (n, y, x, g, k)),
        Input(normal(rng, s, "n y x g k"), (n, y, x, g, k)),
        Input(normal(rng, s, "g k"), (g, k)),
        Input(normal(rng, s, "g k"), (g, k)),
    )


def program(s, X, Z, gamma, beta):
    centred = X - sm.mean[y, x, k](X)
    scale = sm.rsqrt(sm.mean[y, x, k](centred**2) + 1e-5)
    return sm.silu(Z) * (centred * scale * gamma + beta)


def reference(s, X, Z, gamma, beta):
    centred = X - X.mean((1, 2, 4), keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean((1, 2, 4), keepdims=True) + 1e-5)
    return Z / (1 + np.exp(-Z)) * (centred * scale * gamma + beta)


def work(s):
    each = product(s, "n y x g k")
    return Work(20 * each), Work(40 * each)


def in_torch(torch, s):
    """The library's own group norm, on channels-last memory."""
    F = torch.nn.functional

    def gated(X, Z, gamma, beta):
        flat = X.reshape(s["n"], s["y"], s["x"], -1).permute(0, 3, 1, 2)
        normed = F.group_norm(flat, s["g"], gamma.reshape(-1), beta.reshape(-1), 1e-5)
        return F.silu(Z) * normed.permute(0, 2, 3, 1).reshape(X.shape)

    return gated


def in_jax(jax, s):
    def gated(X, Z, gamma, beta):
        centred = X - X.mean((1, 2, 4), keepdims=True)
        variance = (centred**2).mean((1, 2, 4), keepdims=True)
        return jax.nn.silu(Z) * (centred / jax.numpy.sqrt(variance + 1e-5) * gamma + beta)

    return gated


def written_out_in_torch(torch, s):
    """From its parts, which torch.compile fuses."""

    def gated(X, Z, gamma, beta):
        centred = X - X.mean((1, 2, 4), keepdim=True)
        variance = (centred**2).mean((1, 2, 4), keepdim=True)
        return torch.nn.functional.silu(Z) * (centred / torch.sqrt(variance + 1e-5) * gamma + beta)

    return gated


ROWS = (
    Row(
        "20",
        "Gated group norm, channels last",
        extents(n=8, y=64, x=64, g=32, k=4),
        inputs,
        program,
        (n, y, x, g, k),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, y=3, x=5, g=3, k=2),
        compile=written_out_in_torch,
        batch=("n",),
        fixed=("k",),
    ),
)
