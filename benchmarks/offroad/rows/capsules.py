"""out{n,x,y,o,i,j} = Σ_{a,b,c,k} P[x: 2x+a, y: 2y+b]{n,c,i,k} · W{a,b,c,o,k,j}

Capsule convolution: channels are matrices, and their product takes the place of the product.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import CONTRACTION, Input, Row, Work, extents, normal, product

n, x, y, c, o, a, b, i, k, j = sm.dims("n x y c o a b i k j")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n x y c i k"), (n, x, y, c, i, k)),
        Input(normal(rng, s, "a b c o k j"), (a, b, c, o, k, j)),
    )


def program(s, P, W):
    return sm.sum[a, b, c, k](P[x : 2 * x + a, y : 2 * y + b] * W)


def reference(s, P, W):
    windows = np.lib.stride_tricks.sliding_window_view(P, (s["a"], s["b"]), (1, 2))[:, ::2, ::2]
    return np.einsum("nxycikab,abcokj->nxyoij", windows, W, optimize=True)


def out_sizes(s):
    return (s["x"] - s["a"]) // 2 + 1, (s["y"] - s["b"]) // 2 + 1


def work(s):
    wide, high = out_sizes(s)
    slots = wide * high * product(s, "n a b c o i k j")
    return Work(slots), Work(3 * slots)


def in_torch(torch, s):
    """Matrix entries become channels of an ordinary convolution, rows of poses its batch."""
    wide, high = out_sizes(s)

    def capsules(P, W):
        A = P.permute(0, 4, 3, 5, 1, 2).reshape(s["n"] * s["i"], s["c"] * s["k"], s["x"], s["y"])
        B = W.permute(3, 5, 2, 4, 0, 1).reshape(s["o"] * s["j"], s["c"] * s["k"], s["a"], s["b"])
        out = torch.nn.functional.conv2d(A, B, stride=2)
        out = out.reshape(s["n"], s["i"], s["o"], s["j"], wide, high)
        return out.permute(0, 4, 5, 2, 1, 3).contiguous()

    return capsules


def in_jax(jax, s):
    """The same, channels last."""
    wide, high = out_sizes(s)

    def capsules(P, W):
        A = P.transpose(0, 4, 1, 2, 3, 5).reshape(-1, s["x"], s["y"], s["c"] * s["k"])
        B = W.transpose(0, 1, 2, 4, 3, 5).reshape(s["a"], s["b"], s["c"] * s["k"], -1)
        layout = ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(A, B, (2, 2), "VALID", dimension_numbers=layout)
        out = out.reshape(s["n"], s["i"], wide, high, s["o"], s["j"])
        return out.transpose(0, 2, 3, 4, 1, 5)

    return capsules


ROWS = (
    Row(
        "1",
        "Capsule convolution",
        extents(n=16, x=15, y=15, c=32, o=32, a=3, b=3, i=4, k=4, j=4),
        inputs,
        program,
        (n, x, y, o, i, j),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, x=7, y=9, c=3, o=2, a=3, b=3, i=2, k=3, j=4),
        batch=("n",),
        tolerance=1e-5,
        fraction=CONTRACTION,
    ),
)
