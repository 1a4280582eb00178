"""h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t,   y_t = Σ_s C_t h_t

Selective state space model: the decay is a function of the input.
"""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, positive, product

b, d, s_, t = sm.dims("b d s t")


def inputs(s, rng):
    return (
        Input(normal(rng, s, "b d t"), (b, d, t)),
        Input(positive(rng, s, "b d t", 0.1), (b, d, t)),
        Input(-positive(rng, s, "d s"), (d, s_)),
        Input(normal(rng, s, "b s t"), (b, s_, t)),
        Input(normal(rng, s, "b s t"), (b, s_, t)),
    )


def program(s, U, D, A, B, C):
    decay, drive = sm.exp(D * A), D * U * B
    h = sm.recur(lambda h: decay * h[t : t - 1] + drive, over=t, init=0.0)
    return sm.sum[s_](C * h)


def reference(s, U, D, A, B, C):
    decay = np.exp(np.einsum("bdt,ds->tbds", D, A))
    drive = np.einsum("bdt,bdt,bst->tbds", D, U, B)
    h, out = np.zeros(decay.shape[1:]), []
    for decay_t, drive_t, C_t in zip(decay, drive, C.transpose(2, 0, 1), strict=True):
        h = decay_t * h + drive_t
        out.append(np.einsum("bds,bs->bd", h, C_t))
    return np.stack(out, -1)


def work(s):
    """Two multiplications and the exponential for decay and drive, two multiply-adds."""
    each = product(s, "b d s t")
    return Work(13 * each), Work(30 * each)


def in_torch(torch, s):
    def scan(U, D, A, B, C):
        decay = torch.exp(torch.einsum("bdt,ds->tbds", D, A))
        drive = torch.einsum("bdt,bst->tbds", D * U, B)
        h, states = torch.zeros_like(decay[0]), []
        for decay_t, drive_t in zip(decay.unbind(0), drive.unbind(0), strict=True):
            h = decay_t * h + drive_t
            states.append(h)
        return torch.einsum("tbds,bst->bdt", torch.stack(states), C)

    return scan


def in_jax(jax, s):
    def scan(U, D, A, B, C):
        def step(h, at):
            u, d_, b_, c_ = at
            h = jax.numpy.exp(d_[..., None] * A) * h + (d_ * u)[..., None] * b_[:, None]
            return h, (h * c_[:, None]).sum(-1)

        start = jax.numpy.zeros((s["b"], s["d"], s["s"]))
        along = tuple(a.transpose(2, 0, 1) for a in (U, D, B, C))
        return jax.lax.scan(step, start, along)[1].transpose(1, 2, 0)

    return scan


ROWS = (
    Row(
        "13a",
        "Selective scan",
        extents(b=2, d=256, s=16, t=1024),
        inputs,
        program,
        (b, d, t),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(b=2, d=3, s=5, t=7),
        batch=("b",),
    ),
)
