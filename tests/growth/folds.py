"""Random folds and reindexes."""

from __future__ import annotations

from hypothesis import strategies as st

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import ALL, ANY, MAX, MIN, PROD, SUM, Monoid, Type
from tests.growth.elementwise import Growth


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


class Folds(Growth):
    """Folds, scatters, gathers and other reindexes."""

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
        complex_ = v.dtype.is_complex
        monoid = SUM if complex_ else self.pick((SUM, SUM, MAX, MIN, PROD))
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
        monoid = SUM if v.dtype.is_complex else self.pick((SUM, SUM, MAX))
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

    def pair_scatter(self):
        """Components that combine at computed places, in program order."""
        v = self.value(kind=("float",), exact=True, dims=True)
        if v is None or 0 in v.sizes.values() or v.dtype.bits == 16:
            return
        b, d, dtype = self.build, self.pick(v.sizes), v.dtype
        new, size = self.dim(), self.integer(1, 9)
        index, mode = self.computed_index(d, v.sizes[d], size)
        at = b.expand(b.iota(d, v.sizes[d]), v.sizes)
        if self.draw(st.booleans()):
            best, where = b.reduce_at(
                arg_max(dtype), [d], [v.var, at], {new: index}, {new: size}, mode
            )
            self.add(b.map("max", best, b.constant(-8.0, dtype)), True)
            self.add(where, True)
            return
        factor = b.map("mul", b.map("tanh", v.var), b.constant(0.5, dtype))
        parts = [factor, v.var]
        for out in b.reduce_at(affine(dtype), [d], parts, {new: index}, {new: size}, mode):
            self.add(out, False)

    def scatter_two(self):
        """Two computed places at once; one may be a form."""
        v = self.value(kind=("float", "int"), dims=True)
        if v is None or 0 in v.sizes.values() or len(v.sizes) < 2:
            return
        b = self.build
        d, e = self.draw(st.permutations(sorted(v.sizes)))[:2]
        x, y = self.dim(), self.dim()
        first, mode = self.computed_index(d, v.sizes[d], 5)
        second, sizes = Form.of(e) * 2, {x: 5, y: 2 * v.sizes[e]}
        (out,) = b.reduce_at(SUM, [e, d], [v.var], {x: first, y: second}, sizes, mode)
        self.add(out, v.exact and v.dtype.is_integer)

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

    def gather_rows(self):
        """An index that varies along a dim that the operand keeps; perhaps two indices."""
        v = self.value(dims=True)
        if v is None or 0 in v.sizes.values() or len(v.sizes) < 2:
            return
        b, x = self.build, self.dim()
        d, e = self.draw(st.permutations(sorted(v.sizes)))[:2]
        count = self.integer(1, 9)
        index, mode = self.computed_index(x, count, v.sizes[d])
        if self.draw(st.booleans()):
            other = b.map("mod", b.iota(x, count), b.constant(v.sizes[e], dt.i32))
            self.add(b.reindex(v.var, {d: index, e: other}, {}, mode), v.exact)
            return
        moved = b.map("add", index, b.iota(e, v.sizes[e]))
        mode = "fill" if mode == "raise" else mode
        self.add(b.reindex(v.var, {d: moved}, {}, mode), v.exact)

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
