"""What reverse mode remembers while it walks a program: the builder, cotangents, and names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from summand.ad.cotangents import Cotangent, dense, total
from summand.ir.builder import Builder
from summand.ir.nodes import (
    Cond,
    Constant,
    Custom,
    Eqn,
    Iota,
    Map,
    Program,
    Recur,
    Reduce,
    ReduceAt,
    Scalar,
    Table,
    Type,
    Var,
    While,
)


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
        for inner in sub_programs(eqn):
            yield from _dims_of(inner)
        if isinstance(eqn.op, Recur):
            yield from eqn.op.over


def sub_programs(eqn: Eqn) -> tuple[Program, ...]:
    """The programs inside an equation."""
    match eqn.op:
        case Recur(body=body):
            return (body,)
        case Cond(then=then, other=other):
            return (then, other)
        case While(test=test, body=body):
            return (test, body)
        case Custom(primal=primal, forward=forward, backward=backward):
            return tuple(p for p in (primal, forward, backward) if p is not None)
        case Reduce(monoid=m) | ReduceAt(monoid=m):
            return (m.combine,) if m.combine is not None else ()
        case _:
            return ()


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
        return _gather(self, var, tuple(at), {})

    def zero(self, type_: Type) -> Var:
        """Zeros with all dims."""
        return self.b.expand(self.b.constant(0, type_.dtype), type_.sizes)


def _gather(tape: Tape, var: Var, at: tuple[tuple[str, Var], ...], memo: dict[Var, Var]) -> Var:
    keys = {d: p for d, p in at if d in var.type.names}
    if not keys:
        return var
    if var not in memo:
        eqn = tape.made.get(var)
        match eqn.op if eqn is not None else None:
            case Map(fn=fn, args=args):
                moved = [_gather(tape, a, at, memo) for a in args]
                memo[var] = tape.b.map(fn, *moved, dtype=var.type.dtype)
            case Iota(dim=dim):
                memo[var] = tape.b.convert(keys[dim], var.type.dtype)
            case _:
                memo[var] = tape.b.reindex(var, keys, {}, "clip")
    return memo[var]
