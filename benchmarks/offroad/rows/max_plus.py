"""out{i,j} = max_k A{i,k} + B{k,j}: the matrix product of the tropical semiring."""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

i, k, j = sm.dims("i k j")


def inputs(s, rng):
    return Input(normal(rng, s, "i k"), (i, k)), Input(normal(rng, s, "k j"), (k, j))


def program(s, A, B):
    return sm.max[k](A + B)


def reference(s, A, B):
    return np.stack([(row[:, None] + B).max(0) for row in A])


def work(s):
    """The gradient goes to what was selected: finding that costs a comparison more."""
    slots = 2 * product(s, "i k j")
    return Work(slots), Work(1.5 * slots)


def in_torch(torch, s):
    """Eight rows at a time, which stay in the cache."""
    return lambda A, B: torch.cat([(rows[:, :, None] + B).amax(1) for rows in A.split(8)])


def in_torch_whole(torch, s):
    """One expression, which torch.compile does not store."""
    return lambda A, B: (A[:, :, None] + B).amax(1)


def in_jax(jax, s):
    return lambda A, B: (A[:, :, None] + B).max(1)


ROWS = (
    Row(
        "6",
        "Max-plus product",
        extents(i=512, k=512, j=512),
        inputs,
        program,
        (i, j),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(i=9, k=7, j=11),
        compile=in_torch_whole,
        fraction=(0.5, 0.5),
        lean=True,
    ),
)
