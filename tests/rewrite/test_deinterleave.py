"""Interleaved values that are read in parts only."""

import pytest

from summand.ir.nodes import Interleave
from summand.ir.text import parse
from summand.rewrite.places.deinterleave import deinterleave
from tests.rewrite.agreement import assert_same_results
from tests.rewrite.golden import assert_golden

HEAD = """
program (%0: f64{k=2,p=4}, %1: f64{k=2,p=3}, %2: f64{k=2}) {
  %3: f64{k=2,p=7} = interleave (p 2) (%0, %1)
"""


def rewritten(lines):
    program = parse(HEAD + lines + "}")
    after = deinterleave(program)
    assert_same_results(program, after)
    return any(isinstance(e.op, Interleave) for e in after.eqns)


def test_maps_sums_and_reads_of_one_residue():
    assert_golden(
        deinterleave,
        HEAD
        + """
          %4: f64{k=2,p=7} = mul %3 %3
          %5: f64{k=2} = reduce sum {p} %4
          %6: f64{k=2,p=7} = add %3 %2
          %7: f64{k=2,x=3} = reindex %6 {p: 2*x + 1} trusted
          return %5, %7
        }
        """,
        """
        program (%0: f64{k=2,p=4}, %1: f64{k=2,p=3}, %2: f64{k=2}) {
          %3: f64{k=2,p=4} = mul %0 %0
          %4: f64{k=2,p=3} = mul %1 %1
          %5: f64{k=2} = reduce sum {p} %3
          %6: f64{k=2} = reduce sum {p} %4
          %7: f64{k=2} = add %5 %6
          %8: f64{k=2,p=4} = add %0 %2
          %9: f64{k=2,p=3} = add %1 %2
          %10: f64{k=2,x=3} = reindex %9 {p: x} trusted
          return %7, %10
        }
        """,
    )


@pytest.mark.parametrize(
    ("lines", "stays"),
    [
        ("%4: f64{k=2,x=9} = reindex %3 {p: 2*x - 4} fill 0 return %4", False),
        ("%4: f64{k=2,x=9} = reindex %3 {p: 3 - 2*x} fill 0 return %4", False),
        ("%4: f64{k=2,p=7} = exp %3 %5: f64{} = reduce sum {p, k} %4 return %5", False),
        ("%4: f64{k=2,x=6} = reindex %3 {p: x} trusted return %4", True),
        ("%4: f64{k=2} = reduce max {p} %3 return %4", True),
        ("%4: f64{p=7} = reduce sum {k} %3 return %4", True),
        ("%4: f64{k=2} = reduce sum {p} %3 return %4, %3", True),
        ("%4: f64{k=2,p=7} = exp %3 %5: f64{k=2} = reduce sum {p} %3 return %4, %5", True),
        ("%4: f64{q=7} = reindex %3 {k: 0, p: q} trusted return %4", True),
    ],
)
def test_who_reads_it_whole(lines, stays):
    lines = lines.replace(" %5:", "\n%5:").replace(" return", "\nreturn")
    assert rewritten(lines) is stays


def test_two_residues_of_two_dims():
    program = parse("""
    program (%0: f64{p=2,q=3}, %1: f64{p=2,q=2}, %2: f64{p=1,q=3}, %3: f64{p=1,q=2}) {
      %4: f64{p=3,q=5} = interleave (p 2, q 2) (%0, %1, %2, %3)
      %5: f64{p=3,q=5} = mul %4 %4
      %6: f64{} = reduce sum {p, q} %5
      %7: f64{x=2,y=2} = reindex %4 {p: 2*x, q: 2*y + 1} trusted
      return %6, %7
    }
    """)
    after = deinterleave(program)
    assert_same_results(program, after)
    assert not any(isinstance(e.op, Interleave) for e in after.eqns)
