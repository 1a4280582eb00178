"""Turn sums into affine places into plain reductions: no scatter, no atomics.

    cx = reduce_at sum {x, k} c {u: x + k - 1}
    ->  cx{u} = reduce sum {k} (reindex c {x: u - k + 1} fill 0)

    cx = reduce_at sum {x, k} c {u: 2*x + k}                            (k of size 3)
    ->  even{u} = reduce sum {k} (reindex c {k: 2*k, x: u - k} fill 0)      (k of size 2)
        odd{u}  = reindex c {k: 1, x: u} fill 0
        cx = interleave (u 2) (even, odd)

    cx = reduce_at sum {x, k} c {u: %i}, %i = x + %r{k, …}              (%r does not vary along x)
    ->  cx{u} = reduce sum {k} (reindex c {x: u - %r} fill 0)

Each place is solved for one of the summed dims that reach it: u = s·x + d·k + c gives
x = (u - d·k - c)/s. Where s > 1, u and the other dims are split into residues modulo s, so that
the division is exact by construction and no multiplication by a dropped element is made. Several
windows, dilation, blocks (// and %), diagonals and repeated dims are the same rule.

A sum that feeds only the scatter joins it, a factor that does not vary along the summed dims goes
outside, and the reads go to the factors of a product, so that the gradient of a convolution is one
contraction (for each residue) of the two arrays themselves.

Needs a verified Program. Sums in another order. Leaves scatters with other computed places,
other monoids, mode "clip", and forms in which a summed dim stays under // or % with others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from summand.ir.fresh import Names
from summand.ir.index import Form
from summand.ir.nodes import (
    SUM,
    Eqn,
    Index,
    Map,
    Mode,
    Program,
    Reduce,
    ReduceAt,
    Var,
    operands,
)
from summand.rewrite.places.solve import Stuck, Term, count, digits, moved_position, solve
from summand.rewrite.rebuild import Rebuild, inside

MORE = 2  # elements read for each that is scattered, at most, where places are computed


MOST = 2  # places for each position that is moved, for reading back to cost no more


def window_adjoint(program: Program) -> Program:
    """Rewrite every sum into affine places, in sub-programs too."""
    return _rewrite(program, Names(program))


def _rewrite(program: Program, names: Names) -> Program:
    readers: dict[Var, int] = dict.fromkeys(program.results, 1)
    for eqn in program.eqns:
        for var in operands(eqn.op):
            readers[var] = readers.get(var, 0) + 1
    new = _Emitter(program, names, readers)
    for eqn in program.eqns:
        op = inside(eqn.op, lambda body: _rewrite(body, names))
        value = new.gathered(eqn, op) if isinstance(op, ReduceAt) else None
        if value is None:
            new.copy(eqn, op)
        else:
            new.bind(eqn.outs, [value])
        new.made.update((o, eqn) for o in eqn.outs)
    return new.done(program)


# ---- emitting


class _Emitter(Rebuild):
    """The new program; `made` are the old equations, by what they define."""

    def __init__(self, program: Program, names: Names, readers: Mapping[Var, int]) -> None:
        super().__init__(program)
        self.names = names
        self.readers = readers
        self.made: dict[Var, Eqn] = {}

    def gathered(self, eqn: Eqn, op: ReduceAt) -> Var | None:
        """The scatter as reductions, or None where it stays."""
        forms = {d: i for d, i in op.index if isinstance(i, Form)}
        if op.monoid != SUM:
            return None
        if len(forms) < len(op.index):
            return self._moved_back(eqn, op)
        if op.mode == "clip" and not _inside(forms, eqn.out.type.sizes, op.args[0].type.sizes):
            return None
        arg, dims, factors = self._joined(eqn, op)
        if eqn.out.type.count == 0 or arg.type.count == 0:
            return None
        new = {d: self.names.fresh(d) for d in dims if d in forms}
        summed = {new.get(d, d): arg.type.sizes[d] for d in dims}
        kept = {d: n for d, n in arg.type.dims if d not in dims}
        sizes = {**summed, **kept, **{d: eqn.out.type.sizes[d] for d in forms}}
        start = Term(
            sizes=sizes,
            summed=summed,
            open=tuple((d, f.rename(new).simplify(sizes)) for d, f in sorted(forms.items())),
            reads={d: Form.of(new.get(d, d)) for d in dims},
        )
        try:
            terms = solve(start, self.names)
        except Stuck:
            return None
        return self._assembled(eqn, arg, terms, factors)

    def _moved_back(self, eqn: Eqn, op: ReduceAt) -> Var | None:
        """The scatter where every place is a summed position moved by a computed distance."""
        (arg,) = op.args
        moves = {u: moved_position(i, self.made.get) for u, i in op.index if isinstance(i, Var)}
        back = {m[1]: (u, m[0], m[2]) for u, m in moves.items() if m and m[1] in op.dims}
        clash = (arg.type.names - back.keys()) & moves.keys()
        clash |= {d for *_, r in back.values() for d in r.type.names & back.keys()}
        if clash or len(back) < len(op.index):
            return None
        if op.mode not in ("fill", "trusted") or arg.type.count == 0:
            return None
        reads = math.prod(eqn.out.type.sizes[u] for u, *_ in back.values())
        if reads > MOST * math.prod(arg.type.sizes[x] for x in back):
            return None  # few places of many: most reads would be outside
        reads = math.prod(eqn.out.type.sizes[u] for u, *_ in back.values())
        if reads > MORE * math.prod(arg.type.sizes[x] for x in back):
            return None  # a short window moves along many places: most reads would find nothing
        outer, self.loc = self.loc, eqn.loc
        index: dict[str, Var] = {}
        for x, (u, sign, distance) in back.items():
            place = self.convert(self.iota(u, eqn.out.type.sizes[u]), distance.type.dtype)
            far = self.of(distance)
            match sign:
                case "x + r":
                    index[x] = self.map("sub", place, far)
                case "x - r":
                    index[x] = self.map("add", place, far)
                case _:
                    index[x] = self.map("sub", far, place)
        value = self._read_back(arg, index)
        rest = [d for d in op.dims if d not in index]
        value = self.reduce(SUM, rest, value)[0] if rest else value
        self.loc = outer
        return self.expand(value, eqn.out.type.sizes)

    def _read_back(self, var: Var, index: Mapping[str, Var]) -> Var:
        """An old value at computed places, zero outside; a product through its factors."""
        own: dict[str, Index] = {d: i for d, i in index.items() if d in var.type.names}
        if not own:
            return self.of(var)
        made = self.made.get(var)
        op = made.op if made is not None and self.readers.get(var) == 1 else None
        if isinstance(op, Map) and op.fn == "mul":
            return self.map("mul", *(self._read_back(a, index) for a in op.args))
        return self.reindex(self.of(var), own, {}, "fill")

    def _joined(self, eqn: Eqn, op: ReduceAt) -> tuple[Var, tuple[str, ...], list[Var]]:
        """What is scattered and over which dims, with the sums that feed only this; and factors
        of it that stay outside."""
        (arg,), dims = op.args, op.dims
        factors: list[Var] = []
        moving = {d for d, _ in op.index}
        while True:
            made = self.made.get(arg)
            if made is None or self.readers.get(arg) != 1:
                return arg, dims, factors
            match made.op:
                case Reduce(monoid=monoid, args=(inner,), dims=more) if monoid == SUM:
                    if arg.type.names & set(more):
                        return arg, dims, factors
                    arg, dims = inner, (*dims, *more)
                case Map(fn="mul", args=(a, b)) if arg.type.dtype.is_float:
                    rest = self._summed_factor(a, b, moving | set(dims))
                    if rest is None:
                        return arg, dims, factors
                    factors.append(b if rest == a else a)
                    arg = rest
                case _:
                    return arg, dims, factors

    def _summed_factor(self, a: Var, b: Var, moving: set[str]) -> Var | None:
        """The factor that is a sum, where the other does not vary along any of the dims."""
        for value, other in ((a, b), (b, a)):
            made = self.made.get(value)
            is_sum = made is not None and isinstance(made.op, Reduce) and made.op.monoid == SUM
            fixed = not other.type.names & moving and other.type.names <= value.type.names
            if is_sum and value.type.dims and fixed:
                return value
        return None

    def _assembled(self, eqn: Eqn, arg: Var, terms: Sequence[Term], factors: Sequence[Var]) -> Var:
        """The sum of the terms of each class, times the factors; and the classes between each
        other."""
        outer, self.loc = self.loc, eqn.loc
        strides = {u: s for t in terms for u, (s, _) in t.residues.items()}
        dims = tuple(sorted(strides.items()))
        classes: dict[tuple[int, ...], list[Term]] = {}
        for term in terms:
            key = tuple(term.residues[u][1] for u, _ in dims)
            classes.setdefault(key, []).append(term)
        parts = []
        for residues in digits([s for _, s in dims]):
            sizes = eqn.out.type.sizes
            for (u, stride), residue in zip(dims, residues, strict=True):
                sizes[u] = count(sizes[u], stride, residue)
            found = [self._sum(arg, t) for t in classes.get(residues, [])]
            total = found[0] if found else self.constant(0, arg.type.dtype)
            for value in found[1:]:
                total = self.map("add", total, value)
            for factor in reversed(factors if found else ()):
                total = self.map("mul", self.of(factor), total)
            parts.append(self.expand(total, sizes))
        out = self.interleave(parts, dims) if dims else parts[0]
        self.loc = outer
        return out

    def _sum(self, arg: Var, term: Term) -> Var:
        """The reduction of one term."""
        value = self._read(arg, term.reads, term.sizes)
        for test in term.tests:
            place = self.position(test.simplify(term.sizes), term.sizes)
            hit = self.map("eq", place, self.constant(0, place.type.dtype))
            value = self.map("where", hit, value, self.constant(0, value.type.dtype))
        fold = sorted(value.type.names & term.summed.keys())
        return self.reduce(SUM, fold, value)[0] if fold else value

    def _read(self, var: Var, reads: Mapping[str, Form], sizes: Mapping[str, int]) -> Var:
        """An old value at computed places; zero outside. A product is read through its factors."""

        def read(factor: Var) -> Var:
            return self._read(factor, reads, sizes)

        given = var.type.sizes
        index = {d: f.simplify(sizes) for d, f in reads.items() if d in given}
        index = {d: f for d, f in index.items() if f.as_dim() != d or sizes[d] != given[d]}
        if not index:
            return self.of(var)
        made = self.made.get(var)
        product = made is not None and isinstance(made.op, Map) and made.op.fn in ("mul", "neg")
        if made is not None and product and self.readers.get(var) == 1:
            args = operands(made.op)
            return self.map("mul" if len(args) == 2 else "neg", *(read(a) for a in args))
        mode: Mode = "trusted" if _inside(index, given, sizes) else "fill"
        return self.reindex(self.of(var), index, sizes, mode)


def _inside(forms: Mapping[str, Form], places: Mapping[str, int], sizes: Mapping[str, int]) -> bool:
    """True where every form stays within its place's size."""
    for place, form in forms.items():
        low, high = form.range({d: sizes[d] for d in form.dims})
        if low < 0 or high >= places[place]:
            return False
    return True
