"""A maximum and the sums of exponentials below it read a large array once, block by block.

    m{j} = max{i} x;  s{j} = sum{i} (exp(x - m) · g)
      ->  p{b,j} = max{i} x[i: B·b + i];            m{j} = max{b} p
          q{b,j} = sum{i} (exp(x[…] - p) · g[…]);   s{j} = sum{b} (q · exp(p - m))

The sum needs the maximum, so an array that no cache holds from the one to the other would be read
twice. A block of rows stays in the cache. It is done where tiles could not keep all that a result
reads: where they would be narrow strips of rows, or where what one result folds is too long.

What a block of nothing but -inf adds is 0, as its elements would: its maximum is raised to the
least finite number under the exponential. Sums in another order; NaN and infinities give what they
gave. Needs the order of the array, so it is no pass of `PASSES`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from summand.ir.fresh import Names
from summand.ir.index import Form
from summand.ir.nodes import MAX, SUM, Eqn, Map, Program, Reduce, Var
from summand.options import Target
from summand.rewrite.plan.clusters import STRIP
from summand.rewrite.plan.costs import inputs
from summand.rewrite.rebuild import Rebuild, factors_of

Orders = Mapping[Var, tuple[str, ...]]
ROWS = 32  # positions that one block folds at least: so much smaller are the values of blocks


@dataclass(frozen=True, slots=True)
class _Blocks:
    """`count` blocks of `size` positions of `dim`, and `rest` positions after them: `outer` is the
    dim that counts blocks, `inner` the position within one, `last` the position in the rest."""

    dim: str
    outer: str
    inner: str
    last: str
    size: int
    count: int
    rest: int

    def folded(self, dims: Sequence[str], name: str) -> list[str]:
        """Folded dims, as one block or the rest has them."""
        return [name if d == self.dim else d for d in dims]

    def cut(self, new: Rebuild, value: Var) -> Var:
        """A value block by block."""
        form = Form.of(self.outer) * self.size + self.inner
        return self._at(new, value, form, {self.outer: self.count, self.inner: self.size})

    def end(self, new: Rebuild, value: Var) -> Var:
        """What comes after the last block."""
        form = Form.of(self.last) + self.size * self.count
        return self._at(new, value, form, {self.last: self.rest})

    def _at(self, new: Rebuild, value: Var, form: Form, sizes: Mapping[str, int]) -> Var:
        if self.dim not in value.type.names:
            return value
        return new.reindex(value, {self.dim: form}, sizes)


@dataclass(frozen=True, slots=True)
class _Term:
    """A sum below a maximum: what is exponentiated and how often that is a factor, other factors
    that vary along it, and the rest."""

    top: Var
    power: int
    factors: tuple[Var, ...]
    outside: tuple[Var, ...]


def online(program: Program, target: Target, orders: Orders) -> Program:
    """Rewrite every such pair. `orders`: of arrays in memory, as far as they are known."""
    return _Online(program, target, orders).run()


class _Online:
    def __init__(self, program: Program, target: Target, orders: Orders) -> None:
        self.program = program
        self.target = target
        self.orders = orders
        self.made: dict[Var, Eqn] = {o: e for e in program.eqns for o in e.outs}
        self.terms: dict[Eqn, _Term] = {}
        self.blocks: dict[Var, _Blocks] = {}  # of a maximum
        self.tops: dict[Var, Var] = {}  # the new maximum of each block

    def run(self) -> Program:
        """Find the sums, then emit blocks for them and their maxima."""
        names = Names(self.program)
        for eqn in self.program.eqns:
            term = self._term(eqn)
            if term is None:
                continue
            if term.top not in self.blocks:
                blocks = self._blocks(term.top, names)
                if blocks is None:
                    continue
                self.blocks[term.top] = blocks
            self.terms[eqn] = term
        if not self.terms:
            return self.program
        new = Rebuild(self.program)
        for eqn in self.program.eqns:
            new.loc = eqn.loc
            if eqn in self.terms:
                self._sum(new, eqn, self.terms[eqn])
            elif len(eqn.outs) == 1 and eqn.out in self.blocks:
                self._maximum(new, eqn)
            else:
                new.copy(eqn)
        new.loc = None
        return new.done(self.program)

    # ---- what fits

    def _term(self, eqn: Eqn) -> _Term | None:
        """A sum of exp(x - max x) times what the maximum has no part in."""
        op = eqn.op
        if not isinstance(op, Reduce) or op.monoid != SUM or eqn.out.type.dtype.bits < 32:
            return None
        factors = factors_of(self.made, op.args[0])
        for factor in factors:
            top = self._top(factor, op)
            if top is not None:
                others = [f for f in factors if f != factor]
                inner = tuple(f for f in others if f.type.names & set(op.dims))
                outer = tuple(f for f in others if not f.type.names & set(op.dims))
                whole = set(op.dims) <= factor.type.names
                if whole and not any(self._reads(f, top) for f in inner):
                    return _Term(top, factors.count(factor), inner, outer)
        return None

    def _top(self, factor: Var, op: Reduce) -> Var | None:
        """The maximum over the same dims that a factor exponentiates the distance from."""
        outer = self.made.get(factor)
        if outer is None or not isinstance(outer.op, Map) or outer.op.fn != "exp":
            return None
        inner = self.made.get(outer.op.args[0])
        if inner is None or not isinstance(inner.op, Map) or inner.op.fn != "sub":
            return None
        value, top = inner.op.args
        eqn = self.made.get(top)
        if eqn is None or not isinstance(eqn.op, Reduce) or eqn.op.monoid != MAX:
            return None
        same = eqn.op.args == (value,) and set(eqn.op.dims) == set(op.dims)
        return top if same and factor.type == value.type else None

    def _reads(self, var: Var, wanted: Var) -> bool:
        """Whether a value depends on another one."""
        seen: set[Var] = set()
        waiting = [var]
        while waiting:
            here = waiting.pop()
            if here == wanted:
                return True
            eqn = self.made.get(here)
            if eqn is not None and here not in seen:
                waiting += inputs(eqn)
            seen.add(here)
        return False

    def _blocks(self, top: Var, names: Names) -> _Blocks | None:
        """How to cut what a maximum folds, where tiles cannot hold it."""
        op = self.made[top].op
        assert isinstance(op, Reduce)
        array = self._array(op.args[0])
        sizes = op.args[0].type.sizes
        order = () if array is None else self.orders[array]
        folded = [d for d in order if d in op.dims]
        if array is None or len(folded) < len(op.dims) or array.type.names != sizes.keys():
            return None
        step = array.type.dtype.bytes
        piece = math.prod(sizes[d] for d in folded) * step
        inside = order[order.index(folded[-1]) + 1 :]
        row = math.prod(sizes[d] for d in inside) * step
        strip = max(self.target.l2 // piece, 1) * step
        if not row >= STRIP > strip and piece < self.target.l3 // 2:
            return None
        dim = folded[0]
        rows = ROWS if inside else self.target.l2 // (4 * step)
        size = _even(sizes[dim], -(-rows // math.prod(sizes[d] for d in folded[1:])))
        if size * 2 > sizes[dim]:
            return None
        outer, inner, last = (names.fresh(f"{dim}.{end}") for end in ("b", "r", "e"))
        return _Blocks(dim, outer, inner, last, size, sizes[dim] // size, sizes[dim] % size)

    def _array(self, var: Var) -> Var | None:
        """An array in memory that a value is made from element by element: in a known order, and
        larger than the last cache."""
        eqn = self.made.get(var)
        if eqn is None:
            fits = var in self.orders and var.type.nbytes > self.target.l3
            return var if fits else None
        if not isinstance(eqn.op, Map):
            return None
        return next((x for a in inputs(eqn) if (x := self._array(a)) is not None), None)

    # ---- what is made of it

    def _maximum(self, new: Rebuild, eqn: Eqn) -> None:
        op, blocks = eqn.op, self.blocks[eqn.out]
        assert isinstance(op, Reduce)
        value = new.of(op.args[0])
        (part,) = new.reduce(MAX, blocks.folded(op.dims, blocks.inner), blocks.cut(new, value))
        self.tops[eqn.out] = part
        (top,) = new.reduce(MAX, [blocks.outer], part)
        if blocks.rest:
            rest = blocks.end(new, value)
            (last,) = new.reduce(MAX, blocks.folded(op.dims, blocks.last), rest)
            top = new.map("max", top, last)
        new.bind(eqn.outs, [top])

    def _sum(self, new: Rebuild, eqn: Eqn, term: _Term) -> None:
        op, blocks = eqn.op, self.blocks[term.top]
        found = self.made[term.top].op
        assert isinstance(op, Reduce) and isinstance(found, Reduce)
        part, top = self.tops[term.top], new.of(term.top)
        dtype = part.type.dtype
        least = new.constant(float(np.finfo(dtype.numpy).min), dtype)
        value = new.of(found.args[0])
        factors = new.all_of(term.factors)
        raised = new.map("max", part, least)
        within = [blocks.cut(new, f) for f in factors]
        here = _product(new, blocks.cut(new, value), raised, term.power, within)
        (total,) = new.reduce(SUM, blocks.folded(op.dims, blocks.inner), here)
        total = _product(new, part, top, term.power, [total])
        (total,) = new.reduce(SUM, [blocks.outer], total)
        if blocks.rest:
            ends = [blocks.end(new, f) for f in factors]
            here = _product(new, blocks.end(new, value), top, term.power, ends)
            (last,) = new.reduce(SUM, blocks.folded(op.dims, blocks.last), here)
            total = new.map("add", total, last)
        for factor in term.outside:
            total = new.map("mul", total, new.of(factor))
        new.bind(eqn.outs, [total])


def _product(new: Rebuild, value: Var, top: Var, power: int, factors: Sequence[Var]) -> Var:
    """exp(value - top)^power times some factors."""
    out, *others = (*factors, *[new.map("exp", new.map("sub", value, top))] * power)
    for factor in others:
        out = new.map("mul", out, factor)
    return out


def _even(size: int, want: int) -> int:
    """About `want`; a divisor of `size` where one is near."""
    near = (t for t in range(min(2 * want, size), want // 2, -1) if size % t == 0)
    return min(near, key=lambda t: abs(t - want), default=want)
