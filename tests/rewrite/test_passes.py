"""Every pass keeps the meaning of random programs."""

from hypothesis import given, settings

from summand.ir.interp import run
from summand.ir.nodes import Group, RandomBits, Sort, TopK
from summand.rewrite.checks import insert_checks
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.expand import expand
from summand.rewrite.inline import inline
from summand.rewrite.merge_equal import merge_equal
from summand.rewrite.simplify.simplify import simplify
from tests.programs import arguments, programs
from tests.rewrite.agreement import assert_same_results

many = settings(max_examples=150, deadline=None)


@given(programs(zero_sizes=True))
@many
def test_drop_unused(program):
    assert_same_results(program, drop_unused(program), exact=True)


@given(programs(zero_sizes=True))
@many
def test_merge_equal(program):
    after = merge_equal(program)
    assert_same_results(program, after, exact=True)
    assert merge_equal(after) == after


@given(programs(zero_sizes=True))
@many
def test_inline(program):
    assert_same_results(program, inline(program), exact=True)


@given(programs(zero_sizes=True))
@many
def test_simplify(program):
    assert_same_results(program, simplify(program))


@given(programs(zero_sizes=True))
@many
def test_expand(program):
    after = expand(program)
    assert_same_results(program, after)
    assert not any(isinstance(e.op, RandomBits | Sort | TopK | Group) for e in after.eqns)


@given(programs())
@many
def test_insert_checks(program):
    after, checks = insert_checks(program)
    assert_same_results(program, after, exact=True)
    results = run(after, arguments(program))
    for check in checks:
        assert 0 <= results[check.least].array <= results[check.greatest].array < check.size


@given(programs(max_steps=12))
@many
def test_all_together(program):
    after = inline(expand(program))
    after, _ = insert_checks(after)
    after = merge_equal(drop_unused(simplify(merge_equal(after))))
    assert_same_results(program, after)
