"""Golden text of drop_unused."""

from summand.rewrite.drop_unused import drop_unused
from tests.rewrite.golden import assert_golden


def test_equations():
    assert_golden(
        drop_unused,
        """
        program (%0: f32{i=4}, %1: f32{}) {
          %2: f32{i=4} = exp %0
          %3: f32{i=4} = mul %2 %2
          %4: f32{i=4} = sin %0
          return %4
        }
        """,
        """
        program (%0: f32{i=4}, %1: f32{}) {
          %4: f32{i=4} = sin %0
          return %4
        }
        """,
    )


def test_states_that_nobody_needs():
    """State 2 goes; state 0 is needed by state 1 only; of state 1 only the last value is read."""
    assert_golden(
        drop_unused,
        """
        program (%0: f32{t=5}, %1: f32{}) {
          %2: f32{t=5}, %3: f32{t=5}, %4: f32{t=5} =
            recur (t forward 5) (0[1], 1[1], 2[1]) (%1, %1, %1) (%0)
            (%0: f32{}, %1: f32{}, %2: f32{}, %3: f32{}, %4: i32{}) {
            %5: f32{} = add %0 %3
            %6: f32{} = add %1 %0
            %7: f32{} = add %2 %3
            return %5, %6, %7
          }
          %5: f32{} = reindex %3 {t: 4} trusted
          return %5
        }
        """,
        """
        program (%0: f32{t=5}, %1: f32{}) {
          %2: f32{}, %3: f32{} =
            recur (t forward 5) (0[1], 1[1]) (%1, %1) (%0) keep (none, last)
            (%0: f32{}, %1: f32{}, %3: f32{}, %4: i32{}) {
            %5: f32{} = add %0 %3
            %6: f32{} = add %1 %0
            return %5, %6
          }
          return %3
        }
        """,
    )


def test_the_last_position_of_a_backward_recurrence_is_the_first():
    body = """(%0: f32{i=3}, %1: f32{i=3}, %2: i32{}) {
            %3: f32{i=3} = add %0 %1
            return %3
          }"""
    assert_golden(
        drop_unused,
        f"""
        program (%0: f32{{i=3,t=5}}, %1: f32{{i=3}}) {{
          %2: f32{{i=3,t=5}} = recur (t backward 5) (0[-1]) (%1) (%0) {body}
          %3: f32{{x=2}} = reindex %2 {{i: x + 1, t: 0}} trusted
          return %3
        }}
        """,
        f"""
        program (%0: f32{{i=3,t=5}}, %1: f32{{i=3}}) {{
          %2: f32{{i=3}} = recur (t backward 5) (0[-1]) (%1) (%0) keep (last) {body}
          %3: f32{{x=2}} = reindex %2 {{i: x + 1}} trusted
          return %3
        }}
        """,
    )


def test_loop_states():
    assert_golden(
        drop_unused,
        """
        program (%0: f32{}, %1: f32{}, %2: i32{}) {
          %3: f32{}, %4: f32{}, %5: i32{} = while (%1) (%0, %0, %2)
            (%0: f32{}, %1: f32{}, %2: f32{}, %3: i32{}) {
            %4: i32{} = constant 3
            %5: bool{} = lt %3 %4
            return %5
          } (%0: f32{}, %1: f32{}, %2: f32{}, %3: i32{}) {
            %4: f32{} = add %1 %1
            %5: f32{} = mul %2 %0
            %6: i32{} = constant 1
            %7: i32{} = add %3 %6
            return %4, %5, %7
          }
          return %3
        }
        """,
        """
        program (%0: f32{}, %1: f32{}, %2: i32{}) {
          %3: f32{}, %5: i32{} = while () (%0, %2) (%1: f32{}, %3: i32{}) {
            %4: i32{} = constant 3
            %5: bool{} = lt %3 %4
            return %5
          } (%1: f32{}, %3: i32{}) {
            %4: f32{} = add %1 %1
            %6: i32{} = constant 1
            %7: i32{} = add %3 %6
            return %4, %7
          }
          return %3
        }
        """,
    )


def test_branches():
    assert_golden(
        drop_unused,
        """
        program (%0: bool{}, %1: f32{}, %2: f32{}) {
          %3: f32{}, %4: f32{} = cond %0 (%1, %2) (%0: f32{}, %1: f32{}) {
            %2: f32{} = exp %1
            return %0, %2
          } (%0: f32{}, %1: f32{}) {
            return %0, %1
          }
          return %3
        }
        """,
        """
        program (%0: bool{}, %1: f32{}, %2: f32{}) {
          %3: f32{} = cond %0 (%1) (%0: f32{}) {
            return %0
          } (%0: f32{}) {
            return %0
          }
          return %3
        }
        """,
    )


def test_components():
    """The greatest value does not need its position; the position needs the value."""
    combine = """(%0: f32{}, %1: i32{}, %2: f32{}, %3: i32{}) {
            %4: bool{} = ge %0 %2
            %5: f32{} = where %4 %0 %2
            %6: i32{} = where %4 %1 %3
            return %5, %6
          }"""
    fold = (
        f'%2: f32{{}}, %3: i32{{}} = reduce monoid "m" [-inf, 0] commutative {combine} {{t}} %0 %1'
    )
    source = f"""
        program (%0: f32{{t=5}}, %1: i32{{t=5}}) {{
          {fold}
          return %3
        }}
        """
    assert_golden(drop_unused, source, source)
    assert_golden(
        drop_unused,
        source.replace("return %3", "return %2"),
        """
        program (%0: f32{t=5}, %1: i32{t=5}) {
          %2: f32{} = reduce monoid "m.0" [-inf] commutative (%0: f32{}, %2: f32{}) {
            %4: bool{} = ge %0 %2
            %5: f32{} = where %4 %0 %2
            return %5
          } {t} %0
          return %2
        }
        """,
    )
