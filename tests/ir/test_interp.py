"""The interpreter at the points where a meaning had to be chosen."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from summand import dtypes as dt
from summand.dtypes import narrow, widen
from summand.errors import IndexRangeError, InternalError, Loc
from summand.ir import foreign
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.interp import run, threefry
from summand.ir.named import Named
from summand.ir.nodes import MAX, PROD, SUM, Call, Custom, Read, Recur, Type
from summand.ir.scalars import apply, convert, scalar
from tests.programs import affine


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def one(fn, dtype, *values):
    arrays = [scalar(v, dtype) for v in values]
    out = apply(fn, arrays, [dtype] * len(values), dtype)
    return widen(out, dtype).item()


# ---- scalars


@pytest.mark.parametrize("dtype", [dt.i8, dt.i32, dt.i64, dt.u8, dt.u32, dt.u64], ids=str)
def test_integer_division_by_zero_gives_zero(dtype):
    assert one("floordiv", dtype, 7, 0) == 0
    assert one("mod", dtype, 7, 0) == 0


def test_integers_wrap():
    assert one("add", dt.i32, 2**31 - 1, 1) == -(2**31)
    assert one("neg", dt.u8, 1) == 255
    assert scalar(-1, dt.u32).item() == 2**32 - 1


@pytest.mark.parametrize(
    ("base", "exponent", "wanted"), [(2, 10, 1024), (0, 0, 1), (2, -1, 0), (-1, -3, -1), (1, -9, 1)]
)
def test_integer_powers(base, exponent, wanted):
    assert one("pow", dt.i32, base, exponent) == wanted


@pytest.mark.parametrize("dtype", [dt.i8, dt.i32, dt.i64, dt.u8, dt.u64], ids=str)
def test_floats_to_integers_saturate(dtype):
    info = np.iinfo(dtype.numpy)
    values = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.9, 0.0])
    wanted = [0, info.max, info.min, info.max, info.min, 2, 0]
    assert convert(values, dt.f64, dtype).tolist() == wanted


def test_conversions():
    assert convert(np.array([300, -1]), dt.i64, dt.u8).tolist() == [44, 255]
    assert convert(np.array([0.5, 0.0, np.nan]), dt.f64, dt.bool_).tolist() == [True, False, True]
    assert convert(np.array([1 + 2j]), dt.complex128, dt.f32).tolist() == [1.0]


@given(st.floats(width=32, allow_nan=False))
@settings(max_examples=300, deadline=None)
def test_bf16_rounds_to_the_nearest_even(x):
    found = widen(narrow(np.float32(x).reshape(1), dt.bf16), dt.bf16)[0]
    bits = int(np.float32(x).view(np.uint32))
    low, high = bits >> 16 << 16, (bits >> 16) + 1 << 16
    halves = [np.array([b & 0xFFFFFFFF], np.uint32).view(np.float32)[0] for b in (low, high)]
    below, above = bits - low, high - bits
    even = halves[0] if (low >> 16) % 2 == 0 else halves[1]
    wanted = even if below == above else halves[0] if below < above else halves[1]
    assert found == wanted or (np.isinf(wanted) and np.isinf(found))


def test_bf16_keeps_nan():
    nan = np.array([0x7F800001, 0xFFC00000], np.uint32).view(np.float32)
    assert np.isnan(widen(narrow(nan, dt.bf16), dt.bf16)).all()


def test_narrow_floats_compute_in_f32():
    """In f16 alone 2048 + 1 + 1 would stay 2048 at each step; one sum rounds once."""
    b = Builder()
    x = b.param(Type.of(dt.f16, {"i": 2050}))
    program = b.finish(b.reduce(SUM, ["i"], x))
    (out,) = run(program, [Named(np.ones(2050, np.float16), ("i",))])
    assert out.array == 2050


def test_complex_infinities_keep_their_parts():
    out = apply("complex", [np.float32(1), np.float32(np.inf)], [dt.f32] * 2, dt.complex64)
    assert out.real == 1 and np.isinf(out.imag)


# ---- threefry


def test_threefry_known_answers():
    """The first words of Random123's kat_vectors for threefry2x32, 20 rounds."""

    def bits(counter, key):
        words = [np.array(high << 32 | low, np.uint64) for low, high in (key, counter)]
        return int(threefry(*words)[0])

    ones = 0xFFFFFFFF
    assert bits((0, 0), (0, 0)) == 0x6B200159
    assert bits((ones, ones), (ones, ones)) == 0x1CB996FC
    assert bits((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344)) == 0xC4923A9C


# ---- folds


@pytest.mark.parametrize(
    ("monoid", "wanted"), [(SUM, 0.0), (PROD, 1.0), (MAX, -np.inf)], ids=["sum", "prod", "max"]
)
def test_nothing_folds_to_the_identity(monoid, wanted):
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": 0, "j": 2}))
    out = run(
        b.finish(b.reduce(monoid, ["i"], x)), [Named(np.zeros((0, 2), np.float32), ("i", "j"))]
    )
    assert out[0].array.tolist() == [wanted] * 2


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8])
def test_a_monoid_that_does_not_commute(n):
    """Composition of x -> a*x + b, from left to right, equals the loop."""
    b = Builder()
    a, c = (b.param(Type.of(dt.f64, {"t": n, "u": 2})) for _ in range(2))
    program = b.finish(b.reduce(affine(dt.f64), ["t", "u"], a, c))
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(2, n, 2))
    factor, offset = 1.0, 0.0
    for p, q in zip(x.ravel(), y.ravel(), strict=True):
        factor, offset = p * factor, p * offset + q
    out = run(program, [Named(x, ("t", "u")), Named(y, ("t", "u"))])
    np.testing.assert_allclose([o.array for o in out], [factor, offset], rtol=1e-12)


def test_scatter_follows_the_program_order():
    b = Builder()
    a, c = (b.param(Type.of(dt.f64, {"t": 6})) for _ in range(2))
    at = b.table(np.array([1, 0, 1, 1, 9, 0]), ("t",), dt.i32)
    program = b.finish(b.reduce_at(affine(dt.f64), ["t"], [a, c], {"p": at}, {"p": 3}, "fill"))
    x, y = np.random.default_rng(0).normal(size=(2, 6))
    factor, offset = [1.0] * 3, [0.0] * 3
    for p, u, v in zip([1, 0, 1, 1, 9, 0], x, y, strict=True):
        if p < 3:
            factor[p], offset[p] = u * factor[p], u * offset[p] + v
    out = run(program, [Named(x, ("t",)), Named(y, ("t",))])
    np.testing.assert_allclose(out[0].array, factor, rtol=1e-12)
    np.testing.assert_allclose(out[1].array, offset, rtol=1e-12)


# ---- indices


def gather(mode, fill=0):
    b = Builder()
    x, i = b.param(Type.of(dt.f32, {"k": 3})), b.param(Type.of(dt.i32, {"p": 4}))
    b.loc = Loc("model.py", 7, "x[k: i]")
    return b.finish([b.reindex(x, {"k": i}, {}, mode, fill)])


ARGS = [
    Named(np.array([1, 2, 3], np.float32), ("k",)),
    Named(np.array([0, 2, 3, -1], np.int32), ("p",)),
]


def test_gather_modes():
    assert run(gather("clip"), ARGS)[0].array.tolist() == [1, 3, 3, 1]
    assert run(gather("fill", 9.0), ARGS)[0].array.tolist() == [1, 3, 9, 9]
    with pytest.raises(IndexRangeError) as caught:
        run(gather("raise"), ARGS)
    assert str(caught.value) == (
        "index 3 is out of range for k, which has size 3\n"
        "  x[k: i]   model.py:7\n"
        'Where that is meant, say mode="clip" or mode="fill".'
    )
    with pytest.raises(InternalError, match="trusted"):
        run(gather("trusted"), ARGS)


def test_diagonal_and_dims_that_stay():
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": 3, "j": 3}))
    program = b.finish([b.reindex(x, {"i": Form.of("j")}, {"j": 3})])
    values = np.arange(9, dtype=np.float32).reshape(3, 3)
    (out,) = run(program, [Named(values, ("i", "j"))])
    assert out.array.tolist() == [0, 4, 8]


def test_arguments_may_have_any_order():
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": 2, "j": 3}))
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    (out,) = run(b.finish([x]), [Named(values, ("j", "i"))])
    assert out.order == ("i", "j")
    assert out.array.tolist() == values.T.tolist()


# ---- bodies


def test_recurrence_over_two_dims():
    """Edit distance: reads of (i-1, j), (i, j-1), (i-1, j-1); out of range the position decides."""
    b = Builder()
    cost = b.param(Type.of(dt.i32, {"i": 3, "j": 4}))
    body = Builder()
    up, left, corner, here = (body.param(Type(dt.i32)) for _ in range(4))
    body.param(Type(dt.i32)), body.param(Type(dt.i32))
    one_ = body.constant(1, dt.i32)
    near = body.map("add", body.map("min", up, left), one_)
    step = body.finish([body.map("min", near, body.map("add", corner, here))])
    edge = b.map("max", b.iota("i", 3), b.iota("j", 4))
    after = b.map("add", edge, b.constant(1, dt.i32))
    reads = (Read(0, (1, 0)), Read(0, (0, 1)), Read(0, (1, 1)))
    op = Recur(("i", "j"), (True, True), (3, 4), reads, (after, after, edge), (cost,), step)
    out = run(
        b.finish(b.emit(op, [cost.type])),
        [Named(np.random.default_rng(1).integers(0, 2, (3, 4)).astype(np.int32), ("i", "j"))],
    )[0].array
    costs = np.random.default_rng(1).integers(0, 2, (3, 4))
    wanted = np.zeros((4, 5), int)
    wanted[0], wanted[:, 0] = range(5), range(4)
    for i in range(3):
        for j in range(4):
            near = min(wanted[i, j + 1], wanted[i + 1, j]) + 1
            wanted[i + 1, j + 1] = min(near, wanted[i, j] + costs[i, j])
    np.testing.assert_array_equal(out, wanted[1:, 1:])


def test_a_state_kept_last():
    b = Builder()
    x = b.param(Type.of(dt.f64, {"t": 4}))
    body = Builder()
    before, here, _ = (body.param(Type(t)) for t in (dt.f64, dt.f64, dt.i32))
    step = body.finish([body.map("sub", here, before)])
    zero = b.constant(0.0, dt.f64)
    read = (Read(0, (-1,)),)
    outs = []
    for keep, type_ in (("all", x.type), ("last", Type(dt.f64))):
        op = Recur(("t",), (False,), (4,), read, (zero,), (x,), step, (keep,))
        outs += b.emit(op, [type_])
    every, last = run(b.finish(outs), [Named(np.array([1.0, 10, 100, 1000]), ("t",))])
    assert every.array.tolist() == [-909, 910, -900, 1000]
    assert last.array == -909


def test_calls_and_custom_derivatives_run():
    twice = foreign.Foreign(
        "tests.twice",
        lambda args: [Named(args[0].array * 2, args[0].order)],
        lambda types: (types[0],),
    )
    foreign.register(twice)
    primal = Builder()
    v = primal.param(Type.of(dt.f32, {"i": 2}))
    b = Builder()
    x = b.param(v.type)
    (y,) = b.emit(Call("tests.twice", (x,)), [x.type])
    (z,) = b.emit(Custom(primal.finish([primal.map("neg", v)]), None, None, (y,)), [x.type])
    assert run(b.finish([z]), [Named(np.float32([1, 2]), ("i",))])[0].array.tolist() == [-2, -4]
