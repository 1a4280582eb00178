"""Give the dims of a program other names, in its sub-programs as well.

reduce sum [k#17.3] %0   ->   reduce sum [k] %0
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import assert_never

from summand.ir.index import Form
from summand.ir.nodes import (
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
    Op,
    Program,
    RandomBits,
    Recur,
    Reduce,
    ReduceAt,
    Reindex,
    Sort,
    Table,
    TopK,
    Type,
    Var,
    While,
)
from summand.ir.verify_control import programs_of
from summand.lang import keys

Names = Mapping[str, str]


def canonical(program: Program, orders: Iterable[Iterable[str]] = ()) -> tuple[Program, Names]:
    """The program with each dim named by first occurrence (`k`, `k_1`, …), and what became of each.

    `orders` names dims that come first: those of the arguments, as they lie in memory.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    counts: dict[str, int] = {}
    for key in _occurrences(program, orders):
        if key in names:
            continue
        base = keys.info(key).name
        base = base if base.isascii() and base.isidentifier() else "d"
        number = counts.get(base, 0)
        name = base if number == 0 else f"{base}_{number}"
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        counts[base] = number + 1
        taken.add(name)
        names[key] = name
    return rename(program, names), names


def _occurrences(program: Program, orders: Iterable[Iterable[str]]) -> Iterator[str]:
    """Dims in the order of the text, most of them repeatedly."""
    for order in orders:
        yield from order
    yield from _in_program(program, set())


def _in_program(program: Program, seen: set[int]) -> Iterator[str]:
    """`seen` has the ids of the types that need no second look."""
    for param in program.params:
        yield from _in_type(param.type, seen)
    for eqn in program.eqns:
        match eqn.op:
            case RandomBits() | Reduce():
                yield from eqn.op.dims
            case Recur():
                yield from eqn.op.over
        for inner in programs_of(eqn.op):
            yield from _in_program(inner, seen)
        for out in eqn.outs:
            yield from _in_type(out.type, seen)


def _in_type(type_: Type, seen: set[int]) -> Iterable[str]:
    if id(type_) in seen:
        return ()
    seen.add(id(type_))
    return sorted((d for d, _ in type_.dims), key=keys.by_name)


def rename(program: Program, names: Names) -> Program:
    """The program with other dim names; dims that `names` lacks keep theirs."""
    renamer = Renamer(names)
    return renamer.program(program)


class Renamer:
    """Renames dims; each type and variable once, as long as the program that has them lives."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._types: dict[Type, Type] = {}
        self._vars: dict[int, tuple[Var, Var]] = {}  # by id, with the original to keep it alive

    def dim(self, dim: str) -> str:
        """One dim."""
        return self.names.get(dim, dim)

    def dims(self, dims: tuple[str, ...]) -> tuple[str, ...]:
        """Several dims."""
        return tuple(self.names.get(d, d) for d in dims)

    def type(self, type_: Type) -> Type:
        """A type."""
        found = self._types.get(type_)
        if found is None:
            dims = tuple(sorted((self.dim(d), n) for d, n in type_.dims))
            found = self._types[type_] = Type(type_.dtype, dims)
        return found

    def var(self, var: Var) -> Var:
        """A variable."""
        found = self._vars.get(id(var))
        if found is None:
            found = self._vars[id(var)] = (var, Var(var.id, self.type(var.type)))
        return found[1]

    def vars(self, variables: tuple[Var, ...]) -> tuple[Var, ...]:
        """Several variables."""
        return tuple(map(self.var, variables))

    def form(self, form: Form) -> Form:
        """An index form."""
        return form.rename({d: self.dim(d) for d in form.dims}) if form.dims else form

    def index(self, index: tuple[tuple[str, Index], ...]) -> tuple[tuple[str, Index], ...]:
        """The index of a reindex or reduce_at."""
        places = (
            (self.dim(d), self.var(i) if isinstance(i, Var) else self.form(i)) for d, i in index
        )
        return tuple(sorted(places, key=lambda p: p[0]))

    def program(self, program: Program) -> Program:
        """A program."""
        return Program(
            self.vars(program.params),
            tuple(Eqn(self.vars(e.outs), self.op(e.op), e.loc) for e in program.eqns),
            self.vars(program.results),
        )

    def op(self, op: Op) -> Op:
        """One equation's right-hand side."""
        match op:
            case Map():
                return Map(op.fn, self.vars(op.args))
            case Reduce():
                return Reduce(op.monoid, self.dims(op.dims), self.vars(op.args))
            case Reindex():
                return Reindex(self.var(op.arg), self.index(op.index), op.mode, op.fill)
            case ReduceAt():
                return ReduceAt(
                    op.monoid,
                    self.dims(op.dims),
                    self.vars(op.args),
                    self.index(op.index),
                    op.mode,
                )
            case Interleave():
                dims = tuple((self.dim(d), stride) for d, stride in op.dims)
                return Interleave(self.vars(op.parts), dims)
            case Group():
                return Group(self.var(op.index), op.size, self.dim(op.places))
            case Iota():
                return Iota(self.dim(op.dim))
            case Constant():
                if isinstance(op.value, Table):
                    return Constant(Table(op.value.data, self.dims(op.value.order)))
                return op
            case RandomBits():
                return RandomBits(self.var(op.key), self.dims(op.dims))
            case Sort():
                return Sort(self.var(op.arg), self.dim(op.dim), op.descending)
            case TopK():
                return TopK(self.var(op.arg), self.dim(op.dim), self.dim(op.out))
            case Call():
                return Call(op.name, self.vars(op.args))
            case Recur() | Cond() | While() | Custom():
                return self._with_programs(op)
            case _:
                assert_never(op)

    def _with_programs(self, op: Recur | Cond | While | Custom) -> Op:
        match op:
            case Recur():
                return Recur(
                    self.dims(op.over),
                    op.forward,
                    op.sizes,
                    op.reads,
                    self.vars(op.inits),
                    self.vars(op.captured),
                    self.program(op.body),
                    op.keep,
                )
            case Cond():
                then, other = self.program(op.then), self.program(op.other)
                return Cond(self.var(op.pred), then, other, self.vars(op.args))
            case While():
                test, body = self.program(op.test), self.program(op.body)
                return While(test, body, self.vars(op.captured), self.vars(op.state))
            case Custom():
                return Custom(
                    self.program(op.primal),
                    self.program(op.forward) if op.forward else None,
                    self.program(op.backward) if op.backward else None,
                    self.vars(op.args),
                )
            case _:
                assert_never(op)


def dims_of_program(program: Program) -> frozenset[str]:
    """Every dim that occurs in a program."""
    return frozenset(_occurrences(program, ()))
