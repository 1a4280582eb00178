"""Reductions summed tile by tile, beside the values that they fold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from summand import compiler
from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.interp import run
from summand.ir.nodes import MAX, SUM
from summand.loops.nodes import Launch, Loop, Nest
from summand.options import Options, Target
from summand.rewrite.plan.fuse import fuse
from summand.rewrite.plan.layout import Bodies, choose_orders
from summand.rewrite.plan.nodes import Cluster, Graph
from summand.rewrite.plan.text import text
from summand.rewrite.plan.tiling import choose_tiles
from tests.lower.agreement import assert_lowers, order_of, rewritten
from tests.lower.cases import number, value
from tests.programs import arguments, programs
from tests.rewrite.agreement import assert_close

# small caches, and arithmetic so slow that small programs are worth several tasks
TINY = Target("x86_64", "generic", "", l1=1 << 9, l2=1 << 11, l3=1 << 20, fma_per_cycle=0.02)
TINIER = Target("x86_64", "generic", "", l1=1 << 8, l2=1 << 9, l3=1 << 20, fma_per_cycle=0.02)


def both_ways(i, j, dtype=dt.f32, batch=1):
    """Sums over both dims of a value that no memory should hold, in many forms."""
    b = Builder()
    x, y = value(b, dtype, b=batch, i=i), value(b, dtype, b=batch, j=j)
    e = b.map("exp", b.map("mul", x, y))
    rows = b.reduce(SUM, ["j"], e)[0]
    weighed = b.map("mul", e, rows)
    columns = b.reduce(SUM, ["i"], weighed)[0]
    scaled = b.map("mul", b.convert(number(b, 0.5), dtype), b.rename(columns, {"j": "i"}))
    highest = b.reduce(MAX, ["i"], weighed)[0]
    far = b.map("sub", b.reduce(SUM, ["i"], e)[0], y)  # not linear: finished afterwards
    everything = b.reduce(SUM, ["b", "i", "j"], weighed)[0]
    return b.finish([rows, scaled, highest, far, everything])


def diagonals(i, j, batch=2):
    """Sums along the diagonals, as the adjoint of a bias by relative position is."""
    b = Builder()
    x, y = value(b, b=batch, i=i), value(b, b=batch, j=j)
    e = b.map("exp", b.map("mul", x, y))
    share = b.map("div", e, b.reduce(SUM, ["j"], e)[0])
    place = Form.of("m") + Form.of("j") - (j - 1)
    slid = b.reindex(share, {"i": place}, {"m": i + j - 1, "j": j}, "fill", 0.0)
    return b.finish([b.reduce(SUM, ["b", "j"], slid)[0], b.reduce(SUM, ["i"], share)[0]])


PROGRAMS = {
    "both ways": both_ways(64, 48),
    "both ways, odd": both_ways(61, 47),
    "both ways, batch": both_ways(23, 29, batch=3),
    "both ways, f16": both_ways(37, 41, dt.f16),
    "both ways, bf16": both_ways(37, 41, dt.bf16),
    "diagonals": diagonals(48, 40),
    "diagonals, odd": diagonals(53, 37, 3),
}


def streamed(program, target):
    items = fuse(program, target, Options()).items
    return [i for i in items if isinstance(i, Cluster) and i.summed]


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("target", [TINY, TINIER], ids=["tiny", "tinier"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name, target, scheduled):
    program = PROGRAMS[name]
    assert streamed(program, target)
    assert_lowers(program, arguments(program), target=target, scheduled=scheduled)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(), st.sampled_from((1 << 7, 1 << 9)), st.booleans())
def test_random_programs_with_hardly_any_cache(program, l2, scheduled):
    target = replace(TINY, l1=l2 // 2, l2=l2)
    after = rewritten(program)
    assert_lowers(after, arguments(program), scheduled=scheduled, target=target)


@pytest.mark.parametrize("program", [both_ways(1021, 1103), diagonals(509, 1021)])
def test_compiled(program):
    """Sizes that no tile divides; the values between are larger than the second cache."""
    args = arguments(program)
    for arg in args:
        arg.array[...] = np.sin(arg.array)
    executable = compiler.compile(
        program,
        [order_of(p) for p in program.params],
        [order_of(r) for r in program.results],
    )
    assert executable.temporary_bytes < 4 * 1021 * 509  # less than the whole array
    found = executable.run([np.ascontiguousarray(a.array) for a in args])
    for var, wanted, got in zip(program.results, run(program, args), found, strict=True):
        assert_close(wanted.transposed(order_of(var)).array, got, var.type.dtype)


def test_the_plan_says_what_is_summed():
    b = Builder()
    x, y = value(b, i=300), value(b, j=200)
    e = b.map("exp", b.map("mul", x, y))
    program = b.finish([b.reduce(SUM, ["j"], e)[0], b.reduce(SUM, ["i"], e)[0]])
    plan = fuse(program, TINY, Options())
    assert (
        text(plan)
        == """\
kernel 0: shared i=300
  stage -> %3 (scratch) %4
    %3: f32{i=300,j=200} = exp %2
    %4: f32{i=300} = reduce sum {j} %3
    inlined: %2
  stage -> %5, summed over tiles of i
    %5: f32{j=200} = reduce sum {i} %3
return %4 %5"""
    )


def test_a_value_that_is_wanted_whole_is_not_streamed():
    b = Builder()
    e = b.map("exp", b.map("mul", value(b, i=300), value(b, j=200)))
    program = b.finish([e, b.reduce(SUM, ["j"], e)[0], b.reduce(SUM, ["i"], e)[0]])
    assert not streamed(program, TINIER)


def test_tasks_follow_from_shapes_alone():
    program = both_ways(601, 211)
    args = arguments(program)
    targets = [Target("x86_64", "generic", "", l2=1 << 14, threads=n) for n in (2, 8)]
    modules = [assert_lowers(program, args, target=t, scheduled=True) for t in targets]
    assert modules[0].kernels == modules[1].kernels
    assert sum(isinstance(s, Launch) for s in modules[0].steps) == len(modules[0].steps)


def test_lanes_run_along_rows_where_a_tile_holds_few_of_them():
    target = Target("x86_64", "generic", "")
    plan = fuse(both_ways(4096, 32768), target, Options())
    (cluster,) = streamed(both_ways(4096, 32768), target)
    values = list(cluster.roots)
    fixed = {p: tuple(d for d, _ in p.type.dims) for p in plan.program.params}
    orders = choose_orders(plan.items, fixed, values, Bodies.of(plan.program), target.l2)
    inner = {orders[v][-1] for v in cluster.scratch if v.type.count == 1 << 27}
    assert inner == {"j"}


def test_scratch_lives_until_its_last_reader():
    (cluster,) = streamed(diagonals(48, 40), TINY)
    alive = cluster.living()
    assert len(alive) == len(cluster.stages)
    assert all(values <= cluster.scratch for values in alive)
    for stage, values in zip(cluster.stages, alive, strict=True):
        reads = {a.var for a in stage.reads} & cluster.scratch
        assert reads <= values
    assert frozenset().union(*alive) == cluster.scratch


def points(i, j, kind=dt.f32):
    """Sums over all pairs of points whose coordinates are innermost, both ways."""
    b = Builder()
    x, w = value(b, kind, i=i, d=3), value(b, kind, i=i)
    off = b.map("sub", x, value(b, kind, j=j, d=3))
    e = b.map("exp", b.map("neg", b.reduce(SUM, ["d"], b.map("mul", off, off))[0]))
    rows = b.reduce(SUM, ["j"], e)[0]
    weighed = b.map("mul", off, b.map("mul", e, b.map("mul", rows, w)))
    return b.finish([rows, b.reduce(SUM, ["i"], weighed)[0], b.reduce(SUM, ["j"], weighed)[0]])


@pytest.mark.parametrize(("i", "j"), [(256, 128), (307, 83)])
def test_points_are_brought_into_the_order_of_the_lanes_once_for_each_task(i, j):
    program = points(i, j)
    target = replace(TINY, l2=1 << 12)
    module = assert_lowers(program, arguments(program), target=target, scheduled=True, reverse=True)
    kernel = max(module.kernels, key=lambda k: len(k.body))
    turned = [n for n in kernel.body if isinstance(n, Nest) and dict(n.dims).get("d") == 3]
    assert turned
    assert isinstance(kernel.body[-1], Loop)


def pulled_back(i, j, d):
    """Given weights of the results: the sums over both dims of a kernel of wide points."""
    b = Builder()
    x, y = value(b, i=i, d=d), value(b, j=j, d=d)
    g, w = value(b, i=i), value(b, j=j)
    off = b.map("sub", x, y)
    near = b.map("exp", b.map("neg", b.reduce(SUM, ["d"], b.map("mul", off, off))[0]))
    weighed = b.map("mul", off, b.map("mul", near, b.map("mul", g, w)))
    sums = [b.reduce(SUM, [dim], weighed)[0] for dim in ("i", "j")]
    return b.finish([*sums, b.reduce(SUM, ["i"], b.map("mul", near, g))[0]])


def test_what_depends_on_no_sum_is_summed_over_tiles_of_both_dims():
    plan = fuse(pulled_back(20000, 20000, 8), Target("x86_64", "generic", ""), Options())
    (cluster,) = [c for c in plan.items if c.summed]
    assert cluster.summed == {"i", "j"}
    stored = [v for c in plan.items for v in c.roots if v not in c.scratch]
    assert max(v.type.count for v in stored) == 20000 * 8


@pytest.mark.parametrize(("i", "j"), [(61, 67), (64, 48), (127, 31)])
def test_tiles_that_are_moved_back_add_only_what_is_their_own(i, j):
    program = pulled_back(i, j, 8)
    target = replace(TINY, l2=1 << 11)
    for scheduled in (False, True):
        assert_lowers(program, arguments(program), target=target, scheduled=scheduled)


def test_sizes_that_no_tile_divides_have_whole_tiles():
    plan = fuse(pulled_back(8191, 8101, 50), Target("x86_64", "generic", ""), Options())
    (cluster,) = [c for c in plan.items if c.summed]
    params = {p: tuple(d for d, _ in p.type.dims) for p in plan.program.params}
    orders = choose_orders(plan.items, params, list(cluster.roots), Bodies.of(plan.program))
    tiles = choose_tiles(Graph.of(plan.program), cluster, orders, Target("x86_64", "generic", ""))
    assert {t.dim for t in tiles} == {"i", "j"}
    assert min(t.tile for t in tiles) >= 16


def gated_norm(n=6, g=3, x=40):
    """A norm over x of tanh(z) exp(a - mean), and two sums over the batch of it."""
    b = Builder()
    a, z, w = value(b, n=n, g=g, x=x), value(b, n=n, g=g, x=x), value(b, g=g)
    gate = b.map("tanh", z)
    apart = b.map("sub", a, b.map("mul", number(b, 1 / x), b.reduce(SUM, ["x"], a)[0]))
    wide = b.map("mul", gate, b.map("exp", apart))
    spread = b.map("rsqrt", b.reduce(SUM, ["x"], b.map("mul", wide, wide))[0])
    scaled = b.map("mul", b.map("mul", wide, spread), w)
    dw = b.reduce(SUM, ["n", "x"], b.map("mul", scaled, wide))[0]
    every = b.reduce(SUM, ["n", "g", "x"], b.map("mul", scaled, scaled))[0]
    return b.finish([b.map("add", scaled, gate), dw, every])


def test_what_may_be_computed_again_takes_less_room():
    """A tile has its tanh, its products with it and both sums of them: more than it has room for,
    if all of that were held."""
    program = rewritten(gated_norm())
    (cluster,) = streamed(program, replace(TINY, l2=640))
    assert len(cluster.summed) == 2
    assert_lowers(program, arguments(program), target=replace(TINY, l2=640), scheduled=True)
    assert not streamed(program, replace(TINY, l2=64))
