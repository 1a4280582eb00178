"""NaN, infinities, signed zeros and denormals go through every operation as in NumPy."""

import warnings

import numpy as np
import pytest

import summand as sm
from tests.robust.both import agree, compiled, floats

i, j, k, t = sm.dims("i j k t")

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.0, 1e-40, -1e-40, 3e38], np.float32)
PAIRS = np.array([(a, b) for a in SPECIAL for b in SPECIAL], np.float32)
DTYPES = ["f32", "f64", "f16", "bf16"]

quiet = pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
pytestmark = quiet


def pairs(dtype="f32"):
    return floats(PAIRS[:, 0], k, dtype=dtype), floats(PAIRS[:, 1], k, dtype=dtype)


BINARY = {
    "add": (lambda a, b: a + b, np.add),
    "sub": (lambda a, b: a - b, np.subtract),
    "mul": (lambda a, b: a * b, np.multiply),
    "div": (lambda a, b: a / b, np.divide),
    "maximum": (sm.maximum, np.maximum),
    "minimum": (sm.minimum, np.minimum),
    "lt": (lambda a, b: a < b, np.less),
    "le": (lambda a, b: a <= b, np.less_equal),
    "gt": (lambda a, b: a > b, np.greater),
    "ge": (lambda a, b: a >= b, np.greater_equal),
    "eq": (lambda a, b: a == b, np.equal),
    "ne": (lambda a, b: a != b, np.not_equal),
    "where": (lambda a, b: sm.where(a < b, a, b), lambda a, b: np.where(a < b, a, b)),
    "atan2": (sm.atan2, np.arctan2),
    "pow": (sm.pow, np.power),
    "logaddexp": (sm.logaddexp, np.logaddexp),
}


@pytest.mark.parametrize("name", BINARY)
def test_of_two(name):
    ours, theirs = BINARY[name]
    (found,) = agree(ours, *pairs())
    expected = theirs(PAIRS[:, 0], PAIRS[:, 1])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["add", "mul", "maximum", "minimum", "le", "where"])
def test_of_two_in_every_float_type(name, dtype):
    agree(BINARY[name][0], *pairs(dtype), rtol=1e-2)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "where"])
def test_signs_of_zeros(name):
    ours, theirs = BINARY[name]
    (found,) = compiled(ours, *pairs())
    expected = theirs(PAIRS[:, 0], PAIRS[:, 1])
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(expected[zero]))


UNARY = {
    "exp": (sm.exp, np.exp),
    "log": (sm.log, np.log),
    "expm1": (sm.expm1, np.expm1),
    "log1p": (sm.log1p, np.log1p),
    "sqrt": (sm.sqrt, np.sqrt),
    "tanh": (sm.tanh, np.tanh),
    "sin": (sm.sin, np.sin),
    "cos": (sm.cos, np.cos),
    "abs": (sm.abs, np.abs),
    "sign": (sm.sign, np.sign),
    "floor": (sm.floor, np.floor),
    "ceil": (sm.ceil, np.ceil),
    "round": (sm.round, np.round),
    "trunc": (sm.trunc, np.trunc),
    "isnan": (sm.isnan, np.isnan),
    "isinf": (sm.isinf, np.isinf),
    "isfinite": (sm.isfinite, np.isfinite),
    "reciprocal": (lambda a: 1 / a, np.reciprocal),
    "square": (lambda a: a * a, np.square),
    "neg": (lambda a: -a, np.negative),
}


@pytest.mark.parametrize("name", UNARY)
def test_of_one(name):
    ours, theirs = UNARY[name]
    (found,) = agree(ours, floats(SPECIAL, k))
    np.testing.assert_allclose(found, theirs(SPECIAL), rtol=1e-5, atol=1e-37)
    (found,) = agree(ours, floats(SPECIAL, k, dtype="f64"))
    np.testing.assert_allclose(found, theirs(SPECIAL.astype(np.float64)), rtol=1e-6)


ROWS = np.array(
    [
        [1, 2, 3, 4, 5],
        [1, np.nan, 3, 4, 5],
        [np.nan, 2, 3, 4, np.nan],
        [1, 2, 3, 4, np.nan],
        [np.inf, 2, -np.inf, 4, 5],
        [np.inf, np.inf, 1, 1, 1],
        [-np.inf] * 5,
        [-np.inf, np.nan, np.inf, 0, 0],
        [-0.0] * 5,
    ],
    np.float32,
)
FOLDS = {
    "sum": (sm.sum, np.sum),
    "prod": (sm.prod, np.prod),
    "max": (sm.max, np.max),
    "min": (sm.min, np.min),
    "mean": (sm.mean, np.mean),
    "argmax": (sm.argmax, np.argmax),
    "argmin": (sm.argmin, np.argmin),
}


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("name", FOLDS)
def test_folds(name, dtype):
    ours, theirs = FOLDS[name]
    (found,) = agree(lambda a: ours[k](a), floats(ROWS, i, k, dtype=dtype))
    np.testing.assert_array_equal(found, theirs(ROWS, axis=1))
    (found,) = agree(lambda a: ours[i](a), floats(ROWS.T, k, i, dtype=dtype))
    np.testing.assert_array_equal(found, theirs(ROWS, axis=0))


@pytest.mark.parametrize("name", FOLDS)
@pytest.mark.parametrize("place", [0, 17, 499, 999])
def test_one_nan_in_a_long_row_is_seen(name, place):
    ours, theirs = FOLDS[name]
    row = np.linspace(-1, 1, 1000, dtype=np.float32)
    row[place] = np.nan
    (found,) = agree(lambda a: ours[k](a), floats(row, k))
    np.testing.assert_array_equal(found, theirs(row))


def softmax(z, over):
    e = sm.exp(z - sm.max[over](z))
    return e / sm.sum[over](e)


def test_softmax():
    (found,) = agree(lambda z: softmax(z, k), floats(ROWS, i, k))
    e = np.exp(ROWS - ROWS.max(1, keepdims=True))
    np.testing.assert_allclose(found, e / e.sum(1, keepdims=True), rtol=1e-5)


def test_softmax_with_masked_scores():
    scores = np.array([[1, 2, -np.inf], [-np.inf, 0, -np.inf]], np.float32)
    (found,) = agree(lambda z: softmax(z, k), floats(scores, i, k))
    np.testing.assert_array_equal(found[1], [0, 1, 0])
    assert found[0, 2] == 0 and np.isfinite(found).all()
    weights = floats([[1, 2, 3], [1, 2, 3]], i, k)
    slope = sm.grad(lambda z: sm.sum[i, k](softmax(z, k) * weights))
    (found,) = agree(slope, floats(scores, i, k))
    assert np.isfinite(found).all()


def test_nan_times_zero_is_not_folded_away():
    (found,) = agree(lambda a: a * 0, floats(SPECIAL, k))
    np.testing.assert_array_equal(found, SPECIAL * 0)
    (found,) = agree(lambda a: a - a, floats(SPECIAL, k))
    np.testing.assert_array_equal(found, SPECIAL - SPECIAL)
    (found,) = agree(lambda a: sm.sum[k](a * sm.zeros({k: 10, i: 3})), floats(SPECIAL, k))
    assert np.isnan(found).all()
    (found,) = agree(lambda a: a / a, floats(SPECIAL, k))
    np.testing.assert_array_equal(found, SPECIAL / SPECIAL)
    (found,) = agree(lambda a: a == a, floats(SPECIAL, k))
    np.testing.assert_array_equal(found, SPECIAL == SPECIAL)


def test_contraction_with_specials():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((37, 41)).astype(np.float32)
    b = rng.standard_normal((41, 19)).astype(np.float32)
    a[3, 5], a[36, 40], b[7, 18] = np.nan, np.inf, -np.inf
    (found,) = agree(lambda a, b: sm.sum[k](a * b), floats(a, i, k), floats(b, k, j), rtol=1e-3)
    expected = a @ b
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))


def test_a_nan_in_one_lane_stays_in_its_lane():
    x = np.ones((7, 33), np.float32)
    x[2, 20] = np.nan
    step = lambda a: sm.recur(lambda h: h[t : t - 1] * 0.5 + a, over=t, init=0.0)  # noqa: E731
    (found,) = agree(step, floats(x, t, i))
    bad = np.isnan(found.T)
    assert bad[2:, 20].all() and bad.sum() == 5


def test_gathers_and_scatters_carry_nan():
    at = sm.array(np.array([0, 2, 2]), j)
    (found,) = agree(lambda a: a[k:at], floats(SPECIAL, k))
    np.testing.assert_array_equal(found, SPECIAL[[0, 2, 2]])
    bins = sm.Dim("bins", 3)
    found = agree(
        lambda a: tuple(f[j](a, at={bins: at}) for f in (sm.sum, sm.max, sm.min)),
        floats([np.nan, 1, np.nan], j),
    )
    assert all(np.isnan(x[[0, 2]]).all() for x in found)


def test_sort_puts_nan_last():
    row = np.array([3, np.nan, -np.inf, np.inf, 1, np.nan], np.float32)
    (found,) = agree(lambda a: sm.sort(a, k), floats(row, k))
    np.testing.assert_array_equal(found, np.sort(row))


@pytest.mark.parametrize("dtype", ["i32", "i64", "u8", "i8"])
def test_conversions_of_floats_that_do_not_fit_do_not_crash(dtype):
    (found,) = compiled(lambda a: a.astype(dtype), floats(SPECIAL, k))
    np.testing.assert_array_equal(found[[3, 4, 5]], [0, 0, 1])


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_denormals_are_kept(dtype):
    tiny = np.array([1e-40, -3e-42, 1e-45], np.float32)
    if dtype == "f64":
        tiny = np.array([1e-310, -5e-324, 2e-308], np.float64)
    (found,) = agree(lambda a: a * 1, floats(tiny, k, dtype=dtype), atol=0)
    np.testing.assert_array_equal(found, tiny)
    (found,) = agree(lambda a: a * 0.5 + a * 0.5, floats(tiny[:1], k, dtype=dtype), atol=0)
    last_bit = np.finfo(tiny.dtype).smallest_subnormal  # a fused multiply-add rounds once
    np.testing.assert_allclose(found, tiny[:1], rtol=0, atol=last_bit)
    many = np.full(1000, tiny[0])
    (found,) = agree(lambda a: sm.sum[k](a), floats(many, k, dtype=dtype), atol=0)
    np.testing.assert_allclose(found, many.sum(), rtol=1e-3)


def test_integer_division_by_zero_does_not_crash():
    a = sm.array(np.array([5, -5, 0, -(2**31)], np.int32), k)
    b = sm.array(np.array([0, 0, 0, -1], np.int32), k)
    agree(lambda a, b: a // b, a, b)
    agree(lambda a, b: a % b, a, b)


def test_integers_wrap_around():
    most = np.array([2**31 - 1, -(2**31)], np.int32)
    (found,) = agree(lambda a: a + a, sm.array(most, k))
    np.testing.assert_array_equal(found, most + most)
    (found,) = agree(lambda a: sm.abs(a), sm.array(most, k))
    np.testing.assert_array_equal(found, np.abs(most))


def test_shifts_beyond_the_width_do_not_crash():
    a = sm.array(np.array([1, -1, 5], np.int32), k)
    by = sm.array(np.array([31, 32, 40], np.int32), k)
    (found,) = compiled(lambda a, by: a << by, a, by)
    assert found.shape == (3,)


def test_numpys_error_state_and_warnings_are_the_users_own():
    """Constants are folded with NumPy; whoever makes its warnings errors sees no difference."""
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        x = floats([1.0, 2.0], k)
        zeros = sm.zeros({k: 2})
        assert np.isinf((x * sm.exp(zeros + 1000)).numpy()).all()
        assert np.isinf((x / 0).numpy()).all()
        assert np.isinf(sm.log(zeros).numpy()).all()
        assert np.isnan((zeros / zeros).numpy()).all()
        assert np.isinf(sm.array(np.array([1e300]), k).astype("f16").numpy()).all()
        assert np.isinf(sm.array(np.array([1e300]), k, dtype="f32").numpy()).all()
        most = sm.full({k: 2}, 2**31 - 1, "i32")
        np.testing.assert_array_equal((most + 1).numpy(), [-(2**31)] * 2)
        assert np.isinf(sm.grad(lambda x: sm.sum[k](sm.sqrt(x)))(floats([0.0], k)).numpy())
        with sm.interpret():
            assert np.isinf(sm.exp(floats([1000.0], k)).numpy())
            assert np.isnan((zeros / zeros).numpy()).all()
