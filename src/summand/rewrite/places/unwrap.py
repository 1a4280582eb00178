"""Periodic reads and scatters as affine ones, one for each period that their positions span.

    %1 = reindex u {y: (y + 1)%N}     ->   a = reindex u {y: y + 1} fill -0
                                           b = reindex u {y: y + 1 - N} fill -0
                                           %1 = add a b
    %1 = reduce_at sum {y} v {y: (y + 1)%N}
        ->   a = reduce_at sum {y} v {y: y + 1} fill, b = …{y: y + 1 - N} fill, %1 = add a b

Affine reads are whole vectors, and an affine scatter has an adjoint without a scatter; a remainder
is computed element by element. Adding -0 keeps every float; where the other period's read is not
outside of the array the two are chosen by position. Keeps reads bit for bit; sums in another order.
Leaves remainders that span more than two periods: blocks, which other passes split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from summand.dtypes import DType
from summand.ir.index import Form, Quasi
from summand.ir.nodes import SUM, Index, Mode, Program, ReduceAt, Reindex, Scalar, Type, Var
from summand.rewrite.rebuild import Rebuild, inside


def unwrap(program: Program) -> Program:
    """Rewrite every remainder of two periods, in sub-programs too."""
    new = _Unwrap(program)
    for eqn in program.eqns:
        op = inside(eqn.op, unwrap)
        new.loc = eqn.loc
        match op:
            case Reindex() if found := _first(op.index, eqn.out.type.sizes):
                read = replace(op, arg=new.of(op.arg))
                new.bind(eqn.outs, [new.read(read, found, eqn.out.type)])
            case ReduceAt() if found := _scattered(op, eqn.outs[0].type):
                put = replace(op, args=new.all_of(op.args))
                new.bind(eqn.outs, [new.scatter(put, found, eqn.out.type)])
            case _:
                new.loc = None
                new.copy(eqn, op)
    new.loc = None
    return new.done(program)


@dataclass(frozen=True, slots=True)
class _Wrap:
    """An index form of one dim in its first period and in its second, which begins where `inner`
    reaches `edge`. `whole`: the form is the remainder and nothing else."""

    dim: str
    first: Form
    second: Form
    inner: Form
    edge: int
    whole: bool

    def apart(self, sizes: Mapping[str, int]) -> bool:
        """Whether what lies in one period is outside of the dim in the other one's form."""
        return self.whole and sizes[self.dim] <= (self.first - self.second).const


class _Unwrap(Rebuild):
    """The new program; its methods work on new values."""

    def read(self, op: Reindex, wrap: _Wrap, type_: Type) -> Var:
        """The read in the first period and that in the second, added or chosen from."""
        sizes = type_.sizes
        fn, nothing = _nothing(type_.dtype)
        plain = op.mode == "trusted" or (op.mode == "fill" and _is_same(op.fill, nothing))
        apart = plain and wrap.apart(op.arg.type.sizes) and type_.dtype.kind != "complex"
        mode: Mode = "clip" if op.mode == "clip" else "fill"
        fill = nothing if apart else op.fill
        parts = []
        for form in (wrap.first, wrap.second):
            part = replace(op, index=_put(op.index, wrap.dim, form), mode=mode, fill=fill)
            again = _first(part.index, sizes)
            parts.append(self.read(part, again, type_) if again else self.emit(part, [type_])[0])
        if apart:
            return self.map(fn, *parts)
        place = self.position(wrap.inner, sizes)
        early = self.map("lt", place, self.constant(wrap.edge, place.type.dtype))
        return self.map("where", early, *parts)

    def scatter(self, op: ReduceAt, wrap: _Wrap, type_: Type) -> Var:
        """The sum of what each period scatters; what lies in the other one falls outside."""
        parts = []
        for form in (wrap.first, wrap.second):
            part = replace(op, index=_put(op.index, wrap.dim, form), mode="fill")
            again = _scattered(part, type_)
            parts.append(self.scatter(part, again, type_) if again else self.emit(part, [type_])[0])
        return self.map("add", *parts)


def _nothing(dtype: DType) -> tuple[str, Scalar]:
    """An op, and what it leaves the other operand alone for."""
    if dtype.kind == "bool":
        return "or", False
    return "add", -0.0 if dtype.is_float else 0


def _is_same(a: Scalar, b: Scalar) -> bool:
    """Equality that tells -0.0 from 0."""
    return repr(a) == repr(b)


def _put(
    index: tuple[tuple[str, Index], ...], dim: str, form: Form
) -> tuple[tuple[str, Index], ...]:
    return tuple((d, form if d == dim else i) for d, i in index)


def _scattered(op: ReduceAt, type_: Type) -> _Wrap | None:
    """An index of a sum into places that is a remainder of two periods, and no more than that."""
    if op.monoid != SUM or op.mode not in ("trusted", "fill"):
        return None
    found = _first(op.index, op.args[0].type.sizes)
    return found if found is not None and found.apart(type_.sizes) else None


def _first(index: tuple[tuple[str, Index], ...], sizes: Mapping[str, int]) -> _Wrap | None:
    """The first index that has a remainder of two periods."""
    if 0 in sizes.values():
        return None
    for dim, form in index:
        if isinstance(form, Form):
            for atom, factor in form.terms:
                found = _wrap(dim, form, atom, factor, sizes) if isinstance(atom, Quasi) else None
                if found is not None:
                    return found
    return None


def _wrap(dim: str, form: Form, atom: Quasi, factor: int, sizes: Mapping[str, int]) -> _Wrap | None:
    if atom.op != "%" or not atom.form.is_affine:
        return None
    by = atom.by
    inner = atom.form.near(by)
    low, high = inner.range(sizes)
    if high // by - low // by != 1:
        return None
    rest = form - Form(((atom, factor),))
    start = low // by * by
    return _Wrap(
        dim,
        rest + (inner - start) * factor,
        rest + (inner - start - by) * factor,
        inner,
        start + by,
        whole=not rest.terms and rest.const == 0 and factor == 1,
    )
