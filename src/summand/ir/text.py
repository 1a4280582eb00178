"""The tensor IR as text: one equation a line. Complete and deterministic, so it is the cache's key.

    program (%0: f32{i=4,k=3}, %1: f32{j=2,k=3}) {
      %2: f32{i=4,j=2,k=3} = mul %0 %1
      %3: f32{i=4,j=2} = reduce sum {k} %2
      %4: f32{i=3,j=2} = reindex %3 {i: i + 1} trusted
      return %4
    }

Source locations are left out. `parse` reads it back: parse(text(p)) == p.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import assert_never

import numpy as np

from summand.ir.nodes import (
    NAMED,
    Call,
    Cond,
    Constant,
    Custom,
    Eqn,
    Group,
    Index,
    Interleave,
    Iota,
    Map,
    Monoid,
    Op,
    Program,
    RandomBits,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Scalar,
    Sort,
    Table,
    TopK,
    Type,
    Var,
    While,
)
from summand.ir.parse import parse

__all__ = ["equation", "parse", "scalar_text", "text"]

_SHOWN = 8  # a table of at most so many elements is written as numbers, a larger one in hex


def text(program: Program) -> str:
    """The program as text, ending in a newline."""
    return f"program {_block(program, '')}\n"


def _block(program: Program, indent: str) -> str:
    inner = indent + "  "
    params = ", ".join(_declared(p) for p in program.params)
    lines = [f"({params}) {{"]
    lines += [inner + equation(eqn, inner) for eqn in program.eqns]
    lines.append(f"{inner}return {_names(program.results, ', ')}".rstrip())
    lines.append(indent + "}")
    return "\n".join(lines)


def equation(eqn: Eqn, indent: str = "") -> str:
    """One equation without its own indentation; bodies take further lines, indented by `indent`."""
    outs = ", ".join(_declared(o) for o in eqn.outs)
    return f"{outs} = {_op(eqn.op, eqn.outs, indent)}"


def scalar_text(value: Scalar) -> str:
    """A scalar so that Python reads it back exactly, type included."""
    if isinstance(value, np.generic):
        return scalar_text(value.item())
    return repr(value)


def _declared(var: Var) -> str:
    return f"%{var.id}: {var.type}"


def _names(variables: Iterable[Var], between: str = " ") -> str:
    return between.join(f"%{v.id}" for v in variables)


def _list(variables: Iterable[Var]) -> str:
    return f"({_names(variables, ', ')})"


def _index(index: tuple[tuple[str, Index], ...]) -> str:
    return "{" + ", ".join(f"{d}: {i}" for d, i in index) + "}"


def _monoid(monoid: Monoid, indent: str) -> str:
    if NAMED.get(monoid.name) == monoid:
        return monoid.name
    flags = [f for f in ("commutative", "idempotent", "invertible") if getattr(monoid, f)]
    identity = ", ".join(scalar_text(v) for v in monoid.identity)
    head = " ".join(["monoid", json.dumps(monoid.name), f"[{identity}]", *flags])
    return f"{head} {_block(monoid.combine, indent)}" if monoid.combine else f"{head} named"


def _op(op: Op, outs: tuple[Var, ...], indent: str) -> str:
    match op:
        case Map():
            return f"{op.fn} {_names(op.args)}"
        case Reduce():
            dims = ", ".join(op.dims)
            return f"reduce {_monoid(op.monoid, indent)} {{{dims}}} {_names(op.args)}"
        case Reindex():
            filled = op.mode == "fill" or op.fill != 0 or type(op.fill) is not int
            fill = f" {scalar_text(op.fill)}" if filled else ""
            return f"reindex %{op.arg.id} {_index(op.index)} {op.mode}{fill}"
        case ReduceAt():
            head = f"reduce_at {_monoid(op.monoid, indent)} {{{', '.join(op.dims)}}}"
            return f"{head} {_names(op.args)} {_index(op.index)} {op.mode}"
        case Interleave():
            dims = ", ".join(f"{d} {stride}" for d, stride in op.dims)
            return f"interleave ({dims}) {_list(op.parts)}"
        case Group():
            return f"group %{op.index.id} {op.size} {op.places}"
        case Iota():
            return f"iota {op.dim}"
        case Constant():
            if isinstance(op.value, Table):
                return f"constant {_table(op.value, outs[0].type)}"
            return f"constant {scalar_text(op.value)}"
        case RandomBits():
            return f"random_bits %{op.key.id} ({', '.join(op.dims)})"
        case Recur() | Cond() | While() | Custom():
            return _control(op, indent)
        case Sort():
            return f"sort %{op.arg.id} {op.dim}{' descending' if op.descending else ''}"
        case TopK():
            return f"top_k %{op.arg.id} {op.dim} {op.out}"
        case Call():
            return f"call {json.dumps(op.name)} {_list(op.args)}"
        case _:
            assert_never(op)


def _control(op: Recur | Cond | While | Custom, indent: str) -> str:
    match op:
        case Recur():
            steps = zip(op.over, op.forward, op.sizes, strict=True)
            over = ", ".join(f"{d} {'forward' if f else 'backward'} {n}" for d, f, n in steps)
            reads = ", ".join(f"{r.state}[{', '.join(map(str, r.shift))}]" for r in op.reads)
            keep = f" keep ({', '.join(op.keep)})" if op.keep else ""
            head = f"recur ({over}) ({reads}) {_list(op.inits)} {_list(op.captured)}{keep}"
            return f"{head} {_block(op.body, indent)}"
        case Cond():
            then, other = _block(op.then, indent), _block(op.other, indent)
            return f"cond %{op.pred.id} {_list(op.args)} {then} {other}"
        case While():
            test, body = _block(op.test, indent), _block(op.body, indent)
            return f"while {_list(op.captured)} {_list(op.state)} {test} {body}"
        case Custom():
            parts = [_block(op.primal, indent)]
            parts += [f"forward {_block(op.forward, indent)}"] if op.forward else []
            parts += [f"backward {_block(op.backward, indent)}"] if op.backward else []
            return f"custom {_list(op.args)} {' '.join(parts)}"
        case _:
            assert_never(op)


def _table(table: Table, type_: Type) -> str:
    order = f"({', '.join(table.order)})"
    if type_.count <= _SHOWN and type_.dtype.kind in ("bool", "int", "uint"):
        values = np.frombuffer(table.data, type_.dtype.numpy)
        return f"table {order} [{', '.join(scalar_text(v) for v in values)}]"
    return f"table {order} {table.data.hex() or 'empty'}"
