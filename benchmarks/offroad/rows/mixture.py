"""out_t = Σ_s g_{t,s} · gelu(x_t · W1[e_{t,s}]) · W2[e_{t,s}]

Mixture of experts: each token goes through two of sixteen small networks.
"""

from __future__ import annotations

import math

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, positive, product

t, s_, e, d, h, o = sm.dims("t s e d h o")


def inputs(s, rng):
    chosen = [rng.permutation(s["e"])[: s["s"]] for _ in range(s["t"])]
    return (
        Input(normal(rng, s, "t d"), (t, d)),
        Input(positive(rng, s, "t s"), (t, s_)),
        Input(normal(rng, s, "e d h", 0.1), (e, d, h)),
        Input(normal(rng, s, "e h o", 0.1), (e, h, o)),
        Input(np.array(chosen, np.int32), (t, s_)),
    )


def program(s, X, gate, W1, W2, expert):
    hidden = sm.gelu(sm.sum[d](X * W1[e:expert]))
    return sm.sum[s_](gate * sm.sum[h](hidden * W2[e:expert]))


def reference(s, X, gate, W1, W2, expert):
    erf = np.vectorize(math.erf, otypes=[np.float64])
    out = np.zeros((s["t"], s["o"]))
    for number in range(s["e"]):
        tokens, places = np.nonzero(expert == number)
        hidden = X[tokens] @ W1[number]
        hidden = 0.5 * hidden * (1 + erf(hidden / math.sqrt(2)))
        np.add.at(out, tokens, gate[tokens, places, None] * (hidden @ W2[number]))
    return out


def work(s):
    slots = product(s, "t s h") * (s["d"] + s["o"])
    return Work(slots), Work(3 * slots)


def in_torch(torch, s):
    def mixture(X, gate, W1, W2, expert):
        out = torch.zeros(s["t"], s["o"])
        for number in range(s["e"]):
            tokens, places = (expert == number).nonzero(as_tuple=True)
            hidden = torch.nn.functional.gelu(X[tokens] @ W1[number])
            out = out.index_add(0, tokens, gate[tokens, places, None] * (hidden @ W2[number]))
        return out

    return mixture


def in_jax(jax, s):
    jnp = jax.numpy

    def mixture(X, gate, W1, W2, expert):
        chosen = expert.reshape(-1)
        order = jnp.argsort(chosen)
        token = order // s["s"]
        sizes = jnp.bincount(chosen, length=s["e"]).astype(jnp.int32)
        hidden = jax.nn.gelu(jax.lax.ragged_dot(X[token], W1, sizes), approximate=False)
        y = jax.lax.ragged_dot(hidden, W2, sizes) * gate.reshape(-1)[order][:, None]
        return jnp.zeros((s["t"], s["o"])).at[token].add(y)

    return mixture


ROWS = (
    Row(
        "16",
        "Mixture of experts, 2 of 16",
        extents(t=2048, s=2, e=16, d=128, h=256, o=128),
        inputs,
        program,
        (t, o),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(t=7, s=2, e=4, d=5, h=3, o=6),
        fixed=("s",),
        fraction=(0.85, 0.75),
    ),
)
