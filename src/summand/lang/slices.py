"""The body of a recurrence: equations over whole arrays, turned into those at one position.

    %2{t,s} = mul a{t,s} h'{t,s}     ->     %2{s} = mul a{s} h'{s}     a is passed as its slice

Every equation that depends on the state must work position by position: elementwise along the
`over` dims, free to do anything along others. One that mixes positions of its own state is an
error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from summand.dtypes import i32
from summand.errors import Loc, RecurrenceError
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import (
    Cond,
    Constant,
    Custom,
    Eqn,
    Index,
    Interleave,
    Iota,
    Map,
    Op,
    Program,
    RandomBits,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Sort,
    TopK,
    Type,
    Var,
    While,
    operands,
    with_operands,
)
from summand.lang.describe import Names, message, source_row
from summand.lang.graph import Node, Sized
from summand.lang.trace import extract


def body_at(
    results: Sequence[Sized],
    reads: Sequence[Sized],
    over: tuple[str, ...],
    since: int,
    loc: Loc | None,
) -> tuple[Program, tuple[Sized, ...]]:
    """The body's program, and the outer values that it is given slices of.

    `since` is the serial when the step began to run.
    """
    extracted = extract(results, reads, since, own=lambda node: _decides(node, over))
    slicer = _Slicer(over, loc)
    program = extracted.program
    for param in program.params[: len(reads)]:
        slicer.env[param] = slicer.b.param(slicer.sliced(param.type))
    kept: list[Sized] = []
    later: list[tuple[Var, Sized]] = []
    for param, value in zip(program.params[len(reads) :], extracted.captured, strict=True):
        if (isinstance(value.node.op, Iota) and value.node.op.dim in over) or (
            isinstance(value.node.op, Constant) and not value.type.dims
        ):
            later.append((param, value))
        else:
            slicer.env[param] = slicer.b.param(slicer.sliced(param.type))
            kept.append(value)
    slicer.positions = {d: slicer.b.param(Type(i32)) for d in over}
    for param, value in later:
        slicer.env[param] = slicer.inner(value)
    for eqn in program.eqns:
        slicer.eqn(eqn)
    return slicer.b.finish([slicer.env[r] for r in program.results]), tuple(kept)


def _decides(node: Node, over: tuple[str, ...]) -> bool:
    """Control by a number at the position, which no equation over whole arrays can be."""
    match node.op:
        case Cond():
            return any(d in over for d in node.op.pred.type.names)
        case While():
            return any(d in over for d in node.op.test.results[0].type.names)
        case _:
            return False


class _Slicer:
    """Builds the body equation by equation; `env` maps whole values to those at the position."""

    def __init__(self, over: tuple[str, ...], loc: Loc | None) -> None:
        self.b = Builder()
        self.env: dict[Var, Var] = {}
        self.order = over
        self.over = frozenset(over)
        self.positions: dict[str, Var] = {}
        self.loc = loc

    def sliced(self, type_: Type) -> Type:
        """A type without the `over` dims."""
        return Type(type_.dtype, tuple(x for x in type_.dims if x[0] not in self.over))

    def inner(self, value: Sized) -> Var:
        """A position or a constant, which need not be passed in."""
        op = value.node.op
        if isinstance(op, Iota):
            return self.b.convert(self.positions[op.dim], value.dtype)
        assert isinstance(op, Constant)
        return self.b.emit(op, [value.type])[0]

    def eqn(self, eqn: Eqn) -> None:
        """One equation at the position."""
        op = eqn.op
        self.b.loc = eqn.loc
        match op:
            case Iota() if op.dim in self.over:
                position = self.positions[op.dim]
                self.env[eqn.out] = self.b.convert(position, eqn.out.type.dtype)
            case Map():
                args = tuple(self.env[a] for a in op.args)
                self._put(eqn, Map(op.fn, args))
            case Reduce():
                self._need(not self.over & set(op.dims), eqn, "folds")
                self._put(eqn, with_operands(op, self.env))
            case Reindex():
                self._reindex(eqn, op)
            case ReduceAt():
                touched = set(op.dims) | {d for d, _ in op.index}
                self._need(not self.over & touched, eqn, "folds")
                index = self._index(eqn, op.index)
                args = tuple(self.env[a] for a in op.args)
                self._put(eqn, ReduceAt(op.monoid, op.dims, args, index, op.mode))
            case Sort() | TopK():
                self._need(op.dim not in self.over, eqn, "sorts")
                self._put(eqn, with_operands(op, self.env))
            case Interleave():
                self._need(not self.over & {d for d, _ in op.dims}, eqn, "interleaves")
                self._put(eqn, with_operands(op, self.env))
            case RandomBits():
                self._need(not self.over & set(op.dims), eqn, "draws random bits along")
                self._put(eqn, with_operands(op, self.env))
            case Cond():
                self._choose(eqn, op)
            case Recur() | While() | Custom():
                self._put(eqn, self._with_programs(eqn, op))
            case _:
                whole = any(self.over & v.type.names for v in (*operands(op), *eqn.outs))
                self._need(not whole, eqn, "needs all positions of")
                self._put(eqn, with_operands(op, self.env))

    def _choose(self, eqn: Eqn, op: Cond) -> None:
        """Both branches and a choice: at one position they are small, and a kernel has no jumps."""
        args = (*(self.env[a] for a in op.args), *(self.positions[d] for d in self.order))
        then, other = (
            self.b.inline(self.program(p, len(op.args)), args) for p in (op.then, op.other)
        )
        for out, x, y in zip(eqn.outs, then, other, strict=True):
            self.env[out] = self.b.map("where", self.env[op.pred], x, y)

    def _with_programs(self, eqn: Eqn, op: Recur | While | Custom) -> Op:
        """An equation whose sub-programs are sliced too; they are passed the positions."""
        here = tuple(self.positions[d] for d in self.order)

        def of(variables: Sequence[Var]) -> tuple[Var, ...]:
            return tuple(self.env[v] for v in variables)

        match op:
            case Recur():
                self._need(not self.over & set(op.over), eqn, "runs a recurrence")
                body = self.program(op.body, len(op.reads) + len(op.captured))
                return replace(
                    op, inits=of(op.inits), captured=(*of(op.captured), *here), body=body
                )
            case While():
                test, body = (self.program(p, len(op.captured)) for p in (op.test, op.body))
                return While(test, body, (*of(op.captured), *here), of(op.state))
            case Custom():
                return self._custom(op, (*of(op.args), *here))
            case _:
                assert_never(op)

    def _custom(self, op: Custom, args: tuple[Var, ...]) -> Custom:
        """Forward hands the positions on to backward, after its own residuals."""
        count = len(op.args)
        primal = self.program(op.primal, count)
        if op.forward is None or op.backward is None:
            return Custom(primal, None, None, args)
        forward = self.program(op.forward, count)
        residuals = len(op.forward.results) - len(op.primal.results)
        forward = replace(forward, results=(*forward.results, *forward.params[count:]))
        return Custom(primal, forward, self.program(op.backward, residuals), args)

    def program(self, program: Program, count: int) -> Program:
        """A sub-program at the position; the positions follow its first `count` parameters."""
        sub = _Slicer(self.order, self.loc)
        for param in program.params[:count]:
            sub.env[param] = sub.b.param(self.sliced(param.type))
        sub.positions = {d: sub.b.param(Type(i32)) for d in self.order}
        for param in program.params[count:]:
            sub.env[param] = sub.b.param(self.sliced(param.type))
        for eqn in program.eqns:
            sub.eqn(eqn)
        return sub.b.finish([sub.env[r] for r in program.results])

    def _put(self, eqn: Eqn, op: Op) -> None:
        types = [self.sliced(o.type) for o in eqn.outs]
        outs = self.b.emit(op, types, eqn.loc)
        self.env.update(zip(eqn.outs, outs, strict=True))

    def _reindex(self, eqn: Eqn, op: Reindex) -> None:
        self._need(not any(d in self.over for d, _ in op.index), eqn, "re-indexes")
        new = Reindex(self.env[op.arg], self._index(eqn, op.index), op.mode, op.fill)
        self._put(eqn, new)

    def _index(
        self, eqn: Eqn, index: tuple[tuple[str, Index], ...]
    ) -> tuple[tuple[str, Index], ...]:
        """Indices at the position: a form that reads the position becomes a value."""
        out: list[tuple[str, Index]] = []
        for dim, i in index:
            if isinstance(i, Var):
                out.append((dim, self.env[i]))
            elif i.dims & self.over:
                out.append((dim, self._value(i, eqn)))
            else:
                out.append((dim, i))
        return tuple(out)

    def _value(self, form: Form, eqn: Eqn) -> Var:
        """A form as an integer value, with positions for the `over` dims."""
        sizes = {d: n for v in (*operands(eqn.op), *eqn.outs) for d, n in v.type.dims}
        total = self.b.constant(form.const, i32)
        for atom, coefficient in form.terms:
            if isinstance(atom, str):
                here = self.positions.get(atom)
                term = here if here is not None else self.b.iota(atom, sizes[atom])
            else:
                fn = "floordiv" if atom.op == "//" else "mod"
                inner = self._value(atom.form, eqn)
                term = self.b.map(fn, inner, self.b.constant(atom.by, i32))
            term = self.b.map("mul", term, self.b.constant(coefficient, i32))
            total = self.b.map("add", total, term)
        return total

    def _need(self, holds: bool, eqn: Eqn, what: str) -> None:
        if holds:
            return
        names = Names(self.over)
        listed = names.list(sorted(self.over))
        header = f"the step of a recurrence over {listed} {what} its own state along {listed}"
        rows = [*source_row(eqn.loc), *source_row(self.loc)]
        advice = "At one position only earlier states are there: read each as h[t: t - 1]."
        raise RecurrenceError(message(header, rows, advice))
