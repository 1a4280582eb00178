"""Sums over windows are mirrored where costly parts are known the other way round."""

import numpy as np
import pytest

import summand as sm
from summand.ir.nodes import Map
from summand.ir.parse import parse
from summand.ir.verify import verify
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.merge_equal import merge_equal
from summand.rewrite.places.mirror import mirror
from tests.rewrite.agreement import assert_same_results
from tests.rewrite.golden import assert_golden

x, y = sm.dims("x y")

KERNEL = """
    %1: f64{p=5,x=9} = reindex %0 {x: p + x - 2} fill 0.0
    %2: f64{p=5,x=9} = sub %1 %0
    %3: f64{p=5,x=9} = mul %2 %2
    %4: f64{p=5,x=9} = exp %3
"""


def test_a_symmetric_weight_is_read_where_it_is():
    assert_golden(
        lambda p: merge_equal(drop_unused(mirror(p))),
        f"""
        program (%0: f64{{x=9}}) {{{KERNEL}
          %5: f64{{p=5,x=9}} = reindex %4 {{x: -p + x + 2}} fill 0
          %6: f64{{p=5,x=9}} = reindex %0 {{x: -p + x + 2}} fill 0
          %7: f64{{p=5,x=9}} = mul %5 %6
          %8: f64{{x=9}} = reduce sum {{p}} %7
          return %8, %4
        }}""",
        f"""
        program (%0: f64{{x=9}}) {{{KERNEL}
          %5: i32{{p=5}} = iota p
          %6: i32{{x=9}} = iota x
          %7: i32{{p=5,x=9}} = add %5 %6
          %8: i32{{}} = constant -2
          %9: i32{{p=5,x=9}} = add %7 %8
          %10: i32{{}} = constant 0
          %11: bool{{p=5,x=9}} = ge %9 %10
          %12: i32{{}} = constant 9
          %13: bool{{p=5,x=9}} = lt %9 %12
          %14: bool{{p=5,x=9}} = and %11 %13
          %15: f64{{}} = constant 0.0
          %16: f64{{p=5,x=9}} = where %14 %4 %15
          %17: f64{{p=5,x=9}} = mul %1 %16
          %18: f64{{x=9}} = reduce sum {{p}} %17
          return %18, %4
        }}
        """,
    )


def mirrored(source):
    program = parse(source)
    verify(program)
    new = mirror(program)
    assert_same_results(program, new)
    return program, new


def exps(program):
    used = drop_unused(program)
    return sum(isinstance(e.op, Map) and e.op.fn == "exp" for e in used.eqns)


def test_the_read_of_a_difference_changes_its_sign():
    _, new = mirrored(
        f"""program (%0: f64{{x=9}}) {{{KERNEL}
          %5: f64{{p=5,x=9}} = mul %4 %2
          %6: f64{{p=5,x=9}} = reindex %5 {{x: -p + x + 2}} fill 0
          %7: f64{{x=9}} = reduce sum {{p}} %6
          %8: f64{{x=9}} = reduce sum {{p}} %5
          return %7, %8
        }}"""
    )
    assert exps(new) == 1
    eqns = drop_unused(new).eqns
    assert not any("-p" in str(f) for e in eqns for _, f in getattr(e.op, "index", ()))


@pytest.mark.parametrize("start", [0, 1])
def test_a_window_that_is_not_symmetric_keeps_its_direction(start):
    """exp(a[x + p] - a[x]) is another value backwards; so is a window with its middle elsewhere."""
    shift = "p + x - 2" if start else "p + x"
    back = "-p + x + 2" if start else "-p + x"
    square = "%3: f64{p=5,x=9} = mul %2 %1" if start else "%3: f64{p=5,x=9} = mul %2 %2"
    program, new = mirrored(
        f"""program (%0: f64{{x=9}}) {{
          %1: f64{{p=5,x=9}} = reindex %0 {{x: {shift}}} fill 0.0
          %2: f64{{p=5,x=9}} = sub %1 %0
          {square}
          %4: f64{{p=5,x=9}} = exp %3
          %5: f64{{p=5,x=9}} = reindex %4 {{x: {back}}} fill 0
          %6: f64{{x=9}} = reduce sum {{p}} %5
          return %6, %4
        }}"""
    )
    assert program.eqns == new.eqns


def test_another_fill_inside_is_kept():
    """Outside of the inner array the weight is that of 7, outside of the outer read it is 1."""
    mirrored(
        """program (%0: f64{x=9}) {
          %1: f64{p=5,x=9} = reindex %0 {x: p + x - 2} fill 7.0
          %2: f64{p=5,x=9} = sub %1 %0
          %3: f64{p=5,x=9} = mul %2 %2
          %4: f64{p=5,x=9} = exp %3
          %5: f64{p=5,x=9} = reindex %4 {x: -p + x + 2} fill 1
          %6: f64{x=9} = reduce sum {p} %5
          return %6, %4
        }"""
    )


@pytest.mark.parametrize("size,width", [((9, 8), 5), ((7, 13), 3), ((1, 5), 3), ((6, 4), 4)])
def test_the_gradient_of_a_bilateral_filter(size, width):
    p, q, r = sm.Dim("p", width), sm.Dim("q", width), width // 2
    rng = np.random.default_rng(0)
    image = sm.array(rng.normal(size=size), x, y)

    def loss(a):
        near = a.fill(0)[x : x + p - r, y : y + q - r]
        w = sm.exp(-((p - r) ** 2 + (q - r) ** 2) / 8.0 - (near - a) ** 2)
        return sm.sum[x, y]((sm.sum[p, q](w * near) / sm.sum[p, q](w)) ** 2)

    found = sm.jit(sm.grad(loss))(image).numpy(x, y)
    with sm.interpret():
        wanted = sm.grad(loss)(image).numpy(x, y)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)
