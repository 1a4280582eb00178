"""z_p = leaky(a·x_src(p) + b·x_dst(p)),   out_n = Σ_{p: dst(p) = n} softmax_n(z)_p · x_src(p)

Graph attention: a softmax over the edges that end in a node.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

n, h, c, p = sm.dims("n h c p")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "n h c"), (n, h, c)),
        Input(normal(rng, s, "h c"), (h, c)),
        Input(normal(rng, s, "h c"), (h, c)),
        Input(rng.integers(0, s["n"], s["p"]), (p,)),
        Input(np.sort(rng.integers(0, s["n"], s["p"])), (p,)),
    )


def program(s, X, A, B, source, target):
    at, sizes = {n: target}, {n: s["n"]}
    z = sm.sum[c](X * A)[n:source] + sm.sum[c](X * B)[n:target]
    z = sm.where(z > 0, z, 0.2 * z)
    top = sm.stop_gradient(sm.max[p](z, at=at, sizes=sizes))
    w = sm.exp(z - top[n:target])
    share = w / sm.sum[p](w, at=at, sizes=sizes)[n:target]
    return sm.sum[p](share * X[n:source], at=at, sizes=sizes)


def reference(s, X, A, B, source, target):
    z = (X * A).sum(-1)[source] + (X * B).sum(-1)[target]
    z = np.where(z > 0, z, 0.2 * z)
    top = np.full((s["n"], s["h"]), -np.inf)
    np.maximum.at(top, target, z)
    w, total, out = np.exp(z - top[target]), np.zeros_like(top), np.zeros_like(X)
    np.add.at(total, target, w)
    np.add.at(out, target, (w / total[target])[..., None] * X[source])
    return out


def work(s):
    """Of each edge an exponential and six others for each head, a multiply-add for each channel;
    in reverse one for the row that comes back and one for the row that leaves."""
    heads, rows = product(s, "p h"), product(s, "p h c")
    nodes = 2 * product(s, "n h c")
    return Work(15 * heads + rows + nodes), Work(30 * heads + 3 * rows + 4 * nodes)


def in_torch(torch, s):
    shape = (s["n"], s["h"])

    def attention(X, A, B, source, target):
        z = (X * A).sum(-1)[source] + (X * B).sum(-1)[target]
        z = torch.nn.functional.leaky_relu(z, 0.2)
        places = target[:, None].expand(-1, s["h"])
        top = torch.full(shape, -1e30).scatter_reduce(0, places, z.detach(), "amax")
        w = torch.exp(z - top[target])
        total = torch.zeros(shape).index_add(0, target, w)
        return torch.zeros_like(X).index_add(0, target, X[source] * (w / total[target])[..., None])

    return attention


def in_jax(jax, s):
    def attention(X, A, B, source, target):
        def segments(values, fold=jax.ops.segment_sum):
            return fold(values, target, s["n"], indices_are_sorted=True)

        z = jax.nn.leaky_relu((X * A).sum(-1)[source] + (X * B).sum(-1)[target], 0.2)
        top = jax.lax.stop_gradient(segments(z, jax.ops.segment_max))
        w = jax.numpy.exp(z - top[target])
        return segments(X[source] * (w / segments(w)[target])[..., None])

    return attention


ROWS = (
    Row(
        "17a",
        "Graph attention, segment softmax",
        extents(p=160_000, n=10_000, h=4, c=16),
        inputs,
        program,
        (n, h, c),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(p=13, n=5, h=2, c=3),
    ),
)
