"""Random nests under random schedules against the interpreter: one seed, always the same nests."""

import random
from dataclasses import replace

import numpy as np
import pytest

from summand.dtypes import f16, f32, f64, i32, i64, u8
from summand.ir.index import Form, Quasi
from summand.loops.code import Code
from summand.loops.nodes import (
    Address,
    Apply,
    Bound,
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
    Piece,
    Position,
    Schedule,
    Store,
)
from tests.codegen.kernels import check, random_buffers
from tests.codegen.test_folds import arg_of_greatest

EXTENTS = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 20, 33)
TOLERANCE = {f16: (2e-2, 3e-1)}


class Maker:
    """Draws nests. Loads are affine or not, guarded or not, computed or not; folds are nested."""

    def __init__(self, seed: int, carries: float = 0.0) -> None:
        self.r = random.Random(seed)
        self.carries = carries
        self.ordered = ()
        self.names = list("abcd")[: self.r.randint(1, 4)]
        self.extents = {d: self.r.choice(EXTENTS) for d in self.names}
        while np.prod(list(self.extents.values())) > 20000:
            self.extents[self.r.choice(self.names)] = 2
        self.dtype = self.r.choice([f32, f32, f32, f64, i32, i64, u8, f16])
        self.code = []
        self.params = []
        self.folded = []

    def some(self, chance: float):
        return [d for d in self.names if self.r.random() < chance]

    def form(self, dims) -> Form:
        form = Form.of(self.r.randint(0, 3))
        for d in dims:
            if self.r.random() < 0.15 and self.extents[d] > 2:
                inner = Form.of(d) * self.r.choice([1, 2]) + self.r.randint(0, 2)
                quasi = Quasi(self.r.choice(["//", "%"]), inner, self.r.choice([2, 3, 4, 8]))
                form = form + Form.make([(quasi, self.r.randint(1, 4))])
            else:
                form = form + Form.of(d) * self.r.choice([1, 1, 1, 2, 3, -1, 7, self.extents[d]])
        return form

    def dense(self, dims) -> tuple[Form, int]:
        dims = list(dims)
        self.r.shuffle(dims)
        form, size = Form(), 1
        for d in reversed(dims):
            form = form + Form.of(d) * size
            size *= self.extents[d]
        return form, size

    def load(self, name: str) -> None:
        form = self.form(self.some(0.75) or self.names[:1])
        lo, hi = form.range(self.extents)
        guards = ()
        if self.r.random() < 0.3:
            third = max(1, (hi - lo) // 3)
            inside = lo + self.r.randint(0, third), hi - self.r.randint(0, third)
            if inside[0] <= inside[1]:
                lo, hi = inside
                guards = (Guard(form - lo, hi - lo + 1),)
        at = Address(form - lo, (), guards)
        self.code.append(Load(name, at, self.dtype, self.r.choice([0, 1, 3])))
        self.params.append(Buffer(name, self.dtype, hi - lo + 1))

    def gather(self) -> None:
        form, size = self.dense(self.some(0.6))
        self.code.append(Load("index", Address(form), i32))
        self.params.append(Buffer("index", i32, size))
        around = self.form(self.some(0.5))
        lo, hi = around.range(self.extents)
        stride = self.r.choice([1, hi - lo + 1])
        at = Address(around - lo, ((len(self.code) - 1, stride),))
        self.code.append(Load("table", at, self.dtype))
        self.params.append(Buffer("table", self.dtype, hi - lo + 1 + 99 * stride))

    def identity(self, fn: str):
        if fn == "add":
            return 0
        if self.dtype.is_float:
            return float("-inf") if fn == "max" else float("inf")
        info = np.iinfo(self.dtype.numpy)
        return int(info.min if fn == "max" else info.max)

    def fold(self, values) -> None:
        dims = tuple(self.some(0.5))
        if not dims:
            return
        self.folded += dims
        arg = self.r.choice(values)
        if self.r.random() < 0.2 and self.dtype is f32:
            self.code.append(Position(Form.of(dims[0]), i32))
            args = (arg, len(self.code) - 1)
            self.code.append(Fold(arg_of_greatest(), dims, args, f32))
        else:
            fn = self.r.choice(["add", "add", "max", "min"])
            self.code.append(Fold(Combine(fn, (self.identity(fn),)), dims, (arg,), self.dtype))
        values.append(len(self.code) - 1)
        if self.r.random() < 0.6:
            self.apply(values, values[-1])

    def apply(self, values, left=None) -> None:
        left = self.r.choice(values) if left is None else left
        fn = self.r.choice(["add", "mul", "sub", "max"])
        self.code.append(Apply(fn, (left, self.r.choice(values)), self.dtype))
        values.append(len(self.code) - 1)

    def carry(self, values) -> None:
        """A state along a dim: its value before and after each position, and the last."""
        dim = self.r.choice(self.names)
        self.folded.append(dim)
        self.ordered = (dim,)
        self.code.append(Const(self.r.choice([0, 1]), self.dtype))
        here = len(self.code)
        self.code.append(Carry(dim, here - 1, here + 1, self.dtype))
        fn = self.r.choice(["add", "sub", "max"])
        self.code.append(Apply(fn, (here, self.r.choice(values)), self.dtype))
        self.code.append(Last(here, self.dtype))
        values += [here, here + 1, here + 2]
        self.apply(values, self.r.choice([here, here + 1, here + 2]))

    def bounds(self):
        free = [d for d in self.names if d not in self.folded]
        if not self.folded or not free or self.r.random() > 0.3:
            return ()
        other = Form.of(self.r.choice(free))
        lo = (other - self.r.randint(0, 5),) if self.r.random() < 0.5 else ()
        hi = (other * self.r.choice([1, 2]) + self.r.randint(0, 4),)
        return (Bound(self.r.choice(self.folded), lo, hi),)

    def nest(self) -> Nest:
        for k in range(self.r.randint(1, 3)):
            self.load(f"x{k}")
        if self.r.random() < 0.3:
            self.gather()
        values = [k for k, i in enumerate(self.code) if i.dtype is self.dtype]
        for _ in range(self.r.randint(0, 4)):
            self.apply(values)
        if self.r.random() < self.carries:
            self.carry(values)
        for _ in range(self.r.randint(0, 2)):
            self.fold(values)
        dims = tuple(self.extents.items())
        nest = Nest(dims, tuple(self.code), (), self.bounds(), self.ordered)
        deps = Code(nest).deps
        stores = []
        for k in range(self.r.randint(1, 2)):
            value = values[-1] if k == 0 else self.r.choice(values)
            form, size = self.dense(sorted(deps[value]))
            combine = "add" if self.r.random() < 0.1 and self.dtype is not f16 else None
            stores.append(Store(f"y{k}", Address(form), value, combine))
            self.params.append(Buffer(f"y{k}", self.dtype, size))
        return replace(nest, stores=tuple(stores))

    def lanes(self, count: int, dims):
        pieces = []
        while count > 1:
            width = self.r.choice([x for x in (2, 4, 8, 16) if x <= count])
            pieces.append(Piece(self.r.choice(dims), width))
            count //= width
        once = len({p.dim for p in pieces}) == len(pieces)
        return tuple(pieces) if once else ()

    def schedule(self) -> Schedule:
        free = [d for d in self.names if d not in self.folded]
        lanes = self.lanes(self.r.choice([1, 2, 4, 8, 16, 16]), self.names)
        tile = [Piece(d, self.r.randint(1, 4)) for d in free if self.r.random() < 0.4]
        unroll = tuple(Piece(d, self.r.randint(1, 4)) for d in self.some(0.3))
        end = ()
        if lanes and free and self.r.random() < 0.4:
            end = self.lanes(int(np.prod([p.count for p in lanes])), free)
        step = {}
        for piece in (*lanes, *tile, *unroll):
            step[piece.dim] = step.get(piece.dim, 1) * piece.count
        for piece in end:
            if step.get(piece.dim, 1) % piece.count:
                tile = [*(t for t in tile if t.dim != piece.dim), piece]
        folded = sorted(set(self.folded))
        self.r.shuffle(free)
        self.r.shuffle(folded)
        copies = self.r.choice([1, 1, 2, 3])
        return Schedule(lanes, tuple(tile), unroll, (*free, *folded), end, copies)


@pytest.mark.parametrize("seed", range(60))
def test_random_nests(seed):
    maker = Maker(seed)
    nest = maker.nest()
    for s in (None, maker.schedule(), maker.schedule()):
        kernel = Kernel("k", tuple(maker.params), (), (), (replace(nest, schedule=s),))
        check(kernel, random_buffers(kernel), *TOLERANCE.get(maker.dtype, (1e-4, 1e-3)))


@pytest.mark.parametrize("seed", [*range(1000, 1040), 2046])
def test_random_nests_with_states(seed):
    maker = Maker(seed, carries=1.0)
    nest = maker.nest()
    for s in (None, maker.schedule(), maker.schedule()):
        kernel = Kernel("k", tuple(maker.params), (), (), (replace(nest, schedule=s),))
        check(kernel, random_buffers(kernel), *TOLERANCE.get(maker.dtype, (1e-4, 1e-3)))
