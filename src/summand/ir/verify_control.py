"""The verifier's rules for equations with sub-programs: recur, cond, while, custom.

What a body reads from outside is passed to it, so each rule compares the types of a sub-program's
parameters and results with those of the equation's operands and results.
"""

from __future__ import annotations

from collections.abc import Sequence

from summand.dtypes import bool_, i32
from summand.ir.nodes import Cond, Custom, Op, Program, Recur, Reduce, ReduceAt, Type, Var, While


class Fault(Exception):
    """A broken rule; `verify` adds the program's text."""


def need(holds: bool, fault: str) -> None:
    """Raise a Fault unless the rule holds."""
    if not holds:
        raise Fault(fault)


def programs_of(op: Op) -> tuple[Program, ...]:
    """The sub-programs of an equation."""
    match op:
        case Recur():
            return (op.body,)
        case Cond():
            return (op.then, op.other)
        case While():
            return (op.test, op.body)
        case Custom():
            return tuple(p for p in (op.primal, op.forward, op.backward) if p is not None)
        case Reduce() | ReduceAt():
            return (op.monoid.combine,) if op.monoid.combine else ()
        case _:
            return ()


def _types(variables: Sequence[Var]) -> list[Type]:
    return [v.type for v in variables]


def _same(what: str, found: Sequence[Type], wanted: Sequence[Type]) -> None:
    shown = ", ".join(map(str, found))
    expected = ", ".join(map(str, wanted))
    need(list(found) == list(wanted), f"{what}: found ({shown}), expected ({expected})")


def verify_recur(op: Recur, outs: Sequence[Var]) -> None:
    """A recurrence: signature, slices, and reads that are strictly earlier."""
    need(len(op.over) == len(op.forward) == len(op.sizes) > 0, "over, forward, sizes differ")
    need(len(set(op.over)) == len(op.over), "a dim occurs twice in over")
    need(len(op.inits) == len(op.reads), "one init is needed for each read")
    states = _types(op.body.results)
    for state in states:
        need(not state.names & set(op.over), f"a state of type {state} has a dim of over")
    for read in op.reads:
        need(0 <= read.state < len(states), f"there is no state {read.state}")
        need(len(read.shift) == len(op.over), f"{read} does not shift every dim of over")
        need(_earlier(read.shift, op.forward), f"{read} is not strictly earlier")
    wanted = [states[r.state] for r in op.reads]
    _same("inits at a position", [_slice(op, v.type) for v in op.inits], wanted)
    captured = [_slice(op, v.type) for v in op.captured]
    positions = [Type(i32)] * len(op.over)
    _same("parameters of the body", _types(op.body.params), [*wanted, *captured, *positions])
    need(len(op.keep) in (0, len(states)), "keep does not name every state")
    keep = op.keep or ("all",) * len(states)
    over = dict(zip(op.over, op.sizes, strict=True))
    results = [
        Type.of(s.dtype, {**s.sizes, **over}) if k == "all" else s
        for s, k in zip(states, keep, strict=True)
    ]
    _same("results", _types(outs), results)
    if 0 in op.sizes:
        need(all(k == "all" for k in keep), "no last state exists where a dim of over has size 0")


def _earlier(shift: Sequence[int], forward: Sequence[bool]) -> bool:
    for step, ahead in zip(shift, forward, strict=True):
        if step:
            return (step > 0) == ahead
    return False


def _slice(op: Recur, type_: Type) -> Type:
    for dim, size in zip(op.over, op.sizes, strict=True):
        found = type_.sizes.get(dim, size)
        need(found == size, f"{dim} has size {found} in an operand, {size} in over")
    return Type(type_.dtype, tuple(x for x in type_.dims if x[0] not in op.over))


def verify_cond(op: Cond, outs: Sequence[Var]) -> None:
    """Both branches take the arguments and give the results."""
    _same("the predicate", [op.pred.type], [Type(bool_)])
    for name, branch in (("then", op.then), ("other", op.other)):
        _same(f"parameters of {name}", _types(branch.params), _types(op.args))
        _same(f"results of {name}", _types(branch.results), _types(outs))


def verify_while(op: While, outs: Sequence[Var]) -> None:
    """Test and body take captured values and the state."""
    given = _types((*op.captured, *op.state))
    _same("parameters of the test", _types(op.test.params), given)
    _same("results of the test", _types(op.test.results), [Type(bool_)])
    _same("parameters of the body", _types(op.body.params), given)
    _same("results of the body", _types(op.body.results), _types(op.state))
    _same("results", _types(outs), _types(op.state))


def verify_custom(op: Custom, outs: Sequence[Var]) -> None:
    """The primal's signature; forward gives the results first, then what backward begins with."""
    _same("parameters of the primal", _types(op.primal.params), _types(op.args))
    _same("results of the primal", _types(op.primal.results), _types(outs))
    need((op.forward is None) == (op.backward is None), "forward and backward come together")
    if op.forward is None or op.backward is None:
        return
    _same("parameters of forward", _types(op.forward.params), _types(op.args))
    results = _types(op.forward.results)
    _same("results of forward", results[: len(outs)], _types(outs))
    residuals = results[len(outs) :]
    _same("parameters of backward", _types(op.backward.params)[: len(residuals)], residuals)
