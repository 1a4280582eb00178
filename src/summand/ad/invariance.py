"""Reductions whose value cancels, so that nothing flows back through them.

    m = max{k} z; e = exp(sub z m); s = sum{k} e; p = div e s      p does not depend on m

A maximum is subtracted so that exp stays in range; its derivative is zero, but selecting an element
and scattering to it is not free, and keeps kernels apart. For each max and min, this analysis
follows how values depend on it, as if it were free:

    shift c:  v + c·m          scale c:  v · exp(c·m)          neither: the analysis gives up

If no wanted result depends on it in the end, its derivative is exactly zero and is cut.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from summand.ir.nodes import (
    Constant,
    Eqn,
    Index,
    Map,
    Program,
    Reduce,
    ReduceAt,
    Reindex,
    Scalar,
    Table,
    Var,
    operands,
)

EXTREMES = ("max", "min")


@dataclass(frozen=True, slots=True)
class Depends:
    """v + by·m ("shift") or v · exp(by·m) ("scale")."""

    kind: Literal["shift", "scale"]
    by: float


class _Unknown(Exception):
    """A dependence of another kind."""


def cancelled(program: Program, seeded: Sequence[bool]) -> frozenset[Var]:
    """The results of max and min reductions on which no seeded result depends."""
    found = [e for e in program.eqns if _is_extreme(e)]
    if not found:
        return frozenset()
    readers: dict[Var, list[int]] = {}
    for number, eqn in enumerate(program.eqns):
        for var in dict.fromkeys(operands(eqn.op)):
            readers.setdefault(var, []).append(number)
    wanted = {r for r, s in zip(program.results, seeded, strict=True) if s}
    constants = {
        e.out: e.op.value
        for e in program.eqns
        if isinstance(e.op, Constant) and not isinstance(e.op.value, Table)
    }
    return frozenset(e.out for e in found if _cancels(program, e.out, readers, wanted, constants))


def _is_extreme(eqn: Eqn) -> bool:
    op = eqn.op
    return isinstance(op, Reduce) and op.monoid.name in EXTREMES and op.monoid.combine is None


def _cancels(
    program: Program,
    start: Var,
    readers: Mapping[Var, Sequence[int]],
    wanted: set[Var],
    constants: Mapping[Var, Scalar],
) -> bool:
    known = {start: Depends("shift", 1.0)}
    if start in wanted:
        return False
    pending = list(readers.get(start, ()))
    heapq.heapify(pending)
    done = -1
    while pending:
        number = heapq.heappop(pending)
        if number == done:
            continue
        done = number
        eqn = program.eqns[number]
        try:
            found = _after(eqn, known, constants, start.type.names)
        except _Unknown:
            return False
        if found is None or found.by == 0:
            continue
        if eqn.out in wanted:
            return False
        known[eqn.out] = found
        for reader in readers.get(eqn.out, ()):
            heapq.heappush(pending, reader)
    return True


def _after(
    eqn: Eqn, known: Mapping[Var, Depends], constants: Mapping[Var, Scalar], dims: frozenset[str]
) -> Depends | None:
    """How an equation's result depends on a value with `dims`; None: not at all."""
    match eqn.op:
        case Map():
            return _map(eqn.op, known, constants)
        case Reduce():
            return _reduce(eqn.op, known, dims)
        case Reindex(arg=arg, index=index, mode=mode, fill=fill):
            _aligned(index, dims)
            found = known.get(arg)
            if found is None or (mode == "fill" and (found.kind == "shift" or fill != 0)):
                raise _Unknown
            return found
        case ReduceAt():
            op = eqn.op
            _aligned(op.index, dims)
            if op.monoid.name != "sum" or op.monoid.combine or set(op.dims) & dims:
                raise _Unknown
            return _scale(known.get(op.args[0]))
        case _:
            raise _Unknown


def _aligned(index: Sequence[tuple[str, Index]], dims: frozenset[str]) -> None:
    for d, i in index:
        read = i.type.names if isinstance(i, Var) else i.dims
        if d in dims or (read & dims and not isinstance(i, Var)):
            raise _Unknown


def _scale(found: Depends | None) -> Depends:
    if found is None or found.kind != "scale":
        raise _Unknown
    return found


def _reduce(op: Reduce, known: Mapping[Var, Depends], dims: frozenset[str]) -> Depends:
    found = known[op.args[0]]
    if op.monoid.combine is not None or set(op.dims) & dims:
        raise _Unknown
    match op.monoid.name:
        case "sum":
            return _scale(found)
        case "prod":
            sizes = op.args[0].type.sizes
            return Depends("scale", _scale(found).by * math.prod(sizes[d] for d in op.dims))
        case "max" | "min":
            return found
        case _:
            raise _Unknown


def _map(op: Map, known: Mapping[Var, Depends], constants: Mapping[Var, Scalar]) -> Depends | None:
    found = [known.get(a) for a in op.args]
    match op.fn:
        case "add" | "sub":
            return _sum(op, found, constants)
        case "mul" | "div":
            return _product(op, found, constants)
        case "where":
            return _chosen(op, found, constants)
        case "max" | "min":
            return _same(found)
        case "lt" | "le" | "gt" | "ge" | "eq" | "ne":
            _same(found)
            return None
        case "pow":
            return _power(op, found, constants)
        case _:
            return _unary(op.fn, found)


def _unary(fn: str, found: Sequence[Depends | None]) -> Depends | None:
    (one,) = found if len(found) == 1 else (None,)
    if one is None:
        raise _Unknown
    match fn, one.kind:
        case (("convert" | "barrier" | "stop_gradient"), _):
            return one
        case "exp", "shift":
            return Depends("scale", one.by)
        case "log", "scale":
            return Depends("shift", one.by)
        case "neg", "shift":
            return Depends("shift", -one.by)
        case (("neg" | "abs"), "scale"):
            return one
        case "sqrt", "scale":
            return Depends("scale", one.by / 2)
        case "rsqrt", "scale":
            return Depends("scale", -one.by / 2)
        case "sign", "scale":
            return None
        case _:
            raise _Unknown


def _same(found: Sequence[Depends | None]) -> Depends | None:
    if any(f != found[0] for f in found):
        raise _Unknown
    return found[0]


def _sum(
    op: Map, found: Sequence[Depends | None], constants: Mapping[Var, Scalar]
) -> Depends | None:
    left, right = found
    if "scale" in (getattr(left, "kind", None), getattr(right, "kind", None)):
        return _chosen_parts(op.args, found, constants, neutral=(0,))
    sign = 1 if op.fn == "add" else -1
    by = (left.by if left else 0.0) + sign * (right.by if right else 0.0)
    return Depends("shift", by)


def _product(
    op: Map, found: Sequence[Depends | None], constants: Mapping[Var, Scalar]
) -> Depends | None:
    left, right = found
    sign = 1 if op.fn == "mul" else -1
    kinds = {f.kind for f in found if f is not None}
    if kinds == {"scale"}:
        by = (left.by if left else 0.0) + sign * (right.by if right else 0.0)
        return Depends("scale", by)
    shift, other = (left, op.args[1]) if left is not None else (right, op.args[0])
    factor = constants.get(other)
    plain = isinstance(factor, int | float) and (op.fn == "mul" or shift is left)
    if shift is None or not plain or (left and right) or not factor:
        raise _Unknown
    value = float(factor.real)
    return Depends("shift", shift.by * (value if op.fn == "mul" else 1 / value))


def _chosen(
    op: Map, found: Sequence[Depends | None], constants: Mapping[Var, Scalar]
) -> Depends | None:
    if found[0] is not None:
        raise _Unknown
    shifted = any(f is not None and f.kind == "shift" for f in found)
    neutral = (-math.inf, math.inf) if shifted else (0,)
    return _chosen_parts(op.args[1:], found[1:], constants, neutral)


def _chosen_parts(
    args: Sequence[Var],
    found: Sequence[Depends | None],
    constants: Mapping[Var, Scalar],
    neutral: Sequence[float],
) -> Depends | None:
    """The same dependence in all parts; a neutral constant has any."""
    kept = [
        f
        for a, f in zip(args, found, strict=True)
        if f is not None or constants.get(a) not in neutral
    ]
    return _same(kept)


def _power(
    op: Map, found: Sequence[Depends | None], constants: Mapping[Var, Scalar]
) -> Depends | None:
    exponent = constants.get(op.args[1])
    if found[1] is not None or not isinstance(exponent, int | float):
        raise _Unknown
    return Depends("scale", _scale(found[0]).by * float(exponent))
