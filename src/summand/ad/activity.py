"""Which values take part in a derivative.

    varied: depends on a wanted parameter through ops with a derivative
    useful: a differentiated result depends on it

Only values that are both get a cotangent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from summand.ad.derivatives import partials
from summand.ad.invariance import cancelled
from summand.ir.nodes import Eqn, Map, Program, Var, operands


@dataclass(frozen=True, slots=True)
class Activity:
    """The two sets; they hold float and complex values only."""

    varied: frozenset[Var]
    useful: frozenset[Var]


def differentiable(eqn: Eqn) -> tuple[Var, ...]:
    """The operands through which the results have a derivative."""
    if isinstance(eqn.op, Map):
        args = eqn.op.args
        slopes = partials(eqn.op.fn, len(args))
        found = [a for a, p in zip(args, slopes, strict=True) if p is not None]
    else:
        found = list(operands(eqn.op))
    return tuple(v for v in found if v.type.dtype.is_inexact)


def varied_values(
    program: Program, wanted: Sequence[bool], cut: frozenset[Var] = frozenset()
) -> frozenset[Var]:
    """The values that depend on the wanted parameters; those of `cut` have no derivative."""
    varied = {p for p, w in zip(program.params, wanted, strict=True) if w}
    varied = {p for p in varied if p.type.dtype.is_inexact}
    for eqn in program.eqns:
        if any(v in varied for v in differentiable(eqn)):
            varied.update(o for o in eqn.outs if o.type.dtype.is_inexact and o not in cut)
    return frozenset(varied)


def activity(program: Program, wanted: Sequence[bool], seeded: Sequence[bool]) -> Activity:
    """Walk once forward from the parameters and once back from the results.

    What cancels (the maximum that a softmax subtracts) is not varied.
    """
    useful = {r for r, s in zip(program.results, seeded, strict=True) if s}
    for eqn in reversed(program.eqns):
        if any(o in useful for o in eqn.outs):
            useful.update(differentiable(eqn))
    cut = cancelled(program, seeded)
    return Activity(varied_values(program, wanted, cut), frozenset(useful))
