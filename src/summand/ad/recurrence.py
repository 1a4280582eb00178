"""Adjoint of a recurrence: a recurrence that runs the other way.

    h[t] = f(h[t-1], c[t], w)
    ->
    l[t]  = ch[t] + m[t+1]                  m: cotangent of the earlier value that f read
    m[t], g[t], v[t] = (vjp f at t) l[t]    g, v: per-step cotangents of c and of w
    cc = g;  cw = sum{t} v;  ch0 = m[0]

The states of the reverse recurrence are the cotangents of the reads and of the captured values;
what f read at t is the forward state, shifted, with the initial value where there is none.
`rewrite/recur/split` moves what feeds no read (v) out of the recurrence. The body's other values
are computed again from these, but for sums of many terms, which the forward recurrence keeps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from summand.ad.activity import varied_values
from summand.ad.cotangents import sum_to
from summand.ad.tape import Step, Tape
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import (
    SUM,
    Eqn,
    Keep,
    Program,
    Read,
    Recur,
    Reduce,
    Type,
    Var,
    operands,
)
from summand.ir.recurrences import earlier, in_range, uniform

MANY = 16  # terms of a sum from which on keeping it (a store and a load) is cheaper


def varied_reads(op: Recur, inits: Sequence[bool], captured: Sequence[bool]) -> list[bool]:
    """Which reads depend on what is differentiated by, through any number of steps."""
    states = [False] * len(op.body.results)
    while True:
        reads = [i or states[r.state] for r, i in zip(op.reads, inits, strict=True)]
        wanted = [*reads, *captured, *(False for _ in op.over)]
        varied = varied_values(op.body, wanted)
        found = [r in varied for r in op.body.results]
        if found == states:
            return reads
        states = [a or b for a, b in zip(states, found, strict=True)]


@dataclass(frozen=True, slots=True)
class _Seeds:
    """The given cotangents: one per state (None: zero), and which belong to the last position."""

    values: tuple[Var | None, ...]
    last: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _Reverse:
    """The body of the reverse recurrence, and what its states mean."""

    body: Program
    reads: tuple[int, ...]  # reads of the forward recurrence that have a cotangent
    captured: tuple[int, ...]  # captured values that have one


def _dear(op: Recur) -> tuple[Var, ...]:
    """Values of the body that cost more to compute again than to keep: sums of many terms that
    depend on the states (others are hoisted out of either loop, and are equal there)."""
    stateful = set(op.body.params[: len(op.reads)])
    found: list[Var] = []
    for eqn in op.body.eqns:
        if stateful.isdisjoint(operands(eqn.op)):
            continue
        stateful.update(eqn.outs)
        if isinstance(eqn.op, Reduce) and eqn.op.monoid == SUM:
            sizes = eqn.op.args[0].type.sizes
            terms = math.prod(sizes[d] for d in eqn.op.dims)
            if terms >= MANY and eqn.out not in op.body.results:
                found.append(eqn.out)
    return tuple(found)


def forward_recur(tape: Tape, op: Recur, eqn: Eqn) -> Step:
    """The recurrence, with the dear values of its body as further states; unused ones are dropped
    by `drop_unused`."""
    dear = _dear(op)
    body = Program(op.body.params, op.body.eqns, (*op.body.results, *dear))
    keep: list[Keep] = list(op.keep)
    keep += ["all" for _ in dear if op.keep]
    over = dict(zip(op.over, op.sizes, strict=True))
    types = [o.type for o in eqn.outs]
    types += [Type.of(v.type.dtype, {**v.type.sizes, **over}) for v in dear]
    outs = tape.b.emit(replace(op, body=body, keep=tuple(keep)), types, eqn.loc)
    step = Step(Eqn(outs[: len(eqn.outs)], op, eqn.loc), outs[len(eqn.outs) :])
    tape.made.update((o, step.eqn) for o in step.eqn.outs)
    return step


def pull_recur(tape: Tape, step: Step, op: Recur) -> None:
    """Emit the reverse recurrence and send its states on."""
    eqn = step.eqn
    keep = op.keep or ("all",) * len(eqn.outs)
    values = tuple(tape.full(o) if o.type.dtype.is_inexact else None for o in eqn.outs)
    seeds = _Seeds(values, tuple(k != "all" for k in keep))
    states = eqn.outs if not any(seeds.last) else _all_states(tape.b, op)
    b = tape.b
    wanted = [tape.wants(c) for c in op.captured]
    reads = varied_reads(op, [tape.wants(i) for i in op.inits], wanted)
    reverse = _reverse_body(tape, op, seeds, reads, wanted)
    kept = {r for r, want in enumerate(reads) if want}
    while set(reverse.reads) != kept:
        kept = set(reverse.reads)
        reverse = _reverse_body(tape, op, seeds, [r in kept for r in range(len(reads))], wanted)
    if not reverse.body.results:
        return
    before = [
        earlier(b, op, r, states[r.state], i, uniform(tape.made, i))
        for r, i in zip(op.reads, op.inits, strict=True)
    ]
    back = Recur(
        over=op.over,
        forward=tuple(not f for f in op.forward),
        sizes=op.sizes,
        reads=tuple(
            Read(n, tuple(-s for s in op.reads[r].shift)) for n, r in enumerate(reverse.reads)
        ),
        inits=tuple(tape.zero(op.body.params[r].type) for r in reverse.reads),
        captured=(
            *before,
            *op.captured,
            *step.saved,
            *(v for v in seeds.values if v is not None),
        ),
        body=reverse.body,
    )
    over = dict(zip(op.over, op.sizes, strict=True))
    types = [Type.of(r.type.dtype, {**r.type.sizes, **over}) for r in reverse.body.results]
    outs = b.emit(back, types)
    count = len(reverse.reads)
    for number, out in zip(reverse.reads, outs[:count], strict=True):
        _pull_init(tape, op, number, out)
    for number, out in zip(reverse.captured, outs[count:], strict=True):
        target = op.captured[number]
        tape.add(target, sum_to(b, out, target.type, over))


def _all_states(b: Builder, op: Recur) -> tuple[Var, ...]:
    """The recurrence once more, with every state kept at every position."""
    over = dict(zip(op.over, op.sizes, strict=True))
    whole = Recur(op.over, op.forward, op.sizes, op.reads, op.inits, op.captured, op.body)
    types = [Type.of(r.type.dtype, {**r.type.sizes, **over}) for r in op.body.results]
    return b.emit(whole, types)


def _reverse_body(
    tape: Tape, op: Recur, seeds: _Seeds, reads: Sequence[bool], captured: Sequence[bool]
) -> _Reverse:
    """One step back. Where a read turns out to have no cotangent it is left out of the result."""
    b = Builder()
    params = op.body.params
    split = len(op.reads)
    active = [r for r, want in enumerate(reads) if want]
    later = {r: b.param(params[r].type) for r in active}
    before = [b.param(p.type) for p in params[:split]]
    values = [b.param(p.type) for p in params[split : split + len(op.captured)]]
    known = {v: b.param(v.type) for v in _dear(op)}
    given = [
        b.param(r.type) if v is not None else None
        for r, v in zip(op.body.results, seeds.values, strict=True)
    ]
    at = [b.param(p.type) for p in params[split + len(op.captured) :]]
    cts: list[Var | None] = []
    for state, (seed, last) in enumerate(zip(given, seeds.last, strict=True)):
        parts = [v for r, v in later.items() if op.reads[r].state == state]
        if seed is not None:
            parts.insert(0, _at_last(b, op, seed, at) if last else seed)
        cts.append(_sum(b, parts))
    wanted = [*reads, *captured, *(False for _ in at)]
    _, pulled = tape.pull(b, tape.names, op.body, [*before, *values, *at], cts, wanted, known)
    found = [r for r in active if pulled[r] is not None]
    kept = [c for c in range(len(values)) if pulled[split + c] is not None]
    results: list[Var] = []
    for r in found:
        ct = pulled[r]
        if ct is not None:
            results.append(b.expand(ct, params[r].type.sizes))
    results.extend(v for c in kept if (v := pulled[split + c]) is not None)
    return _Reverse(b.finish(results), tuple(found), tuple(kept))


def _sum(b: Builder, parts: Sequence[Var]) -> Var | None:
    out: Var | None = None
    for part in parts:
        out = part if out is None else b.map("add", out, part)
    return out


def _at_last(b: Builder, op: Recur, seed: Var, at: Sequence[Var]) -> Var:
    """The seed where the forward recurrence ended, zero before."""
    here: Var | None = None
    for place, size, forward in zip(at, op.sizes, op.forward, strict=True):
        end = b.constant(size - 1 if forward else 0, place.type.dtype)
        test = b.map("eq", place, end)
        here = test if here is None else b.map("and", here, test)
    if here is None:
        return seed
    return b.map("where", here, seed, b.constant(0, seed.type.dtype))


def _pull_init(tape: Tape, op: Recur, number: int, ct: Var) -> None:
    """The initial value was read where there was no earlier position."""
    init, shift = op.inits[number], op.reads[number].shift
    if not tape.wants(init):
        return
    b = tape.b
    over = dict(zip(op.over, op.sizes, strict=True))
    if len(op.over) == 1 and op.over[0] not in init.type.names:
        (dim,), (size,), (by,) = op.over, op.sizes, shift
        first = 0 if by > 0 else max(size + by, 0)
        count = min(abs(by), size)
        if count == 1:
            tape.add(init, _fit(b, b.reindex(ct, {dim: Form.of(first)}, {}), init, {}))
            return
        window = tape.names.fresh(dim)
        part = b.reindex(ct, {dim: Form.of(window) + first}, {window: count})
        tape.add(init, _fit(b, part, init, {window: count}))
        return
    here = in_range(b, op, shift)
    if here is not None:
        part = b.map("where", here, b.constant(0, ct.type.dtype), ct)
        tape.add(init, _fit(b, part, init, over))


def _fit(b: Builder, ct: Var, init: Var, over: dict[str, int]) -> Var:
    """Sum over the dims along which the initial value was repeated."""
    return sum_to(b, ct, init.type, {**ct.type.sizes, **over})
