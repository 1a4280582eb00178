"""Take control flow out of the bodies of recurrences, which run inside a kernel.

    recur { cond p then else }   ->   recur { where(p, then, else) }
    recur { while … }            ->   while position < steps { while …; state[position] = … }

Both branches of a `cond` are evaluated: they have no effects, and their reads stay in range. A
recurrence whose body runs a `while` or calls a foreign function becomes a `while` itself, with its
states as whole arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.dtypes import bool_, i32
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import Call, Cond, Eqn, Index, Map, Program, Recur, Type, Var, While
from summand.rewrite.rebuild import Rebuild, inside


def flatten_bodies(program: Program) -> Program:
    """The program without control flow in recurrences' bodies."""
    if not any(isinstance(e.op, Recur | Cond | While) for e in program.eqns):
        return program
    new = Rebuild(program)
    made = {o: e for e in program.eqns for o in e.outs}
    for eqn in program.eqns:
        op = inside(eqn.op, flatten_bodies)
        if not isinstance(op, Recur):
            new.copy(eqn, op)
            continue
        body = _named_reads(_without_conds(op.body), _chosen(op, made))
        op = Recur(op.over, op.forward, op.sizes, op.reads, op.inits, op.captured, body, op.keep)
        if any(isinstance(e.op, While | Call) for e in body.eqns):
            new.loc = eqn.loc
            new.bind(eqn.outs, _as_while(new, eqn, op))
            new.loc = None
        else:
            new.copy(eqn, op)
    return new.done(program)


def _chosen(op: Recur, made: Mapping[Var, Eqn]) -> list[int]:
    """Parameters of a body that are choices: earlier states, and captured choices of steps."""
    found = list(range(len(op.reads)))
    for k, var in enumerate(op.captured, len(op.reads)):
        source = made[var].op if var in made else None
        if isinstance(source, Map) and source.fn == "where" and set(op.over) & var.type.names:
            found.append(k)
    return found


def _named_reads(body: Program, chosen: Sequence[int]) -> Program:
    """Give each choice an equation, so that one that is read often can be made once."""
    new = Rebuild(body)
    for p in (body.params[k] for k in chosen):
        here = new.of(p)
        new.env[p] = new.map("convert", here, dtype=here.type.dtype)
    for eqn in body.eqns:
        new.copy(eqn)
    return new.done(body)


def _without_conds(body: Program) -> Program:
    if not any(isinstance(e.op, Cond) for e in body.eqns):
        return body
    new = Rebuild(body)
    for eqn in body.eqns:
        if not isinstance(eqn.op, Cond):
            new.copy(eqn)
            continue
        args = new.all_of(eqn.op.args)
        pred = new.of(eqn.op.pred)
        branches = [new.inline(_without_conds(p), args) for p in (eqn.op.then, eqn.op.other)]
        new.bind(eqn.outs, [new.map("where", pred, a, b) for a, b in zip(*branches, strict=True)])
    return new.done(body)


# ---- a recurrence as a loop over whole arrays


def _as_while(new: Rebuild, eqn: Eqn, op: Recur) -> list[Var]:
    """States with the dims of `over` first zero, then filled in position by position."""
    over = dict(zip(op.over, op.sizes, strict=True))
    whole = [Type.of(r.type.dtype, {**r.type.sizes, **over}) for r in op.body.results]
    start = [_everywhere(new, t) for t in whole]
    outer = [*new.all_of(op.inits), *new.all_of(op.captured)]
    step = new.constant(0, i32)
    test = _test(outer, [step, *start], op)
    body = _step(outer, [step, *start], op)
    types = [v.type for v in (step, *start)]
    outs = new.emit(While(test, body, tuple(outer), (step, *start)), types)
    keep = op.keep or ("all",) * len(whole)
    last: dict[str, Index] = {
        d: Form.of(n - 1 if f else 0) for d, f, n in zip(op.over, op.forward, op.sizes)
    }
    return [
        state if kept == "all" else new.reindex(state, last, {})
        for state, kept in zip(outs[1:], keep, strict=True)
    ]


def _everywhere(new: Builder, type_: Type) -> Var:
    """Zeros of a type."""
    return new.expand(new.constant(False if type_.dtype is bool_ else 0, type_.dtype), type_.sizes)


def _test(outer: Sequence[Var], state: Sequence[Var], op: Recur) -> Program:
    b = Builder()
    for v in outer:
        b.param(v.type)
    step = b.param(state[0].type)
    for v in state[1:]:
        b.param(v.type)
    count = 1
    for n in op.sizes:
        count *= n
    return b.finish([b.map("lt", step, b.constant(count, i32))])


def _step(outer: Sequence[Var], state: Sequence[Var], op: Recur) -> Program:
    """One position: read earlier states and slices, run the body, put the new states in place."""
    b = Builder()
    given = [b.param(v.type) for v in outer]
    step, *states = [b.param(v.type) for v in state]
    inits, captured = given[: len(op.inits)], given[len(op.inits) :]
    at = _positions(b, op, step)
    args = [
        _earlier(b, op, states[r.state], r.shift, _slice(b, init, at), at)
        for r, init in zip(op.reads, inits, strict=True)
    ]
    args += [_slice(b, c, at) for c in captured]
    args += [at[d] for d in op.over]
    new = b.inline(op.body, args)
    here: Var | None = None
    for d, n in zip(op.over, op.sizes, strict=True):
        same = b.map("eq", b.convert(b.iota(d, n), i32), at[d])
        here = same if here is None else b.map("and", here, same)
    placed = [
        v if here is None else b.map("where", here, v, old)
        for v, old in zip(new, states, strict=True)
    ]
    return b.finish([b.map("add", step, b.constant(1, i32)), *placed])


def _positions(b: Builder, op: Recur, step: Var) -> dict[str, Var]:
    """The position along each dim at a step, the last dim fastest."""
    at: dict[str, Var] = {}
    rest = step
    for d, forward, n in reversed(list(zip(op.over, op.forward, op.sizes, strict=True))):
        size = b.constant(n, i32)
        p = b.map("mod", rest, size)
        rest = b.map("floordiv", rest, size)
        at[d] = p if forward else b.map("sub", b.constant(n - 1, i32), p)
    return at


def _slice(b: Builder, value: Var, at: dict[str, Var]) -> Var:
    """A value at the position, for each of the dims that it has."""
    index: dict[str, Index] = {d: p for d, p in at.items() if d in value.type.names}
    return b.reindex(value, index, {}, "clip") if index else value


def _earlier(
    b: Builder, op: Recur, state: Var, shift: tuple[int, ...], init: Var, at: dict[str, Var]
) -> Var:
    """An earlier state, or `init` where there is none."""
    inside_: Var | None = None
    index: dict[str, Index] = {}
    for d, n, s in zip(op.over, op.sizes, shift, strict=True):
        place = b.map("sub", at[d], b.constant(s, i32))
        index[d] = place
        low = b.map("ge", place, b.constant(0, i32))
        high = b.map("lt", place, b.constant(n, i32))
        both = b.map("and", low, high)
        inside_ = both if inside_ is None else b.map("and", inside_, both)
    earlier = b.reindex(state, index, {}, "clip")
    return earlier if inside_ is None else b.map("where", inside_, earlier, init)
