"""Write equations that the loop stage does not know in terms of those that it does.

    random_bits %key (i, j)   ->   Threefry's rounds on u32, counter = 4*i + j
    sort %0 i                 ->   rank[i] = Σ_j (a_j before a_i);  p[rank[i]] = i;  a at p
    top_k %0 i q              ->   the same, and only ranks below the size of q are placed;
                                   of few, those of the greatest blocks: see `select`
    group %0 9 a              ->   the same for the order; offsets[a] = Σ_i (index_i < a)
    pow %0 3                  ->   (%0 * %0) * %0

Needs a verified Program. Exactly as the interpreter, but for `pow` of floats by constants, which
may differ in the last bits. Sorting compares all pairs: n² comparisons in vector code; of many
elements it is a network (see `bitonic`).
"""

from __future__ import annotations

from fractions import Fraction

from summand.dtypes import i32, u32, u64
from summand.ir.fresh import Names
from summand.ir.nodes import (
    SUM,
    Constant,
    Eqn,
    Group,
    Map,
    Mode,
    Program,
    RandomBits,
    Sort,
    TopK,
    Type,
    Var,
)
from summand.rewrite import bitonic
from summand.rewrite.rebuild import Rebuild, inside
from summand.rewrite.select import is_selection, select

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_GREATEST_POWER = 64  # constant exponents up to this become multiplications
_GREATEST_ROOT = 4  # below which powers of halves are products of roots


def expand(program: Program) -> Program:
    """Expand random bits, sorts, groups and powers, also inside bodies."""
    return _expanded(program, Names(program), nested=False)


def _expanded(program: Program, names: Names, nested: bool) -> Program:
    new = _Expander(program, names, nested)
    for eqn in program.eqns:
        new.equation(eqn)
    return new.done(program)


class _Expander(Rebuild):
    def __init__(self, program: Program, names: Names, nested: bool) -> None:
        super().__init__(program)
        self.names = names
        self.nested = nested  # in the body of a recurrence or loop, where no further loop belongs
        self.constants: dict[Var, int | float] = {}

    def equation(self, eqn: Eqn) -> None:
        op = inside(eqn.op, lambda inner: _expanded(inner, self.names, nested=True))
        self.loc = eqn.loc
        match op:
            case RandomBits():
                self.bind(eqn.outs, [self.random_bits(op, eqn.out.type)])
            case Sort():
                self.bind(eqn.outs, self.sort(op))
            case TopK():
                self.bind(eqn.outs, self.top_k(op, eqn.outs[0].type.sizes[op.out]))
            case Group():
                self.bind(eqn.outs, self.group(op, eqn))
            case Map(fn="pow"):
                self.bind(eqn.outs, [self.power(eqn, op)])
            case _:
                self.copy(eqn, op)
                if isinstance(op, Constant) and isinstance(op.value, int | float):
                    self.constants[eqn.out] = op.value

    # ---- random numbers

    def random_bits(self, op: RandomBits, type_: Type) -> Var:
        """Word 0 of the Threefry block whose counter is the row-major position over `op.dims`."""
        key = self.of(op.key)
        low = self.convert(key, u32)
        high = self.convert(self.map("shr", key, self.constant(32, u64)), u32)
        parity = self.constant(_PARITY, u32)
        keys = (low, high, self.map("xor", self.map("xor", low, high), parity))
        count_low, count_high = self.counter(op, type_)
        x0, x1 = self.map("add", count_low, keys[0]), self.map("add", count_high, keys[1])
        for block in range(5):
            for bits in _ROTATIONS[block % 2]:
                x0 = self.map("add", x0, x1)
                x1 = self.map("xor", self.rotated(x1, bits), x0)
            x0 = self.map("add", x0, keys[(block + 1) % 3])
            injected = self.map("add", keys[(block + 2) % 3], self.constant(block + 1, u32))
            x1 = self.map("add", x1, injected)
        return x0

    def rotated(self, x: Var, bits: int) -> Var:
        left = self.map("shl", x, self.constant(bits, u32))
        return self.map("or", left, self.map("shr", x, self.constant(32 - bits, u32)))

    def counter(self, op: RandomBits, type_: Type) -> tuple[Var, Var]:
        """The low and high half of the row-major position."""
        sizes = type_.sizes
        count = 1
        for dim in op.dims:
            count *= sizes[dim]
        word = u32 if count <= 1 << 32 else u64
        total, stride = self.constant(0, word), 1
        for dim in reversed(op.dims):
            at = self.convert(self.iota(dim, sizes[dim]), word)
            total = self.map("add", total, self.map("mul", at, self.constant(stride, word)))
            stride *= sizes[dim]
        if word is u32:
            return total, self.constant(0, u32)
        high = self.map("shr", total, self.constant(32, u64))
        return self.convert(total, u32), self.convert(high, u32)

    # ---- order

    def sort(self, op: Sort) -> tuple[Var, Var]:
        arg = self.of(op.arg)
        size = arg.type.sizes[op.dim]
        if size >= bitonic.LARGE and not self.nested:
            return bitonic.sort(self, self.names, arg, op.dim, op.descending)
        rank = self.rank(arg, op.dim, op.descending)
        return self.placed(arg, rank, op.dim, op.dim, size)

    def top_k(self, op: TopK, count: int) -> tuple[Var, Var]:
        arg = self.of(op.arg)
        if is_selection(count, arg.type.sizes[op.dim]):
            return select(self, self.names, arg, op.dim, op.out, count)
        return self.placed(arg, self.rank(arg, op.dim, True), op.dim, op.out, count)

    def placed(self, arg: Var, rank: Var, dim: str, out: str, count: int) -> tuple[Var, Var]:
        """The elements whose rank is below `count`, in order of rank along `out`."""
        size = arg.type.sizes[dim]
        index = rank
        at = self.iota(dim, size)
        if out == dim:  # the new positions need a name that differs while both are there
            spare = self.names.fresh(dim)
            values, positions = self.placed(arg, rank, dim, spare, count)
            names = {spare: dim}
            return self.rename(values, names), self.rename(positions, names)
        mode: Mode = "trusted" if count >= size else "fill"
        at = self.expand(at, arg.type.sizes)
        (positions,) = self.reduce_at(SUM, [dim], [at], {out: index}, {out: count}, mode)
        values = self.reindex(arg, {dim: positions}, {}, "trusted")
        return values, positions

    def rank(self, arg: Var, dim: str, descending: bool) -> Var:
        """How many elements come before each one: a stable order with NaN last."""
        other_dim, size = self.names.fresh(dim), arg.type.sizes[dim]
        other = self.rename(arg, {dim: other_dim})
        before = self.map("gt" if descending else "lt", other, arg)
        equal = self.map("eq", other, arg)
        if arg.type.dtype.is_float:
            nan, other_nan = self.map("isnan", arg), self.map("isnan", other)
            before = self.map("or", before, self.map("and", nan, self.map("not", other_nan)))
            equal = self.map("or", equal, self.map("and", nan, other_nan))
        earlier = self.map("lt", self.iota(other_dim, size), self.iota(dim, size))
        before = self.map("or", before, self.map("and", equal, earlier))
        return self.reduce(SUM, [other_dim], self.convert(before, i32))[0]

    def group(self, op: Group, eqn: Eqn) -> tuple[Var, Var]:
        index = self.of(op.index)
        ((dim, size),) = index.type.dims
        rank = self.rank(index, dim, False)
        _, order = self.placed(index, rank, dim, dim, size)
        place = self.convert(self.iota(op.places, op.size + 1), index.type.dtype)
        below = self.map("lt", index, place)
        dtype = eqn.outs[1].type.dtype
        (offsets,) = self.reduce(SUM, [dim], self.convert(below, dtype))
        return self.convert(order, eqn.outs[0].type.dtype), offsets

    # ---- powers

    def power(self, eqn: Eqn, op: Map) -> Var:
        base, exponent = self.all_of(op.args)
        dtype = eqn.out.type.dtype
        value = self.constants.get(op.args[1])
        if value is not None and float(value).is_integer() and abs(value) <= _GREATEST_POWER:
            whole = int(value)
            if whole >= 0:
                return self.spread(self.multiplied(base, whole), eqn)
            if not dtype.is_integer:
                one = self.constant(1.0, dtype)
                return self.spread(self.map("div", one, self.multiplied(base, -whole)), eqn)
        halved = value is not None and dtype.is_float and Fraction(value).denominator == 2
        if halved and value is not None and abs(value) < _GREATEST_ROOT:
            return self.spread(self.odd_halves(base, int(2 * value)), eqn)
        if dtype.is_integer:
            return self.integer_power(base, exponent)
        return self.map("pow", base, exponent)

    def spread(self, value: Var, eqn: Eqn) -> Var:
        """A constant may have been given dims; the result has them."""
        return self.expand(value, eqn.out.type.sizes)

    def odd_halves(self, base: Var, halves: int) -> Var:
        """base**(halves/2) of an odd number of halves."""
        if halves < 0:
            return self.multiplied(self.map("rsqrt", base), -halves)
        root = self.map("sqrt", base)
        return root if halves == 1 else self.map("mul", self.multiplied(base, halves // 2), root)

    def multiplied(self, base: Var, exponent: int) -> Var:
        """base**exponent by squaring."""
        if exponent == 0:
            one = self.constant(1, base.type.dtype)
            return self.expand(one, base.type.sizes)
        half = base if exponent < 2 else self.multiplied(base, exponent // 2)
        if exponent == 1:
            return base
        square = self.map("mul", half, half)
        return self.map("mul", square, base) if exponent % 2 else square

    def integer_power(self, base: Var, exponent: Var) -> Var:
        """Square and multiply over the exponent's bits; a negative one gives 1 / base**-e."""
        dtype = base.type.dtype
        one, zero = self.constant(1, dtype), self.constant(0, dtype)
        result, power = one, base
        bits = dtype.bits - (dtype.kind == "int")
        for bit in range(bits):
            is_set = self.bit(exponent, bit)
            result = self.map("where", is_set, self.map("mul", result, power), result)
            if bit + 1 < bits:
                power = self.map("mul", power, power)
        if dtype.kind == "uint":
            return result
        minus = self.constant(-1, dtype)
        alternating = self.map("where", self.bit(exponent, 0), minus, one)
        inverse = self.map("where", self.map("eq", base, minus), alternating, zero)
        inverse = self.map("where", self.map("eq", base, one), one, inverse)
        return self.map("where", self.map("lt", exponent, zero), inverse, result)

    def bit(self, value: Var, bit: int) -> Var:
        dtype = value.type.dtype
        shifted = self.map("shr", value, self.constant(bit, dtype))
        one = self.constant(1, dtype)
        return self.map("eq", self.map("and", shifted, one), one)
