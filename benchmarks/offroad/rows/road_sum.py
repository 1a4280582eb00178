"""out{} = Σ_i X{i}, of a gigabyte."""

from __future__ import annotations

import summand as sm

from ..row import MEMORY, Input, Row, Work, extents, normal

i = sm.Dim("i")


def inputs(s, rng):
    return (Input(normal(rng, s, "i"), (i,)),)


def program(s, X):
    return sm.sum[i](X)


def reference(s, X):
    return X.sum()


def work(s):
    """The gradient is one number everywhere; X is read for it once."""
    return Work(s["i"]), Work(s["i"])


def in_torch(torch, s):
    return torch.sum


def in_jax(jax, s):
    return jax.numpy.sum


ROWS = (
    Row(
        "sum",
        "Sum of 1 GB",
        extents(i=1 << 28),
        inputs,
        program,
        (),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(i=1003),
        fraction=MEMORY,
        control=True,
    ),
)
