"""Scheduled kernels as machine code, arrays fenced by forbidden pages, against the plain loops."""

from dataclasses import replace

import numpy as np
import pytest

from summand.loops.interp import run_kernel
from summand.runtime.machine import target
from summand.schedule import grid
from summand.schedule.choose import schedule_kernel
from tests.codegen.kernels import run_native
from tests.schedule import cases
from tests.schedule.random_nests import KINDS


def whole_numbers(kernel):
    rng = np.random.default_rng(1)
    return {p.name: rng.integers(-3, 4, p.size).astype(p.dtype.numpy) for p in kernel.params}


def check(kernel, machine=None):
    expected = whole_numbers(kernel)
    found = {name: a.copy() for name, a in expected.items()}
    run_kernel(kernel, expected)
    scheduled = schedule_kernel(kernel, machine or target())
    for t in scheduled.temporaries:
        found[t.name] = np.full(t.size, 77, t.dtype.numpy)
    for number, k in enumerate(scheduled.kernels):
        native = replace(k, name=f"k{number}")
        found |= run_native(native, {p.name: found[p.name] for p in k.params}, number % 2 == 0)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("seed", range(25))
def test_random_nests(kind, seed, monkeypatch):
    monkeypatch.setattr(grid, "TASK_CYCLES", 500.0)
    check(KINDS[kind](seed))


@pytest.mark.parametrize("seed", range(20))
def test_random_contractions(seed, monkeypatch):
    monkeypatch.setattr(grid, "TASK_CYCLES", 500.0)
    check(cases.random_contraction(seed))


@pytest.mark.parametrize("vector_bytes", [16, 32])
@pytest.mark.parametrize("seed", range(6))
def test_narrow_vectors(seed, vector_bytes, monkeypatch):
    monkeypatch.setattr(grid, "TASK_CYCLES", 500.0)
    machine = replace(target(), vector_bytes=vector_bytes, registers=16)
    check(KINDS["folds"](seed), machine)
    check(cases.random_contraction(seed), machine)
