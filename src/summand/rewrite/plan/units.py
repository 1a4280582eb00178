"""What each stored value's computation looks like from outside: its space, its cost, what it reads.

    %5 = sum{k} (%0 · %1)   ->   Unit: out {i, j}, folds {k}, reads %0{i: i, k: k}, %1{k: k, j: j}

Fusion asks units, not equations: which dims two of them share, and where one reads another at its
own position ("identity") or elsewhere (a window, a gather).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from summand.errors import InternalError
from summand.ir.index import Form
from summand.ir.nodes import (
    Eqn,
    Interleave,
    Iota,
    Map,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Var,
    operands,
)
from summand.rewrite.plan.costs import ROW, inputs, point_cost, row_dims
from summand.rewrite.plan.nodes import Access, Graph, Inner, is_control
from summand.rewrite.recur.carried import carries, separable
from summand.rewrite.recur.partial_folds import Block, block_of

Where = Mapping[str, Form | None]  # position of each dim; None where it is computed


@dataclass(frozen=True, slots=True)
class Unit:
    """One stored value (or several of one equation) and the expression that computes it.

    `tileable` are the dims of `out` along which pieces are independent; `folds` the dims that
    reductions in the expression fold; `slots` vector slots of all its points; `walked` the dims
    that a scatter walks in order.
    """

    number: int
    eqn: Eqn
    roots: tuple[Var, ...]
    out: tuple[tuple[str, int], ...]
    tileable: frozenset[tuple[str, int]]
    folds: tuple[tuple[str, int], ...]
    reads: tuple[Access, ...]
    slots: float
    walked: tuple[str, ...] = ()

    @property
    def space(self) -> frozenset[tuple[str, int]]:
        """All dims of the nest, with sizes."""
        return frozenset(self.out) | frozenset(self.folds)

    @property
    def points(self) -> int:
        """Points of the nest."""
        return product(n for _, n in self.space)

    @property
    def over(self) -> tuple[str, ...]:
        """The dims that a recurrence runs over."""
        return self.eqn.op.over if isinstance(self.eqn.op, Recur) else ()

    @property
    def carries(self) -> bool:
        """Whether it is a recurrence that runs with its states in registers."""
        return isinstance(self.eqn.op, Recur) and carries(self.eqn.op)

    @property
    def is_nest(self) -> bool:
        """Whether one plain nest computes it."""
        return isinstance(self.eqn.op, Map | Reduce | Reindex | Iota) or self.block is not None

    @property
    def block(self) -> Block | None:
        """The blocks in which it folds a dim, where tasks share out that dim."""
        return block_of(self.eqn.op)


def product(sizes: object) -> int:
    """The product of sizes."""
    total = 1
    for n in sizes:  # type: ignore[attr-defined]
        total *= n
    return total


IsStored = Callable[[Var], bool]


def unit_of(graph: Graph, is_stored: IsStored, eqn: Eqn, roots: tuple[Var, ...], n: int) -> Unit:
    """The unit of an equation whose results `roots` are stored."""
    out = roots[0].type.dims
    walk = _Walk(graph, is_stored, roots[0].type.names)
    block = block_of(eqn.op)
    match eqn.op:
        case ReduceAt() if block is not None:
            return _fold_in_blocks(walk, eqn, eqn.op, block, n)
        case Recur():
            return _recurrence(walk, eqn, eqn.op, roots, n)
        case ReduceAt():
            return _scatter(walk, eqn, eqn.op, roots, n)
        case Map() | Reduce() | Reindex() | Iota():
            walk.define(eqn, {d: Form.of(d) for d, _ in out}, product(s for _, s in out))
            folds = tuple(walk.folds)
            tileable = frozenset(out)
            return Unit(n, eqn, roots, out, tileable, folds, walk.reads(), walk.slots)
        case Interleave():
            return _interleave(walk, eqn, eqn.op, roots, n)
        case _ if is_control(eqn):
            reads = tuple(
                Access(v, tuple((d, None) for d, _ in v.type.dims)) for v in operands(eqn.op)
            )
            return Unit(n, eqn, roots, (), frozenset(), (), reads, 0.0)
        case _:
            raise InternalError(f"fuse: {type(eqn.op).__name__} is no unit")


class _Walk:
    """Collects what an expression reads, down to stored values and parameters."""

    def __init__(self, graph: Graph, is_stored: IsStored, out: frozenset[str]) -> None:
        self.graph = graph
        self.out = out  # the nest's own dims: a reduced one of the same name is another dim
        self.is_stored = is_stored
        self.slots = 0.0
        self.folds: dict[tuple[str, int], None] = {}
        self._reads: dict[Access, None] = {}
        self._seen: set[tuple[Var, tuple[Form | None, ...]]] = set()

    def reads(self) -> tuple[Access, ...]:
        """All reads, in order of discovery."""
        return tuple(self._reads)

    def value(
        self, var: Var, at: Where, points: int, computed: frozenset[str] = frozenset()
    ) -> None:
        """A value read at a position, by a computation of so many points."""
        here = tuple(at.get(d) for d, _ in var.type.dims)
        if (var, here) in self._seen:
            return
        self._seen.add((var, here))
        found = self.graph.definitions.get(var)
        if self.is_stored(var) or found is None or isinstance(found, Inner):
            places = tuple(zip((d for d, _ in var.type.dims), here))
            self._reads[Access(var, places, computed if None in here else frozenset())] = None
            return
        point = dict(zip((d for d, _ in var.type.dims), here, strict=True))
        self.define(found, point, points, computed)

    def define(
        self, eqn: Eqn, at: Where, points: int, computed: frozenset[str] = frozenset()
    ) -> None:
        """The computation of an equation at a position."""
        match eqn.op:
            case Reindex():
                self._reindex(eqn.op, at, points, computed)
            case Reduce():
                sizes = eqn.op.args[0].type.sizes
                inner = points
                point = dict(at)
                for d in eqn.op.dims:
                    name = f"{d}'" if d in self.out else d
                    self.folds[(name, sizes[d])] = None
                    point[d] = Form.of(name)
                    inner *= sizes[d]
                self.slots += inner
                for a in eqn.op.args:
                    self.value(a, point, inner, computed)
            case _:
                for v in inputs(eqn):
                    self.value(v, at, points, computed)
        self.slots += point_cost(eqn) * points

    def _reindex(self, op: Reindex, at: Where, points: int, computed: frozenset[str]) -> None:
        point = {d: f for d, f in at.items() if d in op.arg.type.names}
        for dim, index in op.index:
            if isinstance(index, Var):
                self.value(index, at, points, computed)
                point[dim] = None
                places = (at.get(d) for d, _ in index.type.dims)
                computed = computed.union(*(f.dims for f in places if f is not None))
                continue
            known = {d: f for d in index.dims if (f := at.get(d)) is not None}
            point[dim] = index.substitute(known) if known.keys() == index.dims else None
        self.value(op.arg, point, points, computed)


def _recurrence(walk: _Walk, eqn: Eqn, op: Recur, roots: tuple[Var, ...], n: int) -> Unit:
    """A recurrence: tasks may share out the dims along which its body is pointwise."""
    steps = product(op.sizes)
    identity = {d: Form.of(d) for v in operands(op) for d in v.type.names}
    for v in operands(op):
        walk.value(v, identity, v.type.count)
    slots = sum(point_cost(e) * e.outs[0].type.count + _fold_slots(e) for e in op.body.eqns)
    out = tuple(
        dict.fromkeys((*zip(op.over, op.sizes), *(x for r in op.body.results for x in r.type.dims)))
    )
    return Unit(n, eqn, roots, out, separable(op), (), walk.reads(), walk.slots + slots * steps)


def _fold_slots(eqn: Eqn) -> float:
    return float(eqn.op.args[0].type.count) if isinstance(eqn.op, Reduce) else 0.0


def _scatter(walk: _Walk, eqn: Eqn, op: ReduceAt, roots: tuple[Var, ...], n: int) -> Unit:
    """A scatter: tasks may share out the dims that are neither folded nor computed, but for those
    that fill a vector: what it walks it walks in order, so that its lanes run along its rows."""
    sizes = op.args[0].type.sizes
    identity = {d: Form.of(d) for d in sizes}
    points = op.args[0].type.count
    for v in operands(op):
        walk.value(v, identity, points)
    row = row_dims(op, roots[0], walk.graph.eqn)
    lanes = product(sizes[d] for d in row & set(op.dims))
    free: set[tuple[str, int]] = set()
    for dim, size in sorted(roots[0].type.dims, key=lambda x: (-x[1], x[0])):
        if dim in row and lanes >= ROW:
            free.add((dim, size))
        lanes *= size if dim in row else 1
    folds = tuple((d, sizes[d]) for d in op.dims)
    walked = tuple(d for d in op.dims if d not in row)
    slots, tileable = walk.slots + points, frozenset(free)
    return Unit(n, eqn, roots, roots[0].type.dims, tileable, folds, walk.reads(), slots, walked)


def _fold_in_blocks(walk: _Walk, eqn: Eqn, op: ReduceAt, block: Block, n: int) -> Unit:
    """A fold whose tasks each have a whole block."""
    (arg,) = op.args
    walk.value(arg, {d: Form.of(d) for d in arg.type.names}, arg.type.count)
    out = tuple(x for x in eqn.out.type.dims if x[0] != block.place)
    folds = tuple(x for x in arg.type.dims if x[0] in op.dims)
    tileable = frozenset((*out, (block.dim, arg.type.sizes[block.dim])))
    slots = walk.slots + arg.type.count
    return Unit(n, eqn, (eqn.out,), out, tileable, folds, walk.reads(), slots)


def _interleave(walk: _Walk, eqn: Eqn, op: Interleave, roots: tuple[Var, ...], n: int) -> Unit:
    """Values that lie between each other; each part is computed straight into its places."""
    apart = {d for d, _ in op.dims}
    for part in op.parts:
        at = {d: None if d in apart else Form.of(d) for d, _ in part.type.dims}
        walk.value(part, at, part.type.count)
    out = roots[0].type.dims
    free = frozenset(x for x in out if x[0] not in apart)
    return Unit(n, eqn, roots, out, free, tuple(walk.folds), walk.reads(), walk.slots)
