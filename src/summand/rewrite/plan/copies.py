"""Copies of what the user hands over and asks for, in orders that the compiler may choose.

    y = f(x, w)   ->   x' = copy x; w' = copy w; y' = f(x', w'); y = copy y'

For programs that compute much with arrays in whose order no loop is fast. A copy is a conversion to
the type that a value has: it gets memory, and so an order, of its own.

Needs a verified Program. Keeps every result bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.ir.nodes import Eqn, Map, Program, Type, Var
from summand.rewrite.rebuild import Rebuild

Order = tuple[str, ...]
LARGE = 64 << 10  # bytes from which the order of an array matters
PASSES = 4  # times that a copy's bytes pass: read, fetched to be overwritten, written, read again


def is_copy(eqn: Eqn) -> bool:
    """Whether an equation only says that a value has memory of its own."""
    op = eqn.op
    return isinstance(op, Map) and op.fn == "convert" and op.args[0].type == eqn.out.type


def has_order(type_: Type) -> bool:
    """Whether there is an order to choose, and it matters."""
    long = sum(n > 1 for _, n in type_.dims)
    return type_.dtype.is_float and type_.nbytes >= LARGE and long > 1


def copied_bytes(program: Program, wanted: Sequence[Order | None]) -> int:
    """Bytes that pass for copies of all parameters, and of results whose order is `wanted`."""
    results = zip(program.results, wanted, strict=False)
    values = [*program.params, *(r for r, order in results if order is not None)]
    return PASSES * sum(v.type.nbytes for v in values if has_order(v.type))


def with_copies(
    program: Program, orders: Mapping[Var, Order], wanted: Sequence[Order | None]
) -> tuple[Program, dict[Var, Order]]:
    """The program with copies, and the orders of the parameters that are read as they are."""
    new = Rebuild(program)
    kept: dict[Var, Order] = {}
    for param in program.params:
        own = new.of(param)
        if has_order(param.type):
            new.bind((param,), new.emit(Map("convert", (own,)), [param.type]))
        elif param in orders:
            kept[own] = orders[param]
    for eqn in program.eqns:
        new.copy(eqn)
    asked = [order is not None for order in wanted]
    asked += [False] * (len(program.results) - len(asked))
    results = []
    for result, copied in zip(program.results, asked, strict=True):
        value = new.of(result)
        if copied and has_order(result.type):  # made in one order, handed out in another
            for _ in range(2):
                (value,) = new.emit(Map("convert", (value,)), [result.type])
        results.append(value)
    return new.finish(results), kept
