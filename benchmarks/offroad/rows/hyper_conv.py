"""out{n,o,x,y} = Σ_{c,a,b} I[x: x+a, y: y+b]{n,c} · W{n,o,c,a,b}

A different convolution for each example, its weights made by another network.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import CONTRACTION, Input, Row, Work, extents, normal, product

n, c, o, x, y, a, b = sm.dims("n c o x y a b")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n c x y"), (n, c, x, y)),
        Input(normal(rng, s, "n o c a b"), (n, o, c, a, b)),
    )


def program(s, I, W):
    return sm.sum[c, a, b](I[x : x + a, y : y + b] * W)


def reference(s, I, W):
    windows = np.lib.stride_tricks.sliding_window_view(I, (s["a"], s["b"]), (2, 3))
    return np.einsum("ncxyab,nocab->noxy", windows, W, optimize=True)


def out_sizes(s):
    return s["x"] - s["a"] + 1, s["y"] - s["b"] + 1


def work(s):
    wide, high = out_sizes(s)
    slots = wide * high * product(s, "n c o a b")
    return Work(slots), Work(3 * slots)


def in_torch(torch, s):
    """Windows copied out (im2col), then one matrix product for each example."""
    wide, high = out_sizes(s)
    F = torch.nn.functional

    def hyper_conv(I, W):
        columns = F.unfold(I, (s["a"], s["b"]))
        return torch.bmm(W.reshape(s["n"], s["o"], -1), columns).view(s["n"], s["o"], wide, high)

    return hyper_conv


def in_jax(jax, s):
    """The same."""
    jnp = jax.numpy
    wide, high = out_sizes(s)

    def hyper_conv(I, W):
        shifts = [(p, q) for p in range(s["a"]) for q in range(s["b"])]
        columns = jnp.stack([I[:, :, p : p + wide, q : q + high] for p, q in shifts], 2)
        columns = columns.reshape(s["n"], -1, wide * high)
        out = jnp.einsum("nok,nkp->nop", W.reshape(s["n"], s["o"], -1), columns)
        return out.reshape(s["n"], s["o"], wide, high)

    return hyper_conv


ROWS = (
    Row(
        "3",
        "A convolution for each example",
        extents(n=32, c=64, o=64, x=18, y=18, a=3, b=3),
        inputs,
        program,
        (n, o, x, y),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, c=3, o=4, x=7, y=6, a=3, b=3),
        batch=("n",),
        tolerance=1e-5,
        fraction=CONTRACTION,
    ),
)
