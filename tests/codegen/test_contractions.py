"""Sums of products: tiles, tails, lanes over kept and folded dims, copies, changes of lanes."""

import pytest

from summand.dtypes import bf16, f16, f32, f64, i8, i32, i64, u8
from summand.ir.index import parse
from summand.loops.nodes import Apply, Load, Nest, Position, Store
from tests.codegen.kernels import at, buffer, check_nest, schedule, total

SCHEDULES = (
    None,
    schedule("n16", "m6 n2", "k2", "m n k"),
    schedule("n16", "m4", "k4", "n m k", copies=2),
    schedule("n8", "n5 m3", "k19", "m"),
    schedule("n64", "m2", "", "m k"),
    schedule("k16", "m4", "", "m n k"),
    schedule("k8", "m2", "k2", "m n k", copies=2),
    schedule("k16", "m2 n16", "", "m n k", "n16"),
    schedule("k8", "m8", "", "m n k", "m8"),
    schedule("n4 k4", "m2", "", "m n k"),
    schedule("n4 k4", "m4", "", "m n k", "m4 n4"),
    schedule("m4 n4", "m2 n2", "k3", "n m k"),
    schedule("m2 n8", "", "", "m n k"),
)
TOLERANCE = {f32: 1e-5, f64: 1e-12, f16: 4e-3, bf16: 300}  # bits of bf16 are compared


def product(m, n, k, dtype):
    code = (
        Load("a", at(f"{k}*m+k"), dtype),
        Load("b", at(f"{n}*k+n"), dtype),
        Apply("mul", (0, 1), dtype),
        total("k", 2, dtype),
    )
    nest = Nest((("m", m), ("n", n), ("k", k)), code, (Store("c", at(f"{n}*m+n"), 3),))
    return nest, (buffer("a", m * k, dtype), buffer("b", k * n, dtype), buffer("c", m * n, dtype))


@pytest.mark.parametrize("sizes", [(13, 37, 19), (12, 32, 4), (1, 5, 33), (7, 1, 2)])
def test_matrix_product(sizes):
    nest, params = product(*sizes, f32)
    check_nest(nest, params, SCHEDULES)


@pytest.mark.parametrize("dtype", [f64, i32, i64, i8, u8, f16, bf16], ids=str)
def test_matrix_product_of_dtype(dtype):
    nest, params = product(5, 21, 18, dtype)
    check_nest(nest, params, SCHEDULES[:6] + SCHEDULES[7:8], TOLERANCE.get(dtype, 0))


def test_capsule_convolution():
    code = (
        Load("p", at("240*y+40*c+10*a+4*i+k"), f32),
        Load("w", at("64*a+16*c+4*k+j"), f32),
        Apply("mul", (0, 1), f32),
        total("a c k", 2),
    )
    dims = (("y", 5), ("i", 2), ("j", 4), ("o", 3), ("a", 3), ("c", 2), ("k", 4))
    nest = Nest(dims, code, (Store("v", at("24*y+8*o+4*i+j"), 3),))
    params = (buffer("p", 1100), buffer("w", 200), buffer("v", 120))
    check_nest(
        nest,
        params,
        (
            None,
            schedule("o4 j4", "y3 i2", "k4", "y a c"),
            schedule("i2 j4", "y2", "k2", "y o a c k"),
            schedule("j4 k4", "y2 i2", "", "o y a c"),
        ),
    )


def test_epilogue_in_other_lanes():
    code = (
        Load("x", at("35*i+k"), f32),
        Load("v", at("k"), f32),
        Apply("mul", (0, 1), f32),
        total("k", 2),
        Load("b", at("i"), f32),
        Apply("add", (3, 4), f32),
    )
    nest = Nest((("i", 37), ("k", 35)), code, (Store("y", at("i"), 5),))
    params = (buffer("x", 35 * 37), buffer("v", 35), buffer("b", 37), buffer("y", 37))
    check_nest(
        nest,
        params,
        (
            None,
            schedule("k16", "i16", "", "i k", "i16"),
            schedule("k8", "i8", "k2", "i k", "i8", copies=2),
            schedule("k4", "i8", "", "i k", "i4"),
            schedule("k16", "i3", "", "i k"),
            schedule("i2 k4", "i8", "", "i k", "i8"),
        ),
    )


def test_transpose():
    code = (Load("x", at("35*i+j"), f32),)
    nest = Nest((("i", 37), ("j", 35)), code, (Store("y", at("37*j+i"), 0),))
    params = (buffer("x", 35 * 37), buffer("y", 35 * 37))
    check_nest(
        nest,
        params,
        (
            None,
            schedule("j16", "i16", "", "i j", "i16"),
            schedule("i16", "j2", "", "i j"),
            schedule("j8", "i8 j2", "", "i j", "i8"),
            schedule("j4", "i4", "", "i j", "i4"),
        ),
        0,
    )


def test_accumulation_into_the_output():
    code = (
        Load("x", at("20*k+i"), f32),
        total("k", 0),
        Load("y", at("i"), f32),
        Apply("mul", (2, 2), f32),
        Apply("add", (3, 1), f32),
    )
    nest = Nest((("i", 20), ("k", 9)), code, (Store("y", at("i"), 4),))
    schedules = (None, schedule("i16", "", "k2", "i k"), schedule("k8", "i8", "", "i k", "i8"))
    check_nest(nest, (buffer("x", 180), buffer("y", 20)), schedules)


def test_a_chain_of_many_instructions():
    code = [Load("x", at("i"), f32), Position(parse("i"), f32)]
    for k in range(500):
        code.append(Apply("max" if k % 3 else "add", (k + 1, k % 2), f32))
    nest = Nest((("i", 40),), tuple(code), (Store("y", at("i"), len(code) - 1),))
    check_nest(nest, (buffer("x", 40), buffer("y", 40)), (None, schedule("i16", "i2", "", "i")))
