"""Every op of the table on every type it admits, against NumPy, for several lane counts."""

import numpy as np
import pytest

import summand as sm
from summand.codegen.cpu import vmath
from summand.codegen.cpu.ops import IDENTITIES, REFUSED
from summand.dtypes import ALL, DType, bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u32, u64
from summand.ir.prims import PRIMS
from summand.loops.apply import apply
from summand.loops.storage import convert as convert_values
from tests.codegen.harness import BASELINE, run

INTS = (i8, i16, i32, i64, u8, u32, u64)
FLOATS = (f32, f64)
REAL = (bool_, *INTS, *FLOATS)
LANES = (1, 8, 16)
RNG = np.random.default_rng(7)


def samples(dtype: DType, count: int = 400) -> np.ndarray:
    if dtype is bool_:
        return RNG.integers(0, 2, count).astype(bool)
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        edge = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 7]
        edge += [-1, -2, -7] if info.min else []
        small = RNG.integers(max(info.min, -9), 10, count // 2)
        wide = RNG.integers(info.min, info.max, count // 2, dtype=dtype.numpy, endpoint=True)
        base = np.concatenate([np.array(edge, dtype.numpy), small.astype(dtype.numpy), wide])
    else:
        edge = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 2.5, -2.5, 0.5, 3e38]
        normal = RNG.standard_normal(count) * 10.0 ** RNG.integers(-3, 4, count)
        base = np.concatenate([np.array(edge), normal]).astype(dtype.numpy)
    return RNG.permutation(base)


def pairs(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a few special values, then random ones."""
    a = samples(dtype)
    few = samples(dtype, 0)
    x, y = (g.reshape(-1) for g in np.meshgrid(few, few)) if few.size else (few, few)
    return np.concatenate([x, a]), np.concatenate([y, RNG.permutation(a)])


def check(name, args, sources, result, lanes, features=None, **tolerance):
    got = run(name, args, sources, result, lanes, features)
    want = apply(name, args, result)
    if result.is_float and tolerance:
        np.testing.assert_allclose(got, want, **tolerance)
    else:
        np.testing.assert_array_equal(got, want)
        if result.is_float:
            numbers = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


SIMPLE = [n for n in PRIMS if n not in vmath.FUNCTIONS and n not in REFUSED and n not in IDENTITIES]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("name", [n for n in SIMPLE if n not in ("where", "convert")])
def test_op_matches_numpy(name, lanes):
    prim = PRIMS[name]
    tried = 0
    for dtype in REAL:
        result = prim.rule(*(dtype,) * prim.arity)
        if result is None:
            continue
        if dtype is bool_ and name in ("floordiv", "mod", "shl", "shr", "sign", "neg", "pow"):
            continue
        args = pairs(dtype) if prim.arity == 2 else (samples(dtype),)
        check(name, args, (dtype,) * prim.arity, result, lanes)
        tried += 1
    assert tried


@pytest.mark.parametrize("dtype", REAL)
def test_where(dtype):
    p, a, b = samples(bool_, 409), samples(dtype)[:409], samples(dtype)[:409]
    size = min(p.size, a.size)
    args = [p[:size], a[:size], b[:size]]
    for lanes in LANES:
        check("where", args, (bool_, dtype, dtype), dtype, lanes)


@pytest.mark.parametrize("source", REAL)
@pytest.mark.parametrize("target", (*REAL, f16, bf16))
def test_convert(source, target):
    x = samples(source)
    for lanes in (1, 16):
        got = run("convert", [x], (source,), target, lanes)
        np.testing.assert_array_equal(got, convert_values(x, target))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["mod", "floordiv"])
def test_remainders_of_any_magnitude(name, dtype):
    bits = RNG.integers(0, 2 ** (dtype.bits - 1), (2, 4000), dtype=np.uint64)
    x, y = bits.astype(f"u{dtype.bytes}").view(dtype.numpy)
    with np.errstate(all="ignore"):
        args = [x * RNG.choice([-1, 1], 4000).astype(x.dtype), y]
    for lanes in (1, 16):
        check(name, args, (dtype, dtype), dtype, lanes)


@pytest.mark.parametrize("dtype", (*INTS, *FLOATS))
@pytest.mark.parametrize("name", ["add", "mul", "max", "min"])
def test_folds(name, dtype):
    args = pairs(dtype)
    for lanes in LANES:
        got = run(f"fold_{name}", args, (dtype, dtype), dtype, lanes)
        want = apply(name, args, dtype)
        np.testing.assert_array_equal(got, want)


def test_fold_of_bools():
    args = samples(bool_), samples(bool_)
    for name in ("and", "or"):
        got = run(f"fold_{name}", args, (bool_, bool_), bool_, 16)
        np.testing.assert_array_equal(got, apply(name, args, bool_))


def test_extremes_without_nan_are_one_instruction():
    x, y = (RNG.standard_normal(64).astype(np.float32) for _ in range(2))
    got = run("fold_max", [x, y], (f32, f32), f32, 16, nan=False)
    np.testing.assert_array_equal(got, np.maximum(x, y))


@pytest.mark.parametrize("name", ["add", "max", "round", "floordiv", "mod"])
def test_without_avx512(name):
    args = pairs(f32) if PRIMS[name].arity == 2 else (samples(f32),)
    check(name, args, (f32,) * PRIMS[name].arity, f32, 8, BASELINE)


def test_every_op_has_code_or_is_refused():
    covered = {*SIMPLE, *vmath.FUNCTIONS, *REFUSED, *IDENTITIES}
    assert covered >= set(PRIMS)
    assert {t.name for t in ALL} >= {t.name for t in REAL}


@pytest.mark.parametrize("target", (f16, bf16))
def test_convert_rounds_once(target):
    """Half a step of the narrow type, and a bit more that f32 does not hold."""
    step = 2.0 ** (-10 if target is f16 else -7)
    even = 1.0 + step * np.array([0.5, 1.5, 2.5, 3.5])
    x = np.concatenate([even, even + 2.0**-40, even - 2.0**-40])
    want = np.concatenate(
        [1 + step * np.array(k) for k in ([0, 2, 2, 4], [1, 2, 3, 4], [0, 1, 2, 3])]
    )
    for lanes in (1, 16):
        for signed, wanted in ((x, want), (-x, -want)):
            np.testing.assert_array_equal(run("convert", [signed], (f64,), target, lanes), wanted)
            np.testing.assert_array_equal(convert_values(signed, target), wanted)


@pytest.mark.parametrize("dtype", (f32, f64))
@pytest.mark.parametrize("number", (0.1, 3.0, -7.0, 255.0, 1e-3, 2.0, 1e38))
def test_division_by_a_number(dtype, number):
    """As NumPy divides, but for a last place now and then; exact quotients stay exact."""
    kind = dtype.numpy.type
    whole = np.arange(-2000, 2000).astype(kind)
    with np.errstate(all="ignore"):
        x = np.concatenate([whole, samples(dtype), whole * kind(number)])
    (i,) = sm.dims("i")
    found = sm.jit(lambda u: u / number)(sm.array(x, i)).numpy(i)
    with np.errstate(all="ignore"):
        wanted = x / kind(number)
    np.testing.assert_allclose(found, wanted, rtol=np.finfo(kind).eps, atol=np.finfo(kind).tiny)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))
    exact = whole.size
    np.testing.assert_array_equal(found[-exact:], wanted[-exact:])
    np.testing.assert_array_equal(found[:exact], wanted[:exact])
