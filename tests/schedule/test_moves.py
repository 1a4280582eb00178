"""Each move, remainders included: the same results as before, and errors where it is illegal."""

import math
from dataclasses import replace

import pytest

from summand.errors import InternalError
from summand.ir.index import parse
from summand.loops.nodes import Let, Loop
from summand.schedule.accesses import analyse
from summand.schedule.ahead import coarsen
from summand.schedule.beside import side_by_side
from summand.schedule.block import block_reduction, blockable_folds, blocks_of
from summand.schedule.grid import Unit, spread, task_goal
from summand.schedule.guards import drop_true_guards, guards_to_bounds
from summand.schedule.moves import (
    chain_of,
    drop_unit_dims,
    is_free,
    merge_dims,
    parallelise,
    separate,
    tile,
)
from summand.schedule.pack import pack_ahead, pack_in_task
from summand.schedule.partials import find_cut, split_reduction
from summand.schedule.registers import Limits, choose_registers
from tests.schedule import cases
from tests.schedule.random_nests import scattered
from tests.schedule.running import expect_same


def chain(kernel):
    found = chain_of(kernel)
    assert found is not None
    return found


@pytest.mark.parametrize("size", [1, 4, 5, 7, 20])
def test_tile(size):
    kernel = cases.matmul(20, 9, 6)
    tiled = tile(chain(kernel), "m", size)
    expect_same(kernel, [tiled.kernel_of()])
    assert any(isinstance(v, Let) for v in tiled.levels) == bool(20 % size)


@pytest.mark.parametrize("block", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_tile_then_parallelise(size, block):
    kernel = cases.matmul(20, 9, 6)
    tiled = parallelise(tile(chain(kernel), "m", size), "m_o", block)
    expect_same(kernel, [tiled.kernel_of()])
    steps = math.ceil(20 / size)
    assert tiled.kernel.grid == (("m_o" if block == 1 else "m_og", math.ceil(steps / block)),)


def test_illegal_tiles():
    kernel = cases.matmul(20, 9, 6)
    with pytest.raises(InternalError, match="folded"):
        tile(chain(kernel), "k", 2)
    with pytest.raises(InternalError, match="tile of"):
        tile(chain(kernel), "m", 0)


@pytest.mark.parametrize("size", [5, 7, 19])
def test_tiles_that_may_not_overlap_are_cut_short(size):
    kernel = cases.matmul(20, 9, 6)
    nest = chain(kernel).nest
    adding = replace(
        kernel, body=(replace(nest, stores=(replace(nest.stores[0], combine="add"),)),)
    )
    tiled = parallelise(tile(chain(adding), "m", size), "m_o")
    expect_same(adding, [tiled.kernel_of()])
    assert bool(tiled.nest.bounds) == bool(20 % size)


@pytest.mark.parametrize("sizes", [(7, 4), (13, 4), (19, 16), (10, 3)])
def test_tiles_cut_short_may_be_tiled_again(sizes):
    kernel = cases.matmul(20, 9, 6)
    nest = chain(kernel).nest
    adding = replace(
        kernel, body=(replace(nest, stores=(replace(nest.stores[0], combine="add"),)),)
    )
    tiled = parallelise(tile(chain(adding), "m", sizes[0]), "m_o")
    tiled = tile(tiled, "m", sizes[1])
    assert len(tiled.nest.bounds) == 1
    expect_same(adding, [tiled.kernel_of()])


def test_what_may_be_parallel():
    nest = chain(cases.matmul(4, 5, 6)).nest
    assert [d for d in "mnk" if is_free(nest, d)] == ["m", "n"]
    adding = replace(nest, stores=(replace(nest.stores[0], combine="add"),))
    assert is_free(adding, "m") and is_free(adding, "n")
    overlapping = replace(adding.stores[0], at=replace(adding.stores[0].at, form=parse("m + n")))
    assert not is_free(replace(adding, stores=(overlapping,)), "m")


@pytest.mark.parametrize("seed", range(20))
def test_scatters_spread_only_over_free_dims(seed):
    kernel = scattered(seed)
    c = chain(kernel)
    units = [Unit(d, n) for d, n in c.nest.dims if is_free(c.nest, d)]
    spread_out = spread(c, units, 8)
    expect_same(kernel, [spread_out.kernel_of()])


@pytest.mark.parametrize("goal", [2, 3, 8, 100])
def test_spread(goal):
    kernel = cases.matmul(23, 19, 6)
    units = [Unit("m", 12, 2), Unit("n", 19)]
    spread_out = spread(chain(kernel), units, goal)
    expect_same(kernel, [spread_out.kernel_of()])


def test_goals_follow_from_work_alone():
    assert task_goal(0) == task_goal(1000) == 1
    assert 1 < task_goal(500_000) < task_goal(1e9) <= 64


def test_merge_dims():
    kernel = cases.elementwise({"i": 6, "j": 5, "k": 4}, "20*i + 4*j + k", ("20*i + 4*j + k", "k"))
    merged = merge_dims(chain(kernel).nest)
    assert merged.dims == (("j", 30), ("k", 4))
    expect_same(kernel, [replace(kernel, body=(merged,))])


def test_merge_keeps_folded_apart():
    kernel = cases.reduction({"i": 6, "j": 5}, "5*i + j", "i", "j")
    assert merge_dims(chain(kernel).nest) == chain(kernel).nest
    whole = cases.reduction({"i": 6, "j": 5}, "5*i + j", "0", "ij")
    assert merge_dims(chain(whole).nest).dims == (("j", 30),)
    expect_same(whole, [replace(whole, body=(merge_dims(chain(whole).nest),))])


def test_unit_dims_and_true_guards():
    kernel = cases.convolution(1, 5, 3)
    nest = drop_unit_dims(chain(kernel).nest)
    assert "n" not in nest.extents
    expect_same(kernel, [replace(kernel, body=(nest,))])
    inside = cases.contraction(
        "c", {"i": 4, "k": 3}, ("i", 4), ("i + k", 6, ("i + k", 6)), ("k", 3), "k"
    )
    assert not drop_true_guards(chain(inside).nest).code[0].at.guards


@pytest.mark.parametrize("fold", ["add", "max", "min"])
def test_guards_to_bounds(fold):
    a, b = ("x + 2*k - 2", 7, ("x + 2*k - 2", 7)), ("k", 3)
    product = "mul" if fold == "add" else "add"
    kernel = cases.contraction("c", {"x": 7, "k": 3}, ("x", 7), a, b, "k", product, fold)
    nest = guards_to_bounds(chain(kernel).nest)
    assert [b.dim for b in nest.bounds] == ["k"]
    assert not nest.code[0].at.guards
    expect_same(kernel, [replace(kernel, body=(nest,))])


def test_guards_stay_where_the_fill_matters():
    a, b = ("x + k - 1", 7, ("x + k - 1", 7)), ("k", 3)
    kernel = cases.contraction("c", {"x": 7, "k": 3}, ("x", 7), a, b, "k", "add", "add")
    assert guards_to_bounds(chain(kernel).nest) == chain(kernel).nest


@pytest.mark.parametrize("size", [4, 7])
def test_pack_ahead(size):
    kernel = cases.matmul(6, 18, 5)
    packed = pack_ahead(tile(chain(kernel), "n", size), 1, ["k", "n"], "packed", 4)
    assert packed.kernel is not None
    expect_same(kernel, [packed.kernel, packed.chain.kernel_of()], [packed.buffer])


@pytest.mark.parametrize("size", [4, 7])
def test_pack_in_task(size):
    kernel = cases.matmul(18, 6, 5)
    parallel = parallelise(tile(chain(kernel), "m", size), "m_o")
    packed = pack_in_task(parallel, 0, ["m", "k"], "slab", 1)
    assert packed.kernel is None
    expect_same(kernel, [packed.chain.kernel_of()])


def window(x, k, stride=1, dilation=1, rows=3):
    """out[m, x] = Σ_k a[m, stride·x + dilation·k] · b[k]"""
    size = stride * (x - 1) + dilation * (k - 1) + 1
    a = (f"{size}*m + {stride}*x + {dilation}*k", rows * size)
    dims = {"m": rows, "x": x, "k": k}
    return cases.contraction("window", dims, (f"{x}*m + x", rows * x), a, ("k", k), "k")


@pytest.mark.parametrize(("stride", "dilation", "size"), [(1, 1, 10), (1, 1, 4), (2, 3, 5)])
def test_windows_are_packed_once(stride, dilation, size):
    kernel = window(10, 3, stride, dilation)
    source = kernel.params[0].size
    packed = pack_ahead(tile(chain(kernel), "x", size), 0, ["k", "x", "m"], "packed", 1)
    assert packed.kernel is not None
    assert packed.buffer.size == source
    expect_same(kernel, [packed.kernel, packed.chain.kernel_of()], [packed.buffer])
    parallel = parallelise(tile(chain(kernel), "m", 1), "m_o")
    packed = pack_in_task(parallel, 0, ["k", "x", "m"], "slab", 1)
    assert packed.buffer.size == source // 3
    expect_same(kernel, [packed.chain.kernel_of()])


def test_lanes_and_sparse_windows_are_packed_apart():
    kernel = window(10, 3)
    packed = pack_ahead(chain(kernel), 0, ["m", "k", "x"], "packed", 1, frozenset("x"))
    assert packed.buffer.size == 90
    expect_same(kernel, [packed.kernel, packed.chain.kernel_of()], [packed.buffer])
    kernel = window(3, 2, 20, 17)
    packed = pack_ahead(chain(kernel), 0, ["m", "k", "x"], "packed", 1)
    assert packed.buffer.size == 18
    expect_same(kernel, [packed.kernel, packed.chain.kernel_of()], [packed.buffer])


def test_what_computed_places_choose_is_packed_whole():
    kernel = cases.chosen_matrices(blocks=5, experts=4, rows=3, m=6, k=7)
    packed = pack_ahead(chain(kernel), 5, ["k", "n"], "packed", 1)
    assert packed.kernel is not None
    assert packed.buffer.size == 4 * 6 * 7
    expect_same(kernel, [packed.kernel, packed.chain.kernel_of()], [packed.buffer])


@pytest.mark.parametrize("extent", [64, 65, 1000, 1031])
def test_split_reduction(extent):
    kernel = cases.reduction({"i": 3, "r": extent}, f"{extent}*i + r", "i", "r")
    facts = analyse(chain(kernel).nest)
    cut = find_cut(facts, 8)
    assert cut is not None
    split = split_reduction(kernel, facts, cut)
    expect_same(kernel, split.kernels, split.temporaries)


@pytest.mark.parametrize("size", [5, 8])
def test_block_reduction(size):
    kernel = cases.matmul(12, 20, 24)
    tiled = tile(chain(kernel), "n", size)
    facts = analyse(chain(kernel).nest)
    folds = blockable_folds(facts)
    assert folds == (3,)
    blocked = block_reduction(tiled, facts, folds, (("k", 4),), ["n"])
    expect_same(kernel, [blocked.kernel_of()])


def test_block_reduction_along_two_dims_within_bounds():
    dims = {"x": 6, "c": 3, "a": 3, "n": 2, "y": 8}
    at = ("24*n + 3*y + 3*a + c - 3", 48, ("y + a - 1", 8))
    kernel = cases.contraction("rows", dims, ("9*x + 3*a + c", 54), at, ("8*x + y", 48), "ny")
    bounded = guards_to_bounds(chain(kernel).nest)
    assert [b.dim for b in bounded.bounds] == ["y"]
    facts = analyse(bounded)
    folds = blockable_folds(facts)
    assert len(folds) == 1
    blocks = blocks_of([("n", 2), ("y", 8)], 6)
    assert blocks == (("n", 2), ("y", 4))
    blocked = block_reduction(chain(kernel).with_nest(bounded), facts, folds, blocks, ["c"])
    expect_same(kernel, [blocked.kernel_of()])
    cut = find_cut(facts, 8)
    assert cut is not None and (cut.dim, cut.parts) == ("y", 8)
    whole = chain(kernel).with_nest(bounded).kernel_of()
    split = split_reduction(whole, facts, cut)
    expect_same(kernel, split.kernels, split.temporaries)


def test_blocks_are_divisors():
    assert blocks_of([("n", 8), ("x", 112)], 64) == (("n", 8), ("x", 8))
    assert blocks_of([("x", 112)], 5) == (("x", 7),)
    assert blocks_of([("x", 113)], 5) == ()
    assert blocks_of([("n", 1), ("x", 113)], 200) == ()


def test_a_slab_follows_tiles_that_move_within_a_task():
    kernel = cases.contraction(
        "columns",
        {"m": 50, "n": 8, "k": 5},
        ("8*m + n", 400),
        ("50*k + m", 250),
        ("8*k + n", 40),
        "k",
    )
    tiled = parallelise(tile(chain(kernel), "m", 6), "m_o", 4)
    packed = pack_in_task(tiled, 0, ["k", "m"], "slab", 1).chain
    (slab,) = packed.kernel.scratch
    assert slab.size == 5 * 24  # of four tiles of six, moved back at the edge
    expect_same(kernel, [packed.kernel_of()])


def test_side_by_side():
    kernel = cases.reduction({"i": 1, "r": 1 << 20}, f"{1 << 20}*i + r", "i", "r")
    bits = {b.name: 32 for b in kernel.params}
    facts = analyse(chain(kernel).nest, bits)
    choice = choose_registers(facts, Limits(), cases.NARROW)
    split, chosen = side_by_side(facts, choice, bits, cases.NARROW)
    assert split.extents == {"i": 1, "r_h": 4, "r": 1 << 18}
    assert chosen.unrolled == {"r_h"}
    assert split.nest.code[0].at.form == parse(f"{1 << 20}*i + {1 << 18}*r_h + r")
    short = cases.reduction({"i": 64, "r": 4096}, "4096*i + r", "i", "r")
    facts = analyse(chain(short).nest, bits)
    choice = choose_registers(facts, Limits(), cases.NARROW)
    assert side_by_side(facts, choice, bits, cases.NARROW) == (facts, choice)


def test_coarsen():
    kernel = parallelise(tile(chain(cases.matmul(30, 4, 3)), "m", 1), "m_o").kernel_of()
    coarse, dim = coarsen(kernel, 5)
    assert coarse.grid == (("m_og", 5),) and dim == "m_o"
    assert isinstance(coarse.body[0], Loop) and coarse.body[0].extent == 6
    expect_same(kernel, [coarse])


def test_separate():
    kernel = cases.matmul(4, 4, 4)
    copy = cases.elementwise({"i": 16}, "i", ("i", "i"))
    both = replace(kernel, body=(*kernel.body, *copy.body))
    parts = separate(both)
    assert len(parts) == 2
    expect_same(both, parts)
