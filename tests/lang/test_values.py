"""Element types, Python numbers, elementwise functions, arrays in and out."""

import copy
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

import summand as sm
from summand.errors import ArgumentError, DimError, DTypeError, TraceError

i, j, k = sm.dims("i j k")


def of(values, dtype=None):
    return sm.array(np.asarray(values), i, dtype=dtype)


# ---- types


@pytest.mark.parametrize("name", ["bool", "u8", "u32", "u64", "i8", "i16", "i32", "i64"])
def test_integers_meet_floats_at_the_float(name):
    a = of([1, 0, 1], dtype=name)
    assert (a * of([0.5, 0.5, 0.5], dtype="f16")).dtype is sm.f16
    assert (a + 0.5).dtype is sm.f32
    assert (a / 2).dtype is sm.f32
    assert sm.exp(a).dtype is sm.f32


def test_python_numbers_are_weak():
    for dtype in (sm.f16, sm.bf16, sm.f32, sm.f64):
        a = of([1.0, 2.0], dtype=dtype)
        assert (a * 2).dtype is dtype
        assert (2.5 - a).dtype is dtype
        assert sm.where(a > 1, 0.0, -sm.inf).dtype is sm.f32
        assert (a + sm.where(a > 1, 0.0, -sm.inf)).dtype is dtype
        assert sm.maximum(a, 0).dtype is dtype
        assert (a * np.sqrt(2.0)).dtype is dtype
    assert (of([1, 2], dtype="u8") + 1).dtype is sm.u8
    assert (of([1.0]) * 1j).dtype is sm.complex128
    assert (of([1.0], dtype="f32") * 1j).dtype is sm.complex64
    assert (of([True]) + 1).dtype is sm.i32
    assert (of([1.0], dtype="f32") + np.float64(2)).dtype is sm.f32
    assert (of([1.0], dtype="f32") + np.float16(2)).dtype is sm.f32
    assert (of([1.0], dtype="f16") + np.float32(2)).dtype is sm.f32


def test_meeting_points():
    def met(a, b):
        return (of([1], dtype=a) + of([1], dtype=b)).dtype.name

    assert met("f16", "bf16") == "f32"
    assert met("u32", "i32") == "i64"
    assert met("u8", "i8") == "i16"
    assert met("f32", "complex64") == "complex64"
    assert met("f64", "complex64") == "complex128"
    assert met("i64", "f32") == "f32"


def test_lists_of_numbers_have_the_default_types():
    assert sm.array([1.0, 2.0], i).dtype is sm.f32
    assert sm.array([1, 2], i).dtype is sm.i32
    assert sm.array([1, 2**40], i).dtype is sm.i64
    assert sm.array([True], i).dtype is sm.bool_
    assert sm.array([1j], i).dtype is sm.complex64
    assert sm.array(3).dtype is sm.i32
    assert sm.array(np.arange(3), i).dtype is sm.i64


def test_numpys_numbers_keep_their_types():
    assert sm.array(np.float64(1)).dtype is sm.f64
    assert sm.array([np.float64(1), np.float64(2)], i).dtype is sm.f64
    assert sm.array([np.ones(2), np.ones(2)], i, k).dtype is sm.f64
    assert sm.array([[], []], i, k).dtype is sm.f32


def test_types_by_any_name():
    a = of([1.5])
    for name in ("f32", np.float32, np.dtype("float32"), sm.f32, float):
        assert a.astype(name).dtype is sm.f32
    with pytest.raises(ArgumentError, match="is not an element type"):
        a.astype("float33")


def test_bools():
    p, q = of([True, True, False]), of([True, False, False])
    np.testing.assert_array_equal((p + q).numpy(), [True, True, False])
    np.testing.assert_array_equal((p * q).numpy(), [True, False, False])
    np.testing.assert_array_equal((p ^ q).numpy(), [False, True, False])
    np.testing.assert_array_equal((~p | q).numpy(), [True, False, True])
    np.testing.assert_array_equal(sm.where(of([2, 0, 1]), 1, 0).numpy(), [1, 0, 1])
    with pytest.raises(DTypeError):
        p - q


def test_big_python_integers():
    with pytest.raises(DTypeError, match="does not fit in i8"):
        of([1], dtype="i8") + 128
    assert int((of([0], dtype="u64") + (2**64 - 1)).numpy()[0]) == 2**64 - 1


def test_bf16_comes_out_as_f32():
    a = of([1.0, 1.00390625, np.nan, -np.inf], dtype=sm.bf16)
    assert a.numpy().dtype == np.float32
    np.testing.assert_array_equal(a.numpy(), [1.0, 1.0, np.nan, -np.inf])


def test_complex_parts():
    z = of([3 + 4j, -1j])
    np.testing.assert_array_equal(z.real.numpy(), [3, 0])
    np.testing.assert_array_equal(z.imag.numpy(), [4, -1])
    np.testing.assert_array_equal(z.conj().numpy(), [3 - 4j, 1j])
    np.testing.assert_array_equal(abs(z).numpy(), [5, 1])
    r = of([1.0, 2.0])
    np.testing.assert_array_equal(r.imag.numpy(), [0, 0])
    np.testing.assert_array_equal(sm.complex(r, 2 * r).numpy(), [1 + 2j, 2 + 4j])


# ---- functions

UNARY = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "sinh": np.sinh, "cosh": np.cosh,
    "tanh": np.tanh, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "floor": np.floor, "ceil": np.ceil, "round": np.round, "trunc": np.trunc, "sign": np.sign,
    "abs": np.abs, "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite,
    "square": np.square,
}  # fmt: skip
CORNERS = [0.0, -0.0, 0.5, -0.5, 1.0, 2.5, -3.5, 1e-30, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("name", UNARY)
def test_unary_functions_are_numpys(name):
    x = np.array(CORNERS)
    with np.errstate(all="ignore"):
        expected = UNARY[name](x)
    found = getattr(sm, name)(of(x)).numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_functions_of_our_own():
    x = np.array([-800.0, -2.0, 0.0, 3.0, 800.0])
    np.testing.assert_allclose(
        sm.sigmoid(of(x)).numpy(), [0, 1 / (1 + math.e**2), 0.5, 1 / (1 + math.e**-3), 1],
        atol=1e-15,
    )  # fmt: skip
    np.testing.assert_allclose(sm.softplus(of(x)).numpy(), np.logaddexp(x, 0), rtol=1e-12)
    np.testing.assert_allclose(sm.relu(of(x)).numpy(), np.maximum(x, 0))
    np.testing.assert_allclose(sm.silu(of(x)).numpy()[1:], x[1:] / (1 + np.exp(-x[1:])))
    erf = np.array([math.erf(v / math.sqrt(2)) for v in x])
    np.testing.assert_allclose(sm.gelu(of(x)).numpy(), x * (1 + erf) / 2, atol=1e-12)
    np.testing.assert_allclose(sm.rsqrt(of([4.0])).numpy(), [0.5])
    np.testing.assert_allclose(sm.clip(of(x), -1, 1).numpy(), np.clip(x, -1, 1))
    np.testing.assert_allclose(sm.clip(of(x), high=1).numpy(), np.minimum(x, 1))


def test_two_operands_as_in_numpy():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(20) * 3, rng.standard_normal(20) * 3
    A, B = of(a), of(b)
    np.testing.assert_allclose((A // B).numpy(), a // b)
    np.testing.assert_allclose((A % B).numpy(), a % b, atol=1e-12)
    np.testing.assert_allclose(sm.atan2(A, B).numpy(), np.arctan2(a, b))
    np.testing.assert_allclose(sm.maximum(A, B).numpy(), np.maximum(a, b))
    np.testing.assert_allclose(sm.logaddexp(A, B).numpy(), np.logaddexp(a, b))
    np.testing.assert_allclose((abs(A) ** B).numpy(), np.abs(a) ** b)
    np.testing.assert_array_equal(sm.isclose(A, A + 1e-12).numpy(), np.ones(20, bool))
    infinite = of([np.inf, -np.inf])
    np.testing.assert_array_equal(sm.logaddexp(infinite, infinite).numpy(), [np.inf, -np.inf])
    np.testing.assert_array_equal(sm.isclose(infinite, infinite).numpy(), [True, True])
    n, m = np.array([-7, 7, -7, 7]), np.array([2, -2, -2, 2])
    np.testing.assert_array_equal((of(n) // of(m)).numpy(), n // m)
    np.testing.assert_array_equal((of(n) % of(m)).numpy(), n % m)
    np.testing.assert_array_equal((of([1, 2]) << 3 >> 1).numpy(), [4, 8])


@pytest.mark.parametrize("p", [0, 1, 2, 3, 7, -1, -2, 0.5, 2.0, 20, -0.5, 1.5, -1.5, 3.5, 0.25])
def test_powers(p):
    x = np.array([0.5, 1.0, 2.0, 3.0])
    np.testing.assert_allclose((of(x) ** p).numpy(), x**p, rtol=1e-12)


def test_powers_of_negative_and_integer_bases():
    np.testing.assert_allclose((of([-2.0, 0.0]) ** 3).numpy(), [-8, 0])
    np.testing.assert_array_equal((of([-2, 3]) ** 2).numpy(), [4, 9])
    np.testing.assert_allclose((of([4, 10**5]) ** 3.5).numpy(), [128, 1e17 * 10**0.5], rtol=1e-6)
    assert math.isnan((of([-1.0]) ** 1.5).numpy()[0])
    assert (of([0.0]) ** -1.5).numpy()[0] == np.inf
    np.testing.assert_array_equal((of([np.nan]) ** 0).numpy(), [1.0])
    np.testing.assert_array_equal((2 ** of([0, 3])).numpy(), [1, 8])


def test_comparisons_are_elementwise():
    a = of([1.0, np.nan])
    np.testing.assert_array_equal((a == a).numpy(), [True, False])
    np.testing.assert_array_equal((a != 1).numpy(), [False, True])
    assert (a == None) is False  # noqa: E711
    assert (a == "text") is False


# ---- in and out


def test_data_is_copied_unless_asked():
    x = np.ones(3)
    copied, aliased = sm.array(x, i), sm.array(x, i, copy=False)
    x[0] = 5
    assert copied.numpy()[0] == 1
    assert aliased.numpy()[0] == 5


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a.T,
        lambda a: a[::-1],
        lambda a: a[::2, 1:],
        lambda a: np.asfortranarray(a),
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: a.astype(">f8"),
        lambda a: a.astype(np.uint16),
    ],
)
def test_any_memory_layout(view):
    a = view(np.arange(12.0).reshape(3, 4))
    for copied in (True, False):
        A = sm.array(a, i, k, copy=copied)
        np.testing.assert_array_equal(A.numpy(i, k), a)
        np.testing.assert_array_equal((A + 1).numpy(k, i), (a + 1).T)
        np.testing.assert_array_equal(sm.sum[i](A).numpy(), a.sum(0))


def test_element_types_that_do_not_exist():
    for values in (np.ones(2, np.longdouble), np.array(["a"]), np.array([object()])):
        with pytest.raises(DTypeError, match="was given elements of type"):
            sm.array(values, i)


def test_numpy_results_are_read_only_views():
    a = sm.array(np.ones((2, 3)), i, k)
    out = a.numpy(k, i)
    with pytest.raises(ValueError, match="read-only"):
        out[0] = 2
    assert a.numpy(i, k).base is not None


def test_numpy_functions_take_arrays_of_one_dim():
    a = of([1.0, 2.0])
    np.testing.assert_array_equal(np.asarray(a), [1, 2])
    np.testing.assert_array_equal(np.asarray(a, dtype=np.float32), [1, 2])
    with pytest.raises(DimError, match="has an order of dims"):
        np.asarray(sm.array(np.ones((2, 2)), i, k))


def test_scalars():
    a = sm.sum[i](of([1.0, 2.0]))
    assert float(a) == 3.0
    assert int(a) == 3
    assert bool(a) is True
    assert complex(a) == 3
    assert a.item() == 3.0
    assert f"{a:.2f}" == "3.00"
    assert "abc"[sm.array(1)] == "b"
    with pytest.raises(DimError):
        float(of([1.0, 2.0]))
    with pytest.raises(TraceError):
        len(of([1.0]))


def test_printing():
    assert repr(sm.array(np.eye(2), i, k)) == "Array f64{i=2, k=2}\n[[1. 0.]\n [0. 1.]]"
    assert repr(sm.array(2.5)) == "Array f32{} 2.5"
    assert repr(i >= k) == "Array bool{i=?, k=?}, sizes not known yet"
    conflict = of([1.0]) + of([1.0, 2.0])
    assert repr(conflict) == "Array f64{i=?}: elementwise operation, but i has two sizes"
    shown = []
    sm.jit(lambda x: shown.append(repr(x + 1)) or x)(of([1.0]))
    assert shown == ["Array f64{i=1}, traced"]


def test_arrays_from_nothing():
    np.testing.assert_array_equal(sm.zeros({i: 2, k: 3}).numpy(i, k), np.zeros((2, 3)))
    np.testing.assert_array_equal(sm.ones((sm.Dim("w", 2),)).numpy(), [1, 1])
    assert sm.full({i: 2}, 7).dtype is sm.i32
    np.testing.assert_array_equal(sm.full_like(of([1.0, 2.0]), 3).numpy(), [3, 3])
    np.testing.assert_allclose(sm.linspace(0, 1, sm.Dim("w", 5)).numpy(), np.linspace(0, 1, 5))
    with pytest.raises(DimError, match="nothing gives i a size"):
        sm.zeros((i,))


def test_concat_and_stack():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(10.0).reshape(2, 5)
    A, B = sm.array(a, i, k), sm.array(b, i, k)
    found = sm.concat((A, B, A), k)
    np.testing.assert_array_equal(found.numpy(i, k), np.concatenate((a, b, a), axis=1))
    np.testing.assert_array_equal(sm.concat([A], k).numpy(i, k), a)
    none = sm.array(np.zeros((2, 0)), i, k)
    np.testing.assert_array_equal(sm.concat((none, A, none), k).numpy(i, k), a)
    grad = sm.grad(lambda x: sm.sum[i, k](sm.concat((x, 2 * x), k) ** 2))(A)
    np.testing.assert_allclose(grad.numpy(i, k), 10 * a)
    row = sm.array(np.arange(3.0), k)
    both = sm.concat((A, row), k).numpy(i, k)
    np.testing.assert_array_equal(both, np.concatenate((a, [np.arange(3.0)] * 2), axis=1))
    side = sm.stack((A, row, 7), j)
    expected = np.stack([a, np.broadcast_to(np.arange(3.0), (2, 3)), np.full((2, 3), 7.0)])
    np.testing.assert_array_equal(side.numpy(j, i, k), expected)
    with pytest.raises(DimError, match="no dim k"):
        sm.concat((A, sm.array(np.ones(2), i)), k)
    with pytest.raises(DimError, match="an operand has that dim"):
        sm.stack((A, A), k)
    with pytest.raises(ArgumentError, match="takes a tuple"):
        sm.concat(A, k)


def test_ndarrays_defer_to_arrays():
    a = of([1.0, 2.0])
    np.testing.assert_array_equal((np.float64(2) * a).numpy(), [2, 4])
    np.testing.assert_array_equal((np.array(2.0) * a).numpy(), [2, 4])
    with pytest.raises(ArgumentError, match="has no named dims"):
        np.ones(2) * a


def test_evaluate_computes_together():
    a = of([1.0, 2.0])
    b, c = sm.exp(a), sm.exp(a) + 1
    sm.evaluate(b, c)
    assert b.value.buffer is not None
    assert c.value.buffer is not None


def test_long_chains_do_not_exhaust_the_stack():
    a = total = of([1.0, 2.0])
    w = sm.Dim("w", 1)
    pending = a[i : i + w]
    for _ in range(3000):
        total = total + a
        pending = pending + 1
    np.testing.assert_array_equal(total.numpy(), [3001, 6002])
    np.testing.assert_array_equal(pending.numpy(i, w), [[3001], [3002]])


def test_dlpack():
    a = sm.array(np.arange(6.0).reshape(2, 3), i, k)
    found = np.from_dlpack(a.dlpack(k, i))
    np.testing.assert_array_equal(found, np.arange(6.0).reshape(2, 3).T)
    np.testing.assert_array_equal(np.from_dlpack(of([1.0, 2.0]) * 2), [2, 4])
    with pytest.raises(DimError, match="has an order of dims"):
        np.from_dlpack(a)


def test_objects_that_hold_arrays_keep_their_types():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return np.array([1.0, 2.0])

    assert sm.array(Tensor(), i).dtype is sm.f64


def test_pickles():
    a = sm.array(np.arange(6.0).reshape(2, 3), i, k) * 2
    again, dims = pickle.loads(pickle.dumps((a, [i, k])))
    assert dims == [i, k]
    np.testing.assert_array_equal((again - a).numpy(i, k), np.zeros((2, 3)))
    half = pickle.loads(pickle.dumps(of([1.5], dtype="bf16")))
    assert half.dtype is sm.bf16
    assert half.numpy()[0] == 1.5
    assert copy.deepcopy({i: a})[i].dims == a.dims


def test_pickles_of_another_process():
    script = (
        "import pickle, sys, numpy as np, summand as sm\n"
        "noise = sm.dims('a b c d'); i, w = sm.Dim('i'), sm.Dim('w', 2)\n"
        "a = sm.array(np.ones((3, 2)), i, w)\n"
        "sys.stdout.buffer.write(pickle.dumps((a, i, w)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    a, far, w = pickle.loads(run.stdout)
    assert far.name == "i"
    assert far != i
    assert w.size == 2
    np.testing.assert_array_equal(sm.sum[far](a).numpy(), [3, 3])
    again, _, _ = pickle.loads(run.stdout)
    assert set(again.dims) == {far, w}
