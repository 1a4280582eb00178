"""Build a Program equation by equation, with types inferred and checked.

The builder merges nothing and simplifies nothing: passes do. Errors here are faults of the caller
(another stage), so they are InternalError; `lang` checks what users pass before it gets here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from summand import dtypes
from summand.dtypes import DType
from summand.errors import InternalError, Loc
from summand.ir.index import Form
from summand.ir.nodes import (
    Constant,
    Eqn,
    Index,
    Interleave,
    Iota,
    Map,
    Mode,
    Monoid,
    Op,
    Program,
    Reduce,
    ReduceAt,
    Reindex,
    Scalar,
    Table,
    Type,
    Var,
    with_operands,
)
from summand.ir.prims import POSITION, PRIMS


class Builder:
    """Collects parameters and equations; `finish(results)` gives the program."""

    def __init__(self) -> None:
        self.params: list[Var] = []
        self.eqns: list[Eqn] = []
        self._next = 0
        self.loc: Loc | None = None  # attached to the equations emitted from now on

    def var(self, type_: Type) -> Var:
        """A fresh variable."""
        self._next += 1
        return Var(self._next - 1, type_)

    def param(self, type_: Type) -> Var:
        """A fresh parameter."""
        var = self.var(type_)
        self.params.append(var)
        return var

    def emit(self, op: Op, types: Sequence[Type], loc: Loc | None = None) -> tuple[Var, ...]:
        """Append an equation with results of these types."""
        outs = tuple(self.var(t) for t in types)
        self.eqns.append(Eqn(outs, op, loc or self.loc))
        return outs

    def finish(self, results: Sequence[Var]) -> Program:
        """The program."""
        return Program(tuple(self.params), tuple(self.eqns), tuple(results))

    # ---- equations

    def constant(self, value: Scalar, dtype: DType) -> Var:
        """A scalar everywhere (no dims)."""
        return self.emit(Constant(value), [Type(dtype)])[0]

    def table(self, array: np.ndarray, order: Sequence[str], dtype: DType) -> Var:
        """A constant array; `order` names its dims, outermost first."""
        data = np.ascontiguousarray(array, dtype=dtype.numpy)
        sizes = dict(zip(order, data.shape, strict=True))
        return self.emit(Constant(Table(data.tobytes(), tuple(order))), [Type.of(dtype, sizes)])[0]

    def iota(self, dim: str, size: int) -> Var:
        """Positions 0 … size-1 along `dim`, i32 (i64 where that does not hold them)."""
        dtype = POSITION if size < 2**31 else dtypes.i64
        return self.emit(Iota(dim), [Type.of(dtype, {dim: size})])[0]

    def map(self, fn: str, *args: Var, dtype: DType | None = None) -> Var:
        """A scalar op over the union of dims. All args must have the dtypes that the op wants (see
        `convert`); `dtype` is needed for "convert" only."""
        sizes: dict[str, int] = {}
        for a in args:
            for d, n in a.type.dims:
                if sizes.setdefault(d, n) != n:
                    raise InternalError(f"builder: {fn} sees two sizes for {d}: {sizes[d]} and {n}")
        out = dtype or PRIMS[fn].rule(*(a.type.dtype for a in args))
        if out is None:
            raise InternalError(f"builder: {fn} has no rule for {[a.type.dtype for a in args]}")
        return self.emit(Map(fn, args), [Type.of(out, sizes)])[0]

    def convert(self, a: Var, dtype: DType) -> Var:
        """The same values as another element type."""
        return a if a.type.dtype == dtype else self.map("convert", a, dtype=dtype)

    def reduce(self, monoid: Monoid, dims: Sequence[str], *args: Var) -> tuple[Var, ...]:
        """Fold dims away; one argument per component of the monoid."""
        types = [
            Type(a.type.dtype, tuple(x for x in a.type.dims if x[0] not in dims)) for a in args
        ]
        return self.emit(Reduce(monoid, tuple(dims), args), types)

    def reindex(
        self,
        a: Var,
        index: Mapping[str, Index],
        sizes: Mapping[str, int],
        mode: Mode = "trusted",
        fill: Scalar = 0,
    ) -> Var:
        """out[…] = a[… d: index]; `sizes` gives the size of each dim that a form index reads."""
        out = {d: n for d, n in a.type.dims if d not in index}
        for form in index.values():
            new = (
                dict(form.type.dims) if isinstance(form, Var) else {d: sizes[d] for d in form.dims}
            )
            for d, n in new.items():
                if out.setdefault(d, n) != n:
                    raise InternalError(
                        f"builder: reindex sees two sizes for {d}: {out[d]} and {n}"
                    )
        op = Reindex(a, tuple(sorted(index.items(), key=lambda kv: kv[0])), mode, fill)
        return self.emit(op, [Type.of(a.type.dtype, out)])[0]

    def rename(self, a: Var, names: Mapping[str, str]) -> Var:
        """Give dims other names."""
        names = {k: v for k, v in names.items() if k != v}
        if not names:
            return a
        sizes = a.type.sizes
        index = {old: Form.of(new) for old, new in names.items()}
        return self.reindex(a, index, {new: sizes[old] for old, new in names.items()})

    def reduce_at(
        self,
        monoid: Monoid,
        dims: Sequence[str],
        args: Sequence[Var],
        index: Mapping[str, Index],
        sizes: Mapping[str, int],
        mode: Mode = "trusted",
    ) -> tuple[Var, ...]:
        """Fold `dims` into computed places; `sizes` gives the size of each new dim."""
        types = []
        for a in args:
            out = {d: n for d, n in a.type.dims if d not in dims}
            out.update({d: sizes[d] for d in index})
            types.append(Type.of(a.type.dtype, out))
        places = tuple(sorted(index.items(), key=lambda kv: kv[0]))
        return self.emit(ReduceAt(monoid, tuple(dims), tuple(args), places, mode), types)

    def interleave(self, parts: Sequence[Var], dims: Sequence[tuple[str, int]]) -> Var:
        """out[… d: stride·q + r …] = part_r[… d: q …]; a part for each combination of residues."""
        op = Interleave(tuple(parts), tuple(dims))
        sizes = dict(parts[0].type.dims)
        for number, (dim, _) in enumerate(dims):
            alone = zip(parts, op.residues(), strict=True)
            along = [p for p, r in alone if not any(v for n, v in enumerate(r) if n != number)]
            sizes[dim] = sum(p.type.sizes[dim] for p in along)
        return self.emit(op, [Type.of(parts[0].type.dtype, sizes)])[0]

    def position(self, form: Form, sizes: Mapping[str, int]) -> Var:
        """The value of an index form as an integer (i32, i64 where a dim's size needs it)."""
        dtype = POSITION if all(sizes[d] < 2**31 for d in form.dims) else dtypes.i64
        total: Var | None = None
        for atom, coefficient in form.terms:
            if isinstance(atom, str):
                value = self.convert(self.iota(atom, sizes[atom]), dtype)
            else:
                inner = self.convert(self.position(atom.form, sizes), dtype)
                fn = "floordiv" if atom.op == "//" else "mod"
                value = self.map(fn, inner, self.constant(atom.by, dtype))
            if coefficient != 1:
                value = self.map("mul", value, self.constant(coefficient, dtype))
            total = value if total is None else self.map("add", total, value)
        if total is None:
            return self.constant(form.const, dtype)
        return self.map("add", total, self.constant(form.const, dtype)) if form.const else total

    def expand(self, a: Var, sizes: Mapping[str, int]) -> Var:
        """`a` with further dims, along which it is constant."""
        missing = {d: n for d, n in sizes.items() if d not in a.type.names}
        for d, n in missing.items():
            everywhere = self.map("eq", self.iota(d, n), self.iota(d, n))
            a = self.map("where", everywhere, a, a)
        return a

    def inline(self, program: Program, args: Sequence[Var]) -> tuple[Var, ...]:
        """Repeat a program's equations here, its parameters bound to `args`."""
        env: dict[Var, Var] = dict(zip(program.params, args, strict=True))
        for eqn in program.eqns:
            outs = self.emit(with_operands(eqn.op, env), [o.type for o in eqn.outs], eqn.loc)
            env.update(zip(eqn.outs, outs, strict=True))
        return tuple(env[r] for r in program.results)
