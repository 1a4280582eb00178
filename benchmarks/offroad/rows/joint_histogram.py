"""out_{x,y} = Σ_p β(63 a_p - x) · β(63 b_p - y),   β the cubic B-spline

Soft joint histogram, for mutual information: β is zero beyond ±2, so a sample meets 4×4 bins.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents

p, x, y = sm.dims("p x y")
k, l = sm.Dim("k", 4), sm.Dim("l", 4)


def inputs(s, rng):
    return tuple(Input(rng.random(s["p"], dtype=np.float32), (p,)) for _ in range(2))


def spline(z, where=np.where):
    z = abs(z)
    return where(z < 1, 2 / 3 - z * z * (1 - z / 2), where(z < 2, (2 - z) ** 3 / 6, 0 * z))


def program(s, A, B):
    def window(z, tap, bins):
        place = sm.floor(z * (bins - 1)).astype(sm.i32) - 1 + tap
        return spline(z * (bins - 1) - place, sm.where), place

    (wa, i), (wb, j) = window(A, k, s["x"]), window(B, l, s["y"])
    sizes = {x: s["x"], y: s["y"]}
    return sm.sum[p, k, l](wa * wb, at={x: i, y: j}, sizes=sizes, mode="drop")


def reference(s, A, B):
    def weights(z, bins):
        return spline(z[:, None] * (bins - 1) - np.arange(bins))

    return weights(A, s["x"]).T @ weights(B, s["y"])


def work(s):
    """Eight weights of eight operations, sixteen products that are added; a gradient of each."""
    return Work(s["p"] * (64 + 32.0)), Work(s["p"] * (64 + 32 + 64 + 48.0))


def in_torch(torch, s):
    """Each sample's 4×4 bins, added into their places in a frame two bins wider."""
    taps = torch.arange(-1, 3)
    wide = s["y"] + 4

    def histogram(A, B):
        def window(z, bins):
            z = z * (bins - 1)
            base = z.detach().floor()
            return spline((z - base)[:, None] - taps, torch.where), base.long()[:, None] + taps + 1

        (wa, i), (wb, j) = window(A, s["x"]), window(B, s["y"])
        places = (i[:, :, None] * wide + j[:, None]).reshape(-1)
        product = (wa[:, :, None] * wb[:, None]).reshape(-1)
        out = torch.zeros((s["x"] + 4) * wide).index_add(0, places, product)
        return out.reshape(-1, wide)[1:-3, 1:-3]

    return histogram


def in_jax(jax, s):
    """All bins, as a matrix product: a scatter is slower here."""
    jnp = jax.numpy

    def histogram(A, B):
        def weights(z, bins):
            return spline(z[:, None] * (bins - 1) - jnp.arange(bins), jnp.where)

        return weights(A, s["x"]).T @ weights(B, s["y"])

    return histogram


def dense_in_torch(torch, s):
    """All bins, as a matrix product, which torch.compile fuses better."""

    def histogram(A, B):
        def weights(z, bins):
            return spline(z[:, None] * (bins - 1) - torch.arange(bins), torch.where)

        return weights(A, s["x"]).T @ weights(B, s["y"])

    return histogram


ROWS = (
    Row(
        "17b",
        "Soft joint histogram, cubic B-splines",
        extents(p=65_536, x=64, y=64),
        inputs,
        program,
        (x, y),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(p=17, x=9, y=7),
        compile=dense_in_torch,
        lean=True,
    ),
)
