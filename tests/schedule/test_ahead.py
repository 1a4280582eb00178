"""Tiles are small, and ask for what a later one reads."""

import re

import numpy as np
import pytest

import summand as sm

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


def test_one_stream_is_left_to_the_processor():
    z = sm.array(np.zeros(1 << 22, np.float32), i)
    assert "prefetch" not in sm.jit(lambda z: z * z + 1.0).inspect("loops", z)
