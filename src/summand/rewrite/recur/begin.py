"""Begin a recurrence with what its body would add at the first step alone.

    c = where(t == 9, a, 0)                              m = recur t backward: m' = f(m)
    m = recur t backward: m' = f(m + c), at first 0  ->                         at first a

The adjoint of the last state comes in so: it is the adjoint of all states, zero but for one. Where
nothing else of the body reads the state or the addend, neither is added up at every step.

Needs a verified Program. Keeps results but for the sign of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from summand.ir.nodes import Eqn, Iota, Map, Program, Recur, Var, operands
from summand.ir.recurrences import uniform
from summand.rewrite.rebuild import Rebuild, inside


def begin(program: Program) -> Program:
    """Rewrite every such recurrence, in sub-programs too."""
    new = Rebuild(program)
    made = {o: e for e in program.eqns for o in e.outs}
    for eqn in program.eqns:
        op = inside(eqn.op, begin)
        if not isinstance(op, Recur):
            new.copy(eqn, op)
            continue
        inits = dict(zip(range(len(op.inits)), new.all_of(op.inits), strict=True))
        sums: dict[Var, int] = {}
        for number, addend in enumerate(op.captured):
            first = _at_first(made, op, addend)
            found = _added(op, number) if first is not None else None
            if first is None or found is None or uniform(made, op.inits[found[1]]) != 0:
                continue
            total, read = found
            inits[read] = new.expand(new.of(first), op.inits[read].type.sizes)
            sums[total] = read
        captured = new.all_of(op.captured)
        body = _without(op.body, sums)
        op = replace(op, inits=tuple(inits.values()), captured=captured, body=body)
        new.bind(eqn.outs, new.emit(op, [o.type for o in eqn.outs], eqn.loc))
    return new.done(program)


def _at_first(made: Mapping[Var, Eqn], op: Recur, var: Var) -> Var | None:
    """What a value is at the first step of a recurrence, where it is zero at all others."""
    eqn = made.get(var)
    if eqn is None or not isinstance(eqn.op, Map) or eqn.op.fn != "where" or len(op.over) != 1:
        return None
    pred, value, other = eqn.op.args
    test = made.get(pred)
    if test is None or not isinstance(test.op, Map) or test.op.fn != "eq":
        return None
    step, place = (made.get(a) for a in test.op.args)
    (time,), (size,), (forward,) = op.over, op.sizes, op.forward
    plain = var.type.dtype.is_float and time not in value.type.names
    steps = step is not None and isinstance(step.op, Iota) and step.op.dim == time
    first = place is not None and uniform(made, place.out) == (0 if forward else size - 1)
    return value if plain and steps and first and uniform(made, other) == 0 else None


def _added(op: Recur, number: int) -> tuple[Var, int] | None:
    """The sum of a captured value and a read one step back, and the number of the read, where no
    other equation of the body reads them."""
    addend = op.body.params[len(op.reads) + number]
    readers = [e for e in op.body.eqns if addend in operands(e.op)]
    if len(readers) != 1 or not isinstance(readers[0].op, Map) or readers[0].op.fn != "add":
        return None
    total = readers[0].out
    for read, param in enumerate(op.body.params[: len(op.reads)]):
        alone = [e for e in op.body.eqns if param in operands(e.op)] == readers
        back = op.reads[read].shift == ((1,) if op.forward[0] else (-1,))
        used = {param, addend} & set(op.body.results)
        if alone and back and not used and set(operands(readers[0].op)) == {param, addend}:
            return (total, read) if total.type == param.type else None
    return None


def _without(body: Program, sums: Mapping[Var, int]) -> Program:
    """The body where some sums are the reads themselves."""
    new = Rebuild(body)
    for eqn in body.eqns:
        if len(eqn.outs) == 1 and eqn.out in sums:
            new.bind(eqn.outs, [new.of(body.params[sums[eqn.out]])])
        else:
            new.copy(eqn)
    return new.done(body)
