"""Each rule of the verifier: a program that breaks it, and the words that say so."""

from textwrap import dedent

import pytest

from summand.errors import InternalError
from summand.ir.text import parse, text
from summand.ir.verify import verify

BODY = """(%0: f32{}, %1: i32{}) {
        return %0
      }"""
FAULTS = [
    ("%1: f32{i=4} = exp %0\n%1: f32{i=4} = exp %0", "defined twice"),
    ("%1: f32{i=5} = exp %0", "results have types f32{i=5}, not f32{i=4}"),
    ("%1: f64{i=4} = exp %0", "results have types"),
    ("%1: i32{i=4} = iota i\n%2: f32{i=4} = add %0 %1", "operands of different types"),
    ("%1: bool{i=4} = lt %0 %0\n%2: bool{i=4} = add %1 %1", "no rule"),
    ("%1: f32{i=4} = reduce sum {k} %0", "which the operand lacks"),
    ("%1: f32{} = reduce sum {i, i} %0", "reduced twice"),
    ("%1: f32{} = reduce any {i} %0", "no rule for f32"),
    ("%1: f32{x=4} = reindex %0 {i: x + 1} trusted", "x + 1 may leave i, which has size 4"),
    ("%1: f32{x=4} = reindex %0 {i: (x + 3)//2 + 1} trusted", "may leave i"),
    ("%1: f32{x=2} = reindex %0 {k: x} trusted", "which the operand lacks"),
    ("%1: f32{} = reindex %0 {i: x} trusted", "the result lacks dims"),
    ("%1: f32{i=4} = reindex %0 {i: %0} clip", "is not an integer"),
    ("%1: f32{a=4} = reduce_at sum {i} %0 {a: i + 1} trusted", "may leave a"),
    ("%1: f32{a=4,i=4} = reduce_at sum {} %0 {i: i} trusted", "kept and computed"),
    ("%1: i32{i=4} = iota k", "results have types"),
    ("%1: f32{i=2} = constant table (i) 0000", "has 2 bytes"),
    ("%1: u32{i=4} = random_bits %0 (i)", "a key is u64"),
    ("%1: f32{i=4}, %2: i64{i=4} = sort %0 i", "results have types"),
    ("%1: f32{q=5}, %2: i32{q=5} = top_k %0 i q", "fewer elements"),
    (f"%1: f32{{t=3}} = recur (t forward 3) (0[0]) (%9) () {BODY}", "not strictly earlier"),
    (f"%1: f32{{t=3}} = recur (t backward 3) (0[1]) (%9) () {BODY}", "not strictly earlier"),
    (f"%1: f32{{t=3}} = recur (t forward 3) (1[1]) (%9) () {BODY}", "there is no state 1"),
    (f"%1: f32{{t=3}} = recur (t forward 3) (0[1]) (%0) () {BODY}", "inits at a position"),
    (f"%1: f32{{}} = recur (t forward 3) (0[1]) (%9) () {BODY}", "results: found (f32{})"),
    (f"%1: f32{{}} = cond %9 () {BODY} {BODY}", "the predicate"),
    (f"%1: f32{{}} = while () (%9) {BODY} {BODY}", "parameters of the test"),
]


@pytest.mark.parametrize(("lines", "words"), FAULTS, ids=[f[0][:40] for f in FAULTS])
def test_fault(lines, words):
    inner = "\n".join(f"  {line}" for line in lines.splitlines())
    program = parse(f"program (%0: f32{{i=4}}, %9: f32{{}}) {{\n{inner}\n  return %0\n}}")
    with pytest.raises(InternalError) as caught:
        verify(program)
    assert words in str(caught.value)
    assert text(program) in str(caught.value)


def test_a_value_is_defined_before_its_use():
    program = parse("program (%0: f32{}) {\n  %1: f32{} = exp %0\n  return %1\n}")
    with pytest.raises(InternalError, match="not defined before its use"):
        verify(type(program)((), program.eqns, program.results))


def test_forms_that_only_enumeration_proves():
    """Interval arithmetic cannot see that x - x%3 stays below 9 for x below 10… but trying can."""
    source = """
        program (%0: f32{i=10}) {
          %1: f32{x=10} = reindex %0 {i: x - x%3} trusted
          return %1
        }
        """
    verify(parse(dedent(source)))


def test_combines_are_scalar():
    source = """
        program (%0: f32{i=4}) {
          %1: f32{} = reduce monoid "m" [0.0] (%0: f32{}, %1: f32{}) {
            %2: i32{k=2} = iota k
            return %0
          } {i} %0
          return %1
        }
        """
    with pytest.raises(InternalError, match="not a scalar program"):
        verify(parse(dedent(source)))
