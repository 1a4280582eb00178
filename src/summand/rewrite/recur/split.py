"""Move out of a recurrence what its states do not need step by step.

    h = recur t: h' = tanh(sum{j} w h + sum{k} u x)   ->   a = sum{k} u x            (all t at once)
                                                           h = recur t: tanh(sum{j} w h + a)

    m, g = recur t: l = f(m); m' = l; g' = mul l x    ->   m, l = recur t: l = f(m); m' = l
    cw = sum{t} g                                          g = mul l x;  cw = sum{t} g

Hoisted: reductions (and other equations than maps) that read no state, and whatever is the same at
every step. Sunk: results that feed no state, where what they need of the loop takes no more memory
than they do; so a weight's gradient becomes one contraction over time and batch. A sum over a dim
that all else in the loop has is sunk for some more memory, since the loop runs in tasks without it.
A small sum of slices of a large array that the loop reads in any case stays: outside these would
be read once more.

Needs a verified Program. Keeps every result up to the order of sums. Leaves equations with
sub-programs where they are; unused states are for `drop_unused`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from summand.ir.nodes import (
    Call,
    Cond,
    Constant,
    Custom,
    Eqn,
    Group,
    Iota,
    Keep,
    Map,
    Program,
    Read,
    Recur,
    Reduce,
    Reindex,
    Type,
    Var,
    While,
    operands,
    with_operands,
)
from summand.ir.recurrences import earlier, uniform
from summand.rewrite.rebuild import Rebuild, inside

LESS = 4  # times smaller than what it is made from, so that a result is made where that is read
FAR = 16 << 20  # bytes of an array that no cache holds for a second reader


def split_recur(program: Program) -> Program:
    """Split every recurrence, in sub-programs too."""
    new = Rebuild(program)
    for eqn in program.eqns:
        op = inside(eqn.op, split_recur)
        if isinstance(op, Recur) and _plain(op):
            _split(new, eqn, op)
        else:
            new.copy(eqn, op)
    return new.done(program)


def _plain(op: Recur) -> bool:
    """No body value has a dim of the recurrence itself, so all steps at once have room for it."""
    values = [*op.body.params, *(o for e in op.body.eqns for o in e.outs)]
    return all(not v.type.names & set(op.over) for v in values)


@dataclass(frozen=True, slots=True)
class _Body:
    """A body as a graph: who defines what, which values depend on a state, which on the step."""

    op: Recur
    made: Mapping[Var, Eqn]
    stateful: frozenset[Var]
    stepwise: frozenset[Var]

    @staticmethod
    def of(op: Recur) -> _Body:
        """The graph of a recurrence's body."""
        reads, captured = len(op.reads), len(op.captured)
        params = op.body.params
        stateful = set(params[:reads])
        over = set(op.over)
        stepwise = {*params[:reads], *params[reads + captured :]}
        given = zip(params[reads : reads + captured], op.captured, strict=True)
        stepwise.update(p for p, c in given if c.type.names & over)
        made: dict[Var, Eqn] = {}
        for eqn in op.body.eqns:
            made.update((o, eqn) for o in eqn.outs)
            for kind in (stateful, stepwise):
                if not kind.isdisjoint(operands(eqn.op)):
                    kind.update(eqn.outs)
        return _Body(op, made, frozenset(stateful), frozenset(stepwise))

    def needed(self, roots: Iterable[Var], stop: frozenset[Var] = frozenset()) -> set[Var]:
        """Roots and everything that they are computed from; `stop` is not looked behind."""
        found: set[Var] = set()
        stack = list(roots)
        while stack:
            var = stack.pop()
            if var in found:
                continue
            found.add(var)
            if var in self.made and var not in stop:
                stack.extend(operands(self.made[var].op))
                stack.extend(self.made[var].outs)
        return found

    def movable(self, roots: Iterable[Var], stop: frozenset[Var]) -> bool:
        """True where all that the roots are computed from can run for all steps at once."""
        inner = (v for v in self.needed(roots, stop) if v in self.made and v not in stop)
        return not any(
            isinstance(self.made[v].op, Recur | Cond | While | Call | Custom | Group) for v in inner
        )

    def worth_hoisting(self, var: Var) -> bool:
        """A stateless value that should be computed outside: no map, or equal at every step."""
        op = self.made[var].op
        if isinstance(op, Constant | Iota):
            return False
        return not isinstance(op, Map | Reindex) or var not in self.stepwise


# ---- what moves


def _hoisted(body: _Body) -> frozenset[Var]:
    """Stateless values that are computed outside and handed in."""
    return frozenset(
        v
        for v in body.made
        if v not in body.stateful and body.worth_hoisting(v) and body.movable([v], frozenset())
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """Results by position that stay and that are sunk, and values that become states for these."""

    kept: tuple[int, ...]
    sunk: tuple[int, ...]
    exposed: tuple[Var, ...]


def _cut(body: _Body, hoisted: frozenset[Var]) -> _Cut:
    """Sink, one after another, the results that are cheaper outside."""
    op = body.op
    keep = op.keep or ("all",) * len(op.body.results)
    read = {r.state for r in op.reads}
    kept = [n for n in range(len(keep)) if n in read or keep[n] != "all"]
    loop = body.needed([op.body.results[n] for n in kept], hoisted)
    kept += [n for n in range(len(keep)) if n not in kept and op.body.results[n] in loop]
    stored = {op.body.results[n] for n in kept if keep[n] == "all"}
    sunk: list[int] = []
    exposed: list[Var] = []
    open_ = [n for n in range(len(keep)) if n not in kept]
    whole = {op.body.params[n] for n, r in enumerate(op.reads) if keep[r.state] == "all"}
    for number in open_:
        result = op.body.results[number]
        border = _border(body, result, loop)
        new = [v for v in border if v not in stored and v not in exposed and v not in whole]
        size = sum(v.type.nbytes for v in new)
        room = result.type.nbytes
        if _mixes(body, result, loop, [op.body.results[n] for n in kept]):
            room = max(room, sum(v.type.nbytes for v in stored))
        fits = result not in loop and result not in op.body.params
        fits = fits and not any(v in op.body.params for v in new)
        fits = fits and not _reads_again(body, result, border, loop)
        if fits and size <= room and body.movable([result], frozenset(border)):
            sunk.append(number)
            exposed.extend(new)
        else:
            kept.append(number)
            stored.add(result)
            loop |= body.needed([result], hoisted)
    return _Cut(tuple(sorted(kept)), tuple(sunk), tuple(exposed))


def _mixes(body: _Body, result: Var, loop: set[Var], others: Sequence[Var]) -> bool:
    """Whether a result folds a dim that the others have in common, so that tasks can share out the
    loop only without it."""
    below = body.needed([result], frozenset(loop)) - loop
    reduced = {d for v in below if v in body.made for d in _folded(body.made[v])}
    return bool(others) and any(all(d in v.type.names for v in others) for d in reduced)


def _reads_again(body: _Body, result: Var, border: Sequence[Var], loop: set[Var]) -> bool:
    """Whether a result is small beside slices of a large array that the loop reads anyway, step by
    step: outside they would come from far away once more."""
    op = body.op
    needed = body.needed([result], frozenset(border)) & loop
    slices = zip(op.body.params[len(op.reads) :], op.captured, strict=False)
    over = set(op.over)
    far = ((p, c) for p, c in slices if c.type.names & over and c.type.nbytes >= FAR)
    again = sum(p.type.nbytes for p, _ in far if p in needed)
    return again > LESS * result.type.nbytes


def _folded(eqn: Eqn) -> tuple[str, ...]:
    return eqn.op.dims if isinstance(eqn.op, Reduce) else ()


def _border(body: _Body, result: Var, loop: set[Var]) -> list[Var]:
    """The stateful values of the loop (earlier states too) that a result is computed from."""
    inside_loop = body.stateful & {*loop, *body.op.body.params}
    needed = body.needed([result], inside_loop)
    order = [*body.op.body.params, *body.made]
    return [v for v in order if v in needed and v in inside_loop]


# ---- emitting


class _Outside:
    """Body values for all steps at once, emitted on demand."""

    def __init__(self, new: Rebuild, body: _Body) -> None:
        self.new = new
        self.body = body
        self.known: dict[Var, Var] = {}
        op = body.op
        first = len(op.reads)
        for param, value in zip(op.body.params[first:], op.captured, strict=False):
            self.known[param] = new.of(value)

    def value(self, var: Var) -> Var:
        """The value with the recurrence's dims, where it varies along them."""
        needed = self.body.needed([var], frozenset(self.known))
        op = self.body.op
        positions = op.body.params[len(op.reads) + len(op.captured) :]
        for param, dim, size in zip(positions, op.over, op.sizes, strict=True):
            if param in needed and param not in self.known:
                self.known[param] = self.new.convert(self.new.iota(dim, size), param.type.dtype)
        for eqn in op.body.eqns:
            if any(o in needed and o not in self.known for o in eqn.outs):
                self._emit(eqn)
        return self.known[var]

    def _emit(self, eqn: Eqn) -> None:
        args = {v: self.known[v] for v in operands(eqn.op)}
        over = {d: n for a in args.values() for d, n in a.type.dims if d in self.body.op.over}
        if not isinstance(eqn.op, Map | Reindex):  # the operands of others share their dims
            args = {v: self.new.expand(a, over) for v, a in args.items()}
        types = [Type.of(o.type.dtype, {**o.type.sizes, **over}) for o in eqn.outs]
        outs = self.new.emit(with_operands(eqn.op, args), types, eqn.loc)
        self.known.update(zip(eqn.outs, outs, strict=True))


def _split(new: Rebuild, eqn: Eqn, op: Recur) -> None:
    body = _Body.of(op)
    hoisted = _hoisted(body)
    cut = _cut(body, hoisted)
    outside = _Outside(new, body)
    line, new.loc = new.loc, eqn.loc
    results = [*(op.body.results[n] for n in cut.kept), *cut.exposed]
    within = body.needed(results, hoisted)
    handed = [v for v in body.made if v in hoisted and v in within]
    inner = _inner(body, within, handed, results)
    keep: list[Keep] = [op.keep[n] for n in cut.kept] if op.keep else []
    keep += ["all" for _ in cut.exposed if op.keep]
    number = {n: at for at, n in enumerate(cut.kept)}
    loop = Recur(
        op.over,
        op.forward,
        op.sizes,
        tuple(Read(number[r.state], r.shift) for r in op.reads),
        new.all_of(op.inits),
        (*new.all_of(op.captured), *(outside.value(v) for v in handed)),
        inner,
        tuple(keep),
    )
    over = dict(zip(op.over, op.sizes, strict=True))
    types = [eqn.outs[n].type for n in cut.kept]
    types += [Type.of(v.type.dtype, {**v.type.sizes, **over}) for v in cut.exposed]
    outs = new.emit(loop, types)
    _sink(new, eqn, outside, cut, outs)
    new.loc = line


def _inner(body: _Body, within: set[Var], handed: Sequence[Var], results: Sequence[Var]) -> Program:
    """The body without what has moved; `handed` are further captured values."""
    op = body.op
    split = len(op.reads) + len(op.captured)
    params = (*op.body.params[:split], *handed, *op.body.params[split:])
    taken = set(handed)
    eqns = tuple(e for e in op.body.eqns if any(o in within and o not in taken for o in e.outs))
    return Program(params, eqns, tuple(results))


def _sink(new: Rebuild, eqn: Eqn, outside: _Outside, cut: _Cut, outs: Sequence[Var]) -> None:
    """Compute the sunk results from the loop's states."""
    op = outside.body.op
    for at, number in enumerate(cut.kept):
        new.bind([eqn.outs[number]], [outs[at]])
    kept = op.keep or ("all",) * len(op.body.results)
    for at, number in enumerate(cut.kept):
        if kept[number] == "all":
            outside.known.setdefault(op.body.results[number], outs[at])
    for value, out in zip(cut.exposed, outs[len(cut.kept) :], strict=True):
        outside.known[value] = out
    if not cut.sunk:
        return
    needed = outside.body.needed([op.body.results[n] for n in cut.sunk], frozenset(outside.known))
    made = {o: e for e in new.eqns for o in e.outs}
    for param, read, init in zip(op.body.params, op.reads, op.inits, strict=False):
        if param in needed and param not in outside.known:
            state, start = new.of(eqn.outs[read.state]), new.of(init)
            value = earlier(new, op, read, state, start, uniform(made, start))
            outside.known[param] = value
    for number in cut.sunk:
        value = outside.value(op.body.results[number])
        new.bind([eqn.outs[number]], [new.expand(value, eqn.outs[number].type.sizes)])
