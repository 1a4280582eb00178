"""What reverse mode remembers while it walks a program: the builder, cotangents, and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from summand.ad.cotangents import Cotangent, dense, total
from summand.ir.builder import Builder
from summand.ir.fresh import Names
from summand.ir.nodes import (
    Constant,
    Eqn,
    Iota,
    Map,
    Program,
    Scalar,
    Table,
    Type,
    Var,
)


class PullProgram(Protocol):
    """Emits a program's equations and their adjoints: see `reverse.pull`."""

    def __call__(
        self,
        b: Builder,
        names: Names,
        program: Program,
        args: Sequence[Var],
        cotangents: Sequence[Cotangent | None],
        wanted: Sequence[bool],
        known: Mapping[Var, Var] | None = None,
    ) -> tuple[tuple[Var, ...], tuple[Var | None, ...]]:
        """Results, and the arguments' cotangents (None: zero; may lack dims)."""


@dataclass(frozen=True, slots=True)
class Step:
    """An equation as it stands in the new program, and what its adjoint needs beside its values."""

    eqn: Eqn
    saved: tuple[Var, ...] = ()


@dataclass(slots=True)
class Tape:
    """State of one reverse walk. Rules read `cotangent` of results and `add` to operands."""

    b: Builder
    names: Names
    pull: PullProgram
    varied: set[Var] = field(default_factory=set)
    made: dict[Var, Eqn] = field(default_factory=dict)
    parts: dict[Var, list[Cotangent]] = field(default_factory=dict)

    def wants(self, var: Var) -> bool:
        """True where the value depends on what is differentiated by."""
        return var in self.varied

    def add(self, var: Var, part: Cotangent | None) -> None:
        """Contribute to the cotangent of a value."""
        if part is not None and self.wants(var):
            self.parts.setdefault(var, []).append(part)

    def cotangent(self, var: Var) -> Cotangent | None:
        """What has been contributed, summed; None is zero."""
        parts = self.parts.get(var)
        return total(self.b, parts, var.type) if parts else None

    def array(self, var: Var) -> Var | None:
        """The cotangent as an array (it may lack dims along which it is constant)."""
        ct = self.cotangent(var)
        return None if ct is None else dense(self.b, ct, var.type)

    def full(self, var: Var) -> Var | None:
        """The cotangent as an array with all of the value's dims."""
        ct = self.array(var)
        return None if ct is None else self.b.expand(ct, var.type.sizes)

    def constant_of(self, var: Var) -> Scalar | None:
        """The number that a value is everywhere, where an equation says so."""
        eqn = self.made.get(var)
        if eqn is None or not isinstance(eqn.op, Constant) or isinstance(eqn.op.value, Table):
            return None
        return eqn.op.value

    def gather(self, var: Var, at: Sequence[tuple[str, Var]]) -> Var:
        """A forward value at one position along some dims.

        Elementwise equations are repeated on gathered arguments: the value itself may be as large
        as a whole iteration space, and is often never stored.
        """
        memo: dict[Var, Var] = {}
        pending = [var]
        while pending:
            value = pending[-1]
            first = [v for v in self._elementwise(value, at) if v not in memo]
            if first and value not in memo:
                pending += first
                continue
            pending.pop()
            if value not in memo:
                memo[value] = self._moved(value, at, memo)
        return memo[var]

    def _elementwise(self, var: Var, at: Sequence[tuple[str, Var]]) -> tuple[Var, ...]:
        """The arguments to gather first, where a value is gathered through its equation."""
        eqn = self.made.get(var)
        touched = any(d in var.type.names for d, _ in at)
        return eqn.op.args if eqn is not None and touched and isinstance(eqn.op, Map) else ()

    def _moved(self, var: Var, at: Sequence[tuple[str, Var]], memo: dict[Var, Var]) -> Var:
        keys = {d: p for d, p in at if d in var.type.names}
        if not keys:
            return var
        eqn = self.made.get(var)
        match eqn.op if eqn is not None else None:
            case Map(fn=fn, args=args):
                return self.b.map(fn, *(memo[a] for a in args), dtype=var.type.dtype)
            case Iota(dim=dim):
                return self.b.convert(keys[dim], var.type.dtype)
            case _:
                return self.b.reindex(var, keys, {}, "clip")

    def zero(self, type_: Type) -> Var:
        """Zeros with all dims."""
        return self.b.expand(self.b.constant(0, type_.dtype), type_.sizes)
