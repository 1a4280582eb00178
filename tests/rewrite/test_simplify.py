"""Golden text of simplify: scalar ops, constants, bodies."""

import math

import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.nodes import Constant, Map, Type
from summand.ir.verify import verify
from summand.rewrite.simplify.simplify import simplify
from summand.rewrite.simplify.types import holds
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
          %2: f32{i=4} = exp %1
          %3: f32{i=4,k=8} = div %0 %1
          %4: f32{i=4} = div %2 %1
          return %3, %4
        }
        """,
        """
        program (%0: f32{i=4,k=8}, %1: f32{i=4}) {
          %2: f32{i=4} = exp %1
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


def test_factors_of_few_dims_first():
    assert_golden(
        simplify,
        """
        program (%0: f32{i=4,k=8}, %1: f32{i=4}, %2: f32{i=4}) {
          %3: f32{i=4,k=8} = mul %0 %1
          %4: f32{i=4,k=8} = mul %3 %2
          return %4
        }
        """,
        """
        program (%0: f32{i=4,k=8}, %1: f32{i=4}, %2: f32{i=4}) {
          %3: f32{i=4} = mul %2 %1
          %4: f32{i=4,k=8} = mul %3 %0
          return %4
        }
        """,
    )


def test_outer_products_stay():
    """No factor has all dims, so there is none to be multiplied last."""
    source = """
        program (%0: f32{i=4}, %1: f32{j=4}, %2: f32{k=4}) {
          %3: f32{i=4,j=4} = mul %0 %1
          %4: f32{i=4,j=4,k=4} = mul %3 %2
          return %4
        }
        """
    assert_golden(simplify, source, source)


def test_long_chains_of_rules_end():
    """Five hundred products by turns small and whole: no rule may recurse without bound."""
    b = Builder()
    x, y = b.param(Type.of(dt.f32, {"i": 2, "k": 2})), b.param(Type.of(dt.f32, {"i": 2}))
    value = x
    for _ in range(500):
        value = b.map("mul", b.map("neg", value), y)
    verify(simplify(b.finish([value])))
