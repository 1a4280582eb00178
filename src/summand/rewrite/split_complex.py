"""Write complex values as pairs of real ones: the loop IR has no complex numbers.

    (%0: complex64{i=4})              ->   (%0: f32{i=4,re_im=2})
      %1 = mul %0 %0                         %1, %2 = real and imaginary part of %0
      return %1                              %3 = %1*%1 - %2*%2;  %4 = %1*%2 + %2*%1
                                             return where (re_im == 0) %3 %4

Parameters and results of the program get a further dim `re_im` of size 2, which laid out innermost
is how complex arrays lie in memory. Inside, and at borders of bodies, each complex value is two.
The formulas of the functions are in `complex_ops`.

Needs a verified Program without custom derivatives. Keeps results up to rounding; a program without
complex values is left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from summand.dtypes import DType, real_part
from summand.errors import DTypeError, layout
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import (
    SUM,
    Call,
    Cond,
    Constant,
    Custom,
    Eqn,
    Group,
    Interleave,
    Iota,
    Keep,
    Map,
    Monoid,
    Op,
    Program,
    RandomBits,
    Read,
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
    with_operands,
)
from summand.ir.verify_control import programs_of
from summand.rewrite.complex_ops import Pair, complex_map, of_complex

PARTS = "re_im"  # the dim of a parameter's or result's two parts


def split_complex(program: Program) -> Program:
    """A program of real values only."""
    if not _has_complex(program):
        return program
    new = _Splitter()
    for param in program.params:
        if not param.type.dtype.is_complex:
            new.real[param] = new.param(param.type)
            continue
        both = new.param(stacked(param.type))
        parts = [new.reindex(both, {PARTS: Form.of(n)}, {}) for n in (0, 1)]
        new.pairs[param] = (parts[0], parts[1])
    for eqn in program.eqns:
        new.equation(eqn)
    return new.finish([new.joined(r) for r in program.results])


def stacked(type_: Type) -> Type:
    """The type of a complex parameter or result after the split; other types stay."""
    if not type_.dtype.is_complex:
        return type_
    return Type.of(real_part(type_.dtype), {**type_.sizes, PARTS: 2})


def _has_complex(program: Program) -> bool:
    variables = [*program.params, *(o for e in program.eqns for o in e.outs)]
    if any(v.type.dtype.is_complex for v in variables):
        return True
    return any(_has_complex(p) for e in program.eqns for p in programs_of(e.op))


def _paired(program: Program) -> Program:
    """A sub-program whose complex parameters and results are two each."""
    new = _Splitter()
    for param in program.params:
        parts = [new.param(t) for t in _part_types(param.type)]
        new.keep(param, parts)
    for eqn in program.eqns:
        new.equation(eqn)
    return new.finish([v for r in program.results for v in new.parts(r)])


def _part_types(type_: Type) -> list[Type]:
    if not type_.dtype.is_complex:
        return [type_]
    return [type_.with_dtype(real_part(type_.dtype))] * 2


class _Splitter(Builder):
    """Builds the real program; knows the part or parts that stand for each old value."""

    def __init__(self) -> None:
        super().__init__()
        self.real: dict[Var, Var] = {}
        self.pairs: dict[Var, Pair] = {}

    def parts(self, var: Var) -> tuple[Var, ...]:
        """One value for a real one, two for a complex one."""
        return self.pairs[var] if var in self.pairs else (self.real[var],)

    def all_parts(self, variables: Sequence[Var]) -> tuple[Var, ...]:
        return tuple(part for v in variables for part in self.parts(v))

    def keep(self, old: Var, parts: Sequence[Var]) -> None:
        """Let new values stand for an old one, with all of its dims."""
        full = [self.expand(p, old.type.sizes) for p in parts]
        if old.type.dtype.is_complex:
            self.pairs[old] = (full[0], full[1])
        else:
            self.real[old] = full[0]

    def keep_all(self, olds: Sequence[Var], parts: Sequence[Var]) -> None:
        """Hand out a flat list of parts to old values in order."""
        rest = iter(parts)
        for old in olds:
            self.keep(old, [next(rest) for _ in _part_types(old.type)])

    def joined(self, var: Var) -> Var:
        """A result: the parts along the dim `re_im`."""
        if var not in self.pairs:
            return self.real[var]
        re, im = self.pairs[var]
        at = self.iota(PARTS, 2)
        first = self.map("eq", at, self.constant(0, at.type.dtype))
        return self.map("where", first, re, im)

    # ---- equations

    def equation(self, eqn: Eqn) -> None:
        """Emit the real equations for one of the old program."""
        self.loc = eqn.loc
        op = eqn.op
        match op:
            case Map():
                self.scalar_op(op, eqn)
            case Constant():
                self.keep(eqn.out, self.constants(op, eqn.out.type))
            case Reduce() | ReduceAt():
                self.fold(op, eqn)
            case Reindex():
                self.keep(eqn.out, self.reindexed(op, eqn.out))
            case Interleave():
                halves = zip(*(self.parts(p) for p in op.parts), strict=True)
                types = _part_types(eqn.out.type)
                self.keep(
                    eqn.out,
                    [
                        self.emit(replace(op, parts=tuple(h)), [t])[0]
                        for h, t in zip(halves, types, strict=True)
                    ],
                )
            case Recur():
                self.recur(op, eqn)
            case Cond():
                args = self.all_parts(op.args)
                new = Cond(self.real[op.pred], _paired(op.then), _paired(op.other), args)
                self.emit_parts(new, eqn)
            case While():
                captured, state = self.all_parts(op.captured), self.all_parts(op.state)
                self.emit_parts(While(_paired(op.test), _paired(op.body), captured, state), eqn)
            case Custom():
                new_op = Custom(_paired(op.primal), None, None, self.all_parts(op.args))
                self.emit_parts(new_op, eqn)
            case Call() if any(v.type.dtype.is_complex for v in (*op.args, *eqn.outs)):
                rows = [(f"{op.name}: {v.type}", eqn.loc) for v in (*op.args, *eqn.outs)]
                advice = "Pass the real and the imaginary part."
                raise DTypeError(layout("a foreign function has complex values", rows, advice))
            case Call() | Group() | Iota() | RandomBits() | Sort() | TopK():
                outs = self.emit(with_operands(op, self.real), [o.type for o in eqn.outs])
                self.keep_all(eqn.outs, outs)

    def emit_parts(self, op: Op, eqn: Eqn) -> None:
        """Emit an equation whose results are the parts of the old ones."""
        types = [t for o in eqn.outs for t in _part_types(o.type)]
        self.keep_all(eqn.outs, self.emit(op, types))

    def scalar_op(self, op: Map, eqn: Eqn) -> None:
        types = [a.type.dtype for a in op.args]
        out = eqn.out.type
        if any(t.is_complex for t in types) or out.dtype.is_complex:
            args = [of_complex(self, self.parts(a)) for a in op.args]
            whole = types[0].is_complex
            result = complex_map(self, op.fn, args, whole, real_part(out.dtype), out)
            self.keep(eqn.out, result)
            return
        dtype = out.dtype if op.fn == "convert" else None
        self.keep(eqn.out, [self.map(op.fn, *(self.real[a] for a in op.args), dtype=dtype)])

    def constants(self, op: Constant, type_: Type) -> list[Var]:
        if not type_.dtype.is_complex:
            return list(self.emit(op, [type_]))
        part = real_part(type_.dtype)
        if not isinstance(op.value, Table):
            value = complex(op.value)
            return [self.constant(value.real, part), self.constant(value.imag, part)]
        shape = [type_.sizes[d] for d in op.value.order]
        array = np.frombuffer(op.value.data, type_.dtype.numpy).reshape(shape)
        return [self.table(half, op.value.order, part) for half in (array.real, array.imag)]

    def reindexed(self, op: Reindex, out: Var) -> list[Var]:
        index = tuple((d, self.real[i] if isinstance(i, Var) else i) for d, i in op.index)
        parts, types = self.parts(op.arg), _part_types(out.type)
        fills: Sequence[Scalar] = [op.fill]
        if len(parts) == 2:
            fills = [complex(op.fill).real, complex(op.fill).imag]
        return [
            self.emit(Reindex(p, index, op.mode, f), [t])[0]
            for p, f, t in zip(parts, fills, types, strict=True)
        ]

    def fold(self, op: Reduce | ReduceAt, eqn: Eqn) -> None:
        """Sums of parts are the parts of a sum; other monoids become monoids over pairs."""
        args = self.all_parts(op.args)
        dtypes = [a.type.dtype for a in op.args]
        types = [t for o in eqn.outs for t in _part_types(o.type)]
        if op.monoid == SUM and dtypes[0].is_complex:
            sums = [self.folded(op, SUM, [a], [t])[0] for a, t in zip(args, types, strict=True)]
            self.keep(eqn.out, sums)
            return
        monoid = split_monoid(op.monoid, dtypes)
        self.keep_all(eqn.outs, self.folded(op, monoid, args, types))

    def folded(
        self, op: Reduce | ReduceAt, monoid: Monoid, args: Sequence[Var], types: Sequence[Type]
    ) -> tuple[Var, ...]:
        if isinstance(op, Reduce):
            return self.emit(Reduce(monoid, op.dims, tuple(args)), types)
        index = tuple((d, self.real[i] if isinstance(i, Var) else i) for d, i in op.index)
        return self.emit(ReduceAt(monoid, op.dims, tuple(args), index, op.mode), types)

    def recur(self, op: Recur, eqn: Eqn) -> None:
        """A complex state is two states, and each read of it two reads."""
        states = [r.type.dtype.is_complex for r in op.body.results]
        first = [sum(1 + c for c in states[:n]) for n in range(len(states))]
        reads = [
            Read(first[r.state] + part, r.shift)
            for r in op.reads
            for part in range(1 + states[r.state])
        ]
        keep: tuple[Keep, ...] = tuple(k for k, c in zip(op.keep, states) for _ in range(1 + c))
        new = replace(
            op,
            reads=tuple(reads),
            inits=self.all_parts(op.inits),
            captured=self.all_parts(op.captured),
            body=_paired(op.body),
            keep=keep,
        )
        self.emit_parts(new, eqn)


def split_monoid(monoid: Monoid, dtypes: Sequence[DType]) -> Monoid:
    """The monoid over the parts of its components."""
    if not any(t.is_complex for t in dtypes):
        return monoid
    combine = monoid.combine or _product(dtypes[0])
    identity: list[Scalar] = []
    for value, dtype in zip(monoid.identity, dtypes, strict=True):
        parts: list[Scalar] = [complex(value).real, complex(value).imag]
        identity += parts if dtype.is_complex else [value]
    return Monoid(
        f"{monoid.name}.{PARTS}",
        tuple(identity),
        _paired(combine),
        monoid.commutative,
        monoid.idempotent,
        monoid.invertible,
    )


def _product(dtype: DType) -> Program:
    """The combine of `prod`, the only named monoid but `sum` that complex numbers have."""
    build = Builder()
    left, right = build.param(Type(dtype)), build.param(Type(dtype))
    return build.finish([build.map("mul", left, right)])
