"""Drop what nobody reads, also inside bodies, and keep of a recurrence's states only what is read.

    %2 = exp %0; return %1                     ->   return %1
    %3, %4 = recur … ; only %4 is read         ->   states that %4 does not need leave the body
    %5 = reindex %4 {t: 9}; the only reader    ->   %4 with keep "last", and no reindex
    max with its position, only max is read    ->   the monoid without the component of positions

Needs a verified Program. Keeps every result bit for bit, and all parameters of the program itself.
A `while` whose results nobody reads is dropped whether it ends or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from summand.ir.index import Form
from summand.ir.nodes import (
    Cond,
    Custom,
    Eqn,
    Keep,
    Monoid,
    Op,
    Program,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Type,
    Var,
    While,
    operands,
)
from summand.rewrite.rebuild import Rebuild, choose


def drop_unused(program: Program) -> Program:
    """Drop equations, states, arguments and components that no result depends on."""
    used = set(program.results)
    kept: list[Eqn] = []
    for eqn in reversed(program.eqns):
        if used.isdisjoint(eqn.outs):
            continue
        slim = _slim(eqn, used)
        used.update(operands(slim.op))
        kept.append(slim)
    kept.reverse()
    return _keep_last(Program(program.params, tuple(kept), program.results))


def _used_params(program: Program) -> set[int]:
    """Positions of the parameters that an already cleaned program reads."""
    read = set(program.results)
    for eqn in program.eqns:
        read.update(operands(eqn.op))
    return {n for n, p in enumerate(program.params) if p in read}


def _slim(eqn: Eqn, used: set[Var]) -> Eqn:
    wanted = [n for n, o in enumerate(eqn.outs) if o in used]
    op = eqn.op
    match op:
        case Recur():
            return _slim_recur(eqn, op, wanted)
        case Cond():
            return _slim_cond(eqn, op, wanted)
        case While():
            return _slim_while(eqn, op, wanted)
        case Custom():
            return Eqn(eqn.outs, replace(op, primal=drop_unused(op.primal)), eqn.loc)
        case Reduce() | ReduceAt() if op.monoid.combine and len(wanted) < len(eqn.outs):
            return _slim_monoid(eqn, op, wanted)
        case _:
            return eqn


def _closure(wanted: Iterable[int], needs: Callable[[list[int]], Iterable[int]]) -> list[int]:
    """The least set that holds `wanted` and all that it needs, in order."""
    found = sorted(set(wanted))
    while True:
        more = sorted(set(found) | set(needs(found)))
        if more == found:
            return found
        found = more


# ---- recurrences


def _slim_recur(eqn: Eqn, op: Recur, wanted: list[int]) -> Eqn:
    everything = range(len(op.body.params))

    def body_of(states: Sequence[int]) -> Program:
        return drop_unused(choose(op.body, everything, states))

    def needs(states: list[int]) -> list[int]:
        return [op.reads[p].state for p in _used_params(body_of(states)) if p < len(op.reads)]

    states = _closure(wanted, needs)
    body = body_of(states)
    params = _used_params(body)
    reads = [n for n in range(len(op.reads)) if n in params]
    first = len(op.reads)
    captured = [n for n in range(len(op.captured)) if n + first in params]
    positions = [first + len(op.captured) + n for n in range(len(op.over))]
    number = {old: new for new, old in enumerate(states)}
    keep = keep_of(op)
    outs, kept = _outs(eqn, op, states, wanted, keep)
    return Eqn(
        outs,
        Recur(
            op.over,
            op.forward,
            op.sizes,
            tuple(replace(op.reads[r], state=number[op.reads[r].state]) for r in reads),
            tuple(op.inits[r] for r in reads),
            tuple(op.captured[c] for c in captured),
            choose(body, [*reads, *(first + c for c in captured), *positions], range(len(states))),
            () if all(k == "all" for k in kept) else kept,
        ),
        eqn.loc,
    )


def _outs(
    eqn: Eqn, op: Recur, states: Sequence[int], wanted: Sequence[int], keep: Sequence[Keep]
) -> tuple[tuple[Var, ...], tuple[Keep, ...]]:
    """Results, and what is kept of each: nothing of a state that only other states need."""
    outs: list[Var] = []
    kept: list[Keep] = []
    for state in states:
        out = eqn.outs[state]
        if state in wanted or 0 in op.sizes:
            outs.append(out)
            kept.append(keep[state])
        else:
            outs.append(Var(out.id, _without(out.type, op.over)))
            kept.append("none")
    return tuple(outs), tuple(kept)


def keep_of(op: Recur) -> tuple[Keep, ...]:
    """What is kept of each state, written out."""
    whole: Keep = "all"
    return op.keep or (whole,) * len(op.body.results)


def _without(type_: Type, dims: Sequence[str]) -> Type:
    return Type(type_.dtype, tuple(x for x in type_.dims if x[0] not in dims))


def _keep_last(program: Program) -> Program:
    """States that are read at the last position only."""
    if not any(isinstance(e.op, Recur) for e in program.eqns):
        return program
    readers: dict[Var, list[Op]] = {}
    for eqn in program.eqns:
        for var in operands(eqn.op):
            readers.setdefault(var, []).append(eqn.op)
    results = set(program.results)
    last: dict[Var, Sequence[str]] = {}
    new = Rebuild(program)
    for eqn in program.eqns:
        op = eqn.op
        if isinstance(op, Recur) and 0 not in op.sizes:
            keep = list(keep_of(op))
            for n, out in enumerate(eqn.outs):
                read = readers.get(out, [])
                if keep[n] == "all" and out not in results and all(_at_last(r, op) for r in read):
                    keep[n] = "last"
                    last[out] = op.over
            _emit_recur(new, eqn, op, tuple(keep))
        elif isinstance(op, Reindex) and op.arg in last:
            rest = tuple(x for x in op.index if x[0] not in last[op.arg])
            if rest:
                new.copy(eqn, replace(op, index=rest))
            else:
                new.bind(eqn.outs, [new.of(op.arg)])
        else:
            new.copy(eqn)
    return new.done(program)


def _emit_recur(new: Rebuild, eqn: Eqn, op: Recur, keep: tuple[Keep, ...]) -> None:
    types = [
        o.type if k == "all" else _without(o.type, op.over)
        for o, k in zip(eqn.outs, keep, strict=True)
    ]
    slim: tuple[Keep, ...] = () if all(k == "all" for k in keep) else keep
    outs = new.emit(
        replace(op, keep=slim, inits=new.all_of(op.inits), captured=new.all_of(op.captured)),
        types,
        eqn.loc,
    )
    new.bind(eqn.outs, outs)


def _at_last(reader: Op, op: Recur) -> bool:
    if not isinstance(reader, Reindex) or reader.mode == "raise":
        return False
    index = dict(reader.index)
    last = (n - 1 if ahead else 0 for n, ahead in zip(op.sizes, op.forward, strict=True))
    reads_it = any(i == reader.arg for _, i in reader.index)
    return not reads_it and all(
        index.get(d) == Form.of(p) for d, p in zip(op.over, last, strict=True)
    )


# ---- control flow and monoids


def _slim_cond(eqn: Eqn, op: Cond, wanted: list[int]) -> Eqn:
    everything = range(len(op.args))
    then = drop_unused(choose(op.then, everything, wanted))
    other = drop_unused(choose(op.other, everything, wanted))
    args = sorted(_used_params(then) | _used_params(other))
    results = range(len(wanted))
    return Eqn(
        tuple(eqn.outs[n] for n in wanted),
        Cond(
            op.pred,
            choose(then, args, results),
            choose(other, args, results),
            tuple(op.args[a] for a in args),
        ),
        eqn.loc,
    )


def _slim_while(eqn: Eqn, op: While, wanted: list[int]) -> Eqn:
    first = len(op.captured)
    everything = range(first + len(op.state))
    test = drop_unused(op.test)
    tested = _used_params(test)

    def body_of(states: Sequence[int]) -> Program:
        return drop_unused(choose(op.body, everything, states))

    def needs(states: list[int]) -> list[int]:
        return [p - first for p in _used_params(body_of(states)) if p >= first]

    states = _closure([*wanted, *(p - first for p in tested if p >= first)], needs)
    body = body_of(states)
    captured = sorted(p for p in tested | _used_params(body) if p < first)
    params = [*captured, *(first + s for s in states)]
    return Eqn(
        tuple(eqn.outs[s] for s in states),
        While(
            choose(test, params, [0]),
            choose(body, params, range(len(states))),
            tuple(op.captured[c] for c in captured),
            tuple(op.state[s] for s in states),
        ),
        eqn.loc,
    )


def _slim_monoid(eqn: Eqn, op: Reduce | ReduceAt, wanted: list[int]) -> Eqn:
    monoid, combine = op.monoid, op.monoid.combine
    if combine is None:
        return eqn
    everything, arity = range(2 * monoid.arity), monoid.arity

    def needs(components: list[int]) -> list[int]:
        slim = drop_unused(choose(combine, everything, components))
        return [p % arity for p in _used_params(slim)]

    chosen = _closure(wanted, needs)
    if len(chosen) == arity:
        return eqn
    slim = drop_unused(choose(combine, everything, chosen))
    sides = [*chosen, *(arity + c for c in chosen)]
    fewer = Monoid(
        f"{monoid.name}.{'.'.join(map(str, chosen))}",
        tuple(monoid.identity[c] for c in chosen),
        choose(slim, sides, range(len(chosen))),
        monoid.commutative,
        monoid.idempotent,
    )
    args = tuple(op.args[c] for c in chosen)
    return Eqn(tuple(eqn.outs[c] for c in chosen), replace(op, monoid=fewer, args=args), eqn.loc)
