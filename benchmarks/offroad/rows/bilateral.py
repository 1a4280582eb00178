"""out{c,x,y} = Σ_{p,q} w · I[x: x+p−5, y: y+q−5] / Σ_{p,q} w
w{p,q,x,y} = exp(−((p−5)² + (q−5)²) / 18 − 2 Σ_c (I[x: x+p−5, y: y+q−5] − I)²)

A joint bilateral filter, 11×11, with colour weights; zero outside the image.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

c, x, y = sm.dims("c x y")


def inputs(s, rng):
    return (Input(normal(rng, s, "c x y"), (c, x, y)),)


def program(s, I):
    p, q, r = sm.Dim("p", s["w"]), sm.Dim("q", s["w"]), s["w"] // 2
    near = I.fill(0)[x : x + p - r, y : y + q - r]
    w = sm.exp(-((p - r) ** 2 + (q - r) ** 2) / 18.0 - 2.0 * sm.sum[c]((near - I) ** 2))
    return sm.sum[p, q](w * near) / sm.sum[p, q](w)


def reference(s, I):
    return _shifted(s, I, np.pad(I, _border(s)), np.exp)


def _border(s):
    r = s["w"] // 2, s["w"] - 1 - s["w"] // 2
    return (0, 0), r, r


def _shifted(s, I, padded, exp):
    """One shift of the image after the other."""
    over, under, r = 0, 0, s["w"] // 2
    for p in range(s["w"]):
        for q in range(s["w"]):
            near = padded[:, p : p + s["x"], q : q + s["y"]]
            w = exp(-((p - r) ** 2 + (q - r) ** 2) / 18.0 - 2.0 * ((near - I) ** 2).sum(0))
            over, under = over + w * near, under + w
    return over / under


def work(s):
    places = product(s, "x y w w")
    forward = places * (2 * s["c"] + 1 + 9 + s["c"] + 1)
    return Work(forward), Work(forward + places * (4 * s["c"] + 4))


def in_torch(torch, s):
    r = s["w"] // 2, s["w"] - 1 - s["w"] // 2
    F = torch.nn.functional
    return lambda I: _shifted(s, I, F.pad(I, (*r, *r)), torch.exp)


def in_jax(jax, s):
    jnp = jax.numpy
    return lambda I: _shifted(s, I, jnp.pad(I, _border(s)), jnp.exp)


ROWS = (
    Row(
        "10",
        "Joint bilateral filter 11×11",
        extents(c=3, x=256, y=256, w=11),
        inputs,
        program,
        (c, x, y),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(c=3, x=9, y=8, w=5),
        lean=True,
    ),
)
