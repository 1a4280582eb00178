"""Random well-typed programs of the tensor IR, and data for them.

    @given(programs())                      any equations
    @given(programs(kinds=ELEMENTWISE))     only some

A program shrinks to few equations with small sizes. Comparisons, rounding, sorting and the like are
applied only to values that are computed without rounding, so correct ways to run a program agree
up to rounding and no branch depends on the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.named import Named
from summand.ir.nodes import (
    ALL,
    ANY,
    MAX,
    MIN,
    PROD,
    SUM,
    Cond,
    Monoid,
    Program,
    RandomBits,
    Read,
    Recur,
    Sort,
    TopK,
    Type,
    Var,
    While,
)

SIZES = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17)
NAMES = ("i", "j", "k", "l")
FLOATS = (dt.f32, dt.f32, dt.f32, dt.f64, dt.bf16, dt.f16)
INTEGERS = (dt.i32, dt.i32, dt.i64, dt.u8, dt.u32, dt.i8)
SMOOTH = ("neg", "abs", "tanh", "sin", "cos", "exp", "sqrt", "log", "erf", "square", "atan")
EXACT_UNARY = ("floor", "ceil", "round", "trunc", "sign")


@dataclass(frozen=True)
class Value:
    """A variable; `exact`: no rounding happened on the way to it, so it may be compared."""

    var: Var
    exact: bool

    @property
    def dtype(self):
        return self.var.type.dtype

    @property
    def sizes(self):
        return self.var.type.sizes


class Grow:
    """A program that grows by random equations."""

    def __init__(self, draw, zero_sizes, sizes=SIZES):
        self.draw = draw
        self.build = Builder()
        self.values: list[Value] = []
        sizes = (*sizes, 0) if zero_sizes else sizes
        self.sizes = {d: draw(st.sampled_from(sizes)) for d in NAMES}
        self.fresh = 0

    # ---- choices

    def pick(self, options):
        return self.draw(st.sampled_from(list(options)))

    def integer(self, lo, hi):
        return self.draw(st.integers(lo, hi))

    def value(self, *, kind=None, exact=False, dims=False, small=4096):
        """A value so far (the latest first, so that shrinking keeps chains), or None."""
        found = [
            v
            for v in reversed(self.values)
            if (kind is None or v.dtype.kind in kind)
            and (v.exact or not exact)
            and (v.sizes or not dims)
            and v.var.type.count <= small
        ]
        return self.pick(found) if found else None

    def dim(self):
        """A new dim's name."""
        self.fresh += 1
        return f"{self.pick('xyz')}_{self.fresh}"

    def add(self, var, exact):
        self.values.append(Value(var, exact))
        return self.values[-1]

    def parameter(self):
        dtype = self.pick((*FLOATS, *INTEGERS, dt.bool_))
        names = self.draw(st.sets(st.sampled_from(NAMES), max_size=3))
        sizes = {d: self.sizes[d] for d in sorted(names)}
        return self.add(self.build.param(Type.of(dtype, sizes)), True)

    def fits(self, *values):
        """True where dims of one name have one size, and the union is not too large."""
        sizes = {}
        for v in values:
            for d, n in v.sizes.items():
                if sizes.setdefault(d, n) != n:
                    return False
        return int(np.prod(list(sizes.values()), dtype=np.int64)) <= 20000

    def same(self, value, dtype):
        """The value as another type (floats to integers only via exact values)."""
        return self.build.convert(value.var, dtype)

    # ---- elementwise

    def unary(self):
        v = self.value(kind=("float",))
        if v is None:
            return
        b, x = self.build, v.var
        fn = self.pick((*SMOOTH, *EXACT_UNARY) if v.exact else SMOOTH)
        if fn in ("sqrt", "log"):
            out = b.map(fn, b.map("add", b.map("abs", x), b.constant(0.5, v.dtype)))
        elif fn == "exp":
            out = b.map("exp", b.map("min", x, b.constant(2.0, v.dtype)))
        elif fn == "square":
            out = b.map("mul", x, x)
        else:
            out = b.map(fn, x)
        self.add(out, v.exact and fn in ("neg", "abs", *EXACT_UNARY))

    def binary(self):
        a, c = self.value(), self.value()
        if a is None or not self.fits(a, c) or dt.bool_ in (a.dtype, c.dtype):
            return
        dtype = dt.promote(a.dtype, c.dtype)
        left, right = self.same(a, dtype), self.same(c, dtype)
        b = self.build
        fn = self.pick(("add", "sub", "mul", "max", "min", "div"))
        exact = a.exact and c.exact and (fn in ("max", "min") or dtype.is_integer)
        if fn == "div" and dtype.is_integer:
            fn = self.pick(("floordiv", "mod"))
            right = b.constant(self.integer(1, 5), dtype)
        elif fn == "div":
            right = b.map("add", b.map("abs", right), b.constant(0.5, dtype))
        self.add(b.map(fn, left, right), exact)

    def bits(self):
        a = self.value(kind=("int", "uint"))
        if a is None:
            return
        b = self.build
        fn = self.pick(("and", "or", "xor", "shl", "shr"))
        self.add(b.map(fn, a.var, b.constant(self.integer(0, 7), a.dtype)), True)

    def select(self):
        a, c, p = self.value(), self.value(), self.value(exact=True)
        if a is None or p is None or not self.fits(a, c, p):
            return
        dtype = dt.promote(a.dtype, c.dtype)
        left, right = self.same(a, dtype), self.same(c, dtype)
        pred = self.predicate(p)
        self.add(self.build.map("where", pred, left, right), a.exact and c.exact)

    def predicate(self, p):
        b = self.build
        if p.dtype is dt.bool_:
            return p.var
        fn = self.pick(("lt", "le", "gt", "ge", "eq", "ne"))
        if p.sizes and self.draw(st.booleans()):
            d = self.pick(p.sizes)
            at = b.iota(d, p.sizes[d])
            return b.map(fn, at, b.constant(self.integer(0, 4), dt.i32))
        return b.map(fn, p.var, b.constant(self.integer(0, 3), p.dtype))

    def position(self):
        d = self.pick(NAMES)
        b = self.build
        at = b.iota(d, self.sizes[d])
        at = b.map("mul", at, b.constant(self.integer(-2, 3), dt.i32))
        self.add(b.map("add", at, b.constant(self.integer(-3, 3), dt.i32)), True)

    def conversion(self):
        v = self.value()
        if v is None:
            return
        options = (*FLOATS, *INTEGERS, dt.bool_) if v.exact else FLOATS
        if not v.exact and not v.dtype.is_float:
            return
        self.add(self.build.convert(v.var, self.pick(options)), v.exact)

    # ---- folds

    def fold(self):
        v = self.value(dims=True)
        if v is None:
            return
        dims = sorted(self.draw(st.sets(st.sampled_from(sorted(v.sizes)), min_size=1)))
        b, x = self.build, v.var
        if v.dtype is dt.bool_:
            self.add(b.reduce(self.pick((ANY, ALL)), dims, x)[0], True)
            return
        monoid = self.pick((SUM, SUM, MAX, MIN, PROD))
        if monoid == PROD and v.dtype.is_float:
            one, tenth = b.constant(1.0, v.dtype), b.constant(0.125, v.dtype)
            x = b.map("add", b.map("mul", b.map("tanh", x), tenth), one)
        exact = v.exact and (monoid in (MAX, MIN) or v.dtype.is_integer)
        if 0 in v.sizes.values() and not v.dtype.is_integer:
            monoid = SUM  # the identity of max is infinite, which spoils what follows
        self.add(b.reduce(monoid, dims, x)[0], exact)

    def tuple_fold(self):
        v = self.value(kind=("float",), exact=True, dims=True)
        if v is None or 0 in v.sizes.values() or v.dtype in (dt.f16, dt.bf16):
            return
        dims = self.draw(st.permutations(sorted(v.sizes)))
        dims = dims[: self.integer(1, len(dims))]
        b, dtype = self.build, v.dtype
        if self.draw(st.booleans()):
            at = b.expand(b.iota(dims[0], v.sizes[dims[0]]), v.sizes)
            best, where = b.reduce(arg_max(dtype), dims, v.var, at)
            self.add(best, True)
            self.add(where, True)
            return
        factor = b.map("mul", b.map("tanh", v.var), b.constant(0.5, dtype))
        for out in b.reduce(affine(dtype), dims, factor, v.var):
            self.add(out, False)

    def scatter(self):
        v = self.value(dims=True)
        if v is None or v.dtype is dt.bool_ or 0 in v.sizes.values():
            return
        b, d = self.build, self.pick(v.sizes)
        new, size = self.dim(), self.integer(1, 9)
        monoid = self.pick((SUM, SUM, MAX))
        exact = v.exact and (monoid == MAX or v.dtype.is_integer)
        if self.draw(st.booleans()):
            step, shift = self.integer(1, 3), self.integer(0, 2)
            size = step * (v.sizes[d] - 1) + shift + 1
            index, mode = Form.of(d) * step + shift, "trusted"
        else:
            index, mode = self.computed_index(d, v.sizes[d], size)
        if monoid == MAX and v.dtype.is_float:
            low = b.constant(-8.0, v.dtype)  # where nothing arrives there would be -inf
            (out,) = b.reduce_at(monoid, [d], [v.var], {new: index}, {new: size}, mode)
            self.add(b.map("max", out, low), exact)
            return
        (out,) = b.reduce_at(monoid, [d], [v.var], {new: index}, {new: size}, mode)
        self.add(out, exact)

    # ---- indices

    def computed_index(self, dim, count, size):
        """An integer value over `dim` that indexes `size` places, and a mode that fits."""
        b = self.build
        at = b.iota(dim, count)
        at = b.map("mul", at, b.constant(self.integer(0, 5), dt.i32))
        at = b.map("xor", at, b.constant(self.integer(0, 3), dt.i32))
        mode = self.pick(("raise", "fill", "clip"))
        if mode == "raise":
            at = b.map("mod", at, b.constant(size, dt.i32))
        else:
            at = b.map("sub", at, b.constant(self.integer(0, 2), dt.i32))
        return at, mode

    def gather(self):
        v = self.value(dims=True)
        if v is None or 0 in v.sizes.values():
            return
        d, new = self.pick(v.sizes), self.dim()
        index, mode = self.computed_index(new, self.integer(1, 9), v.sizes[d])
        fill = 1 if mode == "fill" else 0
        self.add(self.build.reindex(v.var, {d: index}, {}, mode, fill), v.exact)

    def reindex(self):
        v = self.value(dims=True)
        if v is None or 0 in v.sizes.values():
            return
        d = self.pick(v.sizes)
        n, x, y = v.sizes[d], self.dim(), self.dim()
        how = self.pick(("rename", "window", "reverse", "slice", "block", "unblock", "fill", "at"))
        index, sizes, mode = Form.of(x), {x: n}, "trusted"
        if how == "window":
            width = self.integer(1, min(n, 3))
            stride = self.integer(1, 2)
            index = Form.of(x) * stride + y
            sizes = {x: (n - width) // stride + 1, y: width}
        elif how == "reverse":
            index = Form.of(n - 1) - x
        elif how == "slice":
            start = self.integer(0, n - 1)
            sizes = {x: self.integer(1, n - start)}
            index = Form.of(x) + start
        elif how == "block":
            width = self.integer(1, n)
            sizes = {x: n // width, y: width}
            index = Form.of(x) * width + y
        elif how == "unblock":
            width = self.integer(1, 3)
            sizes = {x: n * width}
            index = Form.of(x) // width
        elif how == "fill":
            before = self.integer(0, 2)
            sizes, mode = {x: n + before + self.integer(0, 2)}, self.pick(("fill", "clip"))
            index = Form.of(x) - before
        elif how == "at":
            index, sizes = Form.of(self.integer(0, n - 1)), {}
        fill = self.integer(0, 2) if mode == "fill" else 0
        self.add(self.build.reindex(v.var, {d: index}, sizes, mode, fill), v.exact)

    # ---- control

    def recurrence(self):
        v = self.value(kind=("float",), dims=True)
        if v is None or 0 in v.sizes.values() or v.dtype.bits == 16:
            return
        count = self.integer(1, min(2, len(v.sizes)))
        over = self.draw(st.permutations(sorted(v.sizes)))[:count]
        forward = [self.draw(st.booleans()) for _ in over]
        shifts = [
            tuple((1 if ahead else -1) if n == m else 0 for m, ahead in enumerate(forward))
            for n in range(len(over))
        ]
        if self.draw(st.booleans()):
            shifts.append(tuple(2 * s for s in shifts[0]))
        self.emit_recurrence(v, over, forward, shifts)

    def emit_recurrence(self, v, over, forward, shifts):
        rest = Type.of(v.dtype, {d: n for d, n in v.sizes.items() if d not in over})
        body = Builder()
        reads = [body.param(rest) for _ in shifts]
        here = body.param(rest)
        places = [body.param(Type(dt.i32)) for _ in over]
        state = body.map("mul", here, body.constant(0.5, v.dtype))
        half = body.constant(0.25, v.dtype)
        for read in reads:
            state = body.map("add", state, body.map("mul", read, half))
        first = body.map("eq", places[0], body.constant(0, dt.i32))
        state = body.map("where", first, body.map("add", state, half), state)
        zero = self.build.expand(self.build.constant(0.5, v.dtype), rest.sizes)
        op = Recur(
            tuple(over),
            tuple(forward),
            tuple(v.sizes[d] for d in over),
            tuple(Read(0, s) for s in shifts),
            (zero,) * len(shifts),
            (v.var,),
            body.finish([state]),
        )
        self.add(self.build.emit(op, [v.var.type])[0], False)

    def branch(self):
        v, p = self.value(), self.value(exact=True)
        if v is None or p is None or 0 in p.sizes.values():
            return
        b = self.build
        pred = self.predicate(p)
        pred = b.reduce(ANY, [d for d, _ in pred.type.dims], pred)[0] if pred.type.dims else pred
        then, other = Builder(), Builder()
        x, y = then.param(v.var.type), other.param(v.var.type)
        if v.dtype is dt.bool_:
            first, second = then.map("not", x), y
        else:
            first, second = then.map("add", x, x), other.map("sub", y, other.constant(1, v.dtype))
        op = Cond(pred, then.finish([first]), other.finish([second]), (v.var,))
        self.add(b.emit(op, [v.var.type])[0], v.exact and not v.dtype.is_float)

    def repeat(self):
        v = self.value(kind=("float",))
        if v is None:
            return
        test, body = Builder(), Builder()
        limit = self.integer(0, 4)
        n, _ = test.param(Type(dt.i32)), test.param(v.var.type)
        test_program = test.finish([test.map("lt", n, test.constant(limit, dt.i32))])
        m, x = body.param(Type(dt.i32)), body.param(v.var.type)
        more = body.map("add", m, body.constant(1, dt.i32))
        half = body.map("mul", x, body.constant(0.5, v.dtype))
        zero = self.build.constant(0, dt.i32)
        op = While(test_program, body.finish([more, half]), (), (zero, v.var))
        count, out = self.build.emit(op, [Type(dt.i32), v.var.type])
        self.add(count, True)
        self.add(out, False)

    def order(self):
        v = self.value(exact=True, dims=True, small=1024)
        if v is None or 0 in v.sizes.values():
            return
        d, b, type_ = self.pick(v.sizes), self.build, v.var.type
        if self.draw(st.booleans()):
            op = Sort(v.var, d, self.draw(st.booleans()))
            types = [type_, type_.with_dtype(dt.i32)]
        else:
            out = self.dim()
            sizes = {e: n for e, n in v.sizes.items() if e != d}
            sizes[out] = self.integer(1, v.sizes[d])
            op = TopK(v.var, d, out)
            types = [Type.of(v.dtype, sizes), Type.of(dt.i32, sizes)]
        for out_var in b.emit(op, types):
            self.add(out_var, True)

    def random(self):
        dims = tuple(sorted(self.draw(st.sets(st.sampled_from(NAMES), min_size=1, max_size=2))))
        key = self.build.constant(self.integer(0, 2**64 - 1), dt.u64)
        type_ = Type.of(dt.u32, {d: self.sizes[d] for d in dims})
        self.add(self.build.emit(RandomBits(key, dims), [type_])[0], True)


def arg_max(dtype):
    """Greatest value and the least position that has it."""
    b = Builder()
    a, i, c, j = (b.param(Type(t)) for t in (dtype, dt.i32) * 2)
    tie = b.map("and", b.map("eq", a, c), b.map("le", i, j))
    left = b.map("or", b.map("gt", a, c), tie)
    combine = b.finish([b.map("where", left, a, c), b.map("where", left, i, j)])
    return Monoid("arg_max", (float("-inf"), 2**31 - 1), combine)


def affine(dtype):
    """Composition of x -> a*x + b, the left one first; it does not commute."""
    b = Builder()
    a0, b0, a1, b1 = (b.param(Type(dtype)) for _ in range(4))
    moved = b.map("add", b.map("mul", a1, b0), b1)
    combine = b.finish([b.map("mul", a1, a0), moved])
    return Monoid("affine", (1.0, 0.0), combine, commutative=False)


ELEMENTWISE = ("unary", "binary", "bits", "select", "position", "conversion")
FOLDS = ("fold", "tuple_fold", "scatter")
INDEXING = ("gather", "reindex", "reindex")
CONTROL = ("recurrence", "branch", "repeat")
ORDER = ("order", "random")
EVERYTHING = (*ELEMENTWISE, *FOLDS, *INDEXING, *CONTROL, *ORDER)


@st.composite
def programs(draw, kinds=EVERYTHING, max_steps=8, zero_sizes=False, sizes=SIZES) -> Program:
    """A random program. Its results are its last value and up to two others."""
    grow = Grow(draw, zero_sizes, sizes)
    for _ in range(draw(st.integers(1, 3))):
        grow.parameter()
    for _ in range(draw(st.integers(1, max_steps))):
        getattr(grow, draw(st.sampled_from(kinds)))()
    results = [grow.values[-1]]
    results += draw(st.lists(st.sampled_from(grow.values), max_size=2))
    return grow.build.finish([r.var for r in dict.fromkeys(results)])


def arguments(program: Program, seed: int = 0) -> list[Named]:
    """Data for a program: floats in -2 … 2 (with few distinct values where that is harsher)."""
    rng = np.random.default_rng(seed)
    out = []
    for param in program.params:
        dtype, shape = param.type.dtype, [n for _, n in param.type.dims]
        values = rng.uniform(-2, 2, shape)
        if dtype is dt.bool_:
            array = values > 0
        elif dtype is dt.bf16:
            bits = values.astype(np.float32).view(np.uint32) if shape else np.float32(values)
            bits = np.asarray(bits, np.float32).view(np.uint32) if not shape else bits
            array = np.asarray(bits >> np.uint32(16)).astype(np.uint16)
        elif dtype.is_integer:
            array = rng.integers(0, 7, shape).astype(dtype.numpy)
        else:
            array = values.astype(dtype.numpy)
        out.append(Named(np.asarray(array), tuple(d for d, _ in param.type.dims)))
    return out
