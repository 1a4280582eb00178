"""Sums over a scatter's places become sums over what was scattered, where that is far less.

    s{i,j} = reduce_at sum {q} e{i,q} {j: p{i,q}}
    sum{j} (s · y{j,d})   ->   sum{q} (e · reindex y {j: p})
    sum{i} (s · x{i,d})   ->   reduce_at sum {i,q} (e · x) {j: p}

Nearly all of `s` is zero where few elements reach many places: the cotangent of a gather, of a
top-k. Needs a verified Program; sums in another order. What no product reads any more is dropped by
a later pass. Leaves scatters whose index is a form, other monoids, and dropped or checked places.
"""

from __future__ import annotations

from collections.abc import Mapping

from summand.ir.fresh import Names
from summand.ir.nodes import SUM, Eqn, Index, Program, Reduce, ReduceAt, Var
from summand.rewrite.rebuild import Rebuild, factors_of, rewrite_sums

GAIN = 4  # how many times fewer products it must take


def sparse_sums(program: Program) -> Program:
    """Rewrite sums of products with a scatter, in sub-programs too."""
    names = Names(program)
    return rewrite_sums(program, lambda new, made, eqn, op: _pulled(new, names, made, op))


def _pulled(new: Rebuild, names: Names, made: Mapping[Var, Eqn], op: Reduce) -> Var | None:
    """The sum over what was scattered, or None where it stays."""
    parts = factors_of(made, op.args[0])
    for number, factor in enumerate(parts):
        scatter = made[factor].op if factor in made else None
        if not isinstance(scatter, ReduceAt) or not _plain(scatter):
            continue
        others = parts[:number] + parts[number + 1 :]
        if _points(scatter, op.args[0]) * GAIN <= op.args[0].type.count:
            return _moved(new, names, op, scatter, others)
    return None


def _plain(op: ReduceAt) -> bool:
    """A sum into computed places, each of which is in range."""
    places = all(isinstance(i, Var) for _, i in op.index)
    return op.monoid == SUM and op.mode in ("trusted", "clip") and places


def _points(op: ReduceAt, product: Var) -> int:
    """Elements of the product over what was scattered."""
    places = {d for d, _ in op.index}
    sizes = {d: n for d, n in product.type.dims if d not in places} | op.args[0].type.sizes
    count = 1
    for n in sizes.values():
        count *= n
    return count


def _moved(new: Rebuild, names: Names, op: Reduce, scatter: ReduceAt, others: list[Var]) -> Var:
    fresh = {d: names.fresh(d) for d in scatter.dims}

    def renamed(var: Var) -> Var:
        return new.rename(new.of(var), {d: n for d, n in fresh.items() if d in var.type.names})

    places: dict[str, Index] = {d: renamed(i) for d, i in scatter.index if isinstance(i, Var)}
    total = renamed(scatter.args[0])
    for other in others:
        index = {d: i for d, i in places.items() if d in other.type.names}
        value = new.of(other)
        factor = new.reindex(value, index, {}, scatter.mode) if index else value
        total = new.map("mul", total, factor)
    over = [*(d for d in op.dims if d not in places), *fresh.values()]
    kept = {d: i for d, i in places.items() if d not in op.dims}
    if not kept:
        return new.reduce(SUM, over, total)[0]
    sizes = {d: n for d, n in op.args[0].type.dims if d in kept}
    return new.reduce_at(SUM, over, [total], kept, sizes, scatter.mode)[0]
