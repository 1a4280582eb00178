"""out{i} = log Σ_j exp(Z) − Z[j: label_i]: the loss of each sample from its logits."""

from __future__ import annotations

import numpy as np

import summand as sm

from ..row import MEMORY, Input, Row, Work, extents, normal, product

i, j = sm.dims("i j")


def inputs(s, rng):
    labels = rng.integers(0, s["j"], s["i"])
    return Input(normal(rng, s, "i j"), (i, j)), Input(labels, (i,))


def program(s, Z, label):
    top = sm.max[j](Z)
    return sm.log(sm.sum[j](sm.exp(Z - top))) + top - Z[j:label]


def reference(s, Z, label):
    losses = []
    for rows, at in zip(np.array_split(Z, 16), np.array_split(label, 16)):
        top = rows.max(1)
        total = np.log(np.exp(rows - top[:, None]).sum(1))
        losses.append(total + top - np.take_along_axis(rows, at[:, None], 1)[:, 0])
    return np.concatenate(losses)


def work(s):
    """The gradient has to read the logits again, for it needs the sum first: one row is a cache's
    worth, so that this may come from there."""
    slots = product(s, "i j")
    return Work(12 * slots), Work(14 * slots)


def in_torch(torch, s):
    F = torch.nn.functional
    return lambda Z, label: F.cross_entropy(Z, label, reduction="none")


def in_jax(jax, s):
    jnp = jax.numpy

    def cross_entropy(Z, label):
        picked = jnp.take_along_axis(Z, label[:, None], 1)[:, 0]
        return jax.nn.logsumexp(Z, 1) - picked

    return cross_entropy


ROWS = (
    Row(
        "cross-entropy",
        "Cross-entropy over 32000 classes",
        extents(i=8192, j=32000),
        inputs,
        program,
        (i,),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(i=5, j=9),
        fraction=MEMORY,
        control=True,
    ),
)
