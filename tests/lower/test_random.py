"""Random programs: what lowering makes of them means the same."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lower.agreement import assert_lowers, rewritten
from tests.programs import arguments, programs

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


@SETTINGS
@given(programs(zero_sizes=True), st.booleans(), st.booleans())
def test_lowering_keeps_the_meaning(program, fuse, reverse):
    after = rewritten(program)
    assert_lowers(after, arguments(program), fuse=fuse, reverse=reverse)


@SETTINGS
@given(programs())
def test_scheduling_keeps_the_meaning(program):
    after = rewritten(program)
    assert_lowers(after, arguments(program), scheduled=True)
