"""Put sub-programs that need no call of their own in line.

    %2 = custom (%0) {primal} …           ->   the primal's equations on %0
    %3 = stop_gradient %2                 ->   %2
    %5 = cond True (%3) {then} {other}    ->   then's equations on %3

Runs after differentiation, which is what `custom` and `stop_gradient` are for. Needs a verified
Program. Keeps every result bit for bit.
"""

from __future__ import annotations

from summand.ir.nodes import Cond, Constant, Custom, Map, Program, Var
from summand.rewrite.rebuild import Rebuild, inside


def inline(program: Program) -> Program:
    """Inline custom derivatives' primals, stop_gradient, and branches that are known."""
    new = Rebuild(program)
    known: dict[Var, bool] = {}
    for eqn in program.eqns:
        op = inside(eqn.op, inline)
        match op:
            case Custom():
                outs = new.inline(op.primal, new.all_of(op.args))
                new.bind(eqn.outs, outs)
            case Map(fn="stop_gradient"):
                new.bind(eqn.outs, [new.of(op.args[0])])
            case Cond() if op.pred in known:
                branch = op.then if known[op.pred] else op.other
                new.bind(eqn.outs, new.inline(branch, new.all_of(op.args)))
            case _:
                new.copy(eqn, op)
                if isinstance(op, Constant) and isinstance(op.value, bool):
                    known[eqn.out] = op.value
    return new.done(program)
