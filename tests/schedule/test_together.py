"""Independent kernels in one launch: which are, and that they compute the same."""

from dataclasses import replace

import numpy as np
import pytest

from summand.ir.index import parse
from summand.loops.interp import run_kernel
from summand.loops.nodes import Address, Buffer, Kernel, Load, Nest, Store
from summand.schedule.choose import schedule_kernel
from summand.schedule.together import in_phases, independent
from tests.schedule import cases


def copy(dims, source, target, names=("a", "out")):
    a, out = names
    code = (Load(a, Address(parse(source)), cases.f32),)
    nest = Nest(tuple(dims.items()), code, (Store(out, Address(parse(target)), 0),))
    params = (Buffer(a, cases.f32, 400), Buffer(out, cases.f32, 400))
    return Kernel("copy", params, (), (), (nest,))


EVEN, ODD = {"x": 8, "y": 5}, {"x": 7, "y": 5}


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        (copy(EVEN, "x+y", "10*x + y"), copy(ODD, "x+y", "10*x + y + 5"), True),
        (copy(EVEN, "x+y", "10*x + y"), copy(ODD, "x+y", "10*x + y + 4"), False),
        (copy(EVEN, "x+y", "10*x + 2*y"), copy(ODD, "x+y", "10*x + 2*y + 1"), True),
        (copy({"x": 40}, "x", "2*x"), copy(ODD, "x+y", "10*x + 2*y + 1"), True),
        (copy({"x": 40}, "x", "2*x"), copy(ODD, "x+y", "10*x + y"), False),
        (copy(EVEN, "x", "10*x + y"), copy(ODD, "x", "x", ("out", "b")), False),
        (copy(EVEN, "x", "10*x + y"), copy(ODD, "x", "x", ("a", "b")), True),
        (copy(EVEN, "x", "-10*x + y + 100"), copy(ODD, "x", "10*x + y + 200"), True),
        (copy(EVEN, "x", "x//2"), copy(ODD, "x", "x + 200"), False),
    ],
)
def test_independent(first, second, apart):
    assert independent((first, second)) == apart
    assert independent((second, first)) == apart


def test_parts_run_in_one_launch_for_each_phase():
    kernel = cases.capsules()
    (nest,) = kernel.body
    (store,) = nest.stores
    size = kernel.params[-1].size
    moved = replace(nest, stores=(replace(store, at=Address(store.at.form + size)),))
    params = (*kernel.params[:-1], replace(kernel.params[-1], size=2 * size))
    both = replace(kernel, params=params, body=(nest, moved))
    scheduled = schedule_kernel(both, cases.TARGET)
    assert len(scheduled.kernels) == len(schedule_kernel(kernel, cases.TARGET).kernels)
    assert all(len(k.grid) == 1 for k in scheduled.kernels)


@pytest.mark.parametrize("grids", [((), ("x",)), (("x", "y"), ("y",)), (("y", "x"), ("x", "y"))])
def test_tasks_of_all_grids_run(grids):
    rng = np.random.default_rng(0)
    source = rng.standard_normal(400).astype(np.float32)
    parts = [copy(EVEN, "3*x+y", "10*x + y"), copy(ODD, "x+7*y", "10*x + y + 5")]
    expected = np.zeros(400, np.float32)
    for part in parts:
        run_kernel(part, {"a": source, "out": expected})
    spread = []
    for part, grid in zip(parts, grids):
        (nest,) = part.body
        inner = replace(nest, dims=tuple(d for d in nest.dims if d[0] not in grid))
        spread.append(replace(part, grid=tuple((d, nest.extents[d]) for d in grid), body=(inner,)))
    (merged,) = in_phases([[k] for k in spread])
    found = np.zeros(400, np.float32)
    run_kernel(merged, {"a": source, "out": found})
    np.testing.assert_array_equal(found, expected)
