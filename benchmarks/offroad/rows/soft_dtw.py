"""R_{i,j} = D_{i,j} - log(e^{-R_{i-1,j-1}} + e^{-R_{i-1,j}} + e^{-R_{i,j-1}}); out: the last R

Soft dynamic time warping, γ = 1: a recurrence over two dims.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, positive, product

b, i, j = sm.dims("b i j")
FAR = 1e8  # the peers' infinity, which their log-sum-exp can differentiate


def inputs(s, rng):
    return (Input(positive(rng, s, "b i j"), (b, i, j)),)


def start(p, q):
    return sm.where(sm.logical_and(p < 0, q < 0), 0.0, sm.inf)


def program(s, D):
    def step(R):
        x, y, z = R[i : i - 1, j : j - 1], R[i : i - 1], R[j : j - 1]
        m = sm.stop_gradient(sm.minimum(sm.minimum(x, y), z))
        return D + m - sm.log(sm.exp(m - x) + sm.exp(m - y) + sm.exp(m - z))

    return sm.recur(step, over=(i, j), init=start)[i:-1, j:-1]


def reference(s, D):
    """Antidiagonals, all of one at once."""
    rows, columns = s["i"], s["j"]
    R = np.full((s["b"], rows + 1, columns + 1), np.inf)
    R[:, 0, 0] = 0.0
    for total in range(rows + columns - 1):
        p = np.arange(max(0, total - columns + 1), min(rows, total + 1))
        q = total - p
        near = np.stack([R[:, p, q], R[:, p, q + 1], R[:, p + 1, q]])
        least = near.min(0)
        R[:, p + 1, q + 1] = D[:, p, q] + least - np.log(np.exp(least - near).sum(0))
    return R[:, rows, columns]


def work(s):
    """Two minima, two differences, two exponentials (the third is 1), a logarithm, four sums."""
    each = product(s, "b i j")
    return Work(38 * each), Work(64 * each)


def in_torch(torch, s):
    rows, columns = s["i"], s["j"]

    def warp(D):
        before = torch.full((s["b"], rows + 1), FAR)
        last = torch.full((s["b"], rows + 1), FAR)
        before[:, 0] = 0.0
        padded = torch.nn.functional.pad(D, (0, 0, 1, 0))
        for total in range(2, rows + columns + 1):
            p = torch.arange(max(1, total - columns), min(rows, total - 1) + 1)
            near = torch.stack([before[:, p - 1], last[:, p - 1], last[:, p]])
            new = padded[:, p, total - p - 1] - torch.logsumexp(-near, 0)
            before, last = last, torch.full((s["b"], rows + 1), FAR).index_copy(1, p, new)
        return last[:, rows]

    return warp


def in_jax(jax, s):
    jnp = jax.numpy
    p, total = np.arange(s["i"])[:, None], np.arange(s["i"] + s["j"] - 1)[None]
    q = total - p
    inside, place = (q >= 0) & (q < s["j"]), np.clip(q, 0, s["j"] - 1)

    def warp(D):
        skewed = jnp.where(inside, D[:, p, place], FAR).transpose(2, 0, 1)

        def step(two, row):
            last = two[1]
            shift = ((0, 0), (1, 0))
            near = [jnp.pad(a[:, :-1], shift, constant_values=FAR) for a in two]
            new = row - jax.nn.logsumexp(-jnp.stack([*near, last]), 0)
            return (last, new), None

        first = jnp.full((s["b"], s["i"]), FAR).at[:, 0].set(skewed[0, :, 0])
        far = jnp.full((s["b"], s["i"]), FAR)
        return jax.lax.scan(step, (far, first), skewed[1:])[0][1][:, -1]

    return warp


ROWS = (
    Row(
        "14",
        "Soft dynamic time warping",
        extents(b=32, i=256, j=256),
        inputs,
        program,
        (b,),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(b=2, i=5, j=4),
        batch=("b",),
        lean=True,
    ),
)
