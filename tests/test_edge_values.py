"""Scalar ops compiled and interpreted where machines differ: no fault, and the same result."""

import itertools

import numpy as np
import pytest

from summand import compiler
from summand import dtypes as dt
from summand.dtypes import narrow
from summand.ir.builder import Builder
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import Type
from summand.options import Options
from summand.runtime.executable import Executable

INTEGERS = (dt.i8, dt.i16, dt.i32, dt.i64, dt.u8, dt.u32, dt.u64)
FLOATS = (dt.f32, dt.f64, dt.f16, dt.bf16)


def corners(dtype):
    if dtype is dt.bool_:
        return np.array([False, True])
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        values = [info.min, info.min + 1, 0, 1, 2, 7, info.max - 1, info.max]
        return np.array(values + ([-1, -2, -7] if info.min else []), dtype.numpy)
    with np.errstate(all="ignore"):
        wide = np.float64([0.0, -0.0, 1, -1, 0.5, -2.5, 3.7, 255.5, 1e5, -1e5, 3e9, 2.0**63])
        wide = np.append(wide, [-(2.0**63), 1e30, -1e30, np.inf, -np.inf, np.nan, 1e-40])
        return narrow(wide, dtype)


def compare(program, *arrays):
    args = [Named(a, ("p",)) for a in arrays]
    wanted = run(program, args)
    orders = [("p",)] * len(arrays), [("p",)] * len(wanted)
    asked = compiler.request(program, *orders, Options(verify=True))
    found = Executable(compiler.build(asked, compiler.Log())).run(list(arrays))
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(b, a.array)


def pairs(dtype):
    both = np.array(list(itertools.product(range(len(corners(dtype))), repeat=2)))
    return corners(dtype)[both[:, 0]], corners(dtype)[both[:, 1]]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_arithmetic(dtype):
    """Division by zero and of the least integer by -1, and shifts by all that is in range."""
    left, right = pairs(dtype)
    b = Builder()
    x, y = (b.param(Type.of(dtype, {"p": len(left)})) for _ in range(2))
    ops = ("add", "sub", "mul", "floordiv", "mod", "max", "min", "lt", "eq", "and", "xor")
    outs = [b.map(fn, x, y) for fn in ops]
    outs += [b.map(fn, x) for fn in ("neg", "abs", "sign", "not")]
    shift = b.map("and", y, b.constant(dtype.bits - 1, dtype))
    outs += [b.map(fn, x, shift) for fn in ("shl", "shr")]
    compare(b.finish(outs), left, right)


@pytest.mark.parametrize("source", [*FLOATS, *INTEGERS, dt.bool_], ids=str)
def test_conversions(source):
    """Floats to integers truncate and saturate, NaN gives 0; integers wrap."""
    values = corners(source)
    b = Builder()
    x = b.param(Type.of(source, {"p": len(values)}))
    targets = [t for t in (*FLOATS, *INTEGERS, dt.bool_) if t != source]
    compare(b.finish([b.convert(x, t) for t in targets]), values)


@pytest.mark.parametrize("dtype", [dt.f32, dt.f64], ids=str)
def test_float_comparisons_and_rounding(dtype):
    left, right = pairs(dtype)
    b = Builder()
    x, y = (b.param(Type.of(dtype, {"p": len(left)})) for _ in range(2))
    ops = ("max", "min", "lt", "le", "gt", "ge", "eq", "ne", "add", "sub", "mul", "div")
    outs = [b.map(fn, x, y) for fn in ops]
    ops = ("floor", "ceil", "round", "trunc", "abs", "neg", "sign", "isnan", "isinf", "isfinite")
    outs += [b.map(fn, x) for fn in ops]
    compare(b.finish(outs), left, right)


@pytest.mark.parametrize("fn", ["floordiv", "mod"])
@pytest.mark.parametrize("dtype", [dt.f32, dt.f64], ids=str)
def test_float_division_with_remainder(dtype, fn):
    left, right = pairs(dtype)
    moderate = (np.abs(left) < 1e6) & ~((np.abs(right) < 1e-3) & (right != 0))
    left, right = left[moderate], right[moderate]  # beyond, the quotient is not a whole number
    b = Builder()
    x, y = (b.param(Type.of(dtype, {"p": len(left)})) for _ in range(2))
    compare(b.finish([b.map(fn, x, y)]), left, right)
