"""out{n,o,x,y} = Σ_{c,a,b} I[x: x+a, y: y+b]{n,c} · W{x,y,o,c,a,b}

Locally connected: a convolution with other weights at every place.
"""

from __future__ import annotations

import numpy as np

from ..row import CONTRACTION, Input, Row, extents, normal
from .hyper_conv import a, b, c, n, o, out_sizes, program, work, x, y


def inputs(s, rng):
    wide, high = out_sizes(s)
    places = {**s, "x": wide, "y": high}
    return (
        Input(normal(rng, s, "n c x y"), (n, c, x, y)),
        Input(normal(rng, places, "x y o c a b"), (x, y, o, c, a, b)),
    )


def reference(s, I, W):
    windows = np.lib.stride_tricks.sliding_window_view(I, (s["a"], s["b"]), (2, 3))
    return np.einsum("ncxyab,xyocab->noxy", windows, W, optimize=True)


def in_torch(torch, s):
    """Windows copied out, then one matrix product for each place."""
    wide, high = out_sizes(s)

    def local(I, W):
        windows = I.unfold(2, s["a"], 1).unfold(3, s["b"], 1).permute(2, 3, 0, 1, 4, 5)
        A = windows.reshape(wide * high, s["n"], -1)
        B = W.reshape(wide * high, s["o"], -1)
        out = torch.bmm(A, B.transpose(1, 2)).view(wide, high, s["n"], s["o"])
        return out.permute(2, 3, 0, 1)

    return local


def in_jax(jax, s):
    """The same; `conv_general_dilated_local` wants the places of its weights innermost."""
    jnp = jax.numpy
    wide, high = out_sizes(s)

    def local(I, W):
        shifts = [(p, q) for p in range(s["a"]) for q in range(s["b"])]
        windows = jnp.stack([I[:, :, p : p + wide, q : q + high] for p, q in shifts], 2)
        W = W.reshape(wide, high, s["o"], s["c"], -1)
        return jnp.einsum("nckxy,xyock->noxy", windows, W)

    return local


ROWS = (
    Row(
        "4",
        "Locally connected",
        extents(n=32, c=32, o=32, x=18, y=18, a=3, b=3),
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
