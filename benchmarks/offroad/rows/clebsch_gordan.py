"""out{e,u,k} = Σ_{i,j,p} C{i,j,k,p} · X{e,u,i} · Y{e,j} · W{e,p,u}

Tensor product of an equivariant network: C is known when compiling, and nearly all of it is zero.
"""

from __future__ import annotations

import functools

import numpy as np

import summand as sm

from ..row import Input, Row, Work, extents, normal, product

e, u, i, j, k, p = sm.dims("e u i j k p")


@functools.cache
def coefficients() -> np.ndarray:
    """15 paths of 11 entries each, at random places: C{i,j,k,p}."""
    rng = np.random.default_rng(7)
    C = np.zeros((9, 9, 9, 15), np.float32)
    for path in range(15):
        places = rng.choice(9 * 9 * 9, 11, replace=False)
        C.reshape(-1, 15)[places, path] = rng.standard_normal(11)
    return C


def inputs(s, rng):
    return (
        Input(normal(rng, s, "e u i"), (e, u, i)),
        Input(normal(rng, s, "e j"), (e, j)),
        Input(normal(rng, s, "e p u"), (e, p, u)),
    )


def program(s, X, Y, W):
    return sm.sum[i, j, p](sm.array(coefficients(), i, j, k, p) * X * Y * W)


def reference(s, X, Y, W):
    of_edge = np.einsum("ej,ijkp->eipk", Y, coefficients().astype(np.float64))
    by_path = np.einsum("eipk,eui->eupk", of_edge, X, optimize=True)
    return np.einsum("eupk,epu->euk", by_path, W, optimize=True)


def work(s):
    """Of (i, k, p) and of (i, p) or (k, p) only those are met that an entry of C has."""
    C = coefficients() != 0
    triples, pairs = C.any(1).sum(), max(C.any((0, 1)).sum(), C.any((1, 2)).sum())
    each = product(s, "e u")
    return (
        Work(each * float(triples + pairs) + s["e"] * 165),
        Work(each * float(3 * triples + 4 * pairs) + s["e"] * 330),
    )


def in_torch(torch, s):
    C = torch.from_numpy(coefficients())

    def tensor_product(X, Y, W):
        of_edge = torch.einsum("ej,ijkp->eipk", Y, C).reshape(-1, 9, 135)
        by_path = torch.bmm(X, of_edge).reshape(X.shape[0], -1, 15, 9)
        return torch.einsum("eupk,epu->euk", by_path, W)

    return tensor_product


def in_jax(jax, s):
    C = coefficients()

    def tensor_product(X, Y, W):
        of_edge = jax.numpy.einsum("ej,ijkp->eipk", Y, C)
        by_path = jax.numpy.einsum("eipk,eui->eupk", of_edge, X)
        return jax.numpy.einsum("eupk,epu->euk", by_path, W)

    return tensor_product


ROWS = (
    Row(
        "12",
        "Clebsch-Gordan tensor product",
        extents(e=4096, u=32, i=9, j=9, p=15),
        inputs,
        program,
        (e, u, k),
        reference,
        work,
        in_torch,
        in_jax,
        tiny=extents(e=5, u=3, i=9, j=9, p=15),
        fixed=("i", "j", "p"),
        tolerance=1e-5,
    ),
)
