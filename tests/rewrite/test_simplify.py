"""Golden text of simplify."""

import math

import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.nodes import Constant, Map, Type
from summand.rewrite.simplify import simplify
from summand.rewrite.simplify_map import holds
from tests.rewrite.golden import assert_golden


def test_algebra():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4,k=8}) {
          %1: f32{} = constant 1.0
          %2: f32{} = constant 0.0
          %3: f32{i=4,k=8} = mul %0 %1
          %4: f32{i=4,k=8} = add %3 %2
          %5: f32{i=4,k=8} = neg %4
          %6: f32{i=4,k=8} = neg %5
          %7: f32{} = add %1 %1
          %8: f32{} = add %7 %7
          %9: f32{i=4,k=8} = div %6 %8
          return %9
        }
        """,
        """
        program (%0: f32{i=4,k=8}) {
          %1: f32{} = constant 0.25
          %2: f32{i=4,k=8} = mul %0 %1
          return %2
        }
        """,
    )


def test_factors_leave_sums():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4,k=8}, %1: f32{i=4}, %2: f32{k=8}) {
          %3: f32{i=4,k=8} = mul %0 %1
          %4: f32{i=4,k=8} = mul %3 %2
          %5: f32{i=4} = reduce sum {k} %4
          return %5
        }
        """,
        """
        program (%0: f32{i=4,k=8}, %1: f32{i=4}, %2: f32{k=8}) {
          %3: f32{i=4,k=8} = mul %0 %2
          %4: f32{i=4} = reduce sum {k} %3
          %5: f32{i=4} = mul %1 %4
          return %5
        }
        """,
    )


def test_sums_of_sums():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4,j=3,k=8}) {
          %1: f32{i=4,j=3} = reduce sum {k} %0
          %2: f32{j=3} = reduce sum {i} %1
          return %2
        }
        """,
        """
        program (%0: f32{i=4,j=3,k=8}) {
          %1: f32{j=3} = reduce sum {i, k} %0
          return %1
        }
        """,
    )


def test_reindexes_move_to_the_leaves():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4,k=8}) {
          %1: f32{i=4,k=8} = exp %0
          %2: f32{i=4,u=8} = reindex %1 {k: u} trusted
          %3: f32{i=4,t=6} = reindex %2 {u: t + 1} trusted
          return %3
        }
        """,
        """
        program (%0: f32{i=4,k=8}) {
          %1: f32{i=4,t=6} = reindex %0 {k: t + 1} trusted
          %2: f32{i=4,t=6} = exp %1
          return %2
        }
        """,
    )


def test_a_map_with_other_readers_is_not_computed_twice():
    source = """
        program (%0: f32{k=8}) {
          %1: f32{k=8} = exp %0
          %2: f32{t=6} = reindex %1 {k: t + 1} trusted
          return %1, %2
        }
        """
    assert_golden(simplify, source, source)


def test_a_window_does_not_move_into_a_map():
    """It would compute the exponential at three times as many points."""
    source = """
        program (%0: f32{k=8}) {
          %1: f32{k=8} = exp %0
          %2: f32{w=3,x=6} = reindex %1 {k: w + x} trusted
          return %2
        }
        """
    assert_golden(simplify, source, source)


def test_computed_indices_that_are_forms():
    assert_golden(
        simplify,
        """
        program (%0: f32{k=8}) {
          %1: i32{t=4} = iota t
          %2: i32{} = constant 2
          %3: i32{t=4} = mul %1 %2
          %4: f32{t=4} = reindex %0 {k: %3} raise
          %5: f32{a=8} = reduce_at sum {t} %4 {a: %3} raise
          return %5
        }
        """,
        """
        program (%0: f32{k=8}) {
          %1: f32{t=4} = reindex %0 {k: 2*t} trusted
          %2: f32{a=8} = reduce_at sum {t} %1 {a: 2*t} trusted
          return %2
        }
        """,
    )


def test_a_form_that_leaves_its_dim_is_still_checked():
    source = """
        program (%0: f32{k=8}) {
          %1: i32{t=4} = iota t
          %2: i32{} = constant 3
          %3: i32{t=4} = mul %1 %2
          %4: f32{t=4} = reindex %0 {k: %3} raise
          return %4
        }
        """
    assert_golden(simplify, source, source)


def test_scatter_to_moved_places():
    assert_golden(
        simplify,
        """
        program (%0: f32{t=4}, %1: f32{}) {
          %2: f32{a=5} = reduce_at sum {t} %0 {a: t + 1} trusted
          %3: f32{a=5} = reduce_at max {t} %0 {a: 3} trusted
          return %2, %3
        }
        """,
        """
        program (%0: f32{t=4}, %1: f32{}) {
          %2: f32{a=5} = reindex %0 {t: a - 1} fill 0
          %3: f32{} = reduce max {t} %0
          %4: i32{a=5} = iota a
          %5: i32{} = constant 3
          %6: bool{a=5} = eq %4 %5
          %7: f32{} = constant -inf
          %8: f32{a=5} = where %6 %3 %7
          return %2, %8
        }
        """,
    )


def test_predicates_that_ranges_decide():
    assert_golden(
        simplify,
        """
        program (%0: f32{q=8}, %1: f32{q=8}) {
          %2: i32{q=8} = iota q
          %3: i32{} = constant 0
          %4: bool{q=8} = ge %2 %3
          %5: f32{q=8} = where %4 %0 %1
          %6: i32{} = constant 8
          %7: bool{q=8} = ge %2 %6
          %8: f32{q=8} = where %7 %0 %1
          return %5, %8
        }
        """,
        """
        program (%0: f32{q=8}, %1: f32{q=8}) {
          return %0, %1
        }
        """,
    )


def test_folds_of_equal_terms():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4}) {
          %1: i32{k=3} = iota k
          %2: bool{k=3} = eq %1 %1
          %3: f32{i=4,k=3} = where %2 %0 %0
          %4: f32{i=4} = reduce sum {k} %3
          %5: f32{i=4} = reduce max {k} %3
          return %4, %5
        }
        """,
        """
        program (%0: f32{i=4}) {
          %1: f32{} = constant 3.0
          %2: f32{i=4} = mul %0 %1
          return %2, %0
        }
        """,
    )


def test_padding_of_padding():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4}) {
          %1: f32{x=6} = reindex %0 {i: x - 1} fill 0.0
          %2: f32{y=8} = reindex %1 {x: y - 1} fill 0.0
          %3: f32{z=4} = reindex %2 {y: z + 2} trusted
          return %2, %3
        }
        """,
        """
        program (%0: f32{i=4}) {
          %1: f32{y=8} = reindex %0 {i: y - 2} fill 0.0
          %2: f32{z=4} = reindex %0 {i: z} trusted
          return %1, %2
        }
        """,
    )


def test_padding_after_a_slice_stays():
    """Composed, it would show elements that the slice cut off."""
    source = """
        program (%0: f32{i=9}) {
          %1: f32{x=4} = reindex %0 {i: x + 2} trusted
          %2: f32{y=8} = reindex %1 {x: y - 2} fill 0.0
          return %2
        }
        """
    assert_golden(simplify, source, source)


def test_monoids_by_name():
    assert_golden(
        simplify,
        """
        program (%0: f32{t=5}) {
          %1: i32{t=5} = iota t
          %2: f32{}, %3: i32{} = reduce monoid "m" [-inf, 0]
            (%0: f32{}, %1: i32{}, %2: f32{}, %3: i32{}) {
            %4: f32{} = max %0 %2
            %5: i32{} = max %1 %3
            return %4, %5
          } {t} %0 %1
          return %2
        }
        """,
        """
        program (%0: f32{t=5}) {
          %1: f32{} = reduce max {t} %0
          return %1
        }
        """,
    )


def test_bodies_know_constants_and_positions():
    assert_golden(
        simplify,
        """
        program (%0: f32{t=5}) {
          %1: f32{} = constant 2.0
          %2: f32{} = constant 0.0
          %3: f32{t=5} = recur (t forward 5) (0[1]) (%2) (%0, %1)
            (%0: f32{}, %1: f32{}, %2: f32{}, %3: i32{}) {
            %4: f32{} = add %0 %1
            %5: f32{} = mul %4 %2
            %6: i32{} = constant 0
            %7: bool{} = ge %3 %6
            %8: f32{} = where %7 %5 %1
            return %8
          }
          return %3
        }
        """,
        """
        program (%0: f32{t=5}) {
          %1: f32{} = constant 0.0
          %2: f32{t=5} = recur (t forward 5) (0[1]) (%1) (%0) (%0: f32{}, %1: f32{}, %2: i32{}) {
            %3: f32{} = constant 2.0
            %4: f32{} = add %0 %1
            %5: f32{} = mul %4 %3
            return %5
          }
          return %2
        }
        """,
    )


@pytest.mark.parametrize(
    ("source", "middle", "target", "left"),
    [
        (dt.f32, dt.f64, dt.f32, 0),
        (dt.bf16, dt.f32, dt.f64, 1),
        (dt.f32, dt.bf16, dt.f32, 2),
        (dt.i32, dt.f32, dt.i32, 2),
        (dt.i8, dt.f32, dt.i32, 2),
        (dt.bool_, dt.f32, dt.i32, 1),
        (dt.u8, dt.i32, dt.u8, 0),
    ],
)
def test_conversions(source, middle, target, left):
    b = Builder()
    x = b.param(Type.of(source, {"i": 3}))
    program = b.finish([b.convert(b.convert(x, middle), target)])
    assert len(simplify(program).eqns) == left


def test_nan_and_infinity_are_not_folded_away():
    """x·0 and x - x are not 0 where x may be infinite."""
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": 3}))
    program = b.finish([b.map("mul", x, b.constant(0.0, dt.f32)), b.map("sub", x, x)])
    assert sum(isinstance(e.op, Map) for e in simplify(program).eqns) == 2


@pytest.mark.parametrize("fn", ["exp", "tanh", "log", "sqrt", "neg"])
def test_constants_fold(fn):
    b = Builder()
    program = b.finish([b.map(fn, b.constant(0.5, dt.f64))])
    (eqn,) = simplify(program).eqns
    assert isinstance(eqn.op, Constant)
    wanted = -0.5 if fn == "neg" else getattr(math, fn)(0.5)
    assert eqn.op.value == pytest.approx(wanted)


def test_types_that_hold_others():
    assert holds(dt.f64, dt.i32) and not holds(dt.f32, dt.i32)
    assert holds(dt.i64, dt.u32) and not holds(dt.u64, dt.i8)
    assert holds(dt.complex64, dt.f32) and not holds(dt.complex64, dt.f64)


def test_shared_divisors_become_factors():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4,k=8}, %1: f32{i=4}) {
          %2: f32{i=4} = neg %1
          %3: f32{i=4,k=8} = div %0 %1
          %4: f32{i=4} = div %2 %1
          return %3, %4
        }
        """,
        """
        program (%0: f32{i=4,k=8}, %1: f32{i=4}) {
          %2: f32{i=4} = neg %1
          %3: f32{} = constant 1.0
          %4: f32{i=4} = div %3 %1
          %5: f32{i=4,k=8} = mul %0 %4
          %6: f32{i=4} = mul %2 %4
          return %5, %6
        }
        """,
    )


def test_quotients_that_are_rounded_to_whole_numbers_stay():
    """49 · (1/49) is less than 1 in f32."""
    source = """
        program (%0: f32{i=4,k=8}, %1: f32{i=4}, %2: f32{}) {
          %3: f32{i=4,k=8} = div %0 %1
          %4: f32{i=4,k=8} = add %2 %3
          %5: f32{i=4,k=8} = floor %4
          return %5
        }
        """
    assert_golden(simplify, source, source)


def test_constants_gather_in_products():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4}, %1: f32{i=4}) {
          %2: f32{} = constant 3.0
          %3: f32{} = constant 5.0
          %4: f32{i=4} = mul %0 %2
          %5: f32{i=4} = mul %4 %1
          %6: f32{i=4} = mul %3 %5
          return %6
        }
        """,
        """
        program (%0: f32{i=4}, %1: f32{i=4}) {
          %2: f32{} = constant 15.0
          %3: f32{i=4} = mul %0 %2
          %4: f32{i=4} = mul %3 %1
          return %4
        }
        """,
    )


def test_spreads_move_outward():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4}) {
          %1: i32{k=3} = iota k
          %2: bool{k=3} = eq %1 %1
          %3: f32{i=4,k=3} = where %2 %0 %0
          %4: f32{i=4,k=3} = exp %3
          %5: f32{k=3} = reduce sum {i} %4
          %6: f32{k=5} = reindex %5 {k: k - 1} clip
          return %6
        }
        """,
        """
        program (%0: f32{i=4}) {
          %1: f32{i=4} = exp %0
          %2: f32{} = reduce sum {i} %1
          %3: i32{k=5} = iota k
          %4: bool{k=5} = eq %3 %3
          %5: f32{k=5} = where %4 %2 %2
          return %5
        }
        """,
    )


def test_scatters_add_up_first():
    assert_golden(
        simplify,
        """
        program (%0: f32{w=3,x=4}, %1: f32{w=3,x=4}) {
          %2: f32{i=6} = reduce_at sum {w, x} %0 {i: w + x} trusted
          %3: f32{i=6} = reduce_at sum {x, w} %1 {i: w + x} trusted
          %4: f32{i=6} = add %2 %3
          return %4
        }
        """,
        """
        program (%0: f32{w=3,x=4}, %1: f32{w=3,x=4}) {
          %2: f32{w=3,x=4} = add %0 %1
          %3: f32{i=6} = reduce_at sum {w, x} %2 {i: w + x} trusted
          return %3
        }
        """,
    )


def test_scatter_of_equal_terms():
    """Neither the terms nor their places change along i."""
    assert_golden(
        simplify,
        """
        program (%0: f32{p=4}, %1: i32{p=4}) {
          %2: i32{i=3} = iota i
          %3: bool{i=3} = eq %2 %2
          %4: f32{i=3,p=4} = where %3 %0 %0
          %5: i32{i=3,p=4} = where %3 %1 %1
          %6: f32{a=5} = reduce_at sum {i, p} %4 {a: %5} raise
          return %6
        }
        """,
        """
        program (%0: f32{p=4}, %1: i32{p=4}) {
          %2: f32{} = constant 3.0
          %3: f32{p=4} = mul %0 %2
          %4: f32{a=5} = reduce_at sum {p} %3 {a: %1} raise
          return %4
        }
        """,
    )


def test_integers_of_one_value():
    assert_golden(
        simplify,
        """
        program (%0: i32{p=4}) {
          %1: i32{} = constant 1
          %2: i32{p=4} = mod %0 %1
          %3: i32{p=4} = add %2 %1
          return %3
        }
        """,
        """
        program (%0: i32{p=4}) {
          %1: i32{} = constant 1
          %2: i32{p=4} = iota p
          %3: bool{p=4} = eq %2 %2
          %4: i32{p=4} = where %3 %1 %1
          return %4
        }
        """,
    )
