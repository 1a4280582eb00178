"""out{b,h,q,d} = Σ_k softmax_k(30 tanh(Q_q · K_k / (30 √d)) + t[h, q − k]) · V{b,h,k,d}

Attention with softcap and a learned bias of the relative position, gradient included.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

b, h, q, d, m, k = sm.dims("b h q d m k")
CAP = 30.0


def inputs(s, rng):
    Q, K, V = (Input(normal(rng, s, "b h q d"), (b, h, q, d)) for _ in range(3))
    bias = normal(rng, {"h": s["h"], "m": 2 * s["q"] - 1}, "h m")
    return Q, K, V, Input(bias, (h, m))


def program(s, Q, K, V, T):
    z = CAP * sm.tanh(sm.sum[d](Q * K[q:k]) * (s["d"] ** -0.5 / CAP)) + T[m : q - k + s["q"] - 1]
    e = sm.exp(z - sm.max[k](z))
    return sm.sum[k](e / sm.sum[k](e) * V[q:k])


def index(s):
    """The place of q − k in the bias."""
    at = np.arange(s["q"])
    return at[:, None] - at + s["q"] - 1


def reference(s, Q, K, V, T):
    z = CAP * np.tanh(Q @ K.swapaxes(2, 3) * (s["d"] ** -0.5 / CAP)) + T[:, index(s)]
    e = np.exp(z - z.max(3, keepdims=True))
    return e / e.sum(3, keepdims=True) @ V


def work(s):
    scores = product(s, "b h q q")
    forward = scores * (2 * s["d"] + 12 + 9 + 5)
    return Work(forward), Work(forward + scores * (4 * s["d"] + 8))


def in_torch(torch, s):
    places = torch.from_numpy(index(s))
    scale = s["d"] ** -0.5 / CAP

    def attention(Q, K, V, T):
        z = CAP * torch.tanh(Q @ K.transpose(2, 3) * scale) + T[:, places]
        return torch.softmax(z, -1) @ V

    return attention


def in_jax(jax, s):
    jnp = jax.numpy
    places = index(s)
    scale = s["d"] ** -0.5 / CAP

    def attention(Q, K, V, T):
        z = CAP * jnp.tanh(jnp.einsum("bhqd,bhkd->bhqk", Q, K) * scale) + T[:, places]
        return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(z, -1), V)

    return attention


ROWS = (
    Row(
        "8",
        "Attention, softcap and learned relative bias",
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
        lean=True,
    ),
)
