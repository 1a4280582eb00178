"""Fold a recurrence's states inside its loop, where they are made.

    S = recur t: …  {i, j, t}                S, y = recur t: s' = …; y' = sum{i} (q · s')
    y = sum{i} (q · S)  {j, t}        ->

For recurrences that are loops around nests: a step's states are in the cache, those of all steps
are not. States that nobody else reads need not be kept at all; those that backward reads are not
read once more.

Needs what fusion needs. Keeps every result. Leaves reductions that fold the recurrence's own dims,
read states away from their place, read what comes after the recurrence, or have many terms for each
state, as the gradient of what a weight multiplies: all steps at once make a better product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from summand.ir.nodes import (
    Eqn,
    Keep,
    Map,
    Program,
    Recur,
    Reduce,
    Type,
    Var,
    operands,
    with_operands,
)
from summand.options import Target
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.rebuild import Rebuild
from summand.rewrite.recur.carried import carries

LESS = 4  # times smaller than the states, so that the fold is worth its place
MUCH = 16  # terms for each element of the states: a contraction, which waits for no memory


def absorb(program: Program, target: Target) -> Program:
    """The program with such reductions inside."""
    found: dict[Eqn, list[Eqn]] = {}
    for eqn in program.eqns:
        large = any(o.type.nbytes > target.l2 for o in eqn.outs)
        if isinstance(eqn.op, Recur) and large and not carries(eqn.op):
            folds = _folds_of(program, eqn, eqn.op)
            if folds:
                found[eqn] = folds
    if not found:
        return program
    new = Rebuild(program)
    made = {o: e for e in program.eqns for o in e.outs}
    moved = {f for folds in found.values() for f in folds}
    for eqn in program.eqns:
        if eqn in found and isinstance(eqn.op, Recur):
            _emit(new, made, eqn, eqn.op, found[eqn])
        elif eqn not in moved:
            new.copy(eqn)
    return drop_unused(new.done(program))


def _folds_of(program: Program, eqn: Eqn, op: Recur) -> list[Eqn]:
    """Reductions of a recurrence's states that can be a part of its body."""
    over = frozenset(op.over)
    inside = {
        o for o in eqn.outs if over <= o.type.names
    }  # states, maps of them with what was there
    after = set(eqn.outs) - inside  # what else depends on the recurrence, or comes after it
    folds: list[Eqn] = []
    seen = False
    for other in program.eqns:
        if other is eqn:
            seen = True
            continue
        reads = set(operands(other.op))
        if not seen:
            continue
        mapped = isinstance(other.op, Map) and reads & inside and not reads & after
        if mapped and all(over <= v.type.names for v in other.outs):
            inside.update(other.outs)
            continue
        if isinstance(other.op, Reduce) and reads <= inside and _shrinks(eqn, other, over):
            folds.append(other)
            inside.update(other.outs)  # what the body makes: further folds may read it
        else:
            after.update(other.outs)
    return folds


def _shrinks(eqn: Eqn, fold: Eqn, over: frozenset[str]) -> bool:
    size = max(o.type.nbytes for o in eqn.outs)
    less = sum(o.type.nbytes for o in fold.outs) * LESS <= size
    states = max(o.type.count for o in eqn.outs)
    terms = max(v.type.count for v in operands(fold.op))
    few = terms <= MUCH * states
    return less and few and isinstance(fold.op, Reduce) and not over & set(fold.op.dims)


def _emit(new: Rebuild, made: Mapping[Var, Eqn], eqn: Eqn, op: Recur, folds: Sequence[Eqn]) -> None:
    """The recurrence with the folds as further results."""
    over = set(op.over)
    body = Rebuild(op.body)
    for inner in op.body.eqns:
        body.copy(inner)
    known = {o: body.of(r) for o, r in zip(eqn.outs, op.body.results, strict=True)}
    within = {o for e in (eqn, *folds) for o in e.outs}
    handed: list[Var] = []

    def value(var: Var) -> Var:
        if var not in known:
            maker = made.get(var)
            if maker is not None and isinstance(maker.op, Map) and _below(made, var, within):
                args = {a: value(a) for a in operands(maker.op)}
                known[var] = body.emit(with_operands(maker.op, args), [_step(var, over)])[0]
            else:
                handed.append(var)
                known[var] = body.param(_step(var, over))
        return known[var]

    results = [body.of(r) for r in op.body.results]
    for fold in folds:
        args = {a: value(a) for a in operands(fold.op)}
        types = [_step(o, over) for o in fold.outs]
        sums = body.emit(with_operands(fold.op, args), types)
        known.update(zip(fold.outs, sums, strict=True))
        results += sums
    program = body.finish(results)
    split = len(op.reads) + len(op.captured)
    old, extra = program.params[: len(op.body.params)], program.params[len(op.body.params) :]
    params = (*old[:split], *extra, *old[split:])
    more = [o for f in folds for o in f.outs]
    every: tuple[Keep, ...] = tuple("all" for _ in (*eqn.outs, *more))
    keep = op.keep or every[: len(eqn.outs)]
    loop = replace(
        op,
        inits=new.all_of(op.inits),
        captured=(*new.all_of(op.captured), *new.all_of(handed)),
        body=Program(params, program.eqns, program.results),
        keep=(*keep, *every[len(eqn.outs) :]),
    )
    new.loc = eqn.loc
    outs = new.emit(loop, [o.type for o in (*eqn.outs, *more)])
    new.loc = None
    new.bind((*eqn.outs, *more), outs)


def _below(made: Mapping[Var, Eqn], var: Var, within: Set[Var]) -> bool:
    """Whether a value is computed from what is made within a recurrence."""
    stack, seen = [var], set[Var]()
    while stack:
        v = stack.pop()
        if v in within:
            return True
        maker = made.get(v)
        if maker is not None and v not in seen and isinstance(maker.op, Map):
            seen.add(v)
            stack += operands(maker.op)
    return False


def _step(var: Var, over: set[str]) -> Type:
    """The type of a value at one position."""
    return Type.of(var.type.dtype, {d: n for d, n in var.type.dims if d not in over})
