"""Which values get memory of their own, and which are expressions that their readers evaluate.

    %2 = exp %0{i,k}; %4 = sum{k} (%2 · %1{k,j})   ->   store %2: read once for each j
    %6 = sum{k} …; %7 = tanh %6                    ->   store %7 only: one nest sums and takes tanh

Hard values are stored in any case. Soft ones have several readers and cost more than a read:
whether they are stored depends on where their readers end up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from summand.dtypes import bool_
from summand.ir.nodes import (
    Constant,
    Eqn,
    Interleave,
    Iota,
    Map,
    Op,
    Program,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Table,
    Var,
)
from summand.options import Target
from summand.rewrite.places.solve import moved_position
from summand.rewrite.plan.copies import is_copy
from summand.rewrite.plan.costs import (
    ROW,
    STAGE,
    inputs,
    is_free,
    move_cycles,
    point_cost,
    row_dims,
    slot_cycles,
)
from summand.rewrite.plan.nodes import Graph, Inner, is_control, reads_of
from summand.rewrite.recur.carried import in_turns

DEPTH = 48  # equations between a stored value and what it reads; bounds the size of a nest
FANS = 3  # values read at several places, one behind the other: the code doubles with each
SOFT = 2.0  # slots below which a value is evaluated again by each reader
SOFT_STEPS = 40.0  # the same for a value at every step of a recurrence
READ = 3.0  # slots to choose between an earlier state and the initial one
GROWTH = 4  # how much larger than all that it is made from an array is that need not be there
TWICE = 1.25  # how often its elements are computed then, at most
IN_TILE = 8  # registers of a processor for each element along new dims that one tile holds
FEW_SLOTS = 24.0  # of a value that follows from its place
SMALL_FOLD = 16  # elements of a reduction that may run inside another one


@dataclass(frozen=True, slots=True)
class Chosen:
    """Values with memory."""

    hard: frozenset[Var]
    soft: frozenset[Var]

    @property
    def all(self) -> frozenset[Var]:
        """Hard and soft ones."""
        return self.hard | self.soft


def choose_stored(graph: Graph, program: Program, target: Target) -> Chosen:
    """Hard and soft values of a program or body."""
    return _Choice(graph, program, target).run()


class _Choice:
    def __init__(self, graph: Graph, program: Program, target: Target) -> None:
        self.graph = graph
        self.program = program
        self.target = target
        self.wanted = frozenset(program.results)
        self.inner = any(isinstance(graph.definitions.get(p), Inner) for p in program.params)
        self.used = {v for eqn in program.eqns for v in inputs(eqn)}
        self.hard: set[Var] = set()
        self.soft: set[Var] = set()
        self.price: dict[Var, float] = {p: READ for p in program.params if _is_choice(graph, p)}
        self.depth: dict[Var, int] = {}
        self.fans: dict[Var, int] = {}
        self.points: dict[Var, int] = {}
        self.level: dict[Var, int] = {}  # reductions that follow one another up to a value
        self.pieces: dict[Var, bool] = {}  # by the first result of what reads
        self.placed: set[Var] = set()  # integers that follow from the place alone

    def run(self) -> Chosen:
        """Forward: maps by their cost; backward: reductions that their one reader can finish."""
        for eqn in self.program.eqns:
            self._equation(eqn)
        self._inline_reductions()
        for eqn in self.program.eqns:
            anywhere = isinstance(eqn.op, Map | Reduce | Reindex)  # states have their loop
            if anywhere and len(eqn.outs) == 1 and eqn.out in self.hard - self.wanted:
                self._read_elsewhere(eqn.out)
        return Chosen(frozenset(self.hard), frozenset(self.soft - self.hard))

    def _equation(self, eqn: Eqn) -> None:
        sources = inputs(eqn)
        below = max((self.depth.get(v, 0) for v in sources), default=0)
        price = point_cost(eqn) + sum(self.price.get(v, 0.0) for v in sources)
        level = max((self.level.get(v, 0) for v in sources), default=0)
        for out in eqn.outs:
            self.level[out] = level + isinstance(eqn.op, Reduce)
            # A scatter combines all of its components in memory, read or not.
            unread = out not in self.used and out not in self.wanted
            if unread and not isinstance(eqn.op, ReduceAt):
                continue
            free = is_free(eqn) or self._is_place(eqn)
            deep = below >= (2 * DEPTH if free else DEPTH)
            fans = max((self.fans.get(v, 0) for v in sources), default=0) + self._fans_out(out)
            if self._is_placed(eqn, price):
                self.placed.add(out)
            light = free or out in self.placed
            dear = deep or (not light and (fans > FANS or self._worth(out, price)))
            if out in self.wanted or dear or self._must(eqn, out):
                self.hard.add(out)
            elif price >= self._soft_limit(out) and not light:
                self.soft.add(out)
            stored = out in self.hard
            self.depth[out] = 0 if stored else below + 1
            self.fans[out] = 0 if stored else fans
            self.price[out] = 0.0 if stored else price

    def _is_placed(self, eqn: Eqn, price: float) -> bool:
        """Whether a few operations on positions make it: masks, which leave the inner loops."""
        if isinstance(eqn.op, Iota):
            return True
        if isinstance(eqn.op, Constant):
            return not isinstance(eqn.op.value, Table)
        if not isinstance(eqn.op, Map) or not all(a in self.placed for a in inputs(eqn)):
            return False
        whole = eqn.out.type.dtype.is_integer or eqn.out.type.dtype is bool_
        return whole and price <= FEW_SLOTS

    def _is_place(self, eqn: Eqn) -> bool:
        """Whether it is a position moved by a distance, read only as the index of a padded array,
        or as that of a scatter: the position becomes a part of the address."""
        moved = len(eqn.outs) == 1 and moved_position(eqn.out, self.graph.eqn)
        return bool(moved) and (
            self._places_scatter(eqn)
            or all(
                isinstance(r.op, Reindex) and r.op.mode == "fill" and r.op.arg != eqn.out
                for r in self.graph.readers.get(eqn.out, ())
            )
        )

    def _places_scatter(self, eqn: Eqn) -> bool:
        readers = self.graph.readers.get(eqn.outs[0], ())
        scatters = [r.op for r in readers if isinstance(r.op, ReduceAt) and r.op.mode == "fill"]
        return any(i == eqn.outs[0] for op in scatters for _, i in op.index)

    def _fans_out(self, out: Var) -> bool:
        """Whether a value is read at several places for one result."""
        readers = self.graph.readers.get(out, ())
        moved = sum(isinstance(r.op, Reindex) and not _is_rename(r) for r in readers)
        return moved > 1 or 0 < moved < len(readers)

    def _soft_limit(self, out: Var) -> float:
        """Slots above which a value of several readers may be worth its memory. A value at every
        step of a recurrence would overflow the cache, so only a dear one is."""
        readers = self.graph.readers.get(out, ())
        if len(readers) < 2:
            return float("inf")
        steps = {d for r in readers if isinstance(r.op, Recur) for d in r.op.over}
        return SOFT_STEPS if steps & out.type.names else SOFT

    def _must(self, eqn: Eqn, out: Var) -> bool:
        match eqn.op:
            case Map() if is_copy(eqn) and not self.inner:  # bodies name what they read like this
                return True
            case Map() | Reindex() | Iota():
                return any(is_control(r) for r in self.graph.readers.get(out, ()))
            case Constant():
                control = any(is_control(r) for r in self.graph.readers.get(out, ()))
                return control or isinstance(eqn.op.value, Table)
            case _:
                return True

    def _worth(self, out: Var, price: float) -> bool:
        """Whether a reader evaluates each element so often that memory is cheaper."""
        points = self._points_read(out)
        extra = max(points - out.type.count, 0)
        recompute = slot_cycles(price * extra, out.type.dtype.bits, self.target)
        return recompute > move_cycles(out.type.nbytes, self.target) + STAGE

    def _points_read(self, var: Var) -> int:
        """The most elements of a value that one reader evaluates; free readers pass it on."""
        known = self.points.get(var)
        if known is None:
            known = 0
            for reader in self.graph.readers.get(var, ()):
                count = self._points(reader, var)
                passes = is_free(reader) or self._moves(reader)
                if passes and var in inputs(reader) and not self._in_pieces(reader):
                    count = max(count, *(self._points_read(o) for o in reader.outs))
                known = max(known, count)
            self.points[var] = known
        return known

    def _moves(self, reader: Eqn) -> bool:
        """Whether a scatter adds a position to a value, and so evaluates the value itself."""
        return self._is_place(reader) and self._places_scatter(reader)

    def _points(self, reader: Eqn, var: Var) -> int:
        """How many elements of a value a reader evaluates, with repeats, where it is not stored."""
        match reader.op:
            case Reduce():
                return reader.op.args[0].type.count
            case Recur():
                steps = 1
                for n in reader.op.sizes:
                    steps *= n
                widest = max((o.type.count for e in reader.op.body.eqns for o in e.outs), default=1)
                return max(steps * widest, var.type.count)
            case ReduceAt() | Map() if self._in_pieces(reader):
                return var.type.count
            case ReduceAt():
                row = row_dims(reader.op, reader.outs[0], self.graph.eqn)
                lanes = math.prod(reader.op.args[0].type.sizes[d] for d in row)
                return reader.op.args[0].type.count * -(-ROW // max(1, min(lanes, ROW)))
            case Map() if self._in_tile(reader, var):
                return var.type.count
            case _:
                return max((o.type.count for o in reader.outs), default=1)

    def _in_pieces(self, reader: Eqn) -> bool:
        """Whether a scatter alone reads what an equation makes, along one dim of which it computes
        a piece at once, in vectors: each element of what that reads once."""
        if not self.pieces:
            for eqn in reversed(self.program.eqns):
                self.pieces[eqn.outs[0]] = self._feeds_pieces(eqn)
        return self.pieces.get(reader.outs[0], False)

    def _feeds_pieces(self, eqn: Eqn) -> bool:
        op = eqn.op
        if isinstance(op, ReduceAt):
            row = row_dims(op, eqn.outs[0], self.graph.eqn)
            return op.monoid.combine is None and len(set(op.dims) - row) == 1
        below = [r for o in eqn.outs for r in self.graph.readers.get(o, ())]
        known = all(self.pieces.get(r.outs[0], False) for r in below)
        return isinstance(op, Map) and bool(below) and known

    def _in_tile(self, reader: Eqn, var: Var) -> bool:
        """Whether a map only spreads a value over a few elements of sums that fold its own dims:
        the points of one register tile, which evaluate it once."""
        held = self.target.registers // IN_TILE
        if not isinstance(reader.op, Map) or reader.out.type.count > held * var.type.count:
            return False
        end = reader
        while isinstance(end.op, Map) and end.out.type == reader.out.type:
            ends = self.graph.readers.get(end.out, ())
            if len(ends) != 1:
                return False
            end = ends[0]
        return isinstance(end.op, Reduce) and {*end.op.dims} <= var.type.names

    # ---- what only few readers want, at other places

    def _read_elsewhere(self, root: Var) -> None:
        """A large array that is only read at other places, most of it once, need not be there: each
        reader computes what it reads. (Similarities of which the greatest in each block are wanted,
        and then a few.)"""
        if root.type.nbytes <= self.target.l2:
            return
        ends: list[Eqn] = []
        between: set[Var] = set()
        waiting = [root]
        while waiting:
            var = waiting.pop()
            between.add(var)
            for reader in self.graph.readers.get(var, ()):
                match reader.op:
                    case Map() if reader.out.type.dims == root.type.dims:
                        waiting.append(reader.out)
                    case Reindex(arg, _, mode) if arg == var and mode != "raise":
                        ends.append(reader)
                    case _:
                        return
        if between & (self.wanted | self.hard - {root}):
            return
        made = reads_of(self.graph, frozenset(self.hard | self.soft), (root,))
        small = GROWTH * sum(v.type.count for v in made) <= root.type.count
        if small and sum(e.out.type.count for e in ends) <= TWICE * root.type.count:
            self.hard -= between
            self.soft -= between
            self.hard |= {e.out for e in ends}

    # ---- reductions that need no memory

    def _inline_reductions(self) -> None:
        ends: dict[Var, frozenset[Eqn]] = {}
        inside: dict[Eqn, frozenset[tuple[str, int]]] = {}
        for eqn in reversed(self.program.eqns):
            for out in eqn.outs:
                ends[out] = self._ends(eqn, out, ends)
            if isinstance(eqn.op, Reduce) and len(eqn.outs) == 1 and eqn.out in self.hard:
                self._inline_one(eqn, eqn.op, ends, inside)

    def _ends(self, eqn: Eqn, out: Var, ends: Mapping[Var, frozenset[Eqn]]) -> frozenset[Eqn]:
        """The equations whose nests evaluate each element of `out` once; anything else that reads
        it is there as it is."""
        found: set[Eqn] = set()
        for reader in self.graph.readers.get(out, ()):
            same = isinstance(reader.op, Map) and reader.out.type.dims == out.type.dims
            if same or _is_rename(reader):
                if reader.out in self.hard or reader.out in self.soft:
                    found.add(reader)
                else:
                    found |= ends.get(reader.out, frozenset())
            else:
                found.add(reader)
        return frozenset(found)

    def _inline_one(
        self,
        eqn: Eqn,
        op: Reduce,
        ends: Mapping[Var, frozenset[Eqn]],
        inside: dict[Eqn, frozenset[tuple[str, int]]],
    ) -> None:
        out = eqn.out
        self._soften(op, out)
        if out in self.wanted or len(ends[out]) != 1 or any(n == 0 for _, n in out.type.dims):
            return
        (end,) = ends[out]
        sizes = op.args[0].type.sizes
        folds = frozenset((d, sizes[d]) for d in op.dims)
        if isinstance(end.op, Map | Reindex) and _finishes(end, out):
            if self._waits(end, out):
                return
            if inside.setdefault(end, folds) == folds:
                self.hard.discard(out)
                self.soft -= {end.out}
                self.hard.add(end.out)
                self._soften(op, end.out)
        elif isinstance(end.op, ReduceAt):
            far = out.type.nbytes > self.target.l2 // 2
            if far and end.op.args == (out,) and op.monoid.combine is None:
                self.hard.discard(out)  # the scatter's own nest reduces
        elif isinstance(end.op, Interleave) or self._small(op, out, self._last(end).op):
            self.hard.discard(out)

    def _waits(self, end: Eqn, out: Var) -> bool:
        """Whether finishing a reduction takes a value from another one that has just ended, or
        ends later: the reduction itself need not wait for it."""
        waiting, seen = list(inputs(end)), set[Var]()
        while waiting:
            var = waiting.pop()
            eqn = self.graph.eqn(var)
            if eqn is None or var in seen or var == out:
                continue
            seen.add(var)
            if var in self.hard or var in self.soft:
                if self.level.get(var, 0) >= self.level[out]:
                    return True
            else:
                waiting += inputs(eqn)
        return False

    def _last(self, end: Eqn) -> Eqn:
        """The reduction that alone reads a map, through others that are not stored."""
        while isinstance(end.op, Map) and end.out not in self.hard | self.soft:
            readers = self.graph.readers.get(end.out, ())
            if len(readers) != 1 or end.out in self.wanted:
                break
            end = readers[0]
        return end

    def _soften(self, op: Reduce, root: Var) -> None:
        """A few cheap terms, summed and finished as `root`, may be summed again by each reader."""
        terms = op.args[0].type.count // max(root.type.count, 1)
        price = terms * (1.0 + max(self.price.get(a, 0.0) for a in op.args))
        several = len(self.graph.readers.get(root, ())) > 1 and root not in self.wanted
        far = root.type.nbytes > self.target.l2
        if several and far and terms <= SMALL_FOLD and price <= SOFT_STEPS:
            self.hard.discard(root)
            self.soft.add(root)
            self.price[root] = price

    def _small(self, op: Reduce, out: Var, reader: Op) -> bool:
        """Whether a reduction may run inside another one, which reads each element once."""
        if not isinstance(reader, Reduce):
            return False
        length = op.args[0].type.count // max(out.type.count, 1)
        again = reader.args[0].type.count // max(out.type.count, 1)
        named = op.monoid.combine is None and reader.monoid.combine is None
        far = out.type.nbytes > self.target.l2 // 2
        apart = not set(op.dims) & set(reader.dims)
        return length * again <= SMALL_FOLD and named and far and apart


def _is_choice(graph: Graph, param: Var) -> bool:
    """Whether reading a body's parameter chooses between two values, as at a recurrence's start."""
    found = graph.definitions.get(param)
    if not isinstance(found, Inner) or not isinstance(found.recur.op, Recur):
        return False
    op = found.recur.op
    if found.kind == "captured":
        made = graph.definitions.get(op.captured[found.number])
        return isinstance(made, Eqn) and isinstance(made.op, Map) and made.op.fn == "where"
    return found.kind == "read" and op.reads[found.number].state not in in_turns(op)


def _finishes(end: Eqn, out: Var) -> bool:
    return end.out.type.count == out.type.count and len(end.out.type.dims) == len(out.type.dims)


def _is_rename(eqn: Eqn) -> bool:
    if not isinstance(eqn.op, Reindex):
        return False
    names = [i.as_dim() for _, i in eqn.op.index if not isinstance(i, Var)]
    plain = len(names) == len(eqn.op.index) and all(names) and len(set(names)) == len(names)
    return plain and eqn.out.type.count == eqn.op.arg.type.count
