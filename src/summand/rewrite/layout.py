"""Choose the order in memory of the dims of each stored value.

Parameters and results keep the user's order. Every other value starts from the order of the
largest value that its own equation reads, and puts dims that are new behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.ir.nodes import Var


def choose_orders(
    reads: Mapping[Var, Sequence[Var]],
    fixed: Mapping[Var, tuple[str, ...]],
    stored: Sequence[Var],
) -> dict[Var, tuple[str, ...]]:
    """Orders of all stored values: `fixed` ones as they are. `reads` gives what each one's stage
    reads from memory."""
    orders = dict(fixed)
    for var in stored:
        if var not in orders:
            orders[var] = _inherited(var, reads.get(var, ()), orders)
    return orders


def _inherited(
    var: Var, reads: Sequence[Var], orders: Mapping[Var, tuple[str, ...]]
) -> tuple[str, ...]:
    wanted = var.type.names
    order: list[str] = []
    known = [v for v in reads if v in orders]
    for source in sorted(known, key=lambda v: -v.type.count):
        order += [d for d in orders[source] if d in wanted and d not in order]
    rest = [d for d, _ in var.type.dims if d not in order]
    return (*rest, *order)
