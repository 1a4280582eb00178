"""Last tiles: shorter where tiles would overlap much, and the same results as without."""

from dataclasses import replace

import pytest

from summand.loops.nodes import Nest, When
from summand.schedule import tails
from summand.schedule.choose import schedule_kernel
from summand.schedule.moves import chain_of, nests_of, tile
from summand.schedule.tails import shorten_last
from tests.schedule import cases
from tests.schedule.running import check_schedule, expect_same


def conditional(body):
    """The nests under each condition of a kernel's body."""
    out = []
    for stmt in body:
        if isinstance(stmt, When):
            out.append(nests_of(stmt.body))
        elif not isinstance(stmt, Nest):
            out += conditional(stmt.body)
    return out


@pytest.fixture(autouse=True)
def _small_nests_count(monkeypatch):
    monkeypatch.setattr(tails, "LEAST", 0.0)


def test_the_last_of_few_tiles_is_shorter():
    kernel = schedule_kernel(cases.matmul(2048, 64, 512), cases.NARROW).kernels[-1]
    (first,), (last,) = conditional(kernel.body)
    assert first.extents["n"] == 24
    assert last.extents["n"] == 16
    assert last.schedule is not None and last.schedule.lanes[0].count == 8


@pytest.mark.parametrize("n", [63, 72, 240, 232])
def test_whole_tiles_and_small_overlaps_stay(n):
    kernel = check_schedule(cases.matmul(40, n, 12), cases.NARROW).kernels[-1]
    assert not conditional(kernel.body)


@pytest.mark.parametrize(("m", "n", "step"), [(20, 40, 24), (9, 64, 24), (5, 64, 48), (6, 80, 48)])
def test_shortened_tiles_compute_the_same(m, n, step):
    tiled = tile(chain_of(cases.matmul(m, n, 7)), "n", step)
    (nest,) = nests_of(check_schedule(cases.matmul(m, step, 7), cases.NARROW).kernels[-1].body)
    tiled = tiled.with_nest(replace(tiled.nest, schedule=nest.schedule))
    kernel = tiled.kernel_of()
    shortened = shorten_last(kernel, 1e9, cases.NARROW)
    assert conditional(shortened.body)
    expect_same(kernel, [shortened])


def test_what_is_added_to_is_computed_once():
    """Tiles that may not overlap do not."""
    kernel = cases.matmul(40, 64, 24)
    (nest,) = nests_of(kernel.body)
    adding = replace(nest, stores=(replace(nest.stores[0], combine="add"),))
    check_schedule(replace(kernel, body=(adding,)), cases.NARROW)
