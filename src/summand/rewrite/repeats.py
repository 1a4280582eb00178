"""Large results that repeat along a dim are handed over once, for the caller to spread.

    %4: f32{} = mul %1 %3                              %4: f32{} = mul %1 %3
    %5: f32{n=1000000} = where %true %4 %4     ->
    return %5                                          return %4      (n was left out)

So the gradient of a sum is one number, which a view with stride zero shows at every place.

Needs a verified Program. Keeps what each result holds. Leaves alone what is small, and what no
parameter decides: zeros that a user makes are mostly there to be replaced by other data, whose
layout a program would have to be compiled for anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from summand.ir.index import Form
from summand.ir.nodes import (
    Constant,
    Eqn,
    Map,
    Program,
    Reduce,
    Reindex,
    Table,
    Var,
    operands,
)
from summand.rewrite.rebuild import Rebuild

LARGE = 1 << 20  # bytes that a result has to have
FACTOR = 8  # times that it has to be larger than what it repeats

Dims = frozenset[str]


@dataclass(frozen=True, slots=True)
class Seen:
    """The dims along which a value may differ, and whether no parameter decides it."""

    varies: Dims
    fixed: bool


def without_repeats(program: Program) -> Program:
    """The program, its results without the dims along which they are the same everywhere."""
    if not any(r.type.nbytes >= LARGE for r in program.results):
        return program
    found = _seen(program)
    places = [_repeated(r, found) for r in program.results]
    if not any(places):
        return program
    new = Rebuild(program)
    for eqn in program.eqns:
        new.copy(eqn)
    results = (
        new.reindex(new.of(r), {d: Form.of(0) for d in dims}, {}) if dims else new.of(r)
        for r, dims in zip(program.results, places, strict=True)
    )
    return new.finish(tuple(results))


def _repeated(result: Var, found: dict[Var, Seen]) -> list[str]:
    """The dims that a result is to lose."""
    seen = found[result]
    if seen.fixed or result.type.nbytes < LARGE:
        return []
    lost = [(d, n) for d, n in result.type.dims if d not in seen.varies]
    return [d for d, _ in lost] if math.prod(n for _, n in lost) >= FACTOR else []


def _seen(program: Program) -> dict[Var, Seen]:
    """What is known of each value."""
    found = {p: Seen(p.type.names, False) for p in program.params}
    for eqn in program.eqns:
        varies = _varies(eqn, found)
        fixed = all(found[v].fixed for v in operands(eqn.op))
        for out in eqn.outs:
            found[out] = Seen(out.type.names if varies is None else varies, fixed)
    return found


def _varies(eqn: Eqn, found: dict[Var, Seen]) -> Dims | None:
    """The dims along which results may differ; None where that is not looked into."""
    match eqn.op:
        case Constant(value=value) if not isinstance(value, Table):
            return frozenset()
        case Map(fn="where", args=(_, a, b)) if a == b:
            return found[a].varies
        case Map(args=args):
            return frozenset().union(*(found[a].varies for a in args))
        case Reduce(dims=dims, args=args):
            return frozenset().union(*(found[a].varies for a in args)) - set(dims)
        case Reindex(mode="trusted" | "clip" | "raise", arg=arg, index=index):
            places = dict(index)
            read = (places.get(d, Form.of(d)) for d in found[arg].varies)
            at = (p.dims if isinstance(p, Form) else found[p].varies for p in read)
            return frozenset().union(*at)
        case _:
            return None
