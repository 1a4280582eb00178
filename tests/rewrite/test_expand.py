"""Expanded equations against the interpreter, at the edges: NaN, ties, exponents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import Group, Map, RandomBits, Sort, TopK, Type
from summand.ir.verify import verify
from summand.rewrite.expand import expand
from summand.rewrite.select import is_selection

floats = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf])


def assert_same(program, *args):
    after = expand(program)
    verify(after)
    for a, b in zip(run(program, args), run(after, args), strict=True):
        np.testing.assert_array_equal(a.array, b.array)


@given(st.lists(floats, min_size=1, max_size=9), st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_order_of_nan_and_ties(values, descending, data):
    n = len(values)
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": n}))
    places = Type.of(dt.i32, {"i": n})
    k = data.draw(st.integers(1, n))
    top = [Type.of(t, {"q": k}) for t in (dt.f32, dt.i32)]
    outs = [
        *b.emit(Sort(x, "i", descending), [x.type, places]),
        *b.emit(TopK(x, "i", "q"), top),
    ]
    assert_same(b.finish(outs), Named(np.array(values, np.float32), ("i",)))


@given(st.lists(floats, min_size=8, max_size=40), st.data())
@settings(max_examples=60, deadline=None)
def test_the_few_greatest(values, data):
    """Few of many are selected one after the other; NaN comes last, ties by position."""
    n = len(values)
    k = data.draw(st.integers(1, (n - 1) // 6))
    assert is_selection(k, n)
    b = Builder()
    x = b.param(Type.of(dt.f32, {"b": 2, "i": n}))
    outs = b.emit(TopK(x, "i", "q"), [Type.of(t, {"b": 2, "q": k}) for t in (dt.f32, dt.i32)])
    rows = np.array([values, values[::-1]], np.float32)
    assert_same(b.finish(outs), Named(rows, ("b", "i")))


@pytest.mark.parametrize("dtype", [dt.i8, dt.u32, dt.bool_, dt.bf16], ids=str)
def test_the_few_greatest_of_other_types(dtype):
    b = Builder()
    x = b.param(Type.of(dtype, {"i": 30}))
    outs = b.emit(TopK(x, "i", "q"), [Type.of(t, {"q": 4}) for t in (dtype, dt.i32)])
    values = np.arange(30) * 7 % 5
    if dtype is dt.i8:
        values[:] = -128
        values[3] = 127
    assert_same(b.finish(outs), Named(values.astype(dtype.numpy), ("i",)))


def test_sorting_follows_numpy():
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": 6}))
    out = b.emit(Sort(x, "i"), [x.type, x.type.with_dtype(dt.i32)])
    values = np.array([3, np.nan, -np.inf, 3, 0, np.inf], np.float32)
    found = run(expand(b.finish(out)), [Named(values, ("i",))])
    np.testing.assert_array_equal(found[0].array, np.sort(values))
    np.testing.assert_array_equal(found[1].array, np.argsort(values, kind="stable"))


@pytest.mark.parametrize("dtype", [dt.i8, dt.u32, dt.bool_, dt.i64], ids=str)
def test_order_of_integers(dtype):
    b = Builder()
    x = b.param(Type.of(dtype, {"b": 2, "i": 4}))
    types = [x.type, x.type.with_dtype(dt.i32)]
    outs = [*b.emit(Sort(x, "i", True), types), *b.emit(Sort(x, "i"), types)]
    least = 0 if dtype.kind in ("uint", "bool") else -(2 ** (dtype.bits - 1))
    values = np.array([[1, least, 0, 1], [0, 0, 1, least]]).astype(dtype.numpy)
    assert_same(b.finish(outs), Named(values, ("b", "i")))


def test_group():
    b = Builder()
    x = b.param(Type.of(dt.i32, {"p": 7}))
    types = [Type.of(dt.i32, {"p": 7}), Type.of(dt.i64, {"a": 5})]
    out = b.emit(Group(x, 4, "a"), types)
    assert_same(b.finish(out), Named(np.array([3, 0, 3, 1, 0, 0, 3], np.int32), ("p",)))


def test_random_bits():
    b = Builder()
    key = b.param(Type.of(dt.u64, {"s": 2}))
    bits = b.emit(RandomBits(key, ("j", "i")), [Type.of(dt.u32, {"i": 5, "j": 3, "s": 2})])
    keys = np.array([7, 2**64 - 1], np.uint64)
    assert_same(b.finish(bits), Named(keys, ("s",)))


EXPONENTS = [-3, -1, 0, 1, 2, 3, 7, 31, 64]


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("dtype", [dt.i32, dt.i8, dt.f64], ids=str)
def test_constant_exponents(dtype, exponent):
    b = Builder()
    x = b.param(Type.of(dtype, {"i": 6}))
    program = b.finish([b.map("pow", x, b.constant(exponent, dtype))])
    after = expand(program)
    verify(after)
    if dtype is dt.f64 or exponent >= 0:
        assert not any(isinstance(e.op, Map) and e.op.fn == "pow" for e in after.eqns)
    values = Named(np.array([-2, -1, 1, 2, 3, 5]).astype(dtype.numpy), ("i",))
    wanted, found = run(program, [values])[0].array, run(after, [values])[0].array
    np.testing.assert_allclose(found, wanted, rtol=1e-14 if dtype is dt.f64 else 0)


@pytest.mark.parametrize("dtype", [dt.i32, dt.u8, dt.i64], ids=str)
def test_integer_exponents_that_vary(dtype):
    b = Builder()
    x, y = b.param(Type.of(dtype, {"i": 5})), b.param(Type.of(dtype, {"j": 6}))
    base = Named(np.array([0, 1, 2, 3, -1]).astype(dtype.numpy), ("i",))
    exponents = np.array([0, 1, 2, 5, 30, 63 if dtype.kind == "uint" else -1])
    power = Named(exponents.astype(dtype.numpy), ("j",))
    assert_same(b.finish([b.map("pow", x, y)]), base, power)


@pytest.mark.parametrize("exponent", [-3.5, -2.5, -1.5, -0.5, 1.5, 2.5, 3.5])
@pytest.mark.parametrize("dtype", [dt.f32, dt.f64], ids=str)
def test_odd_halves(dtype, exponent):
    b = Builder()
    x = b.param(Type.of(dtype, {"i": 7}))
    program = b.finish([b.map("pow", x, b.constant(exponent, dtype))])
    after = expand(program)
    assert not any(isinstance(e.op, Map) and e.op.fn == "pow" for e in after.eqns)
    values = np.array([0.0, 1e-9, 0.3, 1.0, 7.0, np.inf, np.nan]).astype(dtype.numpy)
    with np.errstate(all="ignore"):
        wanted, found = (run(p, [Named(values, ("i",))])[0].array for p in (program, after))
    np.testing.assert_allclose(found, wanted, rtol=1e-6 if dtype is dt.f32 else 1e-14)


def test_square_root():
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": 3}))
    after = expand(b.finish([b.map("pow", x, b.constant(0.5, dt.f32))]))
    assert [e.op.fn for e in after.eqns if isinstance(e.op, Map)] == ["sqrt"]


@pytest.mark.parametrize("size", [513, 640, 1009, 4099])
@pytest.mark.parametrize("dtype", [dt.f32, dt.f64, dt.i8, dt.u32, dt.f16], ids=str)
def test_the_greatest_of_blocks(dtype, size):
    """Many are cut into blocks: repeated values, NaN and infinities at the blocks' edges."""
    rng = np.random.default_rng(size)
    values = rng.integers(0, 50, (2, size)).astype(dtype.numpy)
    if dtype.is_float:
        values[:, ::7] = np.nan
        values[0, 3::5] = -np.inf
        values[1, : size - 3] = np.nan  # fewer numbers than are asked for
    b = Builder()
    x = b.param(Type.of(dtype, {"b": 2, "i": size}))
    outs = b.emit(TopK(x, "i", "q"), [Type.of(t, {"b": 2, "q": 7}) for t in (dtype, dt.i32)])
    assert_same(b.finish(outs), Named(values, ("b", "i")))
