"""Complex values as pairs of real ones: every op, every equation, awkward points."""

import numpy as np
import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import PROD, SUM, Cond, Monoid, Read, Recur, Type, While
from summand.ir.text import text
from summand.ir.verify import verify
from summand.rewrite.split_complex import PARTS, split_complex

C = Type.of(dt.complex128, {"i": 64})
UNARY = [
    "neg",
    "abs",
    "sign",
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "tanh",
    "conj",
    "real",
    "imag",
    "isnan",
    "isinf",
    "isfinite",
]
BINARY = ("add", "sub", "mul", "div", "pow", "eq", "ne")


def data(seed, scale=1.5):
    rng = np.random.default_rng(seed)
    z = rng.uniform(-scale, scale, 64) + 1j * rng.uniform(-scale, scale, 64)
    z[:3] = [0.5, 2j, -0.25]
    return Named(z, ("i",))


def stack(value, dtype):
    if not dtype.is_complex:
        return value
    real = value.array.view(dt.real_part(dtype).numpy).reshape(*value.array.shape, 2)
    return Named(real, (*value.order, PARTS))


def assert_splits(program, args):
    after = split_complex(program)
    verify(after)
    assert "complex" not in text(after)
    wanted = run(program, args)
    given = [stack(a, p.type.dtype) for a, p in zip(args, program.params, strict=True)]
    for var, a, b in zip(program.results, wanted, run(after, given), strict=True):
        if var.type.dtype.is_complex:
            b = b.transposed((*a.order, PARTS))
            found = b.array[..., 0] + 1j * b.array[..., 1]
        else:
            found = b.array
        np.testing.assert_allclose(found, a.array, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("fn", UNARY)
def test_unary(fn):
    b = Builder()
    x = b.param(C)
    assert_splits(b.finish([b.map(fn, x)]), [data(1)])


@pytest.mark.parametrize("fn", BINARY)
def test_binary(fn):
    b = Builder()
    x, y = b.param(C), b.param(C)
    assert_splits(b.finish([b.map(fn, x, y)]), [data(1), data(2)])


def test_awkward_points():
    """Zero, huge and tiny magnitudes neither overflow nor divide by zero where NumPy does not."""
    b = Builder()
    x = b.param(C)
    out = [b.map(f, x) for f in ("abs", "sqrt", "sign", "tanh", "tan")]
    z = np.zeros(64, complex)
    z[:6] = [0, 1e300 + 1e300j, 1e-300j, 300 + 1j, 1 + 300j, -1e-300]
    program = b.finish([*out, b.map("div", b.constant(1 + 1j, dt.complex128), b.map("add", x, x))])
    z[z == 0] = 1e-200
    z[0] = 0
    b2 = Builder()
    y = b2.param(C)
    assert_splits(
        b2.finish([b2.map(f, y) for f in ("abs", "sqrt", "sign", "tanh")]), [Named(z, ("i",))]
    )
    z[0] = 1
    assert_splits(program, [Named(z, ("i",))])


def test_types_and_constants():
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": 64}))
    z = b.map("complex", x, b.constant(2.0, dt.f32))
    wide = b.convert(z, dt.complex128)
    table = b.table(np.arange(64) * (1 - 1j), ("i",), dt.complex128)
    chosen = b.map("where", b.map("gt", x, b.constant(0.0, dt.f32)), wide, table)
    outs = [
        z,
        chosen,
        b.convert(chosen, dt.f32),
        b.convert(z, dt.bool_),
        b.convert(x, dt.complex64),
    ]
    values = np.linspace(-1, 1, 64, dtype=np.float32)
    assert_splits(b.finish(outs), [Named(values, ("i",))])


def test_folds_and_indices():
    b = Builder()
    x = b.param(C)
    c = Builder()
    p = [c.param(Type(dt.complex128)) for _ in range(4)]
    moved = c.map("add", c.map("mul", p[2], p[1]), p[3])
    affine = Monoid("affine", (1.0, 0j), c.finish([c.map("mul", p[2], p[0]), moved]), False)
    padded = b.reindex(x, {"i": Form.of("j") - 2}, {"j": 67}, "fill", 1 + 2j)
    gathered = b.reindex(x, {"i": b.iota("q", 5)}, {}, "clip")
    scale = b.map("mul", x, b.constant(0.7 + 0j, dt.complex128))
    outs = [
        *b.reduce(SUM, ["i"], x),
        *b.reduce(PROD, ["i"], scale),
        *b.reduce(affine, ["i"], scale, x),
        *b.reduce_at(SUM, ["i"], [x], {"a": Form.of("i") // 3}, {"a": 22}),
        *b.reduce_at(PROD, ["i"], [x], {"a": Form.of("i") % 7}, {"a": 9}),
        padded,
        gathered,
    ]
    assert_splits(b.finish(outs), [data(3)])


def test_bodies():
    b = Builder()
    x, flag = b.param(C), b.param(Type(dt.bool_))
    c = Builder()
    before, here, _ = (
        c.param(Type(dt.complex128)),
        c.param(Type(dt.complex128)),
        c.param(Type(dt.i32)),
    )
    count, now = c.map("abs", before), c.map("add", c.map("mul", before, here), here)
    zero = b.constant(0.25j, dt.complex128)
    body = c.finish([now, count])
    recur = Recur(("i",), (False,), (64,), (Read(0, (-1,)),), (zero,), (x,), body, ("all", "last"))
    states = b.emit(recur, [C, Type(dt.f64)])
    branches = []
    for fn in ("sin", "conj"):
        branch = Builder()
        v = branch.param(C)
        branches.append(branch.finish([branch.map(fn, v)]))
    (chosen,) = b.emit(Cond(flag, branches[0], branches[1], (x,)), [C])
    test, loop = Builder(), Builder()
    tv, lv = test.param(Type(dt.complex128)), loop.param(Type(dt.complex128))
    small = test.map("lt", test.map("abs", tv), test.constant(9.0, dt.f64))
    double = loop.map("mul", lv, loop.constant(1.5 + 0.5j, dt.complex128))
    (last,) = b.emit(
        While(test.finish([small]), loop.finish([double]), (), (zero,)), [Type(dt.complex128)]
    )
    program = b.finish([*states, chosen, last])
    verify(program)
    for truth in (True, False):
        assert_splits(program, [data(4, 0.7), Named(np.array(truth))])


def test_real_programs_stay():
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": 3}))
    program = b.finish([b.map("exp", x)])
    assert split_complex(program) is program
