"""Write a program anew, equation by equation: what every pass is made with.

    new = Rebuild(program)
    for eqn in program.eqns:
        new.copy(eqn)              # or emit something else and new.bind(eqn.outs, values)
    return new.done(program)

Values are numbered afresh in order, so the text of the result does not depend on the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from summand.ir.builder import Builder
from summand.ir.nodes import (
    SUM,
    Cond,
    Custom,
    Eqn,
    Map,
    Op,
    Program,
    Recur,
    Reduce,
    Var,
    While,
    with_operands,
)


class Rebuild(Builder):
    """A builder that knows, for each value of an old program, the new value that stands for it."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.env: dict[Var, Var] = {}
        for param in program.params:
            self.env[param] = self.param(param.type)

    def of(self, var: Var) -> Var:
        """The new value of an old one."""
        return self.env[var]

    def all_of(self, variables: Iterable[Var]) -> tuple[Var, ...]:
        """The new values of old ones."""
        return tuple(self.env[v] for v in variables)

    def bind(self, outs: Sequence[Var], values: Sequence[Var]) -> None:
        """Let new values stand for the old results of an equation."""
        self.env.update(zip(outs, values, strict=True))

    def copy(self, eqn: Eqn, op: Op | None = None) -> tuple[Var, ...]:
        """The same equation on the new values; `op`, if given, in place of the equation's own."""
        new = with_operands(op or eqn.op, self.env)
        outs = self.emit(new, [o.type for o in eqn.outs], eqn.loc)
        self.bind(eqn.outs, outs)
        return outs

    def done(self, program: Program) -> Program:
        """The new program."""
        return self.finish(self.all_of(program.results))


def inside(op: Op, rewrite: Callable[[Program], Program]) -> Op:
    """The equation with its sub-programs rewritten, each keeping its signature. Monoids stay."""
    match op:
        case Recur():
            return replace(op, body=rewrite(op.body))
        case Cond():
            return replace(op, then=rewrite(op.then), other=rewrite(op.other))
        case While():
            return replace(op, test=rewrite(op.test), body=rewrite(op.body))
        case Custom():
            forward = rewrite(op.forward) if op.forward else None
            backward = rewrite(op.backward) if op.backward else None
            return Custom(rewrite(op.primal), forward, backward, op.args)
        case _:
            return op


Made = Mapping[Var, Eqn]
OtherSum = Callable[[Rebuild, Made, Eqn, Reduce], Var | None]


def rewrite_sums(program: Program, other: OtherSum) -> Program:
    """Put what `other` makes of it in place of each sum (None: it stays), in sub-programs too."""
    new = Rebuild(program)
    made: dict[Var, Eqn] = {}
    for eqn in program.eqns:
        op = inside(eqn.op, lambda body: rewrite_sums(body, other))
        value = None
        if isinstance(op, Reduce) and op.monoid == SUM:
            new.loc = eqn.loc
            value = other(new, made, eqn, op)
            new.loc = None
        if value is None:
            new.copy(eqn, op)
        else:
            new.bind(eqn.outs, [value])
        made.update((o, eqn) for o in eqn.outs)
    return new.done(program)


def factors_of(made: Made, var: Var) -> list[Var]:
    """What a value is the product of."""
    eqn = made.get(var)
    if eqn is None or not isinstance(eqn.op, Map) or eqn.op.fn != "mul":
        return [var]
    return [f for a in eqn.op.args for f in factors_of(made, a)]


def choose(program: Program, params: Sequence[int], results: Sequence[int]) -> Program:
    """A program with only some of its parameters and results, by position."""
    return Program(
        tuple(program.params[p] for p in params),
        program.eqns,
        tuple(program.results[r] for r in results),
    )
