"""What the rules of `simplify` see of the program that is being written: how each value was made.

made(v)          the equation that made v, or None for a parameter
number(v)        v's value where it is a scalar constant
peeled(v)        what v was spread from:  where(p, a, a)  ->  a
spread(a, sizes) a with further dims along which it is constant
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from summand.errors import Loc
from summand.ir.builder import Builder
from summand.ir.nodes import Constant, Eqn, Iota, Map, Op, Scalar, Table, Type, Var
from summand.rewrite.ranges import Facts


class Smart(Builder):
    """A builder that remembers how its values were made, and what is known of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.made_by: dict[Var, Eqn] = {}
        self.readers: dict[Var, int] = {}
        self.reciprocals: dict[Var, Var] = {}  # of wide floats: what divides again is a factor
        self.keep_quotient = False  # the value that is being written must be divided exactly
        self.facts = Facts()

    @abstractmethod
    def emit_as_is(self, op: Op, types: Sequence[Type], loc: Loc | None = None) -> tuple[Var, ...]:
        """Emit an equation without trying any rule."""

    def learn(self, eqn: Eqn) -> None:
        """Remember an emitted equation."""
        for out in eqn.outs:
            self.made_by[out] = eqn
        if isinstance(eqn.op, Map) and eqn.op.fn == "div":
            wide = eqn.out.type.dtype.is_float and eqn.out.type.dtype.bits > 16
            if wide and self.number(eqn.op.args[0]) == 1:
                self.reciprocals[eqn.op.args[1]] = eqn.out
        self.facts.learn(eqn)

    def count_readers(self, var: Var, more: int) -> None:
        """Say that a value stands for an old one with so many readers."""
        self.readers[var] = self.readers.get(var, 0) + more

    def made(self, var: Var) -> Eqn | None:
        """The equation that made a value; None for a parameter."""
        return self.made_by.get(var)

    def map_of(self, var: Var, fn: str) -> tuple[Var, ...] | None:
        """The operands of a value that was made by the scalar op `fn`."""
        made = self.made_by.get(var)
        if made is None or not isinstance(made.op, Map) or made.op.fn != fn:
            return None
        return made.op.args

    def number(self, var: Var) -> Scalar | None:
        """The value of a scalar constant (also of one that was spread over dims)."""
        made = self.made_by.get(var)
        if made is None:
            return None
        if isinstance(made.op, Constant):
            return None if isinstance(made.op.value, Table) else made.op.value
        under = self.peeled(var)
        return None if under == var else self.number(under)

    def is_read_once(self, var: Var) -> bool:
        """True where a value has one reader at most (values that rules made have none yet)."""
        return self.readers.get(var, 0) <= 1

    def peeled(self, var: Var) -> Var:
        """The value under any number of spreads."""
        args = self.map_of(var, "where")
        while args is not None and args[1] == args[2]:
            var = args[1]
            args = self.map_of(var, "where")
        return var

    def spread(self, value: Var, sizes: Mapping[str, int]) -> Var:
        """The value with all dims of `sizes`, along the new ones of which it is constant."""
        for dim, size in sizes.items():
            if dim in value.type.names:
                continue
            at = self.iota(dim, size)
            everywhere = self.map("eq", at, at)
            type_ = Type.of(value.type.dtype, {**value.type.sizes, dim: size})
            (value,) = self.emit_as_is(Map("where", (everywhere, value, value)), [type_])
        return value

    def spread_number(self, value: Scalar, type_: Type) -> Var:
        """A constant of this type, dims included."""
        return self.spread(self.constant(value, type_.dtype), type_.sizes)

    def is_iota(self, var: Var) -> bool:
        """True of positions along a dim."""
        made = self.made_by.get(var)
        return made is not None and isinstance(made.op, Iota)
