"""Sums of products with a scatter, against the interpreter."""

import numpy as np
import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import SUM, ReduceAt, Type
from summand.ir.text import text
from summand.ir.verify import verify
from summand.rewrite.places.sparse_sums import sparse_sums

SIZES = {"i": 5, "q": 3, "j": 40, "d": 4}
rng = np.random.default_rng(0)


def f32(b, dims):
    return b.param(Type.of(dt.f32, {d: SIZES[d] for d in dims}))


def data(dims):
    values = rng.standard_normal([SIZES[d] for d in dims]).astype(np.float32)
    return Named(values, tuple(dims))


def program(over, other, mode="trusted"):
    b = Builder()
    e, y = f32(b, "iq"), f32(b, other)
    p = b.param(Type.of(dt.i32, {"i": SIZES["i"], "q": SIZES["q"]}))
    (s,) = b.reduce_at(SUM, ["q"], [e], {"j": p}, {"j": SIZES["j"]}, mode)
    return b.finish(b.reduce(SUM, over, b.map("mul", s, y)))


@pytest.mark.parametrize("mode", ["trusted", "clip"])
@pytest.mark.parametrize(
    "over, other", [(["j"], "jd"), (["i"], "id"), (["i", "j"], "jd"), (["j"], "j"), (["j"], "jq")]
)
def test_same_sums(over, other, mode):
    before = program(over, other, mode)
    after = sparse_sums(before)
    verify(after)
    assert text(after) != text(before)
    places = rng.integers(0, SIZES["j"], (SIZES["i"], SIZES["q"])).astype(np.int32)
    args = [data("iq"), data(other), Named(places, ("i", "q"))]
    for a, b in zip(run(before, args), run(after, args), strict=True):
        np.testing.assert_allclose(a.array, b.array, rtol=1e-5, atol=1e-6)


def test_a_kept_place_stays_a_scatter():
    eqns = sparse_sums(program(["i"], "id")).eqns
    (scatter,) = [e for e in eqns if isinstance(e.op, ReduceAt) and e.out.type.count == 160]
    assert set(scatter.op.dims) == {"i", "q_1"}


@pytest.mark.parametrize("mode", ["raise", "fill"])
def test_places_that_may_be_out_of_range_stay(mode):
    before = program(["j"], "jd", mode)
    assert text(sparse_sums(before)) == text(before)


def test_a_full_scatter_stays():
    """As many elements as places: nothing is gained."""
    b = Builder()
    e, y = f32(b, "jd"), f32(b, "jd")
    p = b.param(Type.of(dt.i32, {"j": SIZES["j"]}))
    place = b.rename(p, {"j": "k"})
    (s,) = b.reduce_at(SUM, ["k"], [b.rename(e, {"j": "k"})], {"j": place}, {"j": SIZES["j"]})
    before = b.finish(b.reduce(SUM, ["j"], b.map("mul", s, y)))
    assert text(sparse_sums(before)) == text(before)
