import numpy as np
import pytest

from summand import dtypes
from summand.ad import vjp
from summand.ad.derivatives import DERIVATIVES, ZERO
from summand.dtypes import complex128, f32, f64
from summand.ir.builder import Builder
from summand.ir.interp import run
from summand.ir.nodes import Type
from summand.ir.prims import PRIMS
from tests.ad.gradcheck import check, named

X = Type(f64, (("i", 3),))
Y = Type(f64, (("j", 2),))
POSITIVE = {"log", "sqrt", "rsqrt", "pow", "log1p"}
UNIT = {"asin", "acos"}


def test_every_op_has_a_derivative_or_is_listed_without():
    assert DERIVATIVES.keys() | ZERO == PRIMS.keys()
    assert not DERIVATIVES.keys() & ZERO


def test_one_entry_per_argument():
    for name, entries in DERIVATIVES.items():
        assert len(entries) == PRIMS[name].arity, name


def sample(name, var, seed):
    rng = np.random.default_rng(seed)
    shape = [n for _, n in var.type.dims]
    if name in UNIT:
        return named(var, rng.uniform(-0.8, 0.8, shape))
    if name in POSITIVE:
        return named(var, rng.uniform(0.3, 2, shape))
    return named(var, rng.normal(size=shape) + 0.1)


REAL = sorted(DERIVATIVES.keys() - {"where", "complex", "convert", "real", "imag", "conj"})


@pytest.mark.parametrize("name", REAL)
def test_real_ops(name):
    b = Builder()
    args = [b.param(X), b.param(Y)][: PRIMS[name].arity]
    b.params = args
    program = b.finish([b.map(name, *args)])
    check(program, args=[sample(name, p, n) for n, p in enumerate(args)])


HOLOMORPHIC = [
    *("add", "sub", "mul", "div", "neg", "exp", "log", "sqrt", "sin", "cos", "tanh"),
    *("sinh", "cosh", "pow", "rsqrt", "expm1"),
]


@pytest.mark.parametrize("name", [*HOLOMORPHIC, "abs", "real", "imag", "conj"])
def test_complex_ops(name):
    b = Builder()
    args = [b.param(t.with_dtype(complex128)) for t in (X, Y)][: PRIMS[name].arity]
    b.params = args
    check(b.finish([b.map(name, *args)]), order=1)


def test_complex_from_parts():
    b = Builder()
    x, y = b.param(X), b.param(Y)
    check(b.finish([b.map("complex", x, y)]), order=1)


@pytest.mark.parametrize("fn", ["real", "imag", "conj"])
def test_parts_of_a_real_number(fn):
    b = Builder()
    x = b.param(X)
    check(b.finish([b.map(fn, x)]), order=1)


def test_convert_between_real_and_complex():
    b = Builder()
    x = b.param(X)
    z = b.convert(x, complex128)
    check(b.finish([b.convert(b.map("mul", z, z), f64)]), order=1)


def test_convert_of_an_integer_has_no_derivative():
    b = Builder()
    x = b.param(X)
    n = b.convert(b.convert(x, dtypes.i32), f64)
    check(b.finish([b.map("mul", n, x)]))


def test_where_keeps_what_is_not_chosen_out():
    b = Builder()
    x = b.param(X)
    safe = b.map("gt", x, b.constant(0.0, f64))
    y = b.map("where", safe, b.map("mul", x, x), x)
    check(b.finish([y]))


def test_a_value_read_twice_and_broadcast():
    b = Builder()
    x, y = b.param(X), b.param(Y)
    m = b.map("mul", x, y)
    check(b.finish([b.map("mul", m, m), b.map("add", m, x)]))


def test_stop_gradient():
    b = Builder()
    x = b.param(X)
    y = b.map("mul", b.map("stop_gradient", x), x)
    program = b.finish([y])
    value = named(x, [1.0, 2.0, 3.0])
    one = named(x, np.ones(3))
    out = run(vjp(program, (0,)), [value, one])
    np.testing.assert_array_equal(out[1].array, value.array)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, -1.5])
def test_power_with_a_constant_exponent(exponent):
    b = Builder()
    x = b.param(X)
    y = b.map("pow", x, b.constant(exponent, f64))
    check(b.finish([y]), args=[named(x, [0.5, 1.5, 2.5])])


def test_slope_of_x_to_the_zero_at_zero():
    b = Builder()
    x, n = b.param(Type(f64)), b.param(Type(f64))
    program = vjp(b.finish([b.map("pow", x, n)]), (0, 1))
    out = run(program, [named(x, 0.0), named(n, 0.0), named(x, 1.0)])
    assert out[1].array == 0 and out[2].array == 0


def test_independent_parameter_has_zeros_with_all_dims():
    b = Builder()
    x, y = b.param(X), b.param(Y.with_dtype(f32))
    program = vjp(b.finish([b.map("exp", x)]), (0, 1))
    out = run(program, [named(x, np.zeros(3)), named(y, np.zeros(2)), named(x, np.ones(3))])
    assert out[2].sizes == {"j": 2} and not out[2].array.any()


@pytest.mark.parametrize("swapped", [False, True])
def test_slope_of_relu_at_zero_is_zero(swapped):
    b = Builder()
    x, zero = b.param(Type(f64)), b.constant(0.0, f64)
    program = vjp(b.finish([b.map("max", *((zero, x) if swapped else (x, zero)))]), (0,))
    out = run(program, [named(x, 0.0), named(x, 1.0)])
    assert out[1].array == 0
