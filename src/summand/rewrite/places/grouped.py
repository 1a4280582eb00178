"""Products with one of a few matrices, chosen for each row, become products of whole blocks.

    y{t,h} = sum{d} (x{t,d} · reindex w{e,d,h} {e: %i{t}})
      ->  z{block,row,h} = sum{d} (reindex x {t: rows} · reindex w {e: choice})
          y{t,h} = reindex z {block: …, row: …}
    reduce_at sum {t} (x{t,d} · g{t,h}) {e: %i{t}}
      ->  reduce_at sum {block} (sum{row} …) {e: choice}

Rows of the same matrix are brought together (see `grouping`), so that a matrix is read once for a
block of rows. What is computed from such products element by element stays in blocks. It is done
where the matrices are few and large, and rows many. Needs the program after `checks`, which have
noted the ranges of its indices; sums in another order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from summand.ir.fresh import Names
from summand.ir.nodes import SUM, Eqn, Index, Map, Program, Reduce, ReduceAt, Reindex, Var
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.places.grouping import ROWS, Groups, group
from summand.rewrite.rebuild import Rebuild, factors_of

MOST = 64  # matrices; each is counted at each row
LEAST = 1024  # elements of one
DEPTH = 16  # maps that are evaluated in blocks, one on top of the other


def grouped(program: Program) -> Program:
    """Rewrite what chooses among matrices by an index."""
    return _Grouping(program).run()


class _Grouping:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.names = Names(program)
        self.new = Rebuild(program)
        self.made: dict[Var, Eqn] = {o: e for e in program.eqns for o in e.outs}
        self.groups: dict[tuple[Var, int], Groups] = {}
        self.blocks: dict[tuple[Groups, Var], Var] = {}  # old values, in blocks

    def run(self) -> Program:
        """Rewrite every fitting equation; copy everything else."""
        for eqn in self.program.eqns:
            self.new.loc = eqn.loc
            match eqn.op:
                case Reduce() as op if op.monoid == SUM and self._product(eqn, op):
                    pass
                case ReduceAt() as op if op.monoid == SUM and self._outer_product(eqn, op):
                    pass
                case _:
                    self.new.loc = None
                    self.new.copy(eqn)
            self.new.loc = None
        if not self.groups:
            return self.program
        return drop_unused(self.new.done(self.program))

    # ---- what fits

    def _chosen(self, factor: Var, over: Sequence[str]) -> Reindex | None:
        """The gather of a matrix by an index, or None."""
        eqn = self.made.get(factor)
        if eqn is None or not isinstance(eqn.op, Reindex) or len(eqn.op.index) != 1:
            return None
        ((dim, index),) = eqn.op.index
        if not isinstance(index, Var) or eqn.op.mode == "fill":
            return None
        sizes = {d: n for d, n in eqn.op.arg.type.dims if d != dim}
        reduced = sizes.keys() & set(over)
        kept = sizes.keys() - reduced
        fits = _pays(index, eqn.op.arg.type.sizes[dim], math.prod(sizes.values()))
        return eqn.op if reduced and kept and fits else None

    # ---- products

    def _product(self, eqn: Eqn, op: Reduce) -> bool:
        factors = factors_of(self.made, op.args[0])
        for number, factor in enumerate(factors):
            chosen = self._chosen(factor, op.dims)
            others = factors[:number] + factors[number + 1 :]
            if chosen is None:
                continue
            ((dim, index),) = chosen.index
            assert isinstance(index, Var)
            if any(d in v.type.names for v in others for d in index.type.names):
                self._in_blocks(eqn, op, chosen, others, (dim, index))
                return True
        return False

    def _in_blocks(
        self,
        eqn: Eqn,
        op: Reduce,
        chosen: Reindex,
        others: Sequence[Var],
        by: tuple[str, Var],
    ) -> None:
        dim, index = by
        new, rows = self.new, index.type.names
        groups = self._groups(index, chosen.arg.type.sizes[dim])
        matrix = new.reindex(new.of(chosen.arg), {dim: groups.choice}, {})
        total = self._multiplied([self._blocked(groups, rows, other) for other in others])
        total = new.map("mul", total, matrix)
        over = [d for d in op.dims if d not in rows]
        total = new.reduce(SUM, over, total)[0]
        places: dict[str, Index] = {groups.block: groups.block_of, groups.row: groups.row_of}
        value = new.reindex(total, places, {})
        left = [d for d in op.dims if d in rows]
        if left:
            value = new.reduce(SUM, left, value)[0]
        else:
            self.blocks[(groups, eqn.out)] = total
        new.bind(eqn.outs, [value])

    def _outer_product(self, eqn: Eqn, op: ReduceAt) -> bool:
        if len(op.index) != 1 or op.mode == "fill":
            return False
        ((dim, index),) = op.index
        arg = op.args[0]
        factors = factors_of(self.made, arg)
        if not isinstance(index, Var) or not index.type.names <= set(op.dims) or len(factors) < 2:
            return False
        free = [d for d in arg.type.names if d not in op.dims]
        wide = any(set(free) <= f.type.names for f in factors)
        matrix = math.prod(arg.type.sizes[d] for d in free)
        size = eqn.out.type.sizes[dim]
        if wide or not _pays(index, size, matrix):
            return False
        groups = self._groups(index, size)
        new, rows = self.new, index.type.names
        sides: dict[frozenset[str], list[Var]] = {}
        for factor in sorted(factors, key=lambda f: -len(f.type.names & set(free))):
            own = factor.type.names & set(free)
            side = next((s for s in sides if own <= s), own)
            sides.setdefault(side, []).append(self._masked(groups, rows, factor))
        total = self._multiplied([self._multiplied(side) for side in sides.values()])
        over = [groups.row, *(d for d in op.dims if d not in rows)]
        (total,) = new.reduce(SUM, over, total)
        places: dict[str, Index] = {dim: groups.choice}
        new.bind(
            eqn.outs, new.reduce_at(SUM, [groups.block], [total], places, {dim: size}, "trusted")
        )
        return True

    def _multiplied(self, factors: Sequence[Var]) -> Var:
        total = factors[0]
        for factor in factors[1:]:
            total = self.new.map("mul", total, factor)
        return total

    # ---- values in blocks

    def _groups(self, index: Var, size: int) -> Groups:
        found = self.groups.get((index, size))
        if found is None:
            found = group(self.new, self.names, self.new.of(index), size)
            self.groups[(index, size)] = found
        return found

    def _blocked(self, groups: Groups, rows: frozenset[str], var: Var) -> Var:
        """An old value at the rows of blocks: from what is in blocks already, or gathered. Where a
        block has no further row, anything."""
        found = self.blocks.get((groups, var))
        if found is None:
            found = self._from_blocks(groups, rows, var, DEPTH) or self._gathered(groups, rows, var)
            self.blocks[(groups, var)] = found
        return found

    def _gathered(self, groups: Groups, rows: frozenset[str], var: Var) -> Var:
        own: dict[str, Index] = {d: groups.of[d] for d in sorted(rows & var.type.names)}
        value = self.new.of(var)
        return self.new.reindex(value, own, {}, "fill") if own else value

    def _from_blocks(
        self, groups: Groups, rows: frozenset[str], var: Var, depth: int
    ) -> Var | None:
        """A map of values of which one is in blocks."""
        eqn = self.made.get(var)
        if not self._reaches(groups, var, depth) or eqn is None or not isinstance(eqn.op, Map):
            return None
        args = [self._blocked(groups, rows, a) for a in eqn.op.args]
        return self.new.map(eqn.op.fn, *args, dtype=var.type.dtype)

    def _reaches(self, groups: Groups, var: Var, depth: int) -> bool:
        """Whether something below a chain of maps is in blocks."""
        if (groups, var) in self.blocks:
            return True
        eqn = self.made.get(var)
        if eqn is None or not isinstance(eqn.op, Map) or not depth:
            return False
        return any(self._reaches(groups, a, depth - 1) for a in eqn.op.args)

    def _masked(self, groups: Groups, rows: frozenset[str], var: Var) -> Var:
        """The same, zero where there is no row."""
        value = self._blocked(groups, rows, var)
        if groups.row not in value.type.names:
            return value
        zero = self.new.constant(0, value.type.dtype)
        return self.new.map("where", groups.valid, value, zero)


def _pays(index: Var, size: int, matrix: int) -> bool:
    """Whether there are few large matrices for many rows."""
    return 1 < size <= MOST and matrix >= LEAST and index.type.count >= 4 * ROWS * size
