"""Random nests: guards, epilogues, several folds, carries, gathers, combining stores."""

from __future__ import annotations

import random

from summand.dtypes import bool_, f16, f32, f64, i32
from summand.ir.index import Form
from summand.loops.nodes import (
    Address,
    Apply,
    Buffer,
    Carry,
    Combine,
    Const,
    Fold,
    Guard,
    Kernel,
    Last,
    Load,
    Nest,
    Position,
    Store,
)

FOLDS = {"add": 0.0, "max": float("-inf"), "min": float("inf")}


class Maker:
    """Grows the code of one nest."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        names = "abcdef"[: self.r.randint(1, 4)]
        self.extents = {d: self.r.choice([1, 2, 3, 4, 7, 8, 16, 17, 33]) for d in names}
        while _product(self.extents.values()) > 20_000:
            self.extents[self.r.choice(names)] = 2
        self.code: list = []
        self.params: list[Buffer] = []
        self.dtype = self.r.choice([f32, f32, f32, f32, f64])

    def add(self, instr) -> int:
        """Append an instruction."""
        self.code.append(instr)
        return len(self.code) - 1

    def layout(self, dims) -> tuple[Form, int]:
        """Dense, in a random order."""
        form, size = Form(), 1
        for d in self.r.sample(sorted(dims), len(dims)):
            form, size = form + Form.of(d) * size, size * self.extents[d]
        return form, size

    def load(self, dims, dtype=None) -> int:
        """A load; sometimes guarded along one dim, sometimes narrow."""
        dtype = dtype or self.dtype
        kind = f16 if dtype is f32 and self.r.random() < 0.15 else dtype
        form, size = self.layout(dims)
        guards = ()
        if dims and self.r.random() < 0.2:
            dim = self.r.choice(sorted(dims))
            shift = self.r.choice([-1, 1])
            step = form.coefficient(dim) * shift
            form, size = form + step, size
            guards = (Guard(Form.of(dim) + shift, self.extents[dim]),)
        name = f"p{len(self.params)}"
        self.params.append(Buffer(name, kind, max(size, 1)))
        ref = self.add(Load(name, Address(form, (), guards), kind))
        return ref if kind is dtype else self.add(Apply("convert", (ref,), dtype))

    def gather(self, dims) -> int:
        """A load at a computed place."""
        index = self.load(set(list(dims)[:1]), i32)
        clipped = self.add(Const(3, i32))
        place = self.add(Apply("and", (index, clipped), i32))
        form, size = self.layout(dims)
        name = f"p{len(self.params)}"
        self.params.append(Buffer(name, self.dtype, 4 * max(size, 1)))
        return self.add(Load(name, Address(form, ((place, size),)), self.dtype))

    def dims(self, chance=0.7) -> set[str]:
        """Some dims."""
        return {d for d in self.extents if self.r.random() < chance}

    def value(self, depth=2) -> tuple[int, set[str]]:
        """An expression and the dims that it may vary along."""
        if depth == 0 or self.r.random() < 0.3:
            dims = self.dims()
            roll = self.r.random()
            if roll < 0.12 and dims:
                return self.gather(dims), dims
            if roll < 0.2 and dims:
                form, _ = self.layout(dims)
                return self.add(Position(form, self.dtype)), dims
            return self.load(dims), dims
        a, first = self.value(depth - 1)
        b, second = self.value(depth - 1)
        fn = self.r.choice(["mul", "mul", "add", "sub", "max"])
        ref = self.add(Apply(fn, (a, b), self.dtype))
        if self.r.random() < 0.15:
            test = self.add(Apply("lt", (a, b), bool_))
            ref = self.add(Apply("where", (test, ref, a), self.dtype))
        return ref, first | second

    def fold(self, ref: int, dims: set[str], over: set[str]) -> tuple[int, set[str]]:
        """Fold some of a value's dims away."""
        over = over & dims
        if not over:
            return ref, dims
        fn = self.r.choice(sorted(FOLDS))
        order = tuple(d for d in self.extents if d in over)
        combine = Combine(fn, (FOLDS[fn],))
        return self.add(Fold(combine, order, (ref,), self.dtype)), dims - over

    def store(self, ref: int, dims: set[str], combine=None) -> Store:
        """Store to a buffer of its own."""
        form, size = self.layout(dims)
        name = f"out{len(self.params)}"
        self.params.append(Buffer(name, self.dtype, max(size, 1)))
        return Store(name, Address(form), ref, combine)

    def kernel(self, stores, ordered=()) -> Kernel:
        """The kernel of the nest."""
        used = {d for i in self.code for d in _dims_of(i)}
        used |= {d for s in stores for d in s.at.form.dims}
        dims = tuple((d, n) for d, n in self.extents.items() if d in used)
        nest = Nest(dims, tuple(self.code), tuple(stores), (), tuple(ordered))
        return Kernel("k", tuple(self.params), (), (), (nest,))


def _product(values) -> int:
    n = 1
    for v in values:
        n *= v
    return n


def _dims_of(instr) -> set[str]:
    match instr:
        case Load():
            return set(instr.at.form.dims) | {d for g in instr.at.guards for d in g.form.dims}
        case Position():
            return set(instr.form.dims)
        case Fold():
            return set(instr.dims)
        case Carry():
            return {instr.dim}
        case _:
            return set()


def folds(seed: int) -> Kernel:
    """One or two folds (the second over the same dims), an epilogue, one or two stores."""
    m = Maker(seed)
    over = m.dims(0.5)
    ref, dims = m.fold(*m.value(), over)
    if m.r.random() < 0.4:
        other, more = m.fold(*m.value(1), over)
        ref, dims = m.add(Apply("sub", (ref, other), m.dtype)), dims | more
    if m.r.random() < 0.5:
        extra, more = m.value(0)
        if not more & over:
            ref, dims = m.add(Apply("add", (ref, extra), m.dtype)), dims | more
    stores = [m.store(ref, dims)]
    return m.kernel(stores)


def nested(seed: int) -> Kernel:
    """A fold inside a fold."""
    m = Maker(seed)
    names = list(m.extents)
    inner, dims = m.fold(*m.value(1), set(names[:1]))
    scaled = m.add(Apply("mul", (inner, inner), m.dtype))
    ref, dims = m.fold(scaled, dims, set(names[1:2]))
    return m.kernel([m.store(ref, dims)])


def carried(seed: int) -> Kernel:
    """h = a·h + b along one dim; every state is stored, or the last."""
    m = Maker(seed)
    dim = m.r.choice(sorted(m.extents))
    a, first = m.load(m.dims() | {dim}), set(m.extents)
    b = m.load(m.dims())
    init = m.load(m.dims(0.5) - {dim})
    at = len(m.code)
    carry = m.add(Carry(dim, init, at + 2, m.dtype))
    product = m.add(Apply("mul", (carry, a), m.dtype))
    m.add(Apply("add", (product, b), m.dtype))
    if m.r.random() < 0.4:
        last = m.add(Last(carry, m.dtype))
        return m.kernel([m.store(last, first - {dim})], (dim,))
    stores = [m.store(at + 2, first)]
    reduced = {d for d in first if d != dim and m.r.random() < 0.4}
    if reduced:
        ref, dims = m.fold(at + 2, first, reduced)
        stores.append(m.store(ref, dims))
    return m.kernel(stores, (dim,))


def scattered(seed: int) -> Kernel:
    """Combining stores into places computed from one dim; the others are free."""
    m = Maker(seed)
    dim = m.r.choice(sorted(m.extents))
    free = [d for d in m.extents if d != dim and m.r.random() < 0.7]
    ref = m.load({dim, *free})
    index = m.load({dim}, i32)
    mask = m.add(Const(3, i32))
    place = m.add(Apply("and", (index, mask), i32))
    form, size = m.layout(set(free))
    m.params.append(Buffer("out", m.dtype, 4 * size))
    store = Store("out", Address(form, ((place, size),)), ref, m.r.choice(["add", "max"]))
    return m.kernel([store], (dim,))


KINDS = {"folds": folds, "nested": nested, "carried": carried, "scattered": scattered}
