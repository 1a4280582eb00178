"""Tiles are small, and ask for what a later one reads."""

import re
from dataclasses import replace

import numpy as np
import pytest

import summand as sm
from summand.codegen.cpu.module import emit_kernel
from summand.loops.nodes import Piece
from summand.runtime import machine
from summand.schedule.choose import schedule_kernel
from summand.schedule.moves import nests_of
from tests.schedule import cases

i, j = sm.dims("i j")


def softmax(z):
    e = sm.exp(z - sm.max[j](z))
    return e / sm.sum[j](e)


@pytest.mark.parametrize(("columns", "rows", "tiles"), [(4096, 1, 2), (16384, 1, 1), (256, 4, 8)])
def test_rows_are_fetched_32_kilobytes_ahead(columns, rows, tiles):
    z = sm.array(np.zeros(1 << 22, np.float32).reshape(-1, columns), i, j)
    text = sm.jit(softmax).inspect("loops", z)
    assert f"s1: f32[{rows * columns}]" in text
    assert re.findall(r"prefetch a0=(\d+)", text) == [str(rows * columns * tiles)]


def test_a_map_walks_the_rows_of_a_large_array_one_after_the_other():
    z, m = sm.array(np.zeros((1024, 4096), np.float32), i, j), sm.array(np.zeros(4096, "f4"), j)
    text = sm.jit(lambda z, m: sm.exp(z - m)).inspect("loops", z, m)
    assert "unroll j=4; loops i j; " in text
    assert re.findall(r"prefetch a0=(\d+)", text) == ["8192"]


@pytest.mark.parametrize(("target", "ahead"), [(cases.TARGET, []), (cases.NARROW, ["8192"])])
def test_one_stream_is_left_to_the_processor_if_that_asks_in_time(monkeypatch, target, ahead):
    monkeypatch.setattr(machine, "target", lambda: target)
    z = sm.array(np.zeros(1 << 22, np.float32), i)
    text = sm.jit(lambda z: z * z + 1.0).inspect("loops", z)
    assert re.findall(r"prefetch a0=(\d+)", text) == ahead


def test_a_long_array_that_is_only_read_is_walked_at_four_places():
    z = sm.array(np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32), i)
    total = sm.jit(lambda z: sm.sum[i](z))
    text = total.inspect("loops", z)
    assert "i_h=4 i=131072" in text
    assert "prefetch" not in text
    assert float(total(z)) == pytest.approx(float(z.numpy(i).astype("f8").sum()), abs=0.1)


def test_a_shorter_one_is_asked_for_a_page_ahead():
    z = sm.array(np.zeros(1 << 22, np.float32), i)
    text = sm.jit(lambda z: sm.sum[i](z)).inspect("loops", z)
    assert re.findall(r"prefetch a0=(\d+)", text) == ["1024"]


@pytest.mark.parametrize("rows", [4096, 4099])
def test_a_task_that_sums_over_its_tiles_asks_for_the_next_one(rows):
    z = sm.array(np.zeros((rows, 300), np.float32), i, j)
    loss = sm.value_and_grad(lambda z: sm.sum[i, j](softmax(z) ** 2))
    text = sm.jit(loss).inspect("loops", z)
    assert "for i.s=" in text
    assert re.findall(r"prefetch a\d+=(\d+)", text)


def test_sums_along_several_lanes_keep_several_accumulators():
    n, g, k = sm.dims("n g k")
    x = sm.array(np.zeros((8, 4096, 32, 4), np.float32), n, i, g, k)
    text = sm.jit(lambda a: (m := sm.sum[i, k](a), a - m)).inspect("loops", x)
    assert re.findall(r"lanes g=\d+ k=4; tile g=\d+; unroll i=\d+", text)


def test_what_is_read_after_a_sum_is_asked_for_before_it():
    k = sm.Dim("k")
    a, b = np.ones((2048, 64), np.float32), np.ones((64, 512), np.float32)
    x, w = sm.array(a, i, k), sm.array(b, k, j)
    bias = sm.array(np.ones((2048, 512), np.float32), i, j)
    f = sm.jit(lambda x, w, bias: bias * sm.sum[k](x * w))
    assert re.search(r"prefetch a\d+=0\b", f.inspect("loops", x, w, bias))
    np.testing.assert_array_equal(f(x, w, bias).numpy(i, j), 64.0)


def test_rows_that_each_tile_reads_once_are_asked_for_some_tiles_ahead():
    dims = {"x": 256, "o": 32, "n": 32, "c": 288}
    weights, image = ("9216*x + 288*o + c", 256 * 9216), ("9216*x + 32*c + n", 256 * 9216)
    out = ("1024*x + 32*o + n", 256 * 1024)
    kernel = cases.contraction("local", dims, out, weights, image, "c")
    nest = nests_of(schedule_kernel(kernel, cases.TARGET).kernels[-1].body)[-1]
    assert {p.dim: p.count for p in nest.schedule.tile} == {"o": 8, "n": 2}
    assert ("a", 9216) in nest.schedule.prefetch  # four tiles are 36 KB


def test_tiles_hold_several_rows_where_one_overflows_the_cache_anyway(monkeypatch):
    """The gradient of attention adds to two arrays that fill the second cache by themselves."""
    monkeypatch.setattr(machine, "target", lambda: cases.NARROW)
    b, t, u, d = sm.dims("b t u d")
    q = sm.array(np.zeros((16, 512, 64), np.float32), b, t, d)

    def loss(q, k, v):
        z = sm.sum[d](q * k[t:u])
        e = sm.exp(z - sm.max[u](z))
        return sm.sum[b, t, d]((sm.sum[u](e / sm.sum[u](e) * v[t:u])) ** 2)

    text = sm.jit(sm.grad(loss, argnums=(0, 1, 2))).inspect("loops", q, q, q)
    (steps,) = {int(n) for n in re.findall(r"for t\.s=(\d+)", text)}
    assert steps <= 64


def test_a_block_asks_for_each_line_once():
    """Four steps of a row lie in one line: four requests a round, not sixteen."""
    dims = {"m": 512, "n": 16, "k": 4096}
    a, b = ("4096*m + k", 512 * 4096), ("16*k + n", 16 * 4096)
    kernel = cases.contraction("c", dims, ("16*m + n", 512 * 16), a, b, "k")
    nest = nests_of(schedule_kernel(kernel, cases.NARROW).kernels[-1].body)[-1]
    how = replace(
        nest.schedule,
        lanes=(Piece("n", 8),),
        tile=(Piece("m", 4), Piece("n", 2)),
        unroll=(Piece("k", 4),),
        loops=("m", "k"),
        prefetch=(("a", 16384),),
    )
    plain = replace(kernel, body=(replace(nests_of(kernel.body)[0], schedule=how),))
    assert emit_kernel(plain, cases.NARROW).count("call void @llvm.prefetch") == 8
