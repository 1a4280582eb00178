"""out{b,h,x,y,d} = Σ_{p,q} softmax_{p,q}(Q · K[x: w(x)+p, y: w(y)+q]) · V[x: w(x)+p, y: w(y)+q]

Attention to the 7×7 neighbours; at the border the window w(x) = clip(x − 3, 0, X − 7) stays inside.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

b, h, x, y, d = sm.dims("b h x y d")


def inputs(s, rng):
    dims = (b, h, x, y, d)
    Q, K = (Input(normal(rng, s, "b h x y d", 0.3), dims) for _ in range(2))
    return Q, K, Input(normal(rng, s, "b h x y d"), dims)


def program(s, Q, K, V):
    p, q = sm.Dim("p", s["w"]), sm.Dim("q", s["w"])
    u = sm.clip(x - s["w"] // 2, 0, s["x"] - s["w"]) + p
    v = sm.clip(y - s["w"] // 2, 0, s["y"] - s["w"]) + q
    z = sm.sum[d](Q * K[x:u, y:v])
    e = sm.exp(z - sm.max[p, q](z))
    return sm.sum[p, q](e / sm.sum[p, q](e) * V[x:u, y:v])


def windows(s):
    """The places of each query's keys: (x·y, w·w)."""
    first = [np.clip(np.arange(s[z]) - s["w"] // 2, 0, s[z] - s["w"]) for z in "xy"]
    u, v = (f[:, None] + np.arange(s["w"]) for f in first)
    return (u[:, None, :, None] * s["y"] + v[None, :, None, :]).reshape(s["x"] * s["y"], -1)


def reference(s, Q, K, V):
    places = windows(s)
    flat = [z.reshape(s["b"], s["h"], -1, s["d"]) for z in (Q, K, V)]
    z = np.einsum("bhpd,bhpkd->bhpk", flat[0], flat[1][:, :, places])
    e = np.exp(z - z.max(3, keepdims=True))
    out = np.einsum("bhpk,bhpkd->bhpd", e / e.sum(3, keepdims=True), flat[2][:, :, places])
    return out.reshape(Q.shape)


def work(s):
    scores = product(s, "b h x y w w")
    forward = scores * (2 * s["d"] + 9 + 3)
    return Work(forward), Work(forward + scores * (4 * s["d"] + 6))


def in_torch(torch, s):
    """Keys and values gathered by a table: faster than all of them under a mask."""
    places = torch.from_numpy(windows(s)).reshape(-1)
    shape = (s["b"], s["h"], s["x"] * s["y"], s["w"] * s["w"], s["d"])

    def attention(Q, K, V):
        q = Q.reshape(*shape[:3], 1, s["d"])
        k, v = (z.reshape(*shape[:3], -1).index_select(2, places).view(shape) for z in (K, V))
        z = torch.softmax(q @ k.transpose(3, 4), -1)
        return (z @ v).view(Q.shape)

    return attention


def in_jax(jax, s):
    jnp = jax.numpy
    places = windows(s)

    def attention(Q, K, V):
        q, k, v = (z.reshape(s["b"], s["h"], -1, s["d"]) for z in (Q, K, V))
        z = jax.nn.softmax(jnp.einsum("bhpd,bhpkd->bhpk", q, k[:, :, places]), -1)
        return jnp.einsum("bhpk,bhpkd->bhpd", z, v[:, :, places]).reshape(Q.shape)

    return attention


ROWS = (
    Row(
        "9",
        "Neighbourhood attention 7×7",
        extents(b=2, h=4, x=56, y=56, d=32, w=7),
        inputs,
        program,
        (b, h, x, y, d),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(b=2, h=2, x=9, y=8, d=5, w=5),
        batch=("b",),
        lean=True,
    ),
)
