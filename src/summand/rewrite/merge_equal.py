"""Merge equal equations, also inside bodies.

    %2 = exp %0; %3 = exp %0        ->   %2 = exp %0      (uses of %3 become %2)
    %4 = add %1 %0; %5 = add %0 %1  ->   %4 = add %0 %1   (operands of commutative ops are ordered)
    cond %0 (%1, %1) …              ->   cond %0 (%1) …   (what is given twice is given once)

Needs a verified Program. Keeps every result bit for bit. Never merges `barrier`, which says that a
value is to be computed again, nor calls of foreign functions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from summand.ir.nodes import (
    Call,
    Cond,
    Constant,
    Custom,
    Eqn,
    Map,
    Op,
    Program,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Type,
    Var,
    While,
    with_operands,
)
from summand.ir.prims import PRIMS
from summand.ir.text import equation
from summand.rewrite.rebuild import Rebuild, choose, inside


def merge_equal(program: Program) -> Program:
    """Compute equal values once."""
    new = Rebuild(program)
    seen: dict[Hashable, tuple[Var, ...]] = {}
    for eqn in program.eqns:
        op = _ordered(with_operands(eqn.op, new.env))
        op = _merged_inside(_given_once(op))
        key = key_of(op, [o.type for o in eqn.outs])
        if key is not None and key in seen:
            new.bind(eqn.outs, seen[key])
            continue
        outs = new.emit(op, [o.type for o in eqn.outs], eqn.loc)
        new.bind(eqn.outs, outs)
        if key is not None:
            seen[key] = outs
    return new.done(program)


def _merged_inside(op: Op) -> Op:
    return op if isinstance(op, Custom) else inside(op, merge_equal)


def _ordered(op: Op) -> Op:
    if isinstance(op, Map) and PRIMS[op.fn].commutative:
        return Map(op.fn, tuple(sorted(op.args, key=lambda v: v.id)))
    return op


def key_of(op: Op, out_types: Sequence[Type]) -> Hashable | None:
    """Equal keys mean equal values. Numbers take part by their text: 0.0 and -0.0 differ."""
    types = tuple(out_types)
    match op:
        case Map():
            return None if op.fn == "barrier" else (op.fn, tuple(a.id for a in op.args), types)
        case Call():
            return None
        case Constant():
            return (types, op if not isinstance(op.value, float | complex) else repr(op.value))
        case Reindex():
            return (types, op, repr(op.fill))
        case Reduce() | ReduceAt() if op.monoid.combine is None:
            return (types, op, repr(op.monoid.identity))
        case Recur() | Cond() | While() | Custom() | Reduce() | ReduceAt():
            outs = tuple(Var(n, t) for n, t in enumerate(types))
            return equation(Eqn(outs, op))
        case _:
            return (types, op)


# ---- arguments given twice


def _given_once(op: Op) -> Op:
    match op:
        case Recur():
            pairs = [*zip(op.reads, op.inits, strict=True)]
            reads = _first_of(pairs)
            captured = _first_of(op.captured)
            start = len(op.reads)
            rest = start + len(op.captured)
            same = [*reads, *(start + c for c in captured), *range(rest, len(op.body.params))]
            kept_reads, kept = sorted(set(reads)), sorted(set(captured))
            return replace(
                op,
                reads=tuple(op.reads[r] for r in kept_reads),
                inits=tuple(op.inits[r] for r in kept_reads),
                captured=tuple(op.captured[c] for c in kept),
                body=_with_params_merged(op.body, same),
            )
        case Cond():
            same = _first_of(op.args)
            args = tuple(op.args[a] for a in sorted(set(same)))
            then = _with_params_merged(op.then, same)
            return Cond(op.pred, then, _with_params_merged(op.other, same), args)
        case While():
            captured = _first_of(op.captured)
            states = range(len(op.captured), len(op.test.params))
            same = [*captured, *states]
            return replace(
                op,
                test=_with_params_merged(op.test, same),
                body=_with_params_merged(op.body, same),
                captured=tuple(op.captured[c] for c in sorted(set(captured))),
            )
        case _:
            return op


def _first_of(items: Sequence[Hashable]) -> list[int]:
    """For each item the position of the first that equals it."""
    first: dict[Hashable, int] = {}
    return [first.setdefault(item, n) for n, item in enumerate(items)]


def _with_params_merged(program: Program, same: Sequence[int]) -> Program:
    """Parameter n is replaced by parameter same[n] and dropped where that is another."""
    if list(same) == list(range(len(same))):
        return program
    new = Rebuild(choose(program, sorted(set(same)), range(len(program.results))))
    for n, first in enumerate(same):
        new.env[program.params[n]] = new.env[program.params[first]]
    for eqn in program.eqns:
        new.copy(eqn)
    return new.done(program)
