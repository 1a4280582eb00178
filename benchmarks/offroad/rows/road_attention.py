"""out{b,h,q,d} = Σ_k softmax_k(Q_q · K_k / √d) · V{b,h,k,d}"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

b, h, q, d, k = sm.dims("b h q d k")


def inputs(s, rng):
    return tuple(Input(normal(rng, s, "b h q d"), (b, h, q, d)) for _ in range(3))


def program(s, Q, K, V):
    z = sm.sum[d](Q * K[q:k]) * s["d"] ** -0.5
    e = sm.exp(z - sm.max[k](z))
    return sm.sum[k](e / sm.sum[k](e) * V[q:k])


def reference(s, Q, K, V):
    z = Q @ K.swapaxes(2, 3) * s["d"] ** -0.5
    e = np.exp(z - z.max(3, keepdims=True))
    return e / e.sum(3, keepdims=True) @ V


def work(s):
    scores = product(s, "b h q q")
    forward = scores * (2 * s["d"] + 9 + 3)
    return Work(forward), Work(forward + scores * (4 * s["d"] + 4))


def in_torch(torch, s):
    return torch.nn.functional.scaled_dot_product_attention


def in_jax(jax, s):
    jnp = jax.numpy

    def attention(Q, K, V):
        z = jnp.einsum("bhqd,bhkd->bhqk", Q, K) * s["d"] ** -0.5
        return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(z, -1), V)

    return attention


ROWS = (
    Row(
        "attention",
        "Attention",
        extents(b=2, h=8, q=512, d=64),
        inputs,
        program,
        (b, h, q, d),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(b=2, h=2, q=7, d=5),
        batch=("b",),
        control=True,
    ),
)
