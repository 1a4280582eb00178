"""out{n,o,y,x} = Σ_{k,c} W{o,k,c} · m{n,k,y,x} · I[n,c] at (y + k//3 - 1 + Δy, x + k%3 - 1 + Δx)

Deformable convolution, modulated: each tap reads bilinearly at a place of its own, 0 outside.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, positive, product

n, c, o, y, x = sm.dims("n c o y x")
k, u, i, j = sm.Dim("k", 9), sm.Dim("u", 2), sm.Dim("i", 2), sm.Dim("j", 2)


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n c y x"), (n, c, y, x)),
        Input(normal(rng, s, "n k u y x"), (n, k, u, y, x)),
        Input(positive(rng, s, "n k y x"), (n, k, y, x)),
        Input(normal(rng, s, "o k c"), (o, k, c)),
    )


def program(s, image, offset, m, W):
    py, px = y + k // 3 - 1 + offset[u:0], x + k % 3 - 1 + offset[u:1]
    qy, qx = sm.floor(py).astype(sm.i32) + i, sm.floor(px).astype(sm.i32) + j
    near = m * (1 - sm.abs(py - qy)) * (1 - sm.abs(px - qx))
    return sm.sum[c, k](W * sm.sum[i, j](near * image.at(mode="fill")[y:qy, x:qx]))


def reference(s, image, offset, m, W):
    taps = np.arange(9)[:, None, None]
    py = np.arange(s["y"])[:, None] + taps // 3 - 1 + offset[:, :, 0]
    px = np.arange(s["x"]) + taps % 3 - 1 + offset[:, :, 1]
    columns = 0.0
    for a in range(2):
        for b in range(2):
            qy, qx = np.floor(py).astype(int) + a, np.floor(px).astype(int) + b
            near = m * (1 - abs(py - qy)) * (1 - abs(px - qx))
            near = near * ((qy >= 0) & (qy < s["y"]) & (qx >= 0) & (qx < s["x"]))
            qy, qx = np.clip(qy, 0, s["y"] - 1), np.clip(qx, 0, s["x"] - 1)
            batch = np.arange(s["n"])[:, None, None, None]
            columns = columns + near[..., None] * image.transpose(0, 2, 3, 1)[batch, qy, qx]
    return np.einsum("nkyxc,okc->noyx", columns, W, optimize=True)


def work(s):
    """Four multiply-adds for each channel of a sample, twenty operations for its place; the
    product with W. In reverse two products, and four for the image and four for the offsets."""
    samples = product(s, "n k y x")
    products = samples * s["c"] * s["o"]
    forward = products + samples * (4 * s["c"] + 20)
    return Work(forward), Work(forward + 2 * products + samples * (10 * s["c"] + 40))


def in_torch(torch, s):
    """The library's bilinear sampler, one tap after the other, and one matrix product."""
    ys, xs = torch.meshgrid(torch.arange(s["y"]), torch.arange(s["x"]), indexing="ij")
    sample = torch.nn.functional.grid_sample
    high, wide = max(s["y"] - 1, 1), max(s["x"] - 1, 1)

    def convolve(image, offset, m, W):
        columns = []
        for tap in range(9):
            py = ys + tap // 3 - 1 + offset[:, tap, 0]
            px = xs + tap % 3 - 1 + offset[:, tap, 1]
            grid = torch.stack([2 * px / wide - 1, 2 * py / high - 1], -1)
            columns.append(sample(image, grid, align_corners=True) * m[:, tap, None])
        return torch.einsum("okc,nkcyx->noyx", W, torch.stack(columns, 1))

    return convolve


def in_jax(jax, s):
    ys, xs = np.meshgrid(np.arange(s["y"]), np.arange(s["x"]), indexing="ij")
    taps = np.arange(9)[:, None, None]

    def one(image, py, px):
        return jax.scipy.ndimage.map_coordinates(image, [py, px], order=1)

    every = jax.vmap(jax.vmap(one, (0, None, None)))

    def convolve(image, offset, m, W):
        py, px = ys + taps // 3 - 1 + offset[:, :, 0], xs + taps % 3 - 1 + offset[:, :, 1]
        samples = every(image, py, px) * m[:, None]
        return jax.numpy.einsum("okc,nckyx->noyx", W, samples)

    return convolve


ROWS = (
    Row(
        "22",
        "Deformable convolution v2",
        extents(n=4, c=32, o=32, k=9, u=2, y=64, x=64),
        inputs,
        program,
        (n, o, y, x),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, c=3, o=2, k=9, u=2, y=5, x=6),
        batch=("n",),
        fixed=("k", "u"),
        lean=True,
    ),
)
