"""out{i,j} = Σ_k A{i,k} · B{k,j}, large, small and with few results."""

from __future__ import annotations

import summand as sm

from ..row import CONTRACTION, Input, Row, Work, extents, normal, product

i, k, j = sm.dims("i k j")


def inputs(s, rng):
    return Input(normal(rng, s, "i k"), (i, k)), Input(normal(rng, s, "k j"), (k, j))


def program(s, A, B):
    return sm.sum[k](A * B)


def reference(s, A, B):
    return A @ B


def work(s):
    slots = product(s, "i j k")
    return Work(slots), Work(3 * slots)


def in_peer(peer, s):
    return lambda A, B: A @ B


def row(m, q, p):
    return Row(
        f"matmul-{m}x{q}x{p}",
        f"Matrix product {m}×{q}×{p}",
        extents(i=m, k=q, j=p),
        inputs,
        program,
        (i, j),
        reference,
        work,
        in_peer,
        in_peer,
        tiny=extents(i=9, k=7, j=11),
        tolerance=1e-5,
        fraction=CONTRACTION,
        control=True,
    )


ROWS = (row(1024, 1024, 1024), row(256, 256, 256), row(64, 4096, 64))
