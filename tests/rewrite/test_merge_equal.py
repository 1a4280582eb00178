"""Golden text of merge_equal and inline."""

from summand.rewrite.inline import inline
from summand.rewrite.merge_equal import merge_equal
from tests.rewrite.golden import assert_golden


def test_equal_equations():
    assert_golden(
        merge_equal,
        """
        program (%0: f32{i=4}, %1: f32{i=4}) {
          %2: f32{i=4} = add %0 %1
          %3: f32{i=4} = add %1 %0
          %4: f32{i=4} = sub %2 %3
          %5: f32{i=4} = sub %3 %2
          return %4, %5
        }
        """,
        """
        program (%0: f32{i=4}, %1: f32{i=4}) {
          %2: f32{i=4} = add %0 %1
          %3: f32{i=4} = sub %2 %2
          return %3, %3
        }
        """,
    )


def test_zeros_of_two_signs_differ():
    source = """
        program (%0: f32{i=4}) {
          %1: f32{} = constant 0.0
          %2: f32{} = constant -0.0
          %3: f32{j=6} = reindex %0 {i: j - 1} fill 0.0
          %4: f32{j=6} = reindex %0 {i: j - 1} fill -0.0
          return %1, %2, %3, %4
        }
        """
    assert_golden(merge_equal, source, source)


def test_barriers_stay_apart():
    source = """
        program (%0: f32{i=4}) {
          %1: f32{i=4} = barrier %0
          %2: f32{i=4} = barrier %0
          return %1, %2
        }
        """
    assert_golden(merge_equal, source, source)


def test_bodies_are_given_values_once():
    assert_golden(
        merge_equal,
        """
        program (%0: bool{}, %1: f32{}) {
          %2: f32{} = exp %1
          %3: f32{} = exp %1
          %4: f32{} = cond %0 (%2, %3) (%0: f32{}, %1: f32{}) {
            %2: f32{} = sub %0 %1
            return %2
          } (%0: f32{}, %1: f32{}) {
            return %1
          }
          return %4
        }
        """,
        """
        program (%0: bool{}, %1: f32{}) {
          %2: f32{} = exp %1
          %3: f32{} = cond %0 (%2) (%0: f32{}) {
            %1: f32{} = sub %0 %0
            return %1
          } (%0: f32{}) {
            return %0
          }
          return %3
        }
        """,
    )


def test_inline():
    assert_golden(
        inline,
        """
        program (%0: f32{i=4}) {
          %1: f32{i=4} = custom (%0) (%0: f32{i=4}) {
            %1: f32{i=4} = exp %0
            return %1
          }
          %2: f32{i=4} = stop_gradient %1
          %3: bool{} = constant False
          %4: f32{i=4} = cond %3 (%2) (%0: f32{i=4}) {
            return %0
          } (%0: f32{i=4}) {
            %1: f32{i=4} = sin %0
            return %1
          }
          return %4
        }
        """,
        """
        program (%0: f32{i=4}) {
          %1: f32{i=4} = exp %0
          %2: bool{} = constant False
          %3: f32{i=4} = sin %1
          return %3
        }
        """,
    )
