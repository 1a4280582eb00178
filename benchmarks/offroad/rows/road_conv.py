"""out{n,x,y,o} = Σ_{a,b,c} A[x: x+a−1, y: y+b−1]{n,c} · W{a,b,c,o}, channels last, zero outside."""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import CONTRACTION, Input, Row, Work, extents, normal, product

n, x, y, a, b, c, o = sm.dims("n x y a b c o")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n x y c"), (n, x, y, c)),
        Input(normal(rng, s, "a b c o"), (a, b, c, o)),
    )


def program(s, A, W):
    return sm.sum[a, b, c](A.fill(0)[x : x + a - s["a"] // 2, y : y + b - s["b"] // 2] * W)


def border(s):
    """Places before and after, along x and y."""
    return [(s[w] // 2, s[w] - 1 - s[w] // 2) for w in "ab"]


def reference(s, A, W):
    padded = np.pad(A, ((0, 0), *border(s), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (s["a"], s["b"]), (1, 2))
    return np.einsum("nxycab,abco->nxyo", windows, W, optimize=True)


def work(s):
    slots = product(s, "n x y a b c o")
    return Work(slots), Work(3 * slots)


def in_torch(torch, s):
    """As the library likes it: its channels-last memory format, seen with channels second."""
    F = torch.nn.functional
    wide, high = border(s)

    def conv(A, W):
        image = A.permute(0, 3, 1, 2)
        if any(before != after for before, after in (wide, high)):
            image = F.pad(image, (*high, *wide))
            return F.conv2d(image, W.permute(3, 2, 0, 1)).permute(0, 2, 3, 1)
        padding = wide[0], high[0]
        return F.conv2d(image, W.permute(3, 2, 0, 1), padding=padding).permute(0, 2, 3, 1)

    return conv


def in_jax(jax, s):
    layout = ("NHWC", "HWIO", "NHWC")
    conv = jax.lax.conv_general_dilated
    return lambda A, W: conv(A, W, (1, 1), border(s), dimension_numbers=layout)


ROWS = (
    Row(
        "conv",
        "Convolution 3×3, channels last",
        extents(n=4, x=56, y=56, a=3, b=3, c=64, o=64),
        inputs,
        program,
        (n, x, y, o),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, x=7, y=6, a=3, b=3, c=4, o=5),
        batch=("n",),
        tolerance=1e-5,
        fraction=CONTRACTION,
        control=True,
    ),
)
