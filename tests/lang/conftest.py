"""Tests of the language run on the interpreter, each program verified; some also compiled.

SUMMAND_TEST_WAY=compiled runs all of them through the compiler instead.
"""

import os

import pytest

import summand as sm
from summand.ir import interp
from summand.ir.verify import verify


@pytest.fixture
def way():
    """How a test runs; a module overrides this to run both ways."""
    return os.environ.get("SUMMAND_TEST_WAY", "interpreted")


@pytest.fixture(autouse=True)
def run_this_way(way, monkeypatch):
    if way == "compiled":
        yield
        return
    plain = interp.run

    def checked(program, args):
        verify(program)
        return plain(program, args)

    monkeypatch.setattr(interp, "run", checked)
    with sm.interpret():
        yield
