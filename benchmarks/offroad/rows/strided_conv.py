"""out{n,o,x,y} = Σ_{c,a,b} I[x: 2x+3a, y: 2y+3b]{n,c} · W{o,c,a,b}

A 5×5 convolution with stride 2 and dilation 3.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import CONTRACTION, Input, Row, Work, extents, normal, product

n, c, o, x, y, a, b = sm.dims("n c o x y a b")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n c x y"), (n, c, x, y)),
        Input(normal(rng, s, "o c a b"), (o, c, a, b)),
    )


def program(s, I, W):
    return sm.sum[c, a, b](I[x : 2 * x + 3 * a, y : 2 * y + 3 * b] * W)


def reference(s, I, W):
    reach = 3 * (s["a"] - 1) + 1, 3 * (s["b"] - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(I, reach, (2, 3))
    return np.einsum("ncxyab,ocab->noxy", windows[:, :, ::2, ::2, ::3, ::3], W, optimize=True)


def work(s):
    places = [(s[p] - 3 * (s[k] - 1) - 1) // 2 + 1 for p, k in ("xa", "yb")]
    slots = places[0] * places[1] * product(s, "n c o a b")
    return Work(slots), Work(3 * slots)


def in_torch(torch, s):
    F = torch.nn.functional
    return lambda I, W: F.conv2d(I, W, stride=2, dilation=3)


def in_jax(jax, s):
    conv = jax.lax.conv_general_dilated
    return lambda I, W: conv(I, W, (2, 2), "VALID", rhs_dilation=(3, 3))


ROWS = (
    Row(
        "5a",
        "Convolution, k5 stride 2 dilation 3",
        extents(n=8, c=32, o=64, x=77, y=77, a=5, b=5),
        inputs,
        program,
        (n, o, x, y),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, c=3, o=4, x=19, y=20, a=5, b=5),
        batch=("n",),
        tolerance=1e-5,
        fraction=CONTRACTION,
    ),
)
