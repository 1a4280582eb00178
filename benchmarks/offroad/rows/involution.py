"""out{n,g,c,x,y} = Σ_{p,q} I[x: x+p−3, y: y+q−3]{n,g,c} · W{n,g,p,q,x,y}

Involution: a 7×7 kernel for every place, shared by the channels of a group; zero outside.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

n, g, c, p, q, x, y = sm.dims("n g c p q x y")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n g c x y"), (n, g, c, x, y)),
        Input(normal(rng, s, "n g p q x y"), (n, g, p, q, x, y)),
    )


def program(s, I, W):
    return sm.sum[p, q](I.fill(0)[x : x + p - s["p"] // 2, y : y + q - s["q"] // 2] * W)


def _border(s):
    return [(s[w] // 2, s[w] - 1 - s[w] // 2) for w in "pq"]


def _shifted(s, padded, W):
    return sum(
        padded[..., k : k + s["x"], m : m + s["y"]] * W[:, :, None, k, m]
        for k in range(s["p"])
        for m in range(s["q"])
    )


def reference(s, I, W):
    return _shifted(s, np.pad(I, ((0, 0), (0, 0), (0, 0), *_border(s))), W)


def work(s):
    slots = product(s, "n g c x y p q")
    return Work(slots), Work(3 * slots)


def in_torch(torch, s):
    """Shifted images, weighted and added: faster than windows copied out."""
    F = torch.nn.functional
    wide, high = _border(s)
    return lambda I, W: _shifted(s, F.pad(I, (*high, *wide)), W)


def in_jax(jax, s):
    jnp = jax.numpy
    border = ((0, 0), (0, 0), (0, 0), *_border(s))
    return lambda I, W: _shifted(s, jnp.pad(I, border), W)


ROWS = (
    Row(
        "11",
        "Involution 7×7",
        extents(n=4, g=4, c=16, x=56, y=56, p=7, q=7),
        inputs,
        program,
        (n, g, c, x, y),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, g=2, c=3, x=7, y=8, p=5, q=5),
        batch=("n",),
        tolerance=1e-5,
        lean=True,
    ),
)
