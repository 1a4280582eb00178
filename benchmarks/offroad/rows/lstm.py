"""z = norm(x_t Wx + h Wh),   c' = σ(z_f + p_f c) c + σ(z_i + p_i c) tanh z_g,
h' = σ(z_o + p_o c') tanh norm(c')

LSTM with peepholes and layer norm: no library has its step. Gates are i, f, g, o along q.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

b, t, d, k, h, q, g = sm.dims("b t d k h q g")


def inputs(s, rng):
    scale = s["h"] ** -0.5
    return (
        Input(normal(rng, s, "b t d"), (b, t, d)),
        Input(normal(rng, s, "d q h", scale), (d, q, h)),
        Input(normal(rng, s, "h q h", scale), (k, q, h)),
        Input(normal(rng, s, "g h", 0.1), (g, h)),
    )


def normed(z, *over):
    centred = z - sm.mean[over](z)
    return centred * sm.rsqrt(sm.mean[over](centred**2) + 1e-5)


def program(s, X, Wx, Wh, P):
    drive, zero, σ = sm.sum[d](X * Wx), sm.zeros({h: s["h"]}), sm.sigmoid

    def step(state):
        last, c = state["h"][t : t - 1], state["c"][t : t - 1]
        z = normed(drive + sm.sum[k](last[h:k] * Wh), q, h)
        c = σ(z[q:1] + P[g:1] * c) * c + σ(z[q:0] + P[g:0] * c) * sm.tanh(z[q:2])
        return {"h": σ(z[q:3] + P[g:2] * c) * sm.tanh(normed(c, h)), "c": c}

    return sm.recur(step, over=t, init={"h": zero, "c": zero})["h"]


def unfolded(xp, s, X, Wx, Wh, P, stack, zeros):
    """The time loop, written out."""

    def σ(z):
        return 0.5 * (xp.tanh(0.5 * z) + 1)

    def norm(z):
        centred = z - z.mean(-1)[..., None]
        return centred / xp.sqrt((centred**2).mean(-1)[..., None] + 1e-5)

    size = s["h"]
    drive = X @ Wx.reshape(s["d"], -1)
    Wh = Wh.reshape(size, -1)
    last, c, out = zeros, zeros, []
    for at in range(s["t"]):
        z = norm(drive[:, at] + last @ Wh)
        i, f, new, o = (z[:, n * size : (n + 1) * size] for n in range(4))
        c = σ(f + P[1] * c) * c + σ(i + P[0] * c) * xp.tanh(new)
        last = σ(o + P[2] * c) * xp.tanh(norm(c))
        out.append(last)
    return stack(out, 1)


def reference(s, X, Wx, Wh, P):
    return unfolded(np, s, X, Wx, Wh, P, np.stack, np.zeros((s["b"], s["h"])))


def work(s):
    products = product(s, "b t q h") * (s["d"] + s["h"])
    pointwise = product(s, "b t h")
    return Work(products + 100 * pointwise), Work(3 * products + 220 * pointwise)


def in_torch(torch, s):
    def lstm(X, Wx, Wh, P):
        return unfolded(torch, s, X, Wx, Wh, P, torch.stack, torch.zeros(s["b"], s["h"]))

    return lstm


def in_jax(jax, s):
    jnp = jax.numpy

    def norm(z):
        centred = z - z.mean(-1)[..., None]
        return centred / jnp.sqrt((centred**2).mean(-1)[..., None] + 1e-5)

    def lstm(X, Wx, Wh, P):
        Wh, σ = Wh.reshape(s["h"], -1), jax.nn.sigmoid

        def step(state, drive):
            last, c = state
            i, f, new, o = jnp.split(norm(drive + last @ Wh), 4, -1)
            c = σ(f + P[1] * c) * c + σ(i + P[0] * c) * jnp.tanh(new)
            last = σ(o + P[2] * c) * jnp.tanh(norm(c))
            return (last, c), last

        drive = (X @ Wx.reshape(s["d"], -1)).swapaxes(0, 1)
        zero = jnp.zeros((s["b"], s["h"]))
        return jax.lax.scan(step, (zero, zero), drive)[1].swapaxes(0, 1)

    return lstm


ROWS = (
    Row(
        "18",
        "LSTM with layer norm and peepholes",
        extents(b=32, t=64, d=256, h=256, q=4, g=3),
        inputs,
        program,
        (b, t, h),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(b=2, t=3, d=4, h=5, q=4, g=3),
        batch=("b",),
        fixed=("q", "g"),
        cold=1.5,
    ),
)
