"""The same kernels for processors with fewer instructions, which this one can stand in for."""

import platform
from dataclasses import replace

import pytest

from summand.dtypes import bf16, f16, f32
from summand.loops.nodes import Kernel
from summand.runtime.machine import target
from tests.codegen.kernels import check, random_buffers
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
