"""Names for new dims of a program."""

from __future__ import annotations

from collections.abc import Iterable

from summand.ir.nodes import Program, Recur
from summand.ir.verify_control import programs_of


class Names:
    """Names for new dims, different from every dim of a program and its sub-programs."""

    def __init__(self, program: Program) -> None:
        self._taken = set(_dims_of(program))

    def fresh(self, base: str) -> str:
        """`base`, or `base` with the least number that makes it new."""
        name, n = base, 0
        while name in self._taken:
            n += 1
            name = f"{base}_{n}"
        self._taken.add(name)
        return name


def _dims_of(program: Program) -> Iterable[str]:
    for v in program.params:
        yield from v.type.names
    for eqn in program.eqns:
        for v in eqn.outs:
            yield from v.type.names
        for inner in programs_of(eqn.op):
            yield from _dims_of(inner)
        if isinstance(eqn.op, Recur):
            yield from eqn.op.over
