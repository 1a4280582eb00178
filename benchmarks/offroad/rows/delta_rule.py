"""S_t = α_t S_{t-1} + β_t k_t ⊗ (v_t - k_tᵀ α_t S_{t-1}),   o_t = q_tᵀ S_t

Gated delta rule: a fast-weight memory that writes only what it does not hold already.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

b, t, i, j = sm.dims("b t i j")


def inputs(s, rng):
    keys = normal(rng, s, "b t i")
    each = (s["b"], s["t"])
    return (
        Input(normal(rng, s, "b t i"), (b, t, i)),
        Input(keys / np.linalg.norm(keys, axis=-1, keepdims=True), (b, t, i)),
        Input(normal(rng, s, "b t j"), (b, t, j)),
        Input(rng.uniform(0.4, 0.6, each).astype(np.float32), (b, t)),
        Input(rng.uniform(0.97, 0.99, each).astype(np.float32), (b, t)),
    )


def program(s, Q, K, V, beta, alpha):
    def step(S):
        kept = alpha * S[t : t - 1]
        return kept + beta * K * (V - sm.sum[i](K * kept))

    return sm.sum[i](Q * sm.recur(step, over=t, init=0.0))


def reference(s, Q, K, V, beta, alpha):
    S, out = np.zeros((s["b"], s["i"], s["j"])), []
    for at in range(s["t"]):
        S = S * alpha[:, at, None, None]
        error = V[:, at] - np.einsum("bi,bij->bj", K[:, at], S)
        S = S + np.einsum("b,bi,bj->bij", beta[:, at], K[:, at], error)
        out.append(np.einsum("bi,bij->bj", Q[:, at], S))
    return np.stack(out, 1)


def work(s):
    """Decay, the product with the key, the update, the product with the query."""
    each = product(s, "b t i j")
    return Work(4 * each), Work(15 * each)


def in_torch(torch, s):
    def rule(Q, K, V, beta, alpha):
        S, out = torch.zeros(s["b"], s["i"], s["j"]), []
        for at in range(s["t"]):
            key = K[:, at]
            S = S * alpha[:, at, None, None]
            error = V[:, at] - torch.bmm(key[:, None], S)[:, 0]
            S = torch.baddbmm(S, (key * beta[:, at, None])[:, :, None], error[:, None])
            out.append(torch.bmm(Q[:, at, None], S)[:, 0])
        return torch.stack(out, 1)

    return rule


def in_jax(jax, s):
    def rule(Q, K, V, beta, alpha):
        def step(S, at):
            q, k, v, b_, a = at
            S = S * a[:, None, None]
            error = v - jax.numpy.einsum("bi,bij->bj", k, S)
            S = S + (k * b_[:, None])[:, :, None] * error[:, None]
            return S, jax.numpy.einsum("bi,bij->bj", q, S)

        along = tuple(a.swapaxes(0, 1) for a in (Q, K, V, beta, alpha))
        start = jax.numpy.zeros((s["b"], s["i"], s["j"]))
        return jax.lax.scan(step, start, along)[1].swapaxes(0, 1)

    return rule


ROWS = (
    Row(
        "13b",
        "Gated delta rule",
        extents(b=16, t=256, i=64, j=64),
        inputs,
        program,
        (b, t, j),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(b=2, t=5, i=3, j=4),
        batch=("b",),
    ),
)
