"""Guards that one comparison decides for a register block: code without them and with them."""

import re
from dataclasses import replace

import numpy as np
import pytest

from summand.codegen.cpu.module import emit_kernel
from summand.dtypes import f32, i32
from summand.ir.index import parse
from summand.loops.nodes import Address, Apply, Guard, Kernel, Let, Load, Loop, Nest, Store
from summand.runtime.machine import target
from tests.codegen.kernels import at, buffer, check, check_nest, random_buffers, schedule, total

SIZE = 40
IMAGE = SIZE * SIZE
DIMS = (("x", SIZE), ("y", SIZE), ("c", 5), ("a", 3), ("b", 3))
PARAMS = (buffer("u", 5 * IMAGE), buffer("w", 45), buffer("out", 5 * IMAGE))
SCHEDULES = (
    schedule("y8", "c5", "", "x y a b"),
    schedule("y8", "x2 c2", "", "c x y a b"),
    schedule("y8", "x3", "a3 b3", "y x c"),
    schedule("c4", "y4", "b3", "x y c a"),
    schedule("y16", "", "a3 b3", "c x y"),
    schedule(loops="x c y b a"),
)


def window(dims=DIMS, origin="y"):
    """out[c, x, y] = Σ_ab u[c, x + a - 1, y + b - 1] · w[c, a, b]; zero outside."""
    guards = (("x + a - 1", SIZE), (f"{origin} + b - 1", SIZE))
    form = f"{IMAGE}*c + {SIZE}*x + {SIZE}*a + {origin} + b - {SIZE + 1}"
    code = (
        Load("u", at(form, (), guards), f32),
        Load("w", at("9*c + 3*a + b"), f32),
        Apply("mul", (0, 1), f32),
        total("a b", 2),
    )
    return Nest(dims, code, (Store("out", at(f"{IMAGE}*c + {SIZE}*x + {origin}"), 3),))


@pytest.mark.parametrize("number", range(len(SCHEDULES)))
def test_both_versions_compute_the_same(number):
    check_nest(window(), PARAMS, SCHEDULES[number : number + 1], 1e-4)


def test_outer_dims_decide_for_the_whole_nest():
    dims = tuple((d, 8 if d == "y" else n) for d, n in DIMS)
    nest = replace(window(dims, "y + yb"), schedule=schedule("y8", "c5", "", "x a b"))
    tiles = Loop("yo", 6, (Let("yb", parse("7*yo"), 0, SIZE - 8, (nest,)),))
    kernel = Kernel("k", PARAMS, (), (), (tiles,))
    check(kernel, random_buffers(kernel), 1e-4, 1e-4)


def test_the_version_where_guards_hold_asks_nothing():
    def loads(nest):
        kernel = Kernel("k", PARAMS, (), (), (replace(nest, schedule=SCHEDULES[0]),))
        text = emit_kernel(kernel, target())
        return len(re.findall(r"= load <8 x float>", text)), len(re.findall("icmp ult", text))

    twice, asked = loads(window())
    small = tuple((d, 8 if d in "xy" else n) for d, n in DIMS)
    once, _ = loads(window(small))  # too little work for code of two
    assert twice > once
    assert asked >= 2


def test_guards_that_never_hold_everywhere_are_asked_as_before():
    """x + 13·a reaches as far as the array: no block has all of it in range."""
    wide = Load("u", at(f"{IMAGE}*c + {SIZE}*x + 13*a + y + b", (), (("x + 13*a", 27),)), f32)
    nest = window(tuple((d, 13 if d == "x" else n) for d, n in DIMS))
    nest = replace(nest, code=(wide, *nest.code[1:]))
    params = (buffer("u", 5 * IMAGE + 2 * SIZE), *PARAMS[1:])
    check_nest(nest, params, SCHEDULES[:3], 1e-4)


def shifted():
    """out[x, y] = Σ_a u[x, y + s[a]] · w[a]: how far is in a table; -1 where that is outside."""
    guard = Guard(parse("y"), SIZE, ((0, 1),))
    code = (
        Load("s", at("a"), i32),
        Load("u", Address(parse(f"{SIZE}*x + y"), ((0, 1),), (guard,)), f32, -1.0),
        Load("w", at("a"), f32),
        Apply("mul", (1, 2), f32),
        total("a", 3),
    )
    dims = (("x", SIZE), ("y", SIZE), ("a", 7))
    return Nest(dims, code, (Store("out", at(f"{SIZE}*x + y"), 4),))


@pytest.mark.parametrize("tile", ["y4", "x3", "x2 y2", "y5"])
def test_shifts_from_a_table_are_decided_step_by_step(tile):
    params = (buffer("s", 7, i32), buffer("u", IMAGE), buffer("w", 7), buffer("out", IMAGE))
    shifts = np.array([0, -3, 5, SIZE, -SIZE, 39, -8], np.int32)
    nest = replace(shifted(), schedule=schedule("y8", tile, "", "x y a"))
    kernel = Kernel("k", params, (), (), (nest,))
    text = emit_kernel(kernel, target())
    assert re.search("br i1", text)
    check_nest(shifted(), params, (nest.schedule,), 1e-4, {"s": shifts})


def shifted_rows():
    """out[x, y] = Σ_ab u[x + s[a], y + s[b]] · w[a, b]; zero outside: all lanes ask for x."""
    guards = (Guard(parse("x"), SIZE, ((0, 1),)), Guard(parse("y"), SIZE, ((1, 1),)))
    code = (
        Load("s", at("a"), i32),
        Load("s", at("b"), i32),
        Load("u", Address(parse(f"{SIZE}*x + y"), ((0, SIZE), (1, 1)), guards), f32),
        Load("w", at("7*a + b"), f32),
        Apply("mul", (2, 3), f32),
        total("a b", 4),
    )
    dims = (("x", SIZE), ("y", SIZE), ("a", 7), ("b", 7))
    return Nest(dims, code, (Store("out", at(f"{SIZE}*x + y"), 5),))


@pytest.mark.parametrize("tile", ["y4", "x3", "x2 y2", "y5"])
@pytest.mark.parametrize("loops", ["x y a b", "y x b a"])
def test_rows_out_of_range_are_read_as_zeros(tile, loops):
    params = (buffer("s", 7, i32), buffer("u", IMAGE), buffer("w", 49), buffer("out", IMAGE))
    shifts = np.array([0, -3, 5, SIZE, -SIZE, 39, -8], np.int32)
    check_nest(shifted_rows(), params, (schedule("y8", tile, "", loops),), 1e-4, {"s": shifts})
