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
