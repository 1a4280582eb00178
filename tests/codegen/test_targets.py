"""The same kernels for processors with fewer instructions, which this one can stand in for."""

import platform
from dataclasses import replace

import numpy as np
import pytest

from summand.codegen.cpu.module import emit_kernel
from summand.dtypes import bf16, f16, f32, i32
from summand.ir.index import parse
from summand.loops.nodes import Apply, Guard, Kernel, Load, Nest, Store
from summand.runtime.machine import target
from tests.codegen.kernels import (
    at,
    buffer,
    check,
    greatest,
    random_buffers,
    schedule,
    total,
)
from tests.codegen.test_contractions import SCHEDULES, TOLERANCE, product
from tests.codegen.test_random import TOLERANCE as TOLERANCES
from tests.codegen.test_random import Maker

LESSER = {
    "avx2": {"cpu": "x86-64-v3", "features": "+avx2,+fma,+f16c,+bmi2", "vector_bytes": 32},
    "sse2": {"cpu": "x86-64", "features": "+sse2", "vector_bytes": 16},
}
pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="needs an x86 processor to stand in"
)


@pytest.fixture(params=LESSER)
def lesser(request):
    machine = target()
    if request.param == "avx2" and machine.vector_bytes < 32:
        pytest.skip("needs a processor with AVX2")
    return replace(machine, registers=16, **LESSER[request.param])


@pytest.mark.parametrize("dtype", [f32, f16, bf16], ids=str)
def test_matrix_product(lesser, dtype):
    nest, params = product(5, 21, 18, dtype)
    for s in (None, SCHEDULES[1], SCHEDULES[5], SCHEDULES[7], SCHEDULES[11]):
        kernel = Kernel("k", params, (), (), (replace(nest, schedule=s),))
        tolerance = TOLERANCE[dtype]
        check(kernel, random_buffers(kernel), tolerance, tolerance, lesser)


@pytest.mark.parametrize("seed", range(100, 112))
def test_random_nests(lesser, seed):
    maker = Maker(seed)
    nest = maker.nest()
    kernel = Kernel("k", tuple(maker.params), (), (), (replace(nest, schedule=maker.schedule()),))
    check(kernel, random_buffers(kernel), *TOLERANCES.get(maker.dtype, (1e-4, 1e-3)), lesser)


def exp_sums(i, j, fold=total):
    """out[i] = fold over j of exp(x[j] - y[i])."""
    code = (
        Load("x", at("j"), f32),
        Load("y", at("i"), f32),
        Apply("sub", (0, 1), f32),
        Apply("exp", (2,), f32),
        fold("j", 3),
    )
    nest = Nest((("i", i), ("j", j)), code, (Store("out", at("i"), 4),))
    return nest, (buffer("x", j), buffer("y", i), buffer("out", i))


@pytest.mark.parametrize(
    "how",
    [
        schedule("j8", "i4", "", "i j"),
        schedule("j8", "i3", "j2", "i j"),
        schedule("i8", "i2", "j3", "j", copies=2),
        schedule("j8", "i8", "", "i j", end="i8"),
    ],
)
@pytest.mark.parametrize("sizes", [(8, 24), (13, 37), (1, 8)])
def test_long_operations_at_several_points_at_once(lesser, sizes, how):
    nest, params = exp_sums(*sizes)
    kernel = Kernel("k", params, (), (), (replace(nest, schedule=how),))
    check(kernel, random_buffers(kernel), 1e-5, 1e-5, lesser)


def test_four_points_share_one_evaluation():
    nest, params = exp_sums(8, 64)
    avx2 = replace(target(), registers=16, **LESSER["avx2"])
    kernel = Kernel("k", params, (), (), (replace(nest, schedule=schedule("j8", "i8", "", "i j")),))
    text = emit_kernel(kernel, avx2)
    assert text.count("= lshr <32 x i32>") == 2  # of the exponents of exp
    assert "lshr <8 x i32>" not in text


@pytest.mark.parametrize("how", [None, schedule("i8", "", "j2", "i j"), schedule("j8", "i4")])
def test_a_maximum_is_nan_where_an_element_is(lesser, how):
    nest, params = exp_sums(16, 40, greatest)
    kernel = Kernel("k", params, (), (), (replace(nest, schedule=how),))
    arrays = random_buffers(kernel)
    arrays["x"][:] = np.where(np.arange(40) == 17, -np.inf, arrays["x"])
    arrays["y"][5] = np.nan
    check(kernel, arrays, 1e-5, 1e-5, lesser)
    arrays["x"][39] = np.nan
    check(kernel, arrays, 1e-5, 1e-5, lesser)


@pytest.mark.parametrize("fill", [0.0, 2.5])
@pytest.mark.parametrize("y", [8, 24, 29])
def test_windows_whose_shift_is_computed(lesser, y, fill):
    """Most vectors lie within their row; those that do not are read under a mask."""
    inside = Guard(parse("y"), y, ((0, 1),))  # 0 <= y + shift < size
    load = Load("x", replace(at("y", ((0, 1),)), guards=(inside,)), f32, fill)
    code = (Load("shift", at("b"), i32), load, total("b", 1))
    nest = Nest((("y", y), ("b", 5)), code, (Store("out", at("y"), 2),))
    params = (buffer("shift", 5, i32), buffer("x", y), buffer("out", y))
    for how in (schedule("y8", "", "", "y b"), schedule("y8", "y2", "", "y b")):
        kernel = Kernel("k", params, (), (), (replace(nest, schedule=how),))
        arrays = random_buffers(kernel)
        arrays["shift"][:] = (-9, -1, 0, 3, y + 40)
        check(kernel, arrays, 1e-5, 1e-5, lesser)
