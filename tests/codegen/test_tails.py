"""Tails of every length leave the elements behind them alone, whatever is narrowed on the way."""

import pytest

from summand.dtypes import bf16, bool_, f16, f32, f64, i8, i16, i32, i64, u8, u32
from summand.loops.nodes import Apply, Const, Kernel, Load, Nest, Store
from summand.runtime.machine import target
from tests.codegen.kernels import at, buffer, check, random_buffers, schedule
from tests.codegen.test_targets import lesser, pytestmark  # noqa: F401

PAIRS = ((i64, i8), (i64, i16), (i64, i32), (i32, i16), (i32, u8), (f64, f32), (f32, f16))
MORE = ((f32, bf16), (f64, i16), (f32, i8), (u32, u8), (i8, i64))


def narrowed(source, result, count: int) -> Kernel:
    code = (
        Load("x", at("i"), source),
        Apply("convert", (0,), result),
        Const(0, source),
        Apply("gt", (0, 2), bool_),
    )
    stores = (Store("y", at("i"), 1), Store("p", at("i"), 3))
    nest = Nest((("i", count),), code, stores, schedule=schedule("i16", "", "", "i"))
    params = (buffer("x", count, source), buffer("y", 40, result), buffer("p", 40, bool_))
    return Kernel("k", params, (), (), (nest,))


@pytest.mark.parametrize("pair", PAIRS + MORE, ids=str)
def test_narrowed_tails(pair):
    for count in range(1, 18):
        kernel = narrowed(*pair, count)
        check(kernel, random_buffers(kernel), machine=target())


@pytest.mark.parametrize("pair", PAIRS + MORE, ids=str)
def test_narrowed_tails_on_lesser_processors(pair, lesser):  # noqa: F811
    for count in (1, 3, 5, 9, 11, 13, 17):
        kernel = narrowed(*pair, count)
        check(kernel, random_buffers(kernel), machine=lesser)
