"""Random programs are well formed, run, and survive being written and read."""

import warnings

from hypothesis import given, settings

from summand.ir.interp import run
from summand.ir.text import parse, text
from summand.ir.verify import verify
from tests.programs import arguments, programs


@given(programs(zero_sizes=True))
@settings(max_examples=200, deadline=None)
def test_random_programs(program):
    verify(program)
    assert parse(text(program)) == program
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(program, arguments(program))
