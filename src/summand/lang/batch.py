"""The same program with further dims on some of its parameters.

    y{i} = mul a{i} b{i}     a also has n     ->     y{i,n} = mul a{i,n} b{i}

Most equations take further dims as they are. Control flow that depends on numbers does not: a
`cond` on a batched condition computes both branches, a `while` runs until the last element has
ended. This is what `vmap`, `jacobian` and tangents with further dims are made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

from summand.errors import DerivativeError, DimError
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import (
    ANY,
    Call,
    Cond,
    Constant,
    Custom,
    Eqn,
    Group,
    Index,
    Interleave,
    Iota,
    Map,
    Op,
    Program,
    RandomBits,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Sort,
    TopK,
    Type,
    Var,
    While,
    operands,
    with_operands,
)
from summand.lang import keys
from summand.lang.describe import Names, message, source_row
from summand.lang.graph import Sized
from summand.lang.location import here
from summand.lang.reindex import reindex
from summand.lang.rename import dims_of_program
from summand.lang.trace import replay
from summand.lang.unsized import force

Sizes = Mapping[str, int]


def replay_with(program: Program, args: Sequence[Sized]) -> tuple[Sized, ...]:
    """`replay`, where arguments may have dims that their parameters lack."""
    extra = [_extra(a.type, p.type) for a, p in zip(args, program.params, strict=True)]
    if not any(extra):
        return replay(program, args)
    inside = dims_of_program(program)
    clash = sorted({d for e in extra for d in e if d in inside}, key=keys.by_name)
    fresh = {d: keys.new_key(keys.info(d).name, here()) for d in clash}
    given = [_renamed(a, {d: fresh[d] for d in e if d in fresh}) for a, e in zip(args, extra)]
    extra = [{fresh.get(d, d): n for d, n in e.items()} for e in extra]
    outs = replay(batch(program, extra), given)
    return tuple(_restored(o, {new: old for old, new in fresh.items()}) for o in outs)


def _extra(given: Type, wanted: Type) -> dict[str, int]:
    return {d: n for d, n in given.dims if d not in wanted.names}


def _renamed(value: Sized, names: Mapping[str, str]) -> Sized:
    index = {d: Form.of(new) for d, new in names.items()}
    return force(reindex(value, index), "batch", None)


def _restored(value: Sized, names: Mapping[str, str]) -> Sized:
    present = {d: old for d, old in names.items() if d in value.dims}
    for old in present.values():
        if old in value.dims:
            shown = Names([*value.dims])[old]
            what = f"the function over which {shown} is mapped gives a result with a dim {shown}"
            advice = (
                f"Rename the {shown} that the function reads from outside: a[{shown}: {shown}2]."
            )
            raise DimError(message(what, source_row(here()), advice))
    return _renamed(value, present)


def batch(
    program: Program, extra: Sequence[Sizes], results: Sequence[Sizes] | None = None
) -> Program:
    """The program with `extra` dims on its parameters; `results` asks for dims of its results."""
    b = Builder()
    env: dict[Var, Var] = {
        p: b.param(Type.of(p.type.dtype, {**p.type.sizes, **e}))
        for p, e in zip(program.params, extra, strict=True)
    }
    _emit(b, program, env)
    outs = [env[r] for r in program.results]
    if results is not None:
        outs = [b.expand(o, sizes) for o, sizes in zip(outs, results, strict=True)]
    return b.finish(outs)


def _emit(b: Builder, program: Program, env: dict[Var, Var]) -> None:
    """The equations of a program, in terms of the values in `env`."""
    outer = b.loc
    for eqn in program.eqns:
        b.loc = eqn.loc
        args = operands(eqn.op)
        if all(env[a].type.dims == a.type.dims for a in args):
            outs = b.emit(with_operands(eqn.op, env), [o.type for o in eqn.outs])
        else:
            outs = _batched(b, eqn, env)
        env.update(zip(eqn.outs, outs, strict=True))
    b.loc = outer


def _extras(op: Op, env: Mapping[Var, Var]) -> dict[str, int]:
    """The further dims of all operands."""
    out: dict[str, int] = {}
    for arg in operands(op):
        out.update(_extra(env[arg].type, arg.type))
    return dict(sorted(out.items()))


def _with(types: Sequence[Var], more: Sizes) -> list[Type]:
    return [Type.of(v.type.dtype, {**v.type.sizes, **more}) for v in types]


def _batched(b: Builder, eqn: Eqn, env: Mapping[Var, Var]) -> tuple[Var, ...]:
    op, more = eqn.op, _extras(eqn.op, env)

    def full(variables: Sequence[Var]) -> tuple[Var, ...]:
        return tuple(b.expand(env[v], {**v.type.sizes, **more}) for v in variables)

    match op:
        case Map() | Sort() | TopK() | RandomBits() | Reindex():
            return b.emit(with_operands(op, env), _with(eqn.outs, more))
        case Reduce():
            return b.emit(Reduce(op.monoid, op.dims, full(op.args)), _with(eqn.outs, more))
        case Interleave():
            return b.emit(Interleave(full(op.parts), op.dims), _with(eqn.outs, more))
        case ReduceAt():
            index: list[tuple[str, Index]] = [
                (d, env[i] if isinstance(i, Var) else i) for d, i in op.index
            ]
            new = ReduceAt(op.monoid, op.dims, full(op.args), tuple(index), op.mode)
            return b.emit(new, _with(eqn.outs, more))
        case Recur():
            return _recur(b, eqn, op, env, more)
        case Cond():
            return _cond(b, eqn, op, env, more)
        case While():
            return _while(b, eqn, op, env, more)
        case Custom():
            return _custom(b, eqn, op, full(op.args), more)
        case Group() | Call():
            name = op.name if isinstance(op, Call) else "group"
            what = f"{name} cannot be mapped over further dims"
            raise DerivativeError(message(what, source_row(eqn.loc), "Call it for each element."))
        case Iota() | Constant():
            return b.emit(op, [o.type for o in eqn.outs])
        case _:
            assert_never(op)


def _recur(b: Builder, eqn: Eqn, op: Recur, env: Mapping[Var, Var], more: Sizes) -> tuple[Var, ...]:
    """Every state gets the further dims; captured values keep what they have."""
    inits = tuple(b.expand(env[v], {**v.type.sizes, **more}) for v in op.inits)
    captured = tuple(env[v] for v in op.captured)
    own = [_extra(env[v].type, v.type) for v in op.captured]
    params: list[Sizes] = [*([more] * len(op.reads)), *own, *([{}] * len(op.over))]
    body = batch(op.body, params, [more] * len(op.body.results))
    new = Recur(op.over, op.forward, op.sizes, op.reads, inits, captured, body, op.keep)
    return b.emit(new, _with(eqn.outs, more))


def _cond(b: Builder, eqn: Eqn, op: Cond, env: Mapping[Var, Var], more: Sizes) -> tuple[Var, ...]:
    """Both branches and a choice by element, where the condition itself is batched."""
    pred, args = env[op.pred], tuple(env[a] for a in op.args)
    if pred.type.dims:
        sides = []
        for branch in (op.then, op.other):
            inner = dict(zip(branch.params, args, strict=True))
            _emit(b, branch, inner)
            sides.append([inner[r] for r in branch.results])
        chosen = (b.map("where", pred, x, y) for x, y in zip(*sides, strict=True))
        return tuple(
            b.expand(c, {**o.type.sizes, **more}) for c, o in zip(chosen, eqn.outs, strict=True)
        )
    own = [_extra(env[a].type, a.type) for a in op.args]
    wanted = [more] * len(eqn.outs)
    then, other = (batch(p, own, wanted) for p in (op.then, op.other))
    return b.emit(Cond(pred, then, other, args), _with(eqn.outs, more))


def _while(b: Builder, eqn: Eqn, op: While, env: Mapping[Var, Var], more: Sizes) -> tuple[Var, ...]:
    """Run while any element goes on; an element that has ended keeps its state."""
    captured = tuple(env[v] for v in op.captured)
    state = tuple(b.expand(env[v], {**v.type.sizes, **more}) for v in op.state)
    extra: list[Sizes] = [_extra(env[v].type, v.type) for v in op.captured]
    extra += [more] * len(state)
    single = batch(op.test, extra)
    going = single.results[0].type
    test = Builder()
    params = [test.param(p.type) for p in single.params]
    (on,) = test.inline(single, params)
    again = test.reduce(ANY, [d for d, _ in going.dims], on)[0] if going.dims else on
    body = Builder()
    given = [body.param(p.type) for p in single.params]
    (mask,) = body.inline(single, given)
    new = body.inline(batch(op.body, extra, [more] * len(state)), given)
    old = given[len(captured) :]
    if going.dims:
        new = tuple(body.map("where", mask, n, o) for n, o in zip(new, old, strict=True))
    loop = While(test.finish([again]), body.finish(new), captured, state)
    return b.emit(loop, _with(eqn.outs, more))


def _custom(
    b: Builder, eqn: Eqn, op: Custom, args: tuple[Var, ...], more: Sizes
) -> tuple[Var, ...]:
    """Everything has the further dims, so that cotangents need no sums over them."""

    def whole(program: Program) -> Program:
        return batch(program, [more] * len(program.params), [more] * len(program.results))

    new = Custom(
        whole(op.primal),
        whole(op.forward) if op.forward else None,
        whole(op.backward) if op.backward else None,
        args,
    )
    return b.emit(new, _with(eqn.outs, more))
