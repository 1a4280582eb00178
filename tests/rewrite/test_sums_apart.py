"""Sums none of whose terms waits for another sum."""

import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.nodes import SUM, Type
from summand.rewrite.sums_apart import sums_apart
from tests.rewrite.agreement import assert_same_results
from tests.rewrite.golden import assert_golden


def chain(term, dtype=dt.f32):
    """sum{j} of what `term` makes of a, b{i,j}, p{i} and a sum s{i} of b."""
    b = Builder()
    x, y = (b.param(Type.of(dtype, {"i": 6, "j": 50})) for _ in range(2))
    p = b.param(Type.of(dtype, {"i": 6}))
    (s,) = b.reduce(SUM, ["j"], y)
    return b.finish([s, *b.reduce(SUM, ["j"], term(b, x, y, p, s))])


def test_a_sum_that_waits_for_another_is_taken_apart():
    assert_golden(
        sums_apart,
        """\
        program (%0: f32{i=6,j=50}, %1: f32{i=6,j=50}, %2: f32{i=6}) {
          %3: f32{i=6} = reduce sum {j} %1
          %4: f32{i=6,j=50} = mul %0 %2
          %5: f32{i=6,j=50} = mul %1 %3
          %6: f32{i=6,j=50} = sub %4 %5
          %7: f32{i=6} = reduce sum {j} %6
          return %7
        }
        """,
        """\
        program (%0: f32{i=6,j=50}, %1: f32{i=6,j=50}, %2: f32{i=6}) {
          %3: f32{i=6} = reduce sum {j} %1
          %4: f32{i=6,j=50} = mul %0 %2
          %5: f32{i=6,j=50} = mul %1 %3
          %6: f32{i=6,j=50} = sub %4 %5
          %7: f32{i=6} = reduce sum {j} %0
          %8: f32{i=6} = mul %7 %2
          %9: f32{i=6} = reduce sum {j} %1
          %10: f32{i=6} = mul %9 %3
          %11: f32{i=6} = sub %8 %10
          return %11
        }
        """,
    )


TERMS = {
    "sum": lambda b, x, y, p, s: b.map("add", b.map("mul", x, p), b.map("mul", s, y)),
    "negative": lambda b, x, y, p, s: b.map("sub", b.map("neg", b.map("mul", x, s)), y),
    "of three": lambda b, x, y, p, s: b.map("sub", x, b.map("add", y, b.map("mul", y, s))),
    "product": lambda b, x, y, p, s: b.map("sub", b.map("mul", b.map("mul", x, y), s), x),
}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("dtype", [dt.f32, dt.f64])
def test_the_results_are_the_same(name, dtype):
    program = chain(TERMS[name], dtype)
    found = sums_apart(program)
    assert len(found.eqns) > len(program.eqns)
    assert_same_results(program, found)


@pytest.mark.parametrize(
    "term",
    [
        lambda b, x, y, p, s: b.map("sub", x, s),  # would cancel
        lambda b, x, y, p, s: b.map("add", b.map("mul", x, p), y),  # waits for nothing
        lambda b, x, y, p, s: b.map("add", b.map("exp", b.map("mul", x, s)), y),  # waits inside
        lambda b, x, y, p, s: b.map("mul", b.map("add", x, y), s),  # one product
    ],
)
def test_what_would_cancel_or_wait_all_the_same_stays(term):
    program = chain(term)
    assert sums_apart(program) == program


def test_sums_of_16_bits_stay():
    program = chain(TERMS["sum"], dt.f16)
    assert sums_apart(program) == program
