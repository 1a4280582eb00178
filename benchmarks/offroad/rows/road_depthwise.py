"""out{n,x,y,c} = Σ_{a,b} A[x: x+a−1, y: y+b−1]{n,c} · W{a,b,c}, channels last, zero outside."""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product
from .road_conv import border

n, x, y, a, b, c = sm.dims("n x y a b c")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n x y c"), (n, x, y, c)),
        Input(normal(rng, s, "a b c"), (a, b, c)),
    )


def program(s, A, W):
    return sm.sum[a, b](A.fill(0)[x : x + a - s["a"] // 2, y : y + b - s["b"] // 2] * W)


def reference(s, A, W):
    padded = np.pad(A, ((0, 0), *border(s), (0, 0)))
    return sum(
        padded[:, k : k + s["x"], m : m + s["y"]] * W[k, m] for k, m in np.ndindex(s["a"], s["b"])
    )


def work(s):
    slots = product(s, "n x y a b c")
    return Work(slots), Work(3 * slots)


def in_torch(torch, s):
    F = torch.nn.functional
    wide, high = border(s)

    def depthwise(A, W):
        image = A.permute(0, 3, 1, 2)
        kernel = W.permute(2, 0, 1)[:, None]
        if any(before != after for before, after in (wide, high)):
            image = F.pad(image, (*high, *wide))
            return F.conv2d(image, kernel, groups=s["c"]).permute(0, 2, 3, 1)
        padding = wide[0], high[0]
        return F.conv2d(image, kernel, padding=padding, groups=s["c"]).permute(0, 2, 3, 1)

    return depthwise


def in_jax(jax, s):
    """Shifted images, weighted and added: faster than its grouped convolution."""
    jnp = jax.numpy

    def depthwise(A, W):
        padded = jnp.pad(A, ((0, 0), *border(s), (0, 0)))
        return sum(
            padded[:, k : k + s["x"], m : m + s["y"]] * W[k, m]
            for k in range(s["a"])
            for m in range(s["b"])
        )

    return depthwise


ROWS = (
    Row(
        "depthwise",
        "Depthwise convolution 3×3, channels last",
        extents(n=8, x=112, y=112, a=3, b=3, c=64),
        inputs,
        program,
        (n, x, y, c),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, x=7, y=6, a=3, b=3, c=5),
        batch=("n",),
        tolerance=1e-5,
        control=True,
    ),
)
