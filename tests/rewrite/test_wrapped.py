"""Reads that wrap around are guarded reads side by side."""

import pytest

from summand.dtypes import bool_, f32, f64, i32
from summand.ir.builder import Builder
from summand.ir.index import parse
from summand.ir.nodes import MAX, SUM, Reindex, Type
from summand.rewrite.wrapped import wrapped
from tests.rewrite.agreement import assert_same_results
from tests.rewrite.golden import assert_golden


def test_a_read_that_wraps_is_two():
    assert_golden(
        wrapped,
        """
        program (%0: f32{x=8, y=3}) {
          %1: f32{x=8, y=3} = reindex %0 {x: (x + 3)%8} trusted
          return %1
        }
        """,
        """
        program (%0: f32{x=8,y=3}) {
          %1: f32{x=8,y=3} = reindex %0 {x: x + 3} fill -0.0
          %2: f32{x=8,y=3} = reindex %0 {x: x - 5} fill -0.0
          %3: f32{x=8,y=3} = add %1 %2
          return %3
        }
        """,
    )


@pytest.mark.parametrize("dtype", [f32, f64, i32, bool_])
@pytest.mark.parametrize(
    ("form", "goes"),
    [("(x + 1)%8", True), ("(x + 7)%8", True), ("(2*x + 1)%8", True), ("(5*x)%8", False)],
)
def test_reads_keep_their_values(dtype, form, goes):
    b = Builder()
    x = b.param(Type.of(dtype, {"x": 8, "y": 3}))
    program = b.finish([b.reindex(x, {"x": parse(form)}, {"x": 8})])
    new = wrapped(program)
    assert_same_results(program, new)
    modes = {e.op.mode for e in new.eqns if isinstance(e.op, Reindex)}
    assert modes == ({"fill"} if goes else {"trusted"})


@pytest.mark.parametrize("monoid", [SUM, MAX])
@pytest.mark.parametrize(("form", "goes"), [("(x + 3)%8", True), ("(2*x)%8", False)])
def test_sums_into_wrapped_places_are_reads(monoid, form, goes):
    b = Builder()
    x = b.param(Type.of(f32, {"x": 8, "y": 3}))
    (out,) = b.reduce_at(monoid, ["x"], [x], {"u": parse(form)}, {"u": 8})
    program = b.finish([out])
    new = wrapped(program)
    assert_same_results(program, new)
    assert any(isinstance(e.op, Reindex) for e in new.eqns) == goes
