"""From a Program to a Module: fuse, choose layouts, lower every cluster, place the buffers.

    %2 = sum{k} (%0 · %1)   ->   kernel k0: nest i j k;  steps: launch k0(p0, p1, r0)

Needs a Program without complex values, random bits, sorts, custom rules and foreign calls. Each
stage is a function of its own, so that the compiler can show what passes between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from summand.ir.nodes import Map, Program, Var
from summand.loops.nodes import Kernel, Layout, Module
from summand.options import Options, Target
from summand.rewrite.plan.copies import is_copy
from summand.rewrite.plan.fuse import fuse
from summand.rewrite.plan.nodes import Graph, Plan
from summand.schedule.unfinished import Unfinished
from summand.schedule.unit import Binding, Order, Unit


def lower(
    program: Program,
    param_order: Sequence[Order],
    result_order: Sequence[Order | None],
    target: Target,
    options: Options,
    scheduled: bool = True,
) -> Module:
    """The module of a program whose parameters and results lie in memory in the given orders
    (outermost dim first; None lets the compiler choose a result's)."""
    plan = fuse(program, target, options)
    return lower_plan(plan, param_order, result_order, target, options, scheduled)


def lower_plan(
    plan: Plan,
    param_order: Sequence[Order],
    result_order: Sequence[Order | None],
    target: Target,
    options: Options,
    scheduled: bool = True,
    made: Callable[[Kernel], None] | None = None,
) -> Module:
    """The module of a plan; `scheduled` says whether nests get lanes, tiles and tasks. Each kernel
    is handed to `made` as soon as it is what the module will hold."""
    module = Unfinished(target, options, scheduled=scheduled, made=made)
    bindings, results = _bindings(module, plan, param_order, result_order)
    steps, orders = Unit(module, plan, "").lower(bindings, results)
    param_layouts = [_layout(v, o) for v, o in zip(plan.program.params, param_order, strict=True)]
    result_layouts = [_layout(v, o) for v, o in zip(plan.program.results, orders, strict=True)]
    return module.finish(steps, param_layouts, result_layouts)


def turns_something(
    plan: Plan,
    param_order: Sequence[Order],
    result_order: Sequence[Order | None],
    target: Target,
    options: Options,
    innermost: bool,
) -> bool:
    """Whether copies of parameters or results in a plan get other orders than these: other
    `innermost` dims, or any other order."""
    module = Unfinished(target, options)
    unit = Unit(module, plan, "")
    unit.choose_orders(Graph.of(plan.program), *_bindings(module, plan, param_order, result_order))
    orders = unit.orders
    copies = ((e.out, e.op) for e in plan.program.eqns if is_copy(e))
    known = ((out, op.args[0]) for out, op in copies if isinstance(op, Map))
    pairs = [(orders[a], orders[b]) for a, b in known if a in orders and b in orders]
    return any(a[-1:] != b[-1:] if innermost else a != b for a, b in pairs)


def _bindings(
    module: Unfinished,
    plan: Plan,
    param_order: Sequence[Order],
    result_order: Sequence[Order | None],
) -> tuple[list[Binding], list[Binding]]:
    """Buffers of the parameters and results."""
    params = []
    for k, var in enumerate(plan.program.params):
        params.append(module.add("param", f"p{k}", var, k))
    bindings = [Binding(name, order) for name, order in zip(params, param_order, strict=True)]
    results = []
    locs = {v: eqn.loc for eqn in plan.program.eqns for v in eqn.outs}
    for k, (var, wanted) in enumerate(zip(plan.program.results, result_order, strict=True)):
        results.append(Binding(module.add("result", f"r{k}", var, k, locs.get(var)), wanted))
    return bindings, results


def _layout(var: Var, order: Order) -> Layout:
    sizes = var.type.sizes
    return Layout(tuple((d, sizes[d]) for d in order))
