"""Sums of terms one of which waits for another sum are taken apart, so that none of them waits.

    s{} = sum{j} u;  t{} = sum{j} (a · p + q{j} · s)
      ->  s = sum{j} u;  t = p · (sum{j} a) + (sum{j} q) · s

The gradient of a norm is such a chain. A sum that waits is a pass of its own over what it folds,
and often over memory; those that do not are folded in one pass. A term moves only where a factor
that lacks the folded dims is all that makes it wait, and where another factor has them: x - mean x
stays, which would cancel.

Needs a verified Program; sums in another order. Leaves 16-bit sums, whose parts would be rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from summand.ir.nodes import SUM, Eqn, Map, Program, Reduce, Var, operands
from summand.rewrite.rebuild import Rebuild, inside

MOST_TERMS = 4  # of a sum that is taken apart


@dataclass(frozen=True, slots=True)
class _Term:
    """A product: factors with folded dims, and those without."""

    inner: tuple[Var, ...]
    outer: tuple[Var, ...]
    negative: bool


def sums_apart(program: Program) -> Program:
    """Rewrite every such sum, in sub-programs too."""
    new = Rebuild(program)
    made: dict[Var, Eqn] = {}
    depth: dict[Var, int] = dict.fromkeys(program.params, 0)
    for eqn in program.eqns:
        op = inside(eqn.op, sums_apart)
        terms = _terms_of(op, made, depth) if isinstance(op, Reduce) else ()
        if isinstance(op, Reduce) and terms:
            new.loc = eqn.loc
            new.bind(eqn.outs, [_sum(new, op, terms)])
            new.loc = None
            below = max(_deepest(t.inner, depth) for t in terms) + 1
        else:
            new.copy(eqn, op)
            below = _deepest(operands(op), depth) + isinstance(op, Reduce)
        made.update((o, eqn) for o in eqn.outs)
        depth.update((o, below) for o in eqn.outs)
    return new.done(program)


def _deepest(values: Iterable[Var], depth: Mapping[Var, int]) -> int:
    """How many reductions follow one another up to some values."""
    return max((depth[v] for v in values), default=0)


def _terms_of(op: Reduce, made: Mapping[Var, Eqn], depth: Mapping[Var, int]) -> tuple[_Term, ...]:
    """The terms of a sum that is better taken apart; none where it is not."""
    (arg, *more) = op.args
    if more or op.monoid != SUM or not arg.type.dtype.is_float or arg.type.dtype.bits < 32:
        return ()
    folded = frozenset(op.dims)
    terms = tuple(_terms(arg, folded, made, False))
    if not 2 <= len(terms) <= MOST_TERMS:
        return ()
    names = [{d for v in t.inner for d in v.type.names} for t in terms]
    if not all(folded <= n for n in names):
        return ()
    return terms if max(_deepest(t.inner, depth) for t in terms) < depth[arg] else ()


def _terms(
    var: Var, folded: frozenset[str], made: Mapping[Var, Eqn], negative: bool
) -> Iterable[_Term]:
    """What is added up."""
    eqn = made.get(var)
    match eqn.op if eqn else None:
        case Map("add" | "sub" as fn, (a, b)) if a.type.dims == b.type.dims == var.type.dims:
            yield from _terms(a, folded, made, negative)
            yield from _terms(b, folded, made, negative != (fn == "sub"))
        case Map("neg", (a,)):
            yield from _terms(a, folded, made, not negative)
        case _:
            factors = list(_factors(var, folded, made))
            inner = tuple(f for f in factors if f.type.names & folded)
            outer = tuple(f for f in factors if not f.type.names & folded)
            yield _Term(inner, outer, negative)


def _factors(var: Var, folded: frozenset[str], made: Mapping[Var, Eqn]) -> Iterable[Var]:
    """What is multiplied, as far as that has folded dims."""
    eqn = made.get(var)
    product = eqn is not None and isinstance(eqn.op, Map) and eqn.op.fn == "mul"
    if eqn is None or not product or not var.type.names & folded:
        yield var
        return
    for a in operands(eqn.op):
        yield from _factors(a, folded, made)


def _sum(new: Rebuild, op: Reduce, terms: Iterable[_Term]) -> Var:
    """The sum, term by term."""
    total: Var | None = None
    for term in terms:
        value = _product(new, term.inner)
        (value,) = new.reduce(SUM, op.dims, value)
        value = _product(new, term.outer, value)
        if total is None:
            total = new.map("neg", value) if term.negative else value
        else:
            total = new.map("sub" if term.negative else "add", total, value)
    assert total is not None
    return total


def _product(new: Rebuild, factors: Iterable[Var], start: Var | None = None) -> Var:
    value = start
    for factor in factors:
        value = new.of(factor) if value is None else new.map("mul", value, new.of(factor))
    assert value is not None
    return value
