"""Sums over the steps of a loop in memory become states of it: no step is kept to be summed.

    m, g = recur t: m' = f(m); g' = v              m, s = recur t: m' = f(m); s' = s + v
    c = sum{t} g                              ->   c = the last s

Only where nobody else reads g, and v is no larger than the states and no sum itself: the gradient
of a weight is a contraction, which is better done for all steps at once (`recur.split`). Where one
nest runs the recurrence with its states in registers the sum can be a fold of that nest.

Needs a verified Program. Sums step after step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from summand.dtypes import accumulator
from summand.ir.builder import Builder
from summand.ir.nodes import SUM, Eqn, Keep, Map, Program, Read, Recur, Reduce, Type, Var, operands
from summand.rewrite.rebuild import Rebuild, inside
from summand.rewrite.recur.carried import in_registers


def accumulate(program: Program) -> Program:
    """Rewrite every such sum, in sub-programs too."""
    readers: dict[Var, list[Eqn]] = {v: [] for v in program.results}
    wanted = set(program.results)
    for eqn in program.eqns:
        for var in set(operands(eqn.op)):
            readers.setdefault(var, []).append(eqn)
    new = Rebuild(program)
    summed: dict[Eqn, Var] = {}
    for eqn in program.eqns:
        op = inside(eqn.op, accumulate)
        if eqn in summed:
            new.bind(eqn.outs, [summed[eqn]])
            continue
        sums = _sums(eqn, op, readers, wanted) if isinstance(op, Recur) else {}
        if isinstance(op, Recur) and sums:
            outs = _with_states(new, eqn, op, [k for k, _ in sorted(sums.items())])
            for k, out in outs.items():
                summed[sums[k]] = out
        else:
            new.copy(eqn, op)
    return new.done(program)


def _sums(
    eqn: Eqn, op: Recur, readers: Mapping[Var, list[Eqn]], wanted: set[Var]
) -> dict[int, Eqn]:
    """Results by number, and the sums over all steps that alone read them."""
    if len(op.over) != 1 or in_registers(op):
        return {}
    read = {r.state for r in op.reads}
    largest = max((op.body.results[k].type.count for k in read), default=0)
    made = {o: e for e in op.body.eqns for o in e.outs}
    found = {}
    for k, (out, result) in enumerate(zip(eqn.outs, op.body.results, strict=True)):
        of = readers.get(out, [])
        if k in read or out in wanted or len(of) != 1 or op.over[0] not in out.type.names:
            continue
        sum_ = of[0].op
        if not isinstance(sum_, Reduce) or sum_.monoid != SUM or sum_.dims != op.over:
            continue
        small = result.type.dtype.is_float and result.type.count <= largest
        if small and result in made and isinstance(made[result].op, Map):
            found[k] = of[0]
    return found


def _with_states(new: Rebuild, eqn: Eqn, op: Recur, which: list[int]) -> dict[int, Var]:
    """Emit the recurrence with a sum as a state in place of each of these results; the sums."""
    line, new.loc = new.loc, eqn.loc
    results = op.body.results
    types = {k: results[k].type.with_dtype(accumulator(results[k].type.dtype)) for k in which}
    zeros = [new.expand(new.constant(0.0, types[k].dtype), types[k].sizes) for k in which]
    back = 1 if op.forward[0] else -1
    keep: list[Keep] = [*op.keep] or ["all"] * len(results)
    for k in which:
        keep[k] = "last"
    loop = replace(
        op,
        reads=(*op.reads, *(Read(k, (back,)) for k in which)),
        inits=(*new.all_of(op.inits), *zeros),
        captured=new.all_of(op.captured),
        body=_summing(op, types),
        keep=tuple(keep),
    )
    outs = new.emit(loop, [types.get(k, o.type) for k, o in enumerate(eqn.outs)])
    kept = [k for k in range(len(outs)) if k not in types]
    new.bind([eqn.outs[k] for k in kept], [outs[k] for k in kept])
    found = {k: new.convert(outs[k], results[k].type.dtype) for k in which}
    new.loc = line
    return found


def _summing(op: Recur, types: Mapping[int, Type]) -> Program:
    """The body with further reads, the sums so far, and results that go on with them."""
    b = Builder()
    reads = len(op.reads)
    args = [b.param(p.type) for p in op.body.params[:reads]]
    sums = {k: b.param(t) for k, t in types.items()}
    args += [b.param(p.type) for p in op.body.params[reads:]]
    outs = list(b.inline(op.body, args))
    for k, so_far in sums.items():
        outs[k] = b.map("add", so_far, b.convert(outs[k], so_far.type.dtype))
    return b.finish(outs)
