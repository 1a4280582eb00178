"""Passes shown as text: what goes in, and exactly what comes out."""

from textwrap import dedent

from summand.ir.text import parse, text
from summand.ir.verify import verify


def assert_golden(rewrite, before, after):
    """`rewrite` turns the one program into the other; long lines may be broken anywhere."""
    program = parse(dedent(before))
    verify(program)
    found = rewrite(program)
    verify(found)
    assert _words(text(found)) == _words(after), text(found)


def _words(source):
    return " ".join(source.split())
