"""Forward mode: a program and tangents of its parameters to tangents of its results.

    params a, b; c = mul a b; results c     ->   params a, b, ta; c = mul a b; tc = mul ta b
                                                 results c, tc

One walk; each equation is followed by its tangents. Zeros are never made. A tangent may lack dims
of its value, along which it is constant. A fold by any monoid is a fold of pairs (value, tangent)
by that monoid's own derivative, which is a monoid again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from summand.ad import control
from summand.ad.cotangents import scaled
from summand.ad.derivatives import Site, partials
from summand.ad.folds import combine
from summand.ad.invariance import cancelled
from summand.ad.reverse import pull
from summand.errors import DerivativeError, layout
from summand.ir.builder import Builder
from summand.ir.fresh import Names
from summand.ir.nodes import (
    SUM,
    Call,
    Cond,
    Constant,
    Custom,
    Eqn,
    Group,
    Interleave,
    Iota,
    Map,
    Monoid,
    Program,
    RandomBits,
    Read,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Scalar,
    Sort,
    Table,
    TopK,
    Type,
    Var,
    While,
    identity_of,
    with_operands,
)

Tangents = dict[Var, Var]


def jvp(program: Program, wrt: tuple[int, ...]) -> Program:
    """The program with its forward derivative.

    Parameters: those of `program`, then one tangent for each parameter in `wrt`. Results: those of
    `program`, then one tangent for each result of float or complex type, with all its dims.
    Raises DerivativeError where a parameter in `wrt`, or an equation on the way, has no derivative.
    """
    control.require_inexact(program, wrt)
    b = Builder()
    args = [b.param(p.type) for p in program.params]
    given = {i: b.param(args[i].type) for i in wrt}
    results, tangents = push(b, program, args, [given.get(i) for i in range(len(args))])
    outs = []
    for result, tangent in zip(results, tangents, strict=True):
        if result.type.dtype.is_inexact:
            value = b.constant(0, result.type.dtype) if tangent is None else tangent
            outs.append(b.expand(value, result.type.sizes))
    return b.finish([*results, *outs])


def push(
    b: Builder, program: Program, args: Sequence[Var], tangents: Sequence[Var | None]
) -> tuple[tuple[Var, ...], tuple[Var | None, ...]]:
    """Emit a program's equations with their tangents; None is zero."""
    env: dict[Var, Var] = dict(zip(program.params, args, strict=True))
    known: Tangents = {a: t for a, t in zip(args, tangents, strict=True) if t is not None}
    constants: dict[Var, Scalar] = {}
    cut = cancelled(program, [True] * len(program.results))
    outer = b.loc
    for eqn in program.eqns:
        b.loc = eqn.loc
        op = with_operands(eqn.op, env)
        outs = _push_custom(b, op, known) if isinstance(op, Custom) else None
        if outs is None:
            outs = b.emit(op, [o.type for o in eqn.outs])
            if cut.isdisjoint(eqn.outs):
                _push(b, Eqn(outs, op, eqn.loc), known, constants)
        if isinstance(op, Constant) and not isinstance(op.value, Table):
            constants[outs[0]] = op.value
        env.update(zip(eqn.outs, outs, strict=True))
    b.loc = outer
    results = tuple(env[r] for r in program.results)
    return results, tuple(known.get(r) for r in results)


def _push(b: Builder, eqn: Eqn, known: Tangents, constants: dict[Var, Scalar]) -> None:
    match eqn.op:
        case Map():
            _push_map(b, eqn, eqn.op, known, constants)
        case Reduce():
            _push_reduce(b, eqn, eqn.op, known)
        case ReduceAt():
            _push_reduce_at(b, eqn, eqn.op, known)
        case Reindex():
            _push_reindex(b, eqn, eqn.op, known)
        case Interleave():
            if any(p in known for p in eqn.op.parts):
                parts = _pairs(b, eqn.op.parts, known)[0]
                known[eqn.out] = b.interleave(parts, eqn.op.dims)
        case Recur():
            _push_recur(b, eqn, eqn.op, known)
        case Cond():
            _push_cond(b, eqn, eqn.op, known)
        case While():
            _push_while(b, eqn, eqn.op, known)
        case Sort() | TopK():
            tangent = known.get(eqn.op.arg)
            if tangent is not None:
                tangent = b.expand(tangent, eqn.op.arg.type.sizes)
                known[eqn.outs[0]] = b.reindex(tangent, {eqn.op.dim: eqn.outs[1]}, {})
        case Call():
            _push_call(b, eqn, eqn.op, known)
        case Group() | Iota() | Constant() | RandomBits() | Custom():
            pass
        case _:
            assert_never(eqn.op)


def _push_map(b: Builder, eqn: Eqn, op: Map, known: Tangents, constants: dict[Var, Scalar]) -> None:
    if not eqn.out.type.dtype.is_inexact:
        return
    site = Site(b, op.args, lambda: eqn.out, constants.get)
    if op.fn == "where" and all(a in known for a in op.args[1:]):
        known[eqn.out] = b.map("where", op.args[0], *(known[a] for a in op.args[1:]))
        return
    total: Var | None = None
    for arg, partial in zip(op.args, partials(op.fn, len(op.args)), strict=True):
        if partial is not None and arg in known:
            part = partial.push(site, known[arg])
            total = part if total is None else b.map("add", total, part)
    if total is not None:
        known[eqn.out] = total


# ---- folds and places


def dual(monoid: Monoid, types: Sequence[Type]) -> Monoid:
    """The monoid over (values…, tangents of the inexact ones…) that `monoid` becomes."""
    b = Builder()
    inexact = [n for n, t in enumerate(types) if t.dtype.is_inexact]

    def side() -> tuple[list[Var], dict[Var, Var]]:
        values = [b.param(Type(t.dtype)) for t in types]
        return values, {values[n]: b.param(Type(types[n].dtype)) for n in inexact}

    left, left_tangents = side()
    right, right_tangents = side()
    inner = Builder()
    params = [inner.param(v.type) for v in (*left, *right)]
    body = inner.finish(combine(inner, monoid, params[: len(left)], params[len(left) :]))
    tangents = {**left_tangents, **right_tangents}
    args = [*left, *right]
    results, pushed = push(b, body, args, [tangents.get(a) for a in args])
    moved: list[Var] = []
    for n in inexact:
        tangent = pushed[n]
        moved.append(b.constant(0, types[n].dtype) if tangent is None else tangent)
    identity = identity_of(monoid, tuple(t.dtype for t in types))
    zeros: tuple[Scalar, ...] = tuple(0.0 for _ in inexact)
    return Monoid(
        f"d_{monoid.name}",
        (*identity, *zeros),
        b.finish([*results, *moved]),
        commutative=monoid.commutative and monoid.name not in ("max", "min"),
    )


def _pairs(b: Builder, args: Sequence[Var], known: Tangents) -> tuple[list[Var], list[int]]:
    """Tangents of the inexact components, zero where there is none, with all dims."""
    inexact = [n for n, a in enumerate(args) if a.type.dtype.is_inexact]
    tangents = []
    for n in inexact:
        arg = args[n]
        tangent = known.get(arg)
        value = b.constant(0, arg.type.dtype) if tangent is None else tangent
        tangents.append(b.expand(value, arg.type.sizes))
    return tangents, inexact


def _push_reduce(b: Builder, eqn: Eqn, op: Reduce, known: Tangents) -> None:
    if not any(a in known for a in op.args):
        return
    if op.monoid.name == "sum" and op.monoid.combine is None:
        tangent = known[op.args[0]]
        sizes = op.args[0].type.sizes
        gone = math.prod(sizes[d] for d in op.dims if d not in tangent.type.names)
        dims = [d for d in op.dims if d in tangent.type.names]
        tangent = scaled(b, tangent, gone)
        known[eqn.out] = b.reduce(op.monoid, dims, tangent)[0] if dims else tangent
        return
    tangents, inexact = _pairs(b, op.args, known)
    monoid = dual(op.monoid, [a.type for a in op.args])
    outs = b.reduce(monoid, op.dims, *op.args, *tangents)
    known.update((eqn.outs[n], t) for n, t in zip(inexact, outs[len(op.args) :], strict=True))


def _push_reduce_at(b: Builder, eqn: Eqn, op: ReduceAt, known: Tangents) -> None:
    if not any(a in known for a in op.args):
        return
    places = {d: eqn.outs[0].type.sizes[d] for d, _ in op.index}
    tangents, inexact = _pairs(b, op.args, known)
    if op.monoid.name == "sum" and op.monoid.combine is None:
        moved = b.reduce_at(SUM, op.dims, tangents, dict(op.index), places, op.mode)
    else:
        monoid = dual(op.monoid, [a.type for a in op.args])
        args = [*op.args, *tangents]
        outs = b.reduce_at(monoid, op.dims, args, dict(op.index), places, op.mode)
        moved = outs[len(op.args) :]
    known.update((eqn.outs[n], t) for n, t in zip(inexact, moved, strict=True))


def _push_reindex(b: Builder, eqn: Eqn, op: Reindex, known: Tangents) -> None:
    if op.arg not in known:
        return
    tangent = b.expand(known[op.arg], {d: op.arg.type.sizes[d] for d, _ in op.index})
    known[eqn.out] = b.reindex(tangent, dict(op.index), eqn.out.type.sizes, op.mode)


# ---- control


def _doubled(b: Builder, program: Program, inexact: Sequence[bool]) -> tuple[list[Var], list[Var]]:
    """Parameters of a sub-program, then a tangent for each of those that are marked."""
    values = [b.param(p.type) for p in program.params]
    return values, [b.param(v.type) for v, with_ in zip(values, inexact, strict=True) if with_]


def _tangent_program(program: Program, active: Sequence[bool]) -> Program:
    """From parameters and the active ones' tangents to results and the inexact ones' tangents."""
    b = Builder()
    values, tangents = _doubled(b, program, active)
    spread = iter(tangents)
    results, pushed = push(b, program, values, [next(spread) if a else None for a in active])
    moved: list[Var] = []
    for result, tangent in zip(results, pushed, strict=True):
        if result.type.dtype.is_inexact:
            value = b.constant(0, result.type.dtype) if tangent is None else tangent
            moved.append(b.expand(value, result.type.sizes))
    return b.finish([*results, *moved])


def _push_cond(b: Builder, eqn: Eqn, op: Cond, known: Tangents) -> None:
    active = [a in known for a in op.args]
    if not any(active):
        return
    then, other = (_tangent_program(p, active) for p in (op.then, op.other))
    tangents = [b.expand(known[a], a.type.sizes) for a in op.args if a in known]
    outs = b.emit(Cond(op.pred, then, other, (*op.args, *tangents)), [r.type for r in then.results])
    inexact = [o for o in eqn.outs if o.type.dtype.is_inexact]
    known.update(zip(inexact, outs[len(eqn.outs) :], strict=True))


def _push_while(b: Builder, eqn: Eqn, op: While, known: Tangents) -> None:
    if not any(a in known for a in (*op.captured, *op.state)):
        return
    captured = [a in known for a in op.captured]
    state = [a.type.dtype.is_inexact for a in op.state]
    inner = Builder()
    fixed, fixed_tangents = _params(inner, op.captured, captured)
    moving, moving_tangents = _params(inner, op.state, state)
    spread = [*_spread(fixed_tangents, captured), *_spread(moving_tangents, state)]
    results, pushed = push(inner, op.body, [*fixed, *moving], spread)
    moved: list[Var] = []
    for result, tangent, inexact in zip(results, pushed, state, strict=True):
        if inexact:
            value = inner.constant(0, result.type.dtype) if tangent is None else tangent
            moved.append(inner.expand(value, result.type.sizes))
    body = inner.finish([*results, *moved])
    again = Builder()
    fixed, _ = _params(again, op.captured, captured)
    moving, _ = _params(again, op.state, state)
    test = again.finish(again.inline(op.test, [*fixed, *moving]))
    given = [b.expand(known[a], a.type.sizes) for a in op.captured if a in known]
    tangents, _ = _pairs(b, op.state, known)
    new = While(test, body, (*op.captured, *given), (*op.state, *tangents))
    outs = b.emit(new, [r.type for r in body.results])
    inexact_outs = [o for o in eqn.outs if o.type.dtype.is_inexact]
    known.update(zip(inexact_outs, outs[len(eqn.outs) :], strict=True))


def _params(b: Builder, like: Sequence[Var], marked: Sequence[bool]) -> tuple[list[Var], list[Var]]:
    values = [b.param(v.type) for v in like]
    return values, [b.param(v.type) for v, m in zip(like, marked, strict=True) if m]


def _spread(tangents: Sequence[Var], marked: Sequence[bool]) -> list[Var | None]:
    rest = iter(tangents)
    return [next(rest) if m else None for m in marked]


def _push_recur(b: Builder, eqn: Eqn, op: Recur, known: Tangents) -> None:
    """The same recurrence over states and their tangents."""
    if not any(a in known for a in (*op.inits, *op.captured)):
        return
    states = len(op.body.results)
    number: dict[int, int] = {}
    for s, result in enumerate(op.body.results):
        if result.type.dtype.is_inexact:
            number[s] = states + len(number)
    reads = [r for r, read in enumerate(op.reads) if read.state in number]
    captured = [c in known for c in op.captured]
    body = _recur_body(op, reads, captured)
    inits: list[Var] = []
    for r in reads:
        init, type_ = op.inits[r], op.body.params[r].type
        tangent = known.get(init)
        value = b.constant(0, type_.dtype) if tangent is None else tangent
        inits.append(b.expand(value, {**type_.sizes, **init.type.sizes}))
    given = tuple(b.expand(known[c], c.type.sizes) for c in op.captured if c in known)
    keep = op.keep and (*op.keep, *(op.keep[s] for s in number))
    new = Recur(
        over=op.over,
        forward=op.forward,
        sizes=op.sizes,
        reads=(*op.reads, *(Read(number[op.reads[r].state], op.reads[r].shift) for r in reads)),
        inits=(*op.inits, *inits),
        captured=(*op.captured, *given),
        body=body,
        keep=keep,
    )
    types = [o.type for o in eqn.outs]
    outs = b.emit(new, [*types, *(types[s] for s in number)])
    known.update((eqn.outs[s], outs[n]) for s, n in number.items())


def _recur_body(op: Recur, reads: Sequence[int], captured: Sequence[bool]) -> Program:
    """reads, their tangents, captured, their tangents, positions -> states, their tangents."""
    b = Builder()
    params = op.body.params
    split, end = len(op.reads), len(op.reads) + len(op.captured)
    before = [b.param(p.type) for p in params[:split]]
    moved = {r: b.param(params[r].type) for r in reads}
    values, tangents = _params(b, params[split:end], captured)
    at = [b.param(p.type) for p in params[end:]]
    known = [moved.get(r) for r in range(split)]
    spread = [*known, *_spread(tangents, captured), *(None for _ in at)]
    results, pushed = push(b, op.body, [*before, *values, *at], spread)
    outs: list[Var] = []
    for result, tangent in zip(results, pushed, strict=True):
        if result.type.dtype.is_inexact:
            value = b.constant(0, result.type.dtype) if tangent is None else tangent
            outs.append(b.expand(value, result.type.sizes))
    return b.finish([*results, *outs])


# ---- programs with a derivative of their own


def _push_custom(b: Builder, op: Custom, known: Tangents) -> tuple[Var, ...] | None:
    """A checkpoint is differentiated as it is; a custom reverse rule has no forward mode."""
    if not any(a in known for a in op.args):
        return None
    if op.backward is not None:
        raise DerivativeError(
            layout(
                "forward derivative (jvp) of a function with a custom_vjp rule",
                control.rows(b.loc),
                "A custom_vjp rule serves reverse mode only: use vjp or grad.",
            )
        )
    results, tangents = push(b, op.primal, op.args, [known.get(a) for a in op.args])
    known.update((r, t) for r, t in zip(results, tangents, strict=True) if t is not None)
    return results


def _push_call(b: Builder, eqn: Eqn, op: Call, known: Tangents) -> None:
    """The registered rule is linear in cotangents: its own adjoint moves tangents forward."""
    if not any(a in known for a in op.args):
        return
    program = control.derivative_of(op, eqn.loc)
    inexact = [a for a in op.args if a.type.dtype.is_inexact]
    targets = op.args if len(program.results) == len(op.args) else inexact
    outs = [o for o in eqn.outs if o.type.dtype.is_inexact]
    zeros = [b.expand(b.constant(0, o.type.dtype), o.type.sizes) for o in outs]
    wanted = [False] * len(op.args) + [True] * len(outs)
    args = [*op.args, *zeros]
    given = [known.get(a) for a in targets]
    _, pulled = pull(b, Names(program), program, args, given, wanted)
    for out, tangent in zip(outs, pulled[len(op.args) :], strict=True):
        if tangent is not None:
            known[out] = tangent
