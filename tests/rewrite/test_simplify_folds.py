"""Golden text of simplify: indices, reductions, scatters."""

import pytest

from summand.rewrite.simplify.simplify import simplify
from tests.rewrite.golden import assert_golden


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


def test_numbers_leave_reads_and_sums():
    assert_golden(
        simplify,
        """
        program (%0: f32{u=9}, %1: f32{k=3}) {
          %2: f32{} = constant 2.0
          %3: f32{u=9} = mul %0 %2
          %4: f32{k=3,x=7} = reindex %3 {u: k + x} trusted
          %5: f32{k=3,x=7} = mul %4 %1
          %6: f32{x=7} = reduce sum {k} %5
          return %6
        }
        """,
        """
        program (%0: f32{u=9}, %1: f32{k=3}) {
          %2: f32{} = constant 2.0
          %3: f32{k=3,x=7} = reindex %0 {u: k + x} trusted
          %4: f32{k=3,x=7} = mul %3 %1
          %5: f32{x=7} = reduce sum {k} %4
          %6: f32{x=7} = mul %2 %5
          return %6
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


@pytest.mark.parametrize("place", ["x + 2", "x"])
def test_padding_after_a_slice_stays(place):
    """Composed, it would show elements that the slice cut off."""
    source = f"""
        program (%0: f32{{i=9}}) {{
          %1: f32{{x=4}} = reindex %0 {{i: {place}}} trusted
          %2: f32{{y=8}} = reindex %1 {{x: y - 2}} fill 0.0
          return %2
        }}
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


def test_signs_and_twos_leave_sums():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4,k=8}, %1: f32{i=4,k=8}) {
          %2: f32{i=4,k=8} = neg %0
          %3: f32{i=4,k=8} = add %1 %1
          %4: f32{i=4,k=8} = mul %2 %3
          %5: f32{i=4} = reduce sum {k} %4
          return %5, %2
        }
        """,
        """
        program (%0: f32{i=4,k=8}, %1: f32{i=4,k=8}) {
          %2: f32{i=4,k=8} = neg %0
          %3: f32{i=4,k=8} = mul %0 %1
          %4: f32{i=4} = reduce sum {k} %3
          %5: f32{} = constant -2.0
          %6: f32{i=4} = mul %4 %5
          return %6, %2
        }
        """,
    )
