"""Random recurrences, branches, loops, orders and random bits."""

from __future__ import annotations

from hypothesis import strategies as st

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import ANY, SUM, Cond, RandomBits, Read, Recur, Sort, TopK, Type, While
from tests.growth.elementwise import NAMES, Growth


class Control(Growth):
    """Equations with sub-programs, and those that `expand` writes out."""

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

    def two_states(self):
        """A recurrence of two states: one is kept whole, of the other only the last is read.

        The body sums over a dim of the state, as a recurrent layer does, and reads a whole array.
        """
        v = self.value(kind=("float",), dims=True, small=512)
        if v is None or 0 in v.sizes.values() or v.dtype.bits == 16 or len(v.sizes) < 2:
            return
        b, dtype = self.build, v.dtype
        t, d = self.draw(st.permutations(sorted(v.sizes)))[:2]
        ahead = self.draw(st.booleans())
        rest = Type.of(dtype, {e: n for e, n in v.sizes.items() if e != t})
        total = Type.of(dtype, {e: n for e, n in rest.dims if e != d})
        whole = b.map("tanh", b.reindex(v.var, {t: Form.of(0)}, {}))
        body = Builder()
        h, c = body.param(rest), body.param(total)
        here, weight = body.param(rest), body.param(rest)
        body.param(Type(dt.i32))
        (mixed,) = body.reduce(SUM, [d], body.map("mul", h, weight))
        quarter = body.constant(0.25, dtype)
        new_h = body.map("tanh", body.map("add", body.map("mul", mixed, quarter), here))
        new_c = body.map("add", body.map("mul", c, quarter), mixed)
        zeros = [b.expand(b.constant(0.0, dtype), t_.sizes) for t_ in (rest, total)]
        step = (1 if ahead else -1,)
        op = Recur(
            (t,),
            (ahead,),
            (v.sizes[t],),
            (Read(0, step), Read(1, step)),
            tuple(zeros),
            (v.var, whole),
            body.finish([new_h, new_c]),
        )
        outs = [Type.of(dtype, {**s.sizes, t: v.sizes[t]}) for s in (rest, total)]
        first, second = b.emit(op, outs)
        last = Form.of(v.sizes[t] - 1 if ahead else 0)
        self.add(first, False)
        self.add(b.reindex(second, {t: last}, {}), False)

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
