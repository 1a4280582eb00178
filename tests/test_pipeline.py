"""Random programs through the whole pipeline against the interpreter.

Each program runs on arrays that end at inaccessible memory and on arrays that begin behind it, with
1, 2 and 8 threads, which must agree in every bit.
"""

import os
import sys
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from summand import compiler
from summand.ir.interp import run
from summand.ir.parse import parse
from summand.ir.text import text
from summand.options import Options
from summand.runtime.executable import Executable
from summand.runtime.pool import Pool
from tests.blame import blame
from tests.guarded import Guarded
from tests.programs import ELEMENTWISE, FOLDS, INDEXING, arguments, programs
from tests.rewrite.agreement import assert_close, narrowest

EXAMPLES = 2000 if os.environ.get("SUMMAND_TEST_PROFILE") == "nightly" else 200
THREADS = (1, 2, 8)
LARGE = (1, 2, 15, 16, 33, 48, 64, 100)
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs mprotect to guard arrays")


@pytest.fixture(scope="module", autouse=True)
def pools():
    made = {n: Pool(n) for n in THREADS}
    yield made
    for pool in made.values():
        pool.stop()


def shuffled(draw, type_):
    return tuple(draw(st.permutations([d for d, _ in type_.dims])))


SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@given(data=st.data(), program=programs(zero_sizes=True))
@SETTINGS
def test_random_programs(pools, data, program):
    draw_and_check(pools, data, program)


@given(data=st.data(), program=programs((*ELEMENTWISE, *FOLDS, *INDEXING), sizes=LARGE))
@settings(SETTINGS, max_examples=EXAMPLES // 4)
def test_larger_programs(pools, data, program):
    """Sizes past a vector, past a register tile, and between them."""
    draw_and_check(pools, data, program)


def draw_and_check(pools, data, program):
    params = tuple(shuffled(data.draw, p.type) for p in program.params)
    results = tuple(shuffled(data.draw, r.type) for r in program.results)
    fuse = data.draw(st.sampled_from([True, True, False]), label="fuse")
    options = Options(verify=True, fuse=fuse)
    try:
        check(pools, program, params, results, options)
    except AssertionError as error:
        raise AssertionError(blame(program, params, results, options)) from error


def check(pools, program, params, results, options):
    args = arguments(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy on overflow and division by zero
        wanted = run(program, args)
    coarse = narrowest(program)
    request = compiler.Request(program, params, results, options, compiler.machine.target())
    artifact = compiler.build(request, compiler.Log())
    reference = None
    for threads in THREADS:
        executable = Executable(artifact, pools[threads])
        for side in ("end", "start"):
            found = guarded_run(executable, args, params, side)
            for k, var in enumerate(program.results):
                right = wanted[k].transposed(results[k]).array
                assert_close(right, found[k], var.type.dtype, computed_in=coarse[k])
            bits = [r.tobytes() for r in found]
            reference = reference or bits
            assert bits == reference, f"{threads} threads, {side}: other bits\n{text(program)}"


def guarded_run(executable, args, params, side):
    """Run on guarded arrays; parameters in their orders."""
    inputs = []
    for arg, order in zip(args, params, strict=True):
        array = np.ascontiguousarray(arg.transposed(order).array).reshape(
            [arg.sizes[d] for d in order]
        )
        inputs.append(Guarded(array.shape, array.dtype, side).copy_of(array))
    outputs = [Guarded(p.shape, p.dtype, side) for p in executable.visible]
    before = [g.array.copy() for g in inputs]
    executable.run([g.array for g in inputs], into=[g.array for g in outputs])
    for g, old in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(g.array, old)  # arguments are not written to
    found = [g.array.copy() for g in outputs]
    for g in (*inputs, *outputs):
        g.close()
    return found


def test_guard_faults():
    """The guard works: reading one element too far ends the process."""
    import subprocess

    body = """
    import ctypes, numpy as np
    from tests.guarded import Guarded
    g = Guarded((5,), "f4")
    ctypes.c_float.from_address(g.array.__array_interface__["data"][0] + 20).value
    """
    text_ = "\n".join(line.strip() for line in body.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", text_], env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    assert done.returncode < 0


IN_PLACE = """program (%0: f32{i=6,j=3,l=5}, %1: i32{i=6}) {
  %2: f32{i=6,j=3,l=5} = tanh %0
  %3: f32{j=3,l=5,x=2}, %4: f32{j=3,l=5,x=2} = reduce_at monoid "affine" [1.0, 0.0] (%0: f32{}, %1: f32{}, %2: f32{}, %3: f32{}) {
    %4: f32{} = mul %2 %1
    %5: f32{} = add %4 %3
    %6: f32{} = mul %2 %0
    return %6, %5
  } {i} %2 %0 {x: %1} clip
  %5: f32{j=3,l=5,x=2} = neg %4
  return %5
}
"""  # noqa: E501


def test_tasks_share_no_element_that_is_updated_in_place(pools):
    program = parse(IN_PLACE)
    orders = (("i", "j", "l"), ("i",)), (("x", "j", "l"),)
    assert blame(program, *orders, Options(verify=True)).endswith("all stages agree")
    check(pools, program, *orders, Options(verify=True))
