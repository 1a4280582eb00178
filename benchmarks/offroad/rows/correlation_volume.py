"""out{n,i,j,y,x} = mean_c F{n,c,y,x} · G{n,c}[y: y+i-4, x: x+j-4],   0 outside

Correlation volume of optical flow: each pixel against its 9×9 neighbours in the other image.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

n, c, y, x = sm.dims("n c y x")
i, j = sm.Dim("i", 9), sm.Dim("j", 9)


def inputs(s, rng):
    return tuple(Input(normal(rng, s, "n c y x"), (n, c, y, x)) for _ in range(2))


def program(s, F, G):
    return sm.mean[c](F * G.fill(0)[y : y + i - 4, x : x + j - 4])


def shifts(F, padded, s):
    return (F * padded[:, :, a : a + s["y"], b : b + s["x"]] for a in range(9) for b in range(9))


def reference(s, F, G):
    padded = np.pad(G, ((0, 0), (0, 0), (4, 4), (4, 4)))
    means = np.stack([z.mean(1) for z in shifts(F, padded, s)], 1)
    return means.reshape(s["n"], 9, 9, s["y"], s["x"])


def work(s):
    each = 81 * product(s, "n c y x")
    return Work(each), Work(3 * each)


def in_torch(torch, s):
    def volume(F, G):
        padded = torch.nn.functional.pad(G, (4, 4, 4, 4))
        means = torch.stack([z.mean(1) for z in shifts(F, padded, s)], 1)
        return means.reshape(s["n"], 9, 9, s["y"], s["x"])

    return volume


def in_jax(jax, s):
    def volume(F, G):
        padded = jax.numpy.pad(G, ((0, 0), (0, 0), (4, 4), (4, 4)))
        means = jax.numpy.stack([z.mean(1) for z in shifts(F, padded, s)], 1)
        return means.reshape(s["n"], 9, 9, s["y"], s["x"])

    return volume


ROWS = (
    Row(
        "21",
        "Correlation volume ±4",
        extents(n=2, c=64, y=64, x=96),
        inputs,
        program,
        (n, i, j, y, x),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(n=2, c=3, y=5, x=7),
        batch=("n",),
        lean=True,
        tolerance=1e-5,
    ),
)
