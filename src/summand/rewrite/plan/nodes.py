"""What fusion decides: the program cut into clusters of stages.

    %2 = exp %0; %3 = sum{j} %2; %4 = mul %2 %2   ->   cluster [stage %3; stage %4]
                                                       (%2 is inlined)

A value is *stored* when it has memory of its own; every other value is an expression that its
readers evaluate. A stage is one nest and stores its roots; a cluster is one kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from summand.ir.index import Form
from summand.ir.nodes import (
    Call,
    Cond,
    Eqn,
    Program,
    Recur,
    Var,
    While,
    operands,
    with_operands,
)
from summand.rewrite.plan.costs import inputs
from summand.rewrite.recur.carried import in_rounds
from summand.rewrite.recur.partial_folds import Block


@dataclass(frozen=True, slots=True)
class Inner:
    """A parameter of a recurrence's body: an earlier state, a slice, or a position."""

    recur: Eqn
    kind: Literal["read", "captured", "position"]
    number: int


Definition = Eqn | Inner


@dataclass(frozen=True, slots=True)
class Tile:
    """A dim of size `size` that all stages of a cluster share, cut into pieces of `tile`: tasks."""

    dim: str
    size: int
    tile: int

    @property
    def steps(self) -> int:
        """Number of pieces; the last one is moved back where the tile does not divide the size."""
        return -(-self.size // self.tile)


@dataclass(frozen=True, slots=True)
class Access:
    """One read of a stored value: the position along each of its dims. Where that is computed
    (None), `computed` has the dims on which it depends."""

    var: Var
    at: tuple[tuple[str, Form | None], ...]
    computed: frozenset[str] = frozenset()

    @staticmethod
    def of(var: Var) -> Access:
        """A value at the nest's own position."""
        return Access(var, tuple((d, Form.of(d)) for d, _ in var.type.dims))

    def is_identity(self, dim: str) -> bool:
        """Whether `dim` is read at the reader's own position."""
        return any(d == dim and f is not None and f.as_dim() == d for d, f in self.at)


@dataclass(frozen=True, slots=True)
class Sum:
    """A reduction that runs tile by tile: `fold` folds the shared dims `dims` of its cluster, and
    each tile adds its part to what the tiles before it made. It reads the cluster's own values at
    `at` along them: at the tile's own positions, or in a window that slides over them."""

    fold: Eqn
    dims: tuple[str, ...]
    at: tuple[tuple[str, Form], ...] = ()

    def slides(self, dim: str) -> bool:
        """Whether a shared dim is read in a window, and not position by position."""
        return all(d != dim or f.as_dim() is None for d, f in self.at)


@dataclass(frozen=True, slots=True)
class Stage:
    """One nest (or the nests of one recurrence, scatter or interleave): it stores `roots`.

    `body` has the stages of a recurrence's body, for one that is a loop around nests; a recurrence
    without them is one nest that carries its states in registers. `reads` and `folds` say what the
    nest reads from memory and which dims it reduces; `carried` is the recurrence that it runs in
    registers, if any (then `folds` has a dim once for each value that reduces it); `over` the dims
    of its recurrence; `walked` those that a scatter walks in order. `local` values are on the way
    to the roots, in order; no other nest reads them. `sums` has one entry for each root of a stage
    that folds shared dims of its cluster.
    """

    roots: tuple[Var, ...]
    body: tuple[Stage, ...] = ()
    reads: tuple[Access, ...] = field(default=(), compare=False)
    folds: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    carried: Eqn | None = field(default=None, compare=False)
    over: tuple[str, ...] = field(default=(), compare=False)
    local: tuple[Var, ...] = field(default=(), compare=False)
    sums: tuple[Sum, ...] = field(default=(), compare=False)
    walked: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Stages that become one kernel. `shared` are the dims (with sizes) that may be tiled, since
    all stages have them and read one another in place there; stages with `sums` come last and fold
    some of them. `scratch` names the roots that live only within a tile. `blocks` are shared dims
    that are folded in parts, and so fix the tile."""

    stages: tuple[Stage, ...]
    shared: tuple[tuple[str, int], ...] = ()
    scratch: frozenset[Var] = frozenset()
    blocks: tuple[Block, ...] = ()

    @property
    def roots(self) -> tuple[Var, ...]:
        """Everything that the cluster stores."""
        return tuple(v for s in self.stages for v in s.roots)

    def living(self) -> list[frozenset[Var]]:
        """The scratch values that live during each stage: until their last reader has run."""
        last = {a.var: k for k, stage in enumerate(self.stages) for a in stage.reads}
        alive: set[Var] = set()
        found = []
        for k, stage in enumerate(self.stages):
            alive |= self.scratch & frozenset(stage.roots)
            found.append(frozenset(alive))
            alive = {v for v in alive if last.get(v, k) > k}
        return found

    @property
    def summed(self) -> frozenset[str]:
        """The shared dims that some stages fold, tile by tile."""
        return frozenset(d for stage in self.stages for s in stage.sums for d in s.dims)


@dataclass(frozen=True, slots=True)
class Control:
    """A `cond`, `while` or foreign `call`, run as steps between kernels."""

    eqn: Eqn


Item = Cluster | Control


@dataclass(frozen=True, slots=True)
class Plan:
    """The program with unique variables in recurrence bodies, and its items in order."""

    program: Program
    items: tuple[Item, ...]


# ---- the program as a graph


def unique_bodies(program: Program) -> Program:
    """Number the variables of recurrence bodies so that no two in the whole program are equal."""
    start = max((v.id for v in _variables(program)), default=-1) + 1
    return _unique(program, [start])


def _variables(program: Program) -> Iterator[Var]:
    yield from program.params
    for eqn in program.eqns:
        yield from eqn.outs


def _unique(program: Program, counter: list[int]) -> Program:
    if not any(isinstance(e.op, Recur) for e in program.eqns):
        return program
    eqns = []
    for eqn in program.eqns:
        if isinstance(eqn.op, Recur):
            op = eqn.op
            body = _unique(renumbered(op.body, counter), counter)
            eqn = Eqn(eqn.outs, _with_body(op, body), eqn.loc)
        eqns.append(eqn)
    return Program(program.params, tuple(eqns), program.results)


def _with_body(op: Recur, body: Program) -> Recur:
    return Recur(op.over, op.forward, op.sizes, op.reads, op.inits, op.captured, body, op.keep)


def renumbered(program: Program, counter: list[int]) -> Program:
    """The same program with fresh variables from `counter` on."""
    new: dict[Var, Var] = {}
    for var in _variables(program):
        new[var] = Var(counter[0], var.type)
        counter[0] += 1
    eqns = tuple(
        Eqn(tuple(new[o] for o in e.outs), with_operands(e.op, new), e.loc) for e in program.eqns
    )
    params = tuple(new[p] for p in program.params)
    return Program(params, eqns, tuple(new[r] for r in program.results))


@dataclass(frozen=True, slots=True)
class Graph:
    """Who defines and who reads each variable, recurrence bodies included."""

    program: Program
    definitions: Mapping[Var, Definition]
    readers: Mapping[Var, tuple[Eqn, ...]]

    @staticmethod
    def of(program: Program) -> Graph:
        """The graph of a program whose bodies have unique variables."""
        definitions: dict[Var, Definition] = {}
        readers: dict[Var, list[Eqn]] = {}
        _collect(program, definitions, readers)
        return Graph(program, definitions, {v: tuple(es) for v, es in readers.items()})

    def eqn(self, var: Var) -> Eqn | None:
        """The equation that defines a value; None of a parameter (the body's included)."""
        found = self.definitions.get(var)
        return found if isinstance(found, Eqn) else None


def _collect(
    program: Program, definitions: dict[Var, Definition], readers: dict[Var, list[Eqn]]
) -> None:
    for eqn in program.eqns:
        for out in eqn.outs:
            definitions[out] = eqn
        for var in dict.fromkeys(operands(eqn.op)):
            readers.setdefault(var, []).append(eqn)
        if isinstance(eqn.op, Recur):
            _collect_body(eqn, eqn.op, definitions, readers)


def _collect_body(
    eqn: Eqn, op: Recur, definitions: dict[Var, Definition], readers: dict[Var, list[Eqn]]
) -> None:
    reads, captured = len(op.reads), len(op.captured)
    for k, param in enumerate(op.body.params):
        if k < reads:
            definitions[param] = Inner(eqn, "read", k)
        elif k < reads + captured:
            definitions[param] = Inner(eqn, "captured", k - reads)
        else:
            definitions[param] = Inner(eqn, "position", k - reads - captured)
    _collect(op.body, definitions, readers)


def is_launched(eqn: Eqn) -> bool:
    """A recurrence each step of which is launched by itself."""
    return isinstance(eqn.op, Recur) and in_rounds(eqn.op)


def is_control(eqn: Eqn) -> bool:
    """True of what runs as steps between kernels."""
    return isinstance(eqn.op, Call | Cond | While)


def reads_of(graph: Graph, stored: frozenset[Var], roots: tuple[Var, ...]) -> tuple[Var, ...]:
    """The stored values (and parameters) that the equations of `roots` read."""
    found: dict[Var, None] = {}
    seen: set[Var] = set()
    stack = [v for r in reversed(roots) for v in _operands_of(graph, r)]
    while stack:
        var = stack.pop()
        if var in seen:
            continue
        seen.add(var)
        if var in stored or var not in graph.definitions:
            found[var] = None
            continue
        stack += reversed(_operands_of(graph, var))
    return tuple(v for v in found if v not in roots)


def _operands_of(graph: Graph, var: Var) -> tuple[Var, ...]:
    found = graph.definitions.get(var)
    if isinstance(found, Eqn):
        return inputs(found)
    if found is None or not isinstance(found.recur.op, Recur):
        return ()
    return operands(found.recur.op)
