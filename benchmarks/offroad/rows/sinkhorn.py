"""f_i = -log Σ_j e^{g_j - c_ij} - log n,   g_j = -log Σ_i e^{f_i - c_ij} - log n,   10 times

Entropic optimal transport between two clouds of points, in the log domain, c_ij = |x_i - y_j|²/0.1;
the result is the dual objective Σ f + Σ g.
"""

from __future__ import annotations

import math

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

i, j, d = sm.dims("i j d")
ITERATIONS, WIDTH = 10, 0.1


def inputs(s, rng):
    return Input(normal(rng, s, "i d"), (i, d)), Input(normal(rng, s, "j d"), (j, d))


def program(s, X, Y):
    cost, g, log_n = sm.sum[d]((X - Y) ** 2) / WIDTH, 0.0, math.log(s["i"])
    for _ in range(ITERATIONS):
        f = -sm.logsumexp[j](g - cost) - log_n
        g = -sm.logsumexp[i](f - cost) - log_n
    return sm.sum[i](f) + sm.sum[j](g)


def log_sum_exp(z, axis):
    top = z.max(axis, keepdims=True)
    return np.log(np.exp(z - top).sum(axis)) + top.squeeze(axis)


def reference(s, X, Y):
    cost, g, log_n = ((X[:, None] - Y) ** 2).sum(-1) / WIDTH, np.zeros(s["j"]), math.log(s["i"])
    for _ in range(ITERATIONS):
        f = -log_sum_exp(g - cost, 1) - log_n
        g = -log_sum_exp(f[:, None] - cost, 0) - log_n
    return f.sum() + g.sum()


def work(s):
    """Difference, maximum, difference, exponential and sum for each of 20 reductions; the cost
    once. In reverse a weight (difference, exponential) and two multiply-adds for each."""
    each = product(s, "i j")
    forward = each * (2 * s["d"] + 1 + 2 * ITERATIONS * 13)
    return Work(forward), Work(forward + each * (2 * s["d"] + 2 * ITERATIONS * 12))


def in_torch(torch, s):
    log_n = math.log(s["i"])

    def transport(X, Y):
        cost = ((X[:, None] - Y) ** 2).sum(-1) / WIDTH
        g = torch.zeros(s["j"])
        for _ in range(ITERATIONS):
            f = -torch.logsumexp(g - cost, 1) - log_n
            g = -torch.logsumexp(f[:, None] - cost, 0) - log_n
        return f.sum() + g.sum()

    return transport


def in_jax(jax, s):
    log_n = math.log(s["i"])

    def transport(X, Y):
        cost = ((X[:, None] - Y) ** 2).sum(-1) / WIDTH
        g = jax.numpy.zeros(s["j"])
        for _ in range(ITERATIONS):
            f = -jax.nn.logsumexp(g - cost, 1) - log_n
            g = -jax.nn.logsumexp(f[:, None] - cost, 0) - log_n
        return f.sum() + g.sum()

    return transport


ROWS = (
    Row(
        "15",
        "Sinkhorn, log domain",
        extents(i=1024, j=1024, d=3),
        inputs,
        program,
        (),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(i=5, j=7, d=3),
        fixed=("d",),
        lean=True,
        cold=1.5,
    ),
)
