"""out{n,g,o,p,q} = Σ_{c,a,b} Σ_{x,y: 2x+2a=p, 2y+2b=q} I{n,g,c,x,y} · W{g,c,o,a,b}

A transposed 4×4 convolution with stride 2 and dilation 2, in groups.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import CONTRACTION, Input, Row, Work, extents, normal, product

n, g, c, o, x, y, a, b, p, q = sm.dims("n g c o x y a b p q")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n g c x y"), (n, g, c, x, y)),
        Input(normal(rng, s, "g c o a b"), (g, c, o, a, b)),
    )


def program(s, I, W):
    return sm.sum[c, x, y, a, b](I * W, at={p: 2 * x + 2 * a, q: 2 * y + 2 * b})


def reference(s, I, W):
    out = np.zeros((s["n"], s["g"], s["o"], 2 * (s["x"] + s["a"]) - 3, 2 * (s["y"] + s["b"]) - 3))
    for k in range(s["a"]):
        for m in range(s["b"]):
            add = np.einsum("ngcxy,gco->ngoxy", I, W[..., k, m], optimize=True)
            out[..., 2 * k : 2 * (k + s["x"]) - 1 : 2, 2 * m : 2 * (m + s["y"]) - 1 : 2] += add
    return out


def work(s):
    slots = product(s, "n g c o x y a b")
    return Work(slots), Work(3 * slots)


def in_torch(torch, s):
    """Three places of four stay zero: a transposed convolution without either, then spread."""
    F = torch.nn.functional

    def transposed(I, W):
        A = I.reshape(s["n"], s["g"] * s["c"], s["x"], s["y"])
        B = W.reshape(s["g"] * s["c"], s["o"], s["a"], s["b"])
        dense = F.conv_transpose2d(A, B, groups=s["g"])
        wide, high = dense.shape[2:]
        out = dense.new_zeros(s["n"], s["g"], s["o"], 2 * wide - 1, 2 * high - 1)
        out[..., ::2, ::2] = dense.view(s["n"], s["g"], s["o"], wide, high)
        return out

    return transposed


def in_jax(jax, s):
    """The same; a transposed convolution is one with the kernel turned round and a border."""
    border = [(s["a"] - 1, s["a"] - 1), (s["b"] - 1, s["b"] - 1)]

    def transposed(I, W):
        A = I.reshape(s["n"], s["g"] * s["c"], s["x"], s["y"])
        B = W.transpose(0, 2, 1, 3, 4)[..., ::-1, ::-1]
        B = B.reshape(s["g"] * s["o"], s["c"], s["a"], s["b"])
        dense = jax.lax.conv_general_dilated(A, B, (1, 1), border, feature_group_count=s["g"])
        spread = ((0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 0, 1))
        out = jax.lax.pad(dense, jax.numpy.float32(0), spread)
        return out.reshape(s["n"], s["g"], s["o"], *out.shape[2:])

    return transposed


ROWS = (
    Row(
        "5b",
        "Transposed convolution, 8 groups",
        extents(n=8, g=8, c=8, o=8, x=32, y=32, a=4, b=4),
        inputs,
        program,
        (n, g, o, p, q),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, g=3, c=2, o=4, x=5, y=6, a=4, b=4),
        batch=("n",),
        tolerance=1e-5,
        fraction=CONTRACTION,
    ),
)
