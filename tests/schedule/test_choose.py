"""The default choice on every kind of nest: legal, and the same results as the plain loops."""

import math
from dataclasses import replace

import pytest

from summand.dtypes import f32
from summand.ir.index import parse
from summand.loops.nodes import (
    Address,
    Apply,
    Bound,
    Buffer,
    Combine,
    Fold,
    Kernel,
    Load,
    Nest,
    Store,
)
from summand.schedule import choose, grid
from summand.schedule.choose import schedule_kernel
from summand.schedule.cost import share_within
from summand.schedule.moves import nests_of
from tests.schedule import cases
from tests.schedule.running import check_schedule


@pytest.mark.parametrize("seed", range(60))
def test_random_contractions(seed):
    check_schedule(cases.random_contraction(seed))


@pytest.mark.parametrize(
    "kernel",
    [
        cases.matmul(64, 48, 37),
        cases.matmul(61, 53, 40),
        cases.matmul(1, 70, 200),
        cases.matmul(130, 64, 64, "max"),
        cases.small_products(3001),
        cases.transposition(37, 50),
        cases.transposition(64, 64),
        cases.elementwise({"i": 1000, "j": 37}, "37*i + j", ("37*i + j", "j")),
        cases.elementwise({"i": 70001}, "i", ("i", "i")),
        cases.elementwise({"i": 30, "j": 40}, "40*i + j", ("30*j + i", "40*i + j")),
        cases.reduction({"i": 40, "j": 1000}, "1000*i + j", "i", "j"),
        cases.reduction({"i": 1000, "j": 40}, "40*i + j", "j", "i"),
        cases.reduction({"i": 1000}, "i", "0", "i", "max"),
        cases.convolution(2, 9, 8),
        cases.convolution(1, 7, 3),
    ],
    ids=lambda k: k.name,
)
def test_kinds(kernel):
    check_schedule(kernel)


def test_schedules_are_deterministic():
    a, b = (schedule_kernel(cases.capsules(), cases.TARGET) for _ in range(2))
    assert a == b


def test_packed_operand_is_contiguous_along_lanes():
    scheduled = schedule_kernel(cases.capsules(), cases.TARGET)
    assert len(scheduled.kernels) == 2
    assert len(scheduled.temporaries) == 1


@pytest.mark.parametrize("n", [100_003, 1 << 17, 99_999])
def test_long_sums_are_split_over_tasks(n, monkeypatch):
    monkeypatch.setattr(grid, "TASK_CYCLES", 200.0)
    kernel = cases.reduction({"i": n}, "i", "0", "i")
    scheduled = check_schedule(kernel)
    assert len(scheduled.kernels) == (2 if n == 1 << 17 else 3)
    assert len(scheduled.temporaries) == 1


def test_filter_gradient_of_few_results_is_split(monkeypatch):
    monkeypatch.setattr(grid, "TASK_CYCLES", 1000.0)
    dims = {"i": 4, "j": 16, "n": 7, "x": 300}
    a, b = ("1200*n + 4*x + i", 8400), ("4800*n + 16*x + j", 33600)
    kernel = cases.contraction("dw", dims, ("16*i + j", 64), a, b, "nx")
    assert len(check_schedule(kernel).kernels) > 1


def small_caches(monkeypatch, l2):
    monkeypatch.setattr(grid, "TASK_CYCLES", 2000.0)
    return replace(cases.TARGET, l2=l2)


@pytest.mark.parametrize("m", [40, 37])
@pytest.mark.parametrize("l2", [1 << 12, 1 << 14, 1 << 20])
@pytest.mark.parametrize("swapped", [False, True])
def test_long_reductions_are_blocked(m, l2, swapped, monkeypatch):
    target = small_caches(monkeypatch, l2)
    dims = {"m": m, "n": 80, "k": 336}
    a, b = (f"{m}*k + m", 336 * m), ("80*k + n", 336 * 80)
    a, b = (b, a) if swapped else (a, b)
    kernel = cases.contraction("far", dims, ("80*m + n", 80 * m), a, b, "k")
    scheduled = check_schedule(kernel, target)
    scratch = [b.name for k in scheduled.kernels for b in k.scratch]
    assert any(n.startswith("sums") for n in scratch) == (l2 < 1 << 20)


def test_windows_of_a_short_reduction_are_read_once():
    dims = {"c": 5000, "x": 28, "y": 32, "a": 3, "b": 3}
    guards = (("x + a - 1", 28), ("y + b - 1", 32))
    image = ("896*c + 32*x + 32*a + y + b - 33", 896 * 5000, *guards)
    kernel = cases.contraction(
        "depthwise", dims, ("896*c + 32*x + y", 896 * 5000), image, ("9*c + 3*a + b", 45000), "ab"
    )
    (scheduled,) = schedule_kernel(kernel, cases.TARGET).kernels
    (nest,) = nests_of(scheduled.body)
    assert {p.dim: p.count for p in nest.schedule.unroll} == {"a": 3, "b": 3}
    assert [p.dim for p in nest.schedule.tile] == ["x"]


@pytest.mark.parametrize("seed", range(30))
def test_random_contractions_with_small_caches(seed, monkeypatch):
    check_schedule(cases.random_contraction(seed), small_caches(monkeypatch, 1 << 11))


@pytest.mark.parametrize("rows", [512, 4099])
def test_two_sums_over_the_same_rows_share_blocks(rows, monkeypatch):
    monkeypatch.setattr(choose, "ROW_BYTES", 256)
    target = small_caches(monkeypatch, 1 << 12)
    scheduled = check_schedule(cases.weighted_sums(rows, 96), target)
    scratch = [b.name for k in scheduled.kernels for b in k.scratch]
    assert [n for n in scratch if n.startswith("sums")][:2] == ["sums0", "sums1"]


def test_what_only_one_task_reads_is_packed_by_the_task(monkeypatch):
    monkeypatch.setattr(grid, "TASK_CYCLES", 2000.0)
    dims = {"p": 19, "m": 48, "n": 64, "k": 90}
    a, b = ("4320*p + 90*m + k", 19 * 4320), ("90*n + k + 5760*p", 19 * 5760)
    kernel = cases.contraction("batch", dims, ("3072*p + 64*m + n", 19 * 3072), a, b, "k")
    (scheduled,) = check_schedule(kernel).kernels
    assert [b.name for b in scheduled.scratch] == ["slab0"]
    assert scheduled.grid[0] == ("p_o", 19)


def test_one_guard_of_two_may_become_a_bound():
    dims = {"p": 300, "c": 64, "x": 4, "y": 240, "o": 64, "a": 3, "b": 3}
    guards = (("x - a", 2), ("y - b", 238))
    image = ("32768*p + 512*o + 256*x - 256*a + y - b", 300 * 32768, *guards)
    weights = ("36864*p + 576*o + 192*a + 64*b + c", 300 * 36864)
    out = ("61440*p + 960*c + 240*x + y", 300 * 61440)
    (scheduled,) = schedule_kernel(
        cases.contraction("dx", dims, out, weights, image, "oab"), cases.TARGET
    ).kernels
    nest = nests_of(scheduled.body)[-1]
    assert [b.dim for b in nest.bounds] == ["a"]


def test_share_of_a_bounded_dim():
    bound = Bound("a", (parse("x - 15"),), (parse("x + 1"),))
    assert share_within(bound, (("x", 18), ("a", 3))) == 16 / 18
    assert share_within(bound, (("a", 3),)) == 1.0  # x is fixed further out


@pytest.mark.parametrize("c", [12, 10])
def test_lanes_of_several_dims_and_several_vectors_are_contiguous_when_packed(c):
    dims = {"n": 40, "x": 5, "c": c, "j": 4, "k": 24, "i": 3}
    image = ("360*n + 72*x + 24*i + k", 40 * 360)
    weights = (f"{4 * c}*k + {c}*j + c", 24 * 4 * c)
    out = (f"{60 * c}*n + {12 * c}*x + {4 * c}*i + {c}*j + c", 40 * 60 * c)
    check_schedule(cases.contraction("votes", dims, out, image, weights, "k"))


def test_packed_vectors_are_whole():
    dims = {"n": 4000, "c": 36, "j": 4, "k": 300}
    image, weights = ("300*n + k", 4000 * 300), ("10800*j + 36*k + c", 4 * 10800)
    kernel = cases.contraction("votes", dims, ("144*n + 36*j + c", 4000 * 144), image, weights, "k")
    _, main = schedule_kernel(kernel, cases.TARGET).kernels
    nest = nests_of(main.body)[-1]
    load = next(i for i in nest.code if isinstance(i, Load) and i.buffer != "a")
    strides = [load.at.form.coefficient(p.dim) for p in nest.schedule.lanes]
    widths = [p.count for p in nest.schedule.lanes]
    assert strides == [math.prod(widths[q + 1 :]) for q in range(len(widths))]


def test_short_rows_that_lie_pages_apart_are_asked_for_early():
    dims = {"n": 200, "x": 33, "o": 32, "c": 32, "a": 5, "b": 5}
    image = ("160000*n + 5000*c + 77*a + b + 2*x", 200 * 160000)
    weights = ("800*c + 160*a + 32*b + o", 32 * 800)
    out = ("1056*n + 32*x + o", 200 * 1056)
    kernel = cases.contraction("conv", dims, out, image, weights, "cab")
    nest = nests_of(schedule_kernel(kernel, cases.TARGET).kernels[-1].body)[-1]
    assert nest.schedule.prefetch == (("a", 5000),)


def test_columns_of_what_the_first_cache_does_not_hold_are_read_several_side_by_side():
    """Σ_i of rows of 1 KB: a tile of one vector would fetch lines whose neighbours wait."""

    def together(columns):
        kernel = cases.reduction({"i": 144, "j": columns}, f"{columns}*i + j", "j", "i")
        (nest,) = nests_of(schedule_kernel(kernel, cases.TARGET).kernels[0].body)
        return math.prod(p.count for p in nest.schedule.tile if p.dim == "j")

    assert together(256) >= 4
    assert together(16) == 1


def test_rows_of_the_next_register_tile_are_asked_for_early():
    (*_, kernel), _ = _product(1024, 1024, 1024)
    nest = nests_of(kernel.body)[-1]
    rows = next(p.count for p in nest.schedule.tile if p.dim == "m")
    assert nest.schedule.prefetch == (("a", 1024 * rows),)


@pytest.mark.parametrize(("m", "n", "k", "kernels"), [(512, 512, 2048, 2), (512, 512, 64, 1)])
def test_a_panel_that_falls_into_few_sets_of_the_cache_is_packed(m, n, k, kernels):
    found, _ = _product(m, n, k)
    assert len(found) == kernels


def _product(m, n, k):
    """Scheduled kernels of a matrix product, and the temporaries between them."""
    a, b, out = (f"{k}*m + k", m * k), (f"{n}*k + n", k * n), (f"{n}*m + n", m * n)
    kernel = cases.contraction("product", {"m": m, "n": n, "k": k}, out, a, b, "k")
    done = schedule_kernel(kernel, cases.TARGET)
    return done.kernels, done.temporaries


@pytest.mark.parametrize(("m", "n"), [(19, 97), (32, 96), (67, 34)])
def test_products_that_scatter_are_tasks_without_bounds(m, n, monkeypatch):
    monkeypatch.setattr(grid, "TASK_CYCLES", 1000.0)
    scheduled = check_schedule(cases.added_products(blocks=9, experts=4, rows=5, m=m, n=n))
    nests = [x for k in scheduled.kernels for x in nests_of(k.body)]
    assert not any(x.bounds for x in nests)
    assert scheduled.kernels[-1].grid
    assert nests[0].schedule.loops[0] == "c"


def test_a_tile_whose_reads_lie_in_several_pages_is_asked_for_early():
    """Capsules: the poses of one place are three runs of 6 KB, those of the next image far off."""
    votes = ("57344*x + 8192*y + 512*n + 16*o + 4*i + j", cases.VOTES[1])
    kernel = cases.contraction("c", cases.CAPSULE, votes, cases.POSES, cases.FILTER, "abck")
    nest = nests_of(schedule_kernel(kernel, cases.TARGET).kernels[-1].body)[-1]
    assert nest.schedule.prefetch == (("a", 115200),)


def test_half_vectors_where_whole_ones_waste_much():
    dims = {"p": 200, "o": 32, "q": 35, "c": 64}
    image, weights = ("2240*p + 35*c + q", 200 * 2240), ("64*o + c", 2048)
    kernel = cases.contraction("rows", dims, ("1120*p + 35*o + q", 200 * 1120), image, weights, "c")
    nest = nests_of(check_schedule(kernel).kernels[-1].body)[-1]
    assert [(p.dim, p.count) for p in nest.schedule.lanes] == [("q", 8)]
    wide = replace(cases.TARGET, fma_per_cycle=2.0)
    nest = nests_of(schedule_kernel(kernel, wide).kernels[-1].body)[-1]
    assert math.prod(p.count for p in nest.schedule.lanes) == 16


# ---- processors with few registers and two short pipes


def test_two_pipes_want_twelve_accumulators():
    """Eight just fill them, as long as no link of a chain is late."""
    a, b, out = ("256*m + k", 1 << 16), ("256*k + n", 1 << 16), ("256*m + n", 1 << 16)
    kernel = cases.contraction("c", {"m": 256, "n": 256, "k": 256}, out, a, b, "k")
    done = schedule_kernel(kernel, cases.NARROW)
    nest = nests_of(done.kernels[-1].body)[-1]
    assert math.prod(p.count for p in nest.schedule.tile) == 12
    assert next(p.count for p in nest.schedule.unroll if p.dim == "k") >= 4


def test_what_is_costly_is_computed_once_for_all_that_reads_it_though_registers_spill():
    """Σ_p exp(x[i, p]) · y[c, i, p]: a tile of all c, or each has an exp of its own."""
    code = (
        cases.load("x", "512*p + i"),
        Apply("exp", (0,), f32),
        cases.load("y", "61952*c + 512*p + i"),
        Apply("mul", (1, 2), f32),
        Fold(Combine("add", (0.0,)), ("p",), (3,), f32),
    )
    dims = (("i", 512), ("c", 3), ("p", 121))
    nest = Nest(dims, code, (Store("out", Address(parse("3*i + c")), 4),))
    sizes = {"x": 121 * 512, "y": 3 * 121 * 512, "out": 3 * 512}
    params = tuple(Buffer(n, f32, s) for n, s in sizes.items())
    done = schedule_kernel(Kernel("shared", params, (), (), (nest,)), cases.NARROW)
    (found,) = nests_of(done.kernels[-1].body)
    assert next(p.count for p in found.schedule.tile if p.dim == "c") == 3


@pytest.mark.parametrize(("stride", "copied"), [(4096, True), (4160, False)])
def test_rows_that_meet_in_few_sets_of_the_cache_are_copied(stride, copied):
    """Σ_u a[u, k] · b[u, n]: rows of a that are pages apart drive each other out."""
    rows = 1024
    a, b = (f"{stride}*u + k", stride * rows), ("512*u + n", 512 * rows)
    dims = {"k": 16, "n": 512, "u": rows}
    kernel = cases.contraction("c", dims, ("512*k + n", 16 * 512), a, b, "u")
    done = schedule_kernel(kernel, cases.NARROW)
    scratch = [s.name for k in done.kernels for s in k.scratch]
    assert any(n.startswith("slab") for n in scratch) == copied


@pytest.mark.parametrize("sizes", [(67, 29, 33), (6, 16, 5), (13, 7, 130), (1, 1, 9)])
def test_schedules_for_few_registers_compute_the_same(sizes):
    check_schedule(cases.matmul(*sizes), cases.NARROW)
