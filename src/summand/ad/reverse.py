"""Reverse mode: a program and cotangents of its results to cotangents of its parameters.

    params a, b; m = mul a b; c = sum{k} m; results c
    ->
    params a, b, cc; m = mul a b; c = sum{k} m; ca = sum{j} mul(cc, b); cb = sum{i} mul(cc, a)
    results c, ca, cb

One walk forward repeats the equations, one walk back emits adjoints; only values that lie between
the wanted parameters and a result take part. Zeros are never made. n equations give O(n).
Values of integer or bool type have no cotangent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.ad import control, folds, recurrence, selection
from summand.ad.activity import Activity, activity
from summand.ad.cotangents import Cotangent, Selected, settle, sum_to
from summand.ad.derivatives import Site, partials
from summand.ad.indexing import pull_interleave, pull_reduce_at_sum, pull_reindex
from summand.ad.tape import Step, Tape
from summand.errors import InternalError
from summand.ir.builder import Builder
from summand.ir.fresh import Names
from summand.ir.nodes import (
    Call,
    Cond,
    Constant,
    Custom,
    Eqn,
    Group,
    Interleave,
    Iota,
    Map,
    Program,
    RandomBits,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Sort,
    TopK,
    Var,
    While,
    with_operands,
)


def vjp(program: Program, wrt: tuple[int, ...]) -> Program:
    """The program with its reverse derivative.

    Parameters: those of `program`, then one cotangent for each result of float or complex type.
    Results: those of `program`, then one cotangent for each parameter in `wrt`, with all its dims.
    Raises DerivativeError where a parameter in `wrt`, or an equation on the way, has no derivative.
    """
    control.require_inexact(program, wrt)
    b = Builder()
    args = [b.param(p.type) for p in program.params]
    cotangents = [b.param(r.type) if r.type.dtype.is_inexact else None for r in program.results]
    wanted = [i in wrt for i in range(len(args))]
    results, pulled = pull(b, Names(program), program, args, cotangents, wanted)
    outs = []
    for i in wrt:
        ct = pulled[i]
        if ct is None:
            ct = b.constant(0, args[i].type.dtype)
        outs.append(b.expand(ct, args[i].type.sizes))
    return b.finish([*results, *outs])


def pull(
    b: Builder,
    names: Names,
    program: Program,
    args: Sequence[Var],
    cotangents: Sequence[Cotangent | None],
    wanted: Sequence[bool],
    known: Mapping[Var, Var] | None = None,
) -> tuple[tuple[Var, ...], tuple[Var | None, ...]]:
    """Emit a program's equations and then their adjoints into `b`.

    `known` has values of the program that were computed before and need not be again.

    Returns the results, and each argument's cotangent: None is zero (or not wanted); dims that it
    lacks are dims along which it is constant. A value that is given for several parameters has its
    whole cotangent at the first of them.
    """
    seeded = [ct is not None for ct in cotangents]
    active = activity(program, wanted, seeded)
    tape = Tape(b, names, pull)
    env: dict[Var, Var] = dict(zip(program.params, args, strict=True))
    tape.varied.update(env[p] for p in program.params if p in active.varied)
    outer = b.loc
    steps = [_forward(tape, eqn, env, active, known or {}) for eqn in program.eqns]
    results = tuple(env[r] for r in program.results)
    for result, ct in zip(results, cotangents, strict=True):
        tape.add(result, ct)
    for step in reversed(steps):
        if any(out in tape.parts for out in step.eqn.outs):
            b.loc = step.eqn.loc
            _adjoint(tape, step)
    b.loc = outer
    pulled: list[Var | None] = []
    seen: set[Var] = set()
    for arg, want in zip(args, wanted, strict=True):
        pulled.append(tape.array(arg) if want and arg not in seen else None)
        seen.add(arg)
    return results, tuple(pulled)


def _forward(
    tape: Tape, eqn: Eqn, env: dict[Var, Var], active: Activity, known: Mapping[Var, Var]
) -> Step:
    """Repeat an equation. Where its adjoint needs more than its values, compute that along."""
    op = with_operands(eqn.op, env)
    varied = any(o in active.varied for o in eqn.outs)
    useful = varied and any(o in active.useful for o in eqn.outs)
    match op:
        case _ if all(o in known for o in eqn.outs):
            step = Step(Eqn(tuple(known[o] for o in eqn.outs), op, eqn.loc))
        case Recur() if useful:
            step = recurrence.forward_recur(tape, op, eqn)
        case Reduce() if useful and op.monoid.name in selection.ORDERED and not op.monoid.combine:
            step = selection.forward_reduce(tape, op, eqn)
        case ReduceAt() if useful and op.monoid.name in selection.ORDERED and not op.monoid.combine:
            step = selection.forward_reduce_at(tape, op, eqn)
        case Custom(forward=Program()) if useful:
            step = control.forward_custom(tape, op, eqn)
        case _:
            outs = tape.b.emit(op, [o.type for o in eqn.outs], eqn.loc)
            step = Step(Eqn(outs, op, eqn.loc))
            tape.made.update((o, step.eqn) for o in outs)
    env.update(zip(eqn.outs, step.eqn.outs, strict=True))
    tape.varied.update(env[o] for o in eqn.outs if o in active.varied)
    return step


def _adjoint(tape: Tape, step: Step) -> None:
    """Contribute to the operands' cotangents from the results'."""
    match step.eqn.op:
        case Map():
            _pull_map(tape, step.eqn, step.eqn.op)
        case Interleave():
            pull_interleave(tape, step.eqn, step.eqn.op)
        case Reindex():
            pull_reindex(tape, step.eqn, step.eqn.op)
        case Reduce():
            _pull_reduce(tape, step, step.eqn.op)
        case ReduceAt():
            _pull_reduce_at(tape, step, step.eqn.op)
        case Recur():
            recurrence.pull_recur(tape, step, step.eqn.op)
        case Cond():
            control.pull_cond(tape, step.eqn, step.eqn.op)
        case While():
            control.refuse_while(step.eqn)
        case Custom():
            control.pull_custom(tape, step, step.eqn.op)
        case Call():
            control.pull_call(tape, step.eqn, step.eqn.op)
        case Sort() | TopK():
            selection.pull_sorted(tape, step.eqn, step.eqn.op)
        case Group() | Iota() | Constant() | RandomBits():
            raise InternalError(f"vjp: {type(step.eqn.op).__name__} was given a cotangent")


def _pull_map(tape: Tape, eqn: Eqn, op: Map) -> None:
    ct = tape.cotangent(eqn.out)
    if isinstance(ct, Selected):
        _pull_selected(tape, eqn, op, ct)
        return
    if ct is None:
        return
    b = tape.b
    site = Site(b, op.args, lambda: eqn.out, tape.constant_of)
    sizes = eqn.out.type.sizes
    if op.fn == "mul" and op.args[0] == op.args[1]:
        (a, _) = op.args
        tape.add(a, b.map("mul", ct, b.map("add", a, a)))
        return
    for arg, partial in zip(op.args, partials(op.fn, len(op.args)), strict=True):
        if partial is not None and tape.wants(arg):
            part = sum_to(b, partial.pull(site, ct), arg.type, sizes)
            tape.add(arg, partial.after(site, part) if partial.after else part)


def _pull_selected(tape: Tape, eqn: Eqn, op: Map, ct: Selected) -> None:
    """The same at one position along some dims: the arguments are gathered there first."""
    args = tuple(tape.gather(a, ct.at) for a in op.args)
    keys = {d for d, _ in ct.at}
    full = {d: n for d, n in eqn.out.type.dims if d not in keys}
    site = Site(tape.b, args, lambda: tape.gather(eqn.out, ct.at), tape.constant_of)
    for arg, partial in zip(op.args, partials(op.fn, len(op.args)), strict=True):
        if partial is not None and tape.wants(arg):
            values = partial.pull(site, ct.values)
            values = partial.after(site, values) if partial.after else values
            tape.add(arg, settle(tape.b, values, ct.at, arg.type, full))


def _pull_reduce(tape: Tape, step: Step, op: Reduce) -> None:
    if op.monoid.name == "sum" and op.monoid.combine is None:
        (arg,) = op.args
        ct = tape.array(step.eqn.out)
        tape.add(arg, ct)  # constant along the dims that were summed
    elif step.saved:
        selection.pull_reduce(tape, step, op)
    else:
        folds.pull_reduce(tape, step.eqn, op)


def _pull_reduce_at(tape: Tape, step: Step, op: ReduceAt) -> None:
    if op.monoid.name == "sum" and op.monoid.combine is None:
        pull_reduce_at_sum(tape, step.eqn, op)
    elif step.saved:
        selection.pull_reduce_at(tape, step, op)
    else:
        folds.pull_reduce_at(tape, step.eqn, op)
