"""Adjoints of control flow, of programs with their own derivative, and of foreign functions.

y = cond p then else x      ->   cx = cond p (vjp then) (vjp else) x cy
y = checkpoint f x          ->   cx = (vjp f) (barrier x) cy       f's values are made again
y = custom f forward backward x
                            ->   y, r = forward x;  cx = backward r cy
"""

from __future__ import annotations

from collections.abc import Sequence

from summand.ad.tape import PullProgram, Step, Tape
from summand.errors import DerivativeError, InternalError, Loc, layout
from summand.ir import foreign
from summand.ir.builder import Builder
from summand.ir.fresh import Names
from summand.ir.nodes import Call, Cond, Custom, Eqn, Program, Var


def require_inexact(program: Program, wrt: Sequence[int]) -> None:
    """Raise where a parameter that is differentiated by is neither float nor complex."""
    for i in wrt:
        type_ = program.params[i].type
        if not type_.dtype.is_inexact:
            raise DerivativeError(
                layout(
                    f"derivative by argument {i}, which is not a float or complex array",
                    [(str(type_), None)],
                    "Convert it to a float first, or leave it out.",
                )
            )


def rows(loc: Loc | None) -> list[tuple[str, Loc | None]]:
    """The line of the equation, for a message."""
    return [(loc.text, loc)] if loc else []


def refuse_while(eqn: Eqn) -> None:
    """Raise: the number of steps, and so the values to keep, are not known beforehand."""
    raise DerivativeError(
        layout(
            "reverse derivative through while_loop, whose number of steps is not known",
            rows(eqn.loc),
            "Use recur with a fixed number of steps, or forward mode (jvp).",
        )
    )


# ---- cond


def pull_cond(tape: Tape, eqn: Eqn, op: Cond) -> None:
    """A cond over the branches' adjoints; each repeats its branch's own values."""
    cts = [tape.full(o) if o.type.dtype.is_inexact else None for o in eqn.outs]
    given = [ct for ct in cts if ct is not None]
    wanted = [tape.wants(a) for a in op.args]
    seeded = [ct is not None for ct in cts]
    if not given or not any(wanted):
        return
    then, other = (
        adjoint_program(tape.pull, tape.names, branch, wanted, seeded)
        for branch in (op.then, op.other)
    )
    pred, args = op.pred, (*op.args, *given)
    outs = tape.b.emit(Cond(pred, then, other, args), [r.type for r in then.results])
    for arg, ct in zip([a for a, w in zip(op.args, wanted, strict=True) if w], outs, strict=True):
        tape.add(arg, ct)


def adjoint_program(
    pull: PullProgram,
    names: Names,
    program: Program,
    wanted: Sequence[bool],
    seeded: Sequence[bool],
) -> Program:
    """From a program's arguments and some results' cotangents to the wanted arguments' cotangents,
    all with full dims."""
    b = Builder()
    args = [b.param(p.type) for p in program.params]
    cts = [b.param(r.type) if s else None for r, s in zip(program.results, seeded, strict=True)]
    _, pulled = pull(b, names, program, args, cts, wanted)
    outs: list[Var] = []
    for arg, ct, want in zip(args, pulled, wanted, strict=True):
        if want:
            value = b.constant(0, arg.type.dtype) if ct is None else ct
            outs.append(b.expand(value, arg.type.sizes))
    return b.finish(outs)


# ---- custom


def forward_custom(tape: Tape, op: Custom, eqn: Eqn) -> Step:
    """The user's forward program in place of the primal, with its residuals."""
    if op.forward is None:
        raise InternalError("vjp: a custom equation without a forward program")
    values = tape.b.inline(op.forward, op.args)
    count = len(eqn.outs)
    return Step(Eqn(values[:count], op, eqn.loc), values[count:])


def pull_custom(tape: Tape, step: Step, op: Custom) -> None:
    """The user's backward program; or the primal again, from arguments behind barriers."""
    b, outs = tape.b, step.eqn.outs
    if op.backward is not None:
        cts = []
        for out in outs:
            if out.type.dtype.is_inexact:
                ct = tape.full(out)
                cts.append(tape.zero(out.type) if ct is None else ct)
        pulled: Sequence[Var | None] = b.inline(op.backward, (*step.saved, *cts))
        inexact = [a for a in op.args if a.type.dtype.is_inexact]
        targets = op.args if len(pulled) == len(op.args) else inexact
    else:
        arrays = [tape.array(o) if o.type.dtype.is_inexact else None for o in outs]
        held = [b.map("barrier", a) for a in op.args]
        wanted = [tape.wants(a) for a in op.args]
        _, pulled = tape.pull(b, tape.names, op.primal, held, arrays, wanted)
        targets = op.args
    for arg, part in zip(targets, pulled, strict=True):
        if arg.type.dtype.is_inexact:
            tape.add(arg, part)


# ---- call


def pull_call(tape: Tape, eqn: Eqn, op: Call) -> None:
    """The registered derivative: a program over arguments and cotangents."""
    program = derivative_of(op, eqn.loc)
    cts: list[Var] = []
    for out in eqn.outs:
        if out.type.dtype.is_inexact:
            ct = tape.full(out)
            cts.append(tape.zero(out.type) if ct is None else ct)
    pulled = tape.b.inline(program, (*op.args, *cts))
    inexact = [a for a in op.args if a.type.dtype.is_inexact]
    targets = op.args if len(pulled) == len(op.args) else inexact
    for arg, part in zip(targets, pulled, strict=True):
        if arg.type.dtype.is_inexact:
            tape.add(arg, part)


def derivative_of(op: Call, loc: Loc | None) -> Program:
    """The program that a foreign function registered as its derivative."""
    rule = foreign.find(op.name).vjp
    if rule is None:
        raise DerivativeError(
            layout(
                f"the foreign function {op.name!r} has no derivative",
                rows(loc),
                "Register it with a vjp rule, or stop the gradient before it.",
            )
        )
    return rule([a.type for a in op.args])
