"""out{n,c,x,y} = Σ_{a,b} I[x: x + d_c (a − 2), y: y + d_c (b − 2)]{n,c} · W{c,a,b},  d_c ∈ 1..8

A depthwise 5×5 convolution with a dilation of its own for each channel, zero outside.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

n, c, x, y, a, b = sm.dims("n c x y a b")


def dilations(s):
    """Ascending, as even as the number of channels allows."""
    return (1 + np.arange(s["c"]) * 8 // s["c"]).astype(np.int32)


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n c x y"), (n, c, x, y)),
        Input(normal(rng, s, "c a b"), (c, a, b)),
        Input(dilations(s), (c,)),
    )


def program(s, I, W, D):
    near = I.fill(0)[x : x + D * (a - s["a"] // 2), y : y + D * (b - s["b"] // 2)]
    return sm.sum[a, b](near * W)


def reference(s, I, W, D):
    out = np.zeros(I.shape)
    for channel, d in enumerate(D):
        for k, m in np.ndindex(s["a"], s["b"]):
            dx, dy = d * (k - s["a"] // 2), d * (m - s["b"] // 2)
            to = tuple(slice(max(0, -e), max(0, min(z, z - e))) for e, z in _both(s, dx, dy))
            of = tuple(slice(max(0, e), max(0, min(z, z + e))) for e, z in _both(s, dx, dy))
            out[:, channel, *to] += I[:, channel, *of] * W[channel, k, m]
    return out


def _both(s, dx, dy):
    return (dx, s["x"]), (dy, s["y"])


def work(s):
    slots = product(s, "n c x y a b")
    return Work(slots), Work(3 * slots)


def _groups(s):
    """Runs of channels of one dilation: (first, one past the last, dilation)."""
    table = dilations(s)
    edges = [0, *(np.flatnonzero(np.diff(table)) + 1), s["c"]]
    return [(int(e), int(f), int(table[e])) for e, f in pairwise(edges)]


def _border(s, d):
    """Zeros before and after, for the result to have the size of the image."""
    k, m = s["a"], s["b"]
    return d * (k // 2), d * (k - 1 - k // 2), d * (m // 2), d * (m - 1 - m // 2)


def in_torch(torch, s):
    """One depthwise convolution for each dilation."""
    F = torch.nn.functional

    def dilated(I, W, D):
        out = []
        for e, f, d in _groups(s):
            left, right, low, high = _border(s, d)
            A = F.pad(I[:, e:f], (low, high, left, right))
            out.append(F.conv2d(A, W[e:f, None], dilation=d, groups=f - e))
        return torch.cat(out, 1)

    return dilated


def in_torch_shifted(torch, s):
    """Shifted images, weighted and added: what torch.compile fuses to one pass."""
    F = torch.nn.functional

    def dilated(I, W, D):
        out = []
        for e, f, d in _groups(s):
            left, right, low, high = _border(s, d)
            A = F.pad(I[:, e:f], (low, high, left, right))
            out.append(
                sum(
                    A[:, :, k * d : k * d + s["x"], m * d : m * d + s["y"]]
                    * W[e:f, k, m, None, None]
                    for k in range(s["a"])
                    for m in range(s["b"])
                )
            )
        return torch.cat(out, 1)

    return dilated


def in_jax(jax, s):
    """Shifted images, weighted and added: faster than its depthwise convolution."""
    jnp = jax.numpy

    def dilated(I, W, D):
        out = []
        for e, f, d in _groups(s):
            left, right, low, high = _border(s, d)
            A = jnp.pad(I[:, e:f], ((0, 0), (0, 0), (left, right), (low, high)))
            out.append(
                sum(
                    A[:, :, k * d : k * d + s["x"], m * d : m * d + s["y"]]
                    * W[e:f, k, m, None, None]
                    for k in range(s["a"])
                    for m in range(s["b"])
                )
            )
        return jnp.concatenate(out, 1)

    return dilated


ROWS = (
    Row(
        "5c",
        "Convolution, a dilation for each channel",
        extents(n=8, c=64, x=96, y=96, a=5, b=5),
        inputs,
        program,
        (n, c, x, y),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, c=5, x=9, y=8, a=5, b=5),
        compile=in_torch_shifted,
        batch=("n",),
        tolerance=1e-5,
    ),
)
