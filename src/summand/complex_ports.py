"""Complex arrays at the border of a program whose values are all real.

    param complex64{i=4}, order (i)   ->   f32 in memory with the order (i, re_im)
    port  float32 (4, 2)              ->   complex64 (4,)

In memory a complex array is its real and imaginary parts in turn, so nothing is copied: inside it
is a real array with the innermost dim `re_im`; callers see complex elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from summand.ir.nodes import Program, Type
from summand.rewrite.split_complex import PARTS
from summand.runtime.artifact import Artifact, Port

Order = tuple[str, ...]


def order_in_memory(type_: Type, order: Order | None) -> Order | None:
    """The order of dims that lies in memory; complex arrays cannot leave it to the compiler."""
    if not type_.dtype.is_complex:
        return order
    chosen = tuple(d for d, _ in type_.dims) if order is None else order
    return (*chosen, PARTS)


def param_orders(program: Program, orders: Sequence[Order]) -> tuple[Order, ...]:
    """The orders of parameters in memory."""
    return tuple(
        order_in_memory(p.type, o) or o for p, o in zip(program.params, orders, strict=True)
    )


def result_orders(
    program: Program, orders: Sequence[Order | None], hidden: int
) -> tuple[Order | None, ...]:
    """The orders of results in memory; then those of `hidden` scalars."""
    own = (order_in_memory(r.type, o) for r, o in zip(program.results, orders, strict=True))
    return (*own, *((),) * hidden)


def with_complex_ports(artifact: Artifact, program: Program) -> Artifact:
    """The artifact of a split program as callers of the original one see it."""
    params = _ports(artifact.params, [p.type for p in program.params])
    results = _ports(artifact.results, [r.type for r in program.results])
    return replace(artifact, params=params, results=results)


def _ports(ports: Sequence[Port], types: Sequence[Type]) -> tuple[Port, ...]:
    """Ports beyond the types are hidden results, which are real."""
    seen = [_port(p, t) for p, t in zip(ports, types, strict=False)]
    return (*seen, *ports[len(seen) :])


def _port(port: Port, type_: Type) -> Port:
    if not type_.dtype.is_complex:
        return port
    return replace(port, dtype=type_.dtype.storage, shape=port.shape[:-1], dims=port.dims[:-1])
