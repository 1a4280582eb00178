"""A plan as text: its kernels in order, what each stores, and the equations that it evaluates.

kernel 0: shared i=256
  stage -> %3 (scratch)
    %3: f32{i=256} = reduce max {j} %0
  stage -> %7
    %7: f32{i=256,j=64} = div %4 %6
    inlined: %4 %5
cond -> %9 %10
"""

from __future__ import annotations

from collections.abc import Iterator

from summand.ir.nodes import Constant, Eqn, Var, operands
from summand.ir.text import equation
from summand.rewrite.plan.nodes import Cluster, Control, Graph, Plan, Stage


def text(plan: Plan) -> str:
    """The whole plan; deterministic."""
    graph = Graph.of(plan.program)
    stored = set(plan.program.params)
    for item in plan.items:
        stored |= set(item.roots if isinstance(item, Cluster) else item.eqn.outs)
    lines: list[str] = []
    kernels = 0
    for item in plan.items:
        match item:
            case Cluster():
                shared = " ".join(f"{d}={n}" for d, n in item.shared)
                lines.append(f"kernel {kernels}:{' shared ' if shared else ''}{shared}")
                kernels += 1
                for stage in item.stages:
                    lines += _stage(graph, item, stage, frozenset(stored), "  ")
            case Control():
                name = type(item.eqn.op).__name__.lower()
                lines.append(f"{name} -> {_names(item.eqn.outs)}")
    lines.append(f"return {_names(plan.program.results)}")
    return "\n".join(lines)


def _stage(
    graph: Graph, cluster: Cluster, stage: Stage, stored: frozenset[Var], indent: str
) -> Iterator[str]:
    where = [f"{v} (scratch)" if v in cluster.scratch else str(v) for v in stage.roots]
    over = " ".join(dict.fromkeys(d for s in stage.sums for d in s.dims))
    yield f"{indent}stage -> {' '.join(where)}{', summed over tiles of ' if over else ''}{over}"
    seen: set[Var] = set()
    for root in stage.roots:
        eqn = graph.eqn(root)
        if eqn is None or eqn.outs[0] in seen:
            continue
        seen |= set(eqn.outs)
        yield f"{indent}  {equation(eqn).splitlines()[0]}"
    inlined = sorted(_inlined(graph, stage, stored), key=lambda v: v.id)
    if inlined:
        yield f"{indent}  inlined: {_names(inlined)}"
    for inner in stage.body:
        yield from _stage(graph, cluster, inner, stored, indent + "  ")


def _inlined(graph: Graph, stage: Stage, stored: frozenset[Var]) -> set[Var]:
    """Values that the stage evaluates without storing them, constants aside."""
    found: set[Var] = set()
    waiting = [e for v in stage.roots if (e := graph.eqn(v)) is not None]
    while waiting:
        for var in operands(waiting.pop().op):
            eqn = graph.eqn(var)
            if var in stored or var in found or not _counts(eqn):
                continue
            found.add(var)
            if eqn is not None:
                waiting.append(eqn)
    return found


def _counts(eqn: Eqn | None) -> bool:
    return eqn is not None and not isinstance(eqn.op, Constant)


def _names(variables: tuple[Var, ...] | list[Var]) -> str:
    return " ".join(str(v) for v in variables)
