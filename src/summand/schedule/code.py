"""Copy the part of a nest's code that some values need, under new numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from summand.errors import InternalError
from summand.loops.nodes import (
    Address,
    Apply,
    Arg,
    Carry,
    Const,
    Fold,
    Guard,
    Instr,
    Last,
    Load,
    Part,
    Position,
    Ref,
)


class CodeCopy:
    """Copies the part of some code that is asked for."""

    def __init__(self, source: Sequence[Instr]) -> None:
        self.source = source
        self.code: list[Instr] = []
        self.known: dict[Ref, Ref] = {}

    def add(self, instr: Instr) -> Ref:
        """Append an instruction."""
        self.code.append(instr)
        return len(self.code) - 1

    def value(self, ref: Ref) -> Ref:
        """The copy of value `ref`, and of all that it reads."""
        if ref not in self.known:
            self.known[ref] = self.add(self._renumbered(self.source[ref]))
        return self.known[ref]

    def address(self, at: Address) -> Address:
        """An address that reads copies."""
        guards = tuple(
            Guard(g.form, g.size, tuple((self.value(r), f) for r, f in g.dynamic))
            for g in at.guards
        )
        return Address(at.form, tuple((self.value(r), f) for r, f in at.dynamic), guards)

    def _renumbered(self, instr: Instr) -> Instr:
        match instr:
            case Const() | Position() | Arg():
                return instr
            case Load():
                return replace(instr, at=self.address(instr.at))
            case Apply() | Fold():
                return replace(instr, args=tuple(self.value(a) for a in instr.args))
            case Part():
                return replace(instr, of=self.value(instr.of))
            case Carry() | Last():
                raise InternalError("schedule: a carried state in a split reduction")
        assert_never(instr)
