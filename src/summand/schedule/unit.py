"""Lower one program, or one branch or body of control flow, to steps.

Every stored value gets a buffer; results are computed straight into theirs where that is possible.
A `cond` becomes a `Branch` and a `while` a `Repeat` around the steps of units of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from summand.dtypes import bf16
from summand.errors import InternalError
from summand.ir.nodes import (
    Call,
    Cond,
    Constant,
    Eqn,
    Map,
    Op,
    Program,
    Recur,
    Reduce,
    ReduceAt,
    Table,
    Var,
    While,
    operands,
)
from summand.loops.nodes import Branch, Copy, Foreign, Launch, Layout, Repeat, Rounds, Step
from summand.rewrite.plan.fuse import fuse
from summand.rewrite.plan.layout import Bodies, choose_orders
from summand.rewrite.plan.nodes import Cluster, Control, Graph, Plan
from summand.rewrite.plan.tiling import choose_tiles
from summand.schedule.coordinates import Storage
from summand.schedule.lower_cluster import lower_cluster, transposing_kernel
from summand.schedule.lower_rounds import is_in_rounds, lower_rounds
from summand.schedule.lower_sums import Launched
from summand.schedule.unfinished import Unfinished

Order = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """A buffer given from outside to a parameter or result, and the order of its dims."""

    buffer: str
    order: Order | None


# ---- one program, or a branch or body of one


@dataclass(slots=True)
class Unit:
    """A program being lowered; `prefix` keeps its buffers apart from those of other units."""

    module: Unfinished
    plan: Plan
    prefix: str
    storage: dict[Var, Storage] = field(default_factory=dict)
    orders: dict[Var, Order] = field(default_factory=dict)

    def lower(
        self, params: Sequence[Binding], results: Sequence[Binding]
    ) -> tuple[list[Step], list[Order]]:
        """The steps, and the orders of the results."""
        program = self.plan.program
        graph = Graph.of(program)
        bound_results, stored = self.choose_orders(graph, params, results)
        for var, bound in zip(program.params, params, strict=True):
            self._place(var, bound.buffer)
        for var in stored:
            self._place(var, bound_results.get(var) or self._temporary(graph, var))
        steps: list[Step] = []
        for item in self.plan.items:
            if isinstance(item, Control):
                steps += self._control(graph, item.eqn)
            else:
                steps += self._cluster(graph, item)
        orders = []
        for var, bound in zip(program.results, results, strict=True):
            order = bound.order or self.orders[var]
            orders.append(order)
            steps += self._deliver(graph, var, bound.buffer, order)
        return steps, orders

    def choose_orders(
        self, graph: Graph, params: Sequence[Binding], results: Sequence[Binding]
    ) -> tuple[dict[Var, str], list[Var]]:
        """Choose `orders`; the values that are computed into a result's buffer, and all that have
        memory."""
        fixed: dict[Var, Order] = {}
        for var, bound in zip(self.plan.program.params, params, strict=True):
            fixed[var] = bound.order or tuple(d for d, _ in var.type.dims)
        bound_results = self._bind_results(graph, results, fixed)
        stored = self._stored()
        self.orders = self._orders(graph, stored, fixed)
        return bound_results, stored

    def _bind_results(
        self, graph: Graph, results: Sequence[Binding], fixed: dict[Var, Order]
    ) -> dict[Var, str]:
        """Values that are computed straight into a result's buffer."""
        taken: dict[Var, str] = {}
        for var, bound in zip(self.plan.program.results, results, strict=True):
            eqn = graph.eqn(var)
            if eqn is None or isinstance(eqn.op, Constant) or var in taken:
                continue
            taken[var] = bound.buffer
            if bound.order is not None:
                fixed[var] = bound.order
        return taken

    def _stored(self) -> list[Var]:
        """Every value with memory in this unit (parameters not among them), in order."""
        stored: list[Var] = []
        constants = self._constants()
        for eqn in self.plan.program.eqns:
            if isinstance(eqn.op, Constant) and eqn.out in constants:
                stored.append(eqn.out)
        for item in self.plan.items:
            if isinstance(item, Control):
                stored += item.eqn.outs
            else:
                stored += [v for v in item.roots if v not in item.scratch]
        return list(dict.fromkeys(stored))

    def _constants(self) -> frozenset[Var]:
        """Constants that need memory: tables, results, and what control flow reads."""
        program = self.plan.program
        found = set(program.results)
        for eqn in program.eqns:
            if isinstance(eqn.op, Constant) and isinstance(eqn.op.value, Table):
                found.add(eqn.out)
        for item in self.plan.items:
            if isinstance(item, Control):
                found |= set(operands(item.eqn.op))
        return frozenset(found)

    def _orders(
        self, graph: Graph, stored: Sequence[Var], fixed: Mapping[Var, Order]
    ) -> dict[Var, Order]:
        known = dict(fixed)
        for var in stored:
            eqn = graph.eqn(var)
            if eqn is not None and isinstance(eqn.op, Constant):
                value = eqn.op.value
                known[var] = value.order if isinstance(value, Table) else ()
        rooted = [v for i in self.plan.items if isinstance(i, Cluster) for v in i.roots]
        values = list(dict.fromkeys((*stored, *rooted)))
        bodies = Bodies.of(self.plan.program)
        return choose_orders(self.plan.items, known, values, bodies, self.module.target.l2)

    def _place(self, var: Var, buffer: str) -> None:
        sizes = var.type.sizes
        dims = tuple((d, sizes[d]) for d in self.orders[var])
        self.storage[var] = Storage.dense(buffer, var.type.dtype, dims)
        self.module.dims[buffer] = dims

    def _temporary(self, graph: Graph, var: Var) -> str:
        name = f"{self.prefix}v{var.id}"
        eqn = graph.eqn(var)
        if eqn is not None and isinstance(eqn.op, Constant):
            return self.module.constant(name, var.type.dtype, constant_bytes(eqn.op, var))
        return self.module.add("arena", name, var, 0, eqn.loc if eqn else None)

    def _cluster(self, graph: Graph, cluster: Cluster) -> list[Step]:
        if is_in_rounds(graph, cluster):
            return self._rounds(graph, cluster)
        tiles = choose_tiles(graph, cluster, self.orders, self.module.target)
        launched = lower_cluster(
            graph,
            cluster,
            self.storage,
            self.orders,
            tiles,
            self.module.memory,
            self.module.temporary,
        )
        note = _note(graph, cluster)
        steps: list[Step] = []
        for kernel, buffers in launched:
            steps += self.module.launch(replace(kernel, note=note), buffers)
        return steps

    def _rounds(self, graph: Graph, cluster: Cluster) -> list[Step]:
        """A recurrence as launches for each step, between those before and behind it."""
        (stage,) = cluster.stages
        module = self.module
        parts = lower_rounds(graph, stage, self.storage, module.memory, module.temporary)
        note = _note(graph, cluster)

        def launch(found: Launched, inside: bool = False) -> list[Step]:
            kernel, buffers = found
            return module.launch(replace(kernel, note=note), buffers, inside)

        body = (s for found in parts.rounds for s in launch(found, True))
        rounds = Rounds(parts.count, tuple(s for s in body if isinstance(s, Launch)))
        first = [s for found in parts.first for s in launch(found)]
        return [*first, rounds, *(s for found in parts.last for s in launch(found))]

    # ---- control flow

    def _control(self, graph: Graph, eqn: Eqn) -> list[Step]:
        match eqn.op:
            case Cond():
                return self._cond(eqn, eqn.op)
            case While():
                return self._while(graph, eqn, eqn.op)
            case Call():
                args = tuple(self._operand(a) for a in eqn.op.args)
                return [Foreign(eqn.op.name, args, tuple(self._operand(o) for o in eqn.outs))]
            case _:
                raise InternalError(f"lower: {type(eqn.op).__name__} is no control flow")

    def _operand(self, var: Var) -> tuple[str, Layout]:
        """A whole stored value, as a foreign function sees it."""
        sizes = var.type.sizes
        dims = tuple((d, sizes[d]) for d in self.orders[var])
        return self.storage[var].buffer, Layout(dims)

    def _bound(self, var: Var) -> Binding:
        return Binding(self.storage[var].buffer, self.orders[var])

    def _inside(
        self, name: str, program: Program, params: Sequence[Binding], results: Sequence[Binding]
    ) -> tuple[Step, ...]:
        """The steps of a sub-program on given buffers."""
        plan = fuse(program, self.module.target, self.module.options)
        unit = Unit(self.module, plan, f"{self.prefix}{name}.")
        return tuple(unit.lower(params, results)[0])

    def _cond(self, eqn: Eqn, op: Cond) -> list[Step]:
        args = [self._bound(a) for a in op.args]
        outs = [self._bound(o) for o in eqn.outs]
        name = f"v{eqn.outs[0].id}"
        then = self._inside(f"{name}t", op.then, args, outs)
        other = self._inside(f"{name}e", op.other, args, outs)
        return [Branch(self.storage[op.pred].buffer, then, other)]

    def _while(self, graph: Graph, eqn: Eqn, op: While) -> list[Step]:
        name = f"v{eqn.outs[0].id}"
        steps: list[Step] = []
        for start, out in zip(op.state, eqn.outs, strict=True):
            steps += self._deliver(graph, start, self.storage[out].buffer, self.orders[out])
        captured = [self._bound(c) for c in op.captured]
        state = [self._bound(o) for o in eqn.outs]
        flag = self.module.add("arena", f"{self.prefix}{name}.flag", op.test.results[0])
        test = self._inside(f"{name}t", op.test, [*captured, *state], [Binding(flag, ())])
        new = [
            Binding(self.module.add("arena", f"{self.prefix}{name}.{k}", out), self.orders[out])
            for k, out in enumerate(eqn.outs)
        ]
        body = self._inside(f"{name}b", op.body, [*captured, *state], new)
        moves = tuple(Copy(a.buffer, b.buffer) for a, b in zip(new, state, strict=True))
        return [*steps, Repeat(test, flag, (*body, *moves))]

    # ---- results

    def _deliver(self, graph: Graph, var: Var, buffer: str, order: Order) -> list[Step]:
        """Bring a result to its buffer, where it was not computed there."""
        source = self.storage[var]
        if source.buffer == buffer or var.type.count == 0:
            return []
        if order == self.orders[var]:
            return [Copy(source.buffer, buffer)]
        sizes = var.type.sizes
        to = Storage.dense(buffer, var.type.dtype, tuple((d, sizes[d]) for d in order))
        kernel, buffers = transposing_kernel(graph, var, source, to, self.module.memory)
        return self.module.launch(kernel, buffers)


def _operation(op: Op) -> str:
    """An equation's name, and the dims that it folds."""
    match op:
        case Map():
            return op.fn
        case Reduce() | ReduceAt():
            return f"{op.monoid.name}{{{','.join(op.dims)}}}"
        case Recur():
            return f"recur{{{','.join(op.over)}}}"
        case _:
            return type(op).__name__.lower()


def _note(graph: Graph, cluster: Cluster) -> str:
    """What a cluster computes, for people: its equations, and the user's lines that wrote them."""
    parts = []
    for root in cluster.roots:
        eqn = graph.eqn(root)
        if eqn is not None and eqn.outs[0] == root:
            where = f" at {eqn.loc}" if eqn.loc else ""
            parts.append(f"{root} = {_operation(eqn.op)}{where}")
    return "; ".join(parts)


def constant_bytes(op: Constant, var: Var) -> bytes:
    """A constant as it lies in memory."""
    if isinstance(op.value, Table):
        return op.value.data
    if var.type.dtype is bf16:
        bits = np.array(op.value, np.float32).view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return rounded.astype(np.uint16).tobytes()
    return np.array(op.value, var.type.dtype.numpy).tobytes()
