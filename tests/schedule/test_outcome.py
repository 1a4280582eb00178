"""What a kernel is predicted to do: only what bounds and conditions let it do is counted."""

from dataclasses import replace

import pytest

from summand.ir.index import Form
from summand.loops.nodes import Bound
from summand.schedule.moves import chain_of, parallelise, tile
from summand.schedule.outcome import predict
from summand.schedule.tails import cut_tails
from tests.schedule import cases


def adding(m, n, k):
    kernel = cases.matmul(m, n, k)
    nest = chain_of(kernel).nest
    return replace(kernel, body=(replace(nest, stores=(replace(nest.stores[0], combine="add"),)),))


@pytest.mark.parametrize("size", [7, 8, 19])
def test_the_last_tile_counts_as_what_it_is(size):
    kernel = adding(20, 9, 6)
    whole = predict(kernel, cases.TARGET).flops
    tiled = parallelise(tile(chain_of(kernel), "m", size), "m_o").kernel_of()
    assert predict(tiled, cases.TARGET).flops == pytest.approx(whole)
    assert predict(cut_tails(tiled), cases.TARGET).flops == pytest.approx(whole)


def test_a_triangle_is_half_of_a_square():
    kernel = cases.matmul(20, 9, 20)
    nest = chain_of(kernel).nest
    triangle = replace(nest, bounds=(Bound("k", (), (Form.of("m"),)),))
    half = predict(replace(kernel, body=(triangle,)), cases.TARGET)
    assert half.flops == pytest.approx(predict(kernel, cases.TARGET).flops * 190 / 400)
