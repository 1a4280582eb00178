"""Run kernels before and after scheduling on the interpreter, and compare."""

from __future__ import annotations

import numpy as np

from summand.loops.interp import run_kernel
from summand.loops.verify import verify
from summand.schedule.choose import schedule_kernel
from tests.schedule.cases import TARGET


def inputs(kernel, seed=0):
    """Small whole numbers, so that every order of a sum gives the same bits."""
    rng = np.random.default_rng(seed)
    return {p.name: rng.integers(-4, 5, p.size).astype(p.dtype.numpy) for p in kernel.params}


def expect_same(kernel, kernels, temporaries=()):
    """`kernels` in order do what `kernel` does."""
    before = inputs(kernel)
    after = {name: a.copy() for name, a in before.items()}
    run_kernel(kernel, before)
    for t in temporaries:
        after[t.name] = np.full(t.size, -77, t.dtype.numpy)
    for k in kernels:
        run_kernel(k, {p.name: after[p.name] for p in k.params})
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)


def check_schedule(kernel, target=TARGET):
    """Schedule, compare with the unscheduled kernel, and return what was chosen."""
    scheduled = schedule_kernel(kernel, target)
    for k in scheduled.kernels:
        verify(k)
    expect_same(kernel, scheduled.kernels, scheduled.temporaries)
    return scheduled
