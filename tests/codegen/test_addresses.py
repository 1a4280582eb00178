"""Every way to read and write elements, and that nothing outside an array is touched."""

import pytest

from summand.dtypes import ALL, f32, i32, i64
from summand.ir.index import parse
from summand.loops.nodes import Address, Apply, Bound, Guard, Load, Nest, Position, Store
from tests.codegen.kernels import at, buffer, check_nest, schedule, total

REAL = [t for t in ALL if not t.is_complex]


@pytest.mark.parametrize("stride", [1, 2, 3, 5, 7, 100, -1, -2, -9])
def test_strides(stride):
    n = 41
    base = 0 if stride > 0 else -stride * (n - 1)
    reach = abs(stride) * (n - 1) + 1
    strided = at(f"{stride}*i+{base}")
    nest = Nest(
        (("i", n),), (Load("x", strided, f32),), (Store("y", at("i"), 0), Store("z", strided, 0))
    )
    params = (buffer("x", reach), buffer("y", n), buffer("z", reach))
    schedules = (
        schedule("i16", "", "", "i"),
        schedule("i8", "i2", "", "i"),
        schedule("i4", "", "i3", "i"),
    )
    check_nest(nest, params, (None, *schedules), 0)


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_dtypes_in_memory(dtype):
    guarded = Load("x", at("i+41*j+1", (), (("i", 40),)), dtype, fill=1)
    code = (Load("x", at("i+41*j"), dtype), guarded)
    nest = Nest(
        (("i", 41), ("j", 3)), code, (Store("y", at("i+41*j"), 0), Store("z", at("3*i+j"), 1))
    )
    params = (buffer("x", 123, dtype), buffer("y", 123, dtype), buffer("z", 123, dtype))
    schedules = (
        None,
        schedule("i16", "j3", "", "i"),
        schedule("i8", "", "j2", "i j"),
        schedule("j4", "i4", "", "i j"),
        schedule("i4 j4", "", "", "i j"),
        schedule("i32", "", "", "i j"),
    )
    check_nest(nest, params, schedules, 0)


def test_quotients_and_remainders():
    code = (
        Load("x", at("i//4+3*(i%4)"), f32),
        Position(parse("i//3"), i32),
        Position(parse("(i+1)%5"), f32),
        Position(parse("(3*i-50)//7"), i64),
    )
    stores = (
        Store("y", at("i"), 0),
        Store("z", at("i"), 1),
        Store("q", at("i"), 2),
        Store("p", at("i%9+9*(i//9)"), 3),
    )
    params = (
        buffer("x", 30),
        buffer("y", 45),
        buffer("z", 45, i32),
        buffer("q", 45),
        buffer("p", 45, i64),
    )
    schedules = (
        None,
        schedule("i16", "", "", "i"),
        schedule("i8", "i2", "", "i"),
        schedule("i4", "", "i3", "i"),
    )
    check_nest(Nest((("i", 45),), code, stores), params, schedules, 0)


GATHERS = (
    None,
    schedule("q16", "", "", "p q"),
    schedule("p16", "", "", "p q"),
    schedule("q8", "p2", "q2", "p q"),
    schedule("p4 q4", "", "", "p q"),
    schedule("p16", "q2", "", "p q"),
)


@pytest.mark.parametrize("index", [i32, i64], ids=str)
def test_gather(index):
    code = (Load("ix", at("p"), index), Load("x", at("q", ((0, 21),)), f32))
    nest = Nest((("p", 37), ("q", 21)), code, (Store("y", at("21*p+q"), 1),))
    check_nest(nest, (buffer("ix", 37, index), buffer("x", 2100), buffer("y", 777)), GATHERS, 0)


def test_gather_with_guards():
    guards = (Guard(parse("-20"), 60, ((0, 1),)), Guard(parse("q"), 18))
    code = (
        Load("ix", at("p"), i32),
        Load("x", Address(parse("q"), ((0, 21),), guards), f32, fill=3.5),
    )
    nest = Nest((("p", 37), ("q", 21)), code, (Store("y", at("21*p+q"), 1),))
    check_nest(nest, (buffer("ix", 37, i32), buffer("x", 21 * 80), buffer("y", 777)), GATHERS, 0)


def test_padding_of_a_convolution():
    guarded = Load("x", at("7*y+7*k+c-7", (), (("y+k-1", 29),)), f32, fill=-2.0)
    code = (guarded, Load("w", at("k"), f32), Apply("mul", (0, 1), f32), total("k", 2))
    nest = Nest((("y", 29), ("c", 7), ("k", 3)), code, (Store("o", at("7*y+c"), 3),))
    schedules = (
        None,
        schedule("c8", "", "k3", "y"),
        schedule("c8", "y3", "", "y k"),
        schedule("y16", "", "", "y c k"),
        schedule("y32", "", "k3", "c"),
        schedule("y4 c4", "", "k3", "y c"),
    )
    check_nest(nest, (buffer("x", 203), buffer("w", 3), buffer("o", 203)), schedules)


@pytest.mark.parametrize(
    "bound", [((), ("q+1",)), (("q-4",), ("q+3",)), (("5*q-60",), ("30-q",))], ids=str
)
def test_bounds(bound):
    lo, hi = (tuple(parse(f) for f in forms) for forms in bound)
    nest = Nest(
        (("q", 23), ("k", 23)),
        (Load("s", at("23*q+k"), f32), total("k", 0)),
        (Store("o", at("q"), 1),),
        (Bound("k", lo, hi),),
    )
    schedules = (
        None,
        schedule("q8", "", "", "q k"),
        schedule("", "q4", "k2", "q k"),
        schedule("k8", "q2", "", "q k"),
        schedule("q8", "", "k4", "q k"),
        schedule("q8", "", "k23", "q"),
        schedule("k8", "q8", "", "q k", "q8"),
    )
    check_nest(nest, (buffer("s", 23 * 23), buffer("o", 23)), schedules)


def test_bounds_keep_addresses_in_range():
    code = (
        Load("g", at("x-t"), f32),
        Load("w", at("t"), f32),
        Apply("mul", (0, 1), f32),
        total("t", 2),
    )
    bounds = (Bound("t", (parse("x-19"),), (parse("x+1"),)),)
    nest = Nest((("x", 22), ("t", 3)), code, (Store("o", at("x"), 3),), bounds)
    schedules = (
        None,
        schedule("x8", "", "", "x t"),
        schedule("", "x2", "", "x t"),
        schedule("x8", "", "t3", "x"),
        schedule("x4", "x3", "", "x t"),
    )
    check_nest(nest, (buffer("g", 20), buffer("w", 3), buffer("o", 22)), schedules)


def test_guarded_stores():
    store = Store("y", at("3*i+j-4", (), (("3*i+j-4", 100), ("i-j", 30))), 0)
    nest = Nest((("i", 45), ("j", 3)), (Load("x", at("3*i+j"), f32),), (store,))
    schedules = (
        None,
        schedule("i16", "", "", "i j"),
        schedule("j4", "i2", "", "i j"),
        schedule("i4 j4", "", "", "i j"),
        schedule("i8", "", "j3", "i"),
    )
    check_nest(nest, (buffer("x", 135), buffer("y", 100)), schedules, 0)
