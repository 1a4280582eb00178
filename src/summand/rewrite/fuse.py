"""Cut a program into kernels: what is stored, what its readers evaluate, what runs together.

    %2 = exp %0; %3 = sum{j} %2; %4 = div %2 %3   ->   cluster [%3 with %2 inlined], cluster [%4 …]

Needs a Program without complex values, random bits, sorts and custom rules. Keeps every result.
"""

from __future__ import annotations

from collections.abc import Iterable

from summand.ir.nodes import (
    Constant,
    Eqn,
    Iota,
    Map,
    Program,
    Recur,
    Reduce,
    Reindex,
    Table,
    Var,
    operands,
)
from summand.options import Options, Target
from summand.rewrite.costs import is_free, move_cycles, point_cost, slot_cycles
from summand.rewrite.plan import (
    Cluster,
    Control,
    Graph,
    Item,
    Plan,
    Stage,
    is_control,
    unique_bodies,
)

DEPTH = 48  # equations between a stored value and what it reads; bounds the size of a nest


def fuse(program: Program, target: Target, options: Options) -> Plan:
    """The plan of a program."""
    program = unique_bodies(program)
    graph = Graph.of(program)
    stored = stored_values(graph, program, target)
    items: list[Item] = []
    for eqn in program.eqns:
        roots = tuple(o for o in eqn.outs if o in stored)
        if is_control(eqn):
            items.append(Control(eqn))
        elif roots and not isinstance(eqn.op, Constant):
            items.append(Cluster((stage_of(graph, eqn, roots, target),)))
    return Plan(program, tuple(items))


def stage_of(graph: Graph, eqn: Eqn, roots: tuple[Var, ...], target: Target) -> Stage:
    """The stage that computes an equation's results."""
    if not isinstance(eqn.op, Recur):
        return Stage(roots)
    if in_registers(graph, eqn, eqn.op):
        return Stage(roots)
    return Stage(roots, tuple(_body_stages(graph, eqn.op.body, target)))


def _body_stages(graph: Graph, body: Program, target: Target) -> Iterable[Stage]:
    stored = stored_values(graph, body, target)
    for eqn in body.eqns:
        roots = tuple(o for o in eqn.outs if o in stored)
        if roots:
            yield stage_of(graph, eqn, roots, target)


# ---- what is stored


def stored_values(graph: Graph, program: Program, target: Target) -> set[Var]:
    """Values of a program that get memory of their own."""
    wanted = set(program.results)
    used = _used(program)
    stored: set[Var] = set()
    depth: dict[Var, int] = {}
    cost: dict[Var, float] = {}
    for eqn in program.eqns:
        below = max((depth.get(v, 0) for v in operands(eqn.op)), default=0)
        price = point_cost(eqn) + sum(cost.get(v, 0.0) for v in dict.fromkeys(operands(eqn.op)))
        for out in eqn.outs:
            if out not in used and out not in wanted:
                continue
            if out in wanted or _must_store(graph, eqn, out):
                keep = True
            elif is_free(eqn):
                keep = False
            else:
                keep = below >= DEPTH or _worth(graph, out, price, target)
            if keep:
                stored.add(out)
            depth[out] = 0 if keep else below + (0 if is_free(eqn) else 1)
            cost[out] = 0.0 if keep else price
    return stored


def _used(program: Program) -> set[Var]:
    return {v for eqn in program.eqns for v in operands(eqn.op)}


def _must_store(graph: Graph, eqn: Eqn, out: Var) -> bool:
    match eqn.op:
        case Map() | Reindex() | Iota():
            return any(is_control(r) for r in graph.readers.get(out, ()))
        case Constant():
            control = any(is_control(r) for r in graph.readers.get(out, ()))
            return control or isinstance(eqn.op.value, Table)
        case _:
            return True


def _worth(graph: Graph, out: Var, price: float, target: Target) -> bool:
    """Whether storing a value costs less than evaluating it in every reader."""
    points = sum(_points(graph, reader, out) for reader in graph.readers.get(out, ()))
    extra = max(points - out.type.count, 0)
    recompute = slot_cycles(price * extra, out.type.dtype.bits, target)
    return recompute > move_cycles(out.type.nbytes, target)


def _points(graph: Graph, reader: Eqn, var: Var) -> int:
    """How many elements of a value a reader evaluates (with repeats), where it is not stored.

    A vectoriser evaluates a register tile at once, so a reduction re-evaluates less than it reads.
    """
    match reader.op:
        case Reduce():
            return reader.op.args[0].type.count
        case Recur():
            steps = 1
            for n in reader.op.sizes:
                steps *= n
            widest = max((o.type.count for e in reader.op.body.eqns for o in e.outs), default=1)
            return max(steps * widest, var.type.count)
        case _:
            return max((o.type.count for o in reader.outs), default=1)


# ---- recurrences


def in_registers(graph: Graph, eqn: Eqn, op: Recur) -> bool:
    """Whether one nest can run a recurrence with its states in registers: one dim, each read one
    step back, and only maps of the states at their own place."""
    if len(op.over) != 1:
        return False
    back = 1 if op.forward[0] else -1
    if any(r.shift != (back,) for r in op.reads):
        return False
    names = [r.type.names for r in op.body.results]
    if any(n != names[0] for n in names):
        return False
    return all(_pointwise(e, names[0]) for e in op.body.eqns) and all(
        p.type.names <= names[0] for p in op.body.params
    )


def _pointwise(eqn: Eqn, names: frozenset[str]) -> bool:
    match eqn.op:
        case Map() | Iota():
            return eqn.out.type.names <= names
        case Constant():
            return not isinstance(eqn.op.value, Table)
        case _:
            return False
