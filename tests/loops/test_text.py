"""Loop IR as text and back."""

import pytest
from hypothesis import HealthCheck, given, settings

from summand.dtypes import bf16, bool_, f32, i32
from summand.ir.index import parse as form
from summand.loops.nodes import (
    Address,
    Apply,
    Arg,
    Bound,
    Branch,
    Buffer,
    Carry,
    Check,
    Combine,
    Const,
    Copy,
    Fold,
    Foreign,
    Guard,
    Kernel,
    Last,
    Launch,
    Layout,
    Let,
    Load,
    Loop,
    Module,
    Nest,
    Part,
    Piece,
    Place,
    Position,
    Repeat,
    Schedule,
    Store,
    When,
)
from summand.loops.text import parse, text
from summand.options import Options, Target
from summand.schedule.lower import lower
from tests.lower.agreement import order_of, rewritten
from tests.programs import programs

ARGMAX = Combine(
    None,
    (float("-inf"), -1),
    (Arg(0, f32), Arg(2, f32), Apply("max", (0, 1), f32), Arg(1, i32), Const(0, i32)),
    (2, 3),
    commutative=False,
)
EVERYTHING = Kernel(
    "every.thing",
    (Buffer("x", f32, 64, space=16), Buffer("y#1", bf16, 8), Buffer("p", bool_, 8)),
    (Buffer("s", f32, 4, "scratch"),),
    (("I", 8), ("J$2", 2)),
    (
        Loop("t", 3, (Let("o", form("2*t - 1"), 0, 5, ()),)),
        When((Guard(form("I - 1"), 7), Guard(form("t"), 2, ((3, -4),))), ()),
        Nest(
            (("i", 8), ("j", 4)),
            (
                Load("x", Address(form("8*I + (i + 1)//2 - 3"), ((1, 4), (2, -1))), f32),
                Position(form("i%4 + 2*(j - 1)%3"), i32),
                Const(-0.0, f32),
                Load("x", Address(form("i"), (), (Guard(form("i - 1"), 7),)), f32, float("-inf")),
                Fold(ARGMAX, ("j", "i"), (0, 1), f32),
                Part(4, 1, i32),
                Fold(Combine("add", (0,)), ("j",), (3,), f32),
                Carry("i", 2, 8, f32),
                Apply("where", (9, 7, 2), f32),
                Const(True, bool_),
                Last(7, f32),
                Const(float("inf"), f32),
            ),
            (
                Store("y#1", Address(form("i"), (), (Guard(form("i"), 7), Guard(form("j"), 3))), 6),
                Store("s", Address(form("0"), ((5, 1),)), 10, "add"),
            ),
            (
                Bound("j", (form("i - 2"), form("0")), (form("i + 1"),)),
                Bound("i", (), (form("7"),)),
            ),
            ("i",),
            Schedule(
                (Piece("i", 4), Piece("j", 4)),
                (Piece("i", 2),),
                (Piece("j", 1),),
                ("i", "j"),
                (Piece("i", 16),),
                3,
                True,
                (("x", 64), ("y#1", 8)),
            ),
        ),
        Nest((), (), (), schedule=Schedule()),
    ),
)

TEXT = """\
kernel k(x: f32[64], y: f32[8])
  grid I=8
  nest j=8 schedule(lanes j=8)
    %0: f32 = load x[8*I + j] if 0 <= j - 1 < 7 else 0
    %1: f32 = fold add{j} from 0 of %0
    store y[I] = %1
"""


def test_reads_back_every_node():
    assert parse(text(EVERYTHING)) == EVERYTHING


def test_reads_what_is_written_by_hand():
    assert text(parse(TEXT)) == TEXT


def test_reads_back_a_module():
    module = Module(
        (EVERYTHING, parse(TEXT)),
        (
            Copy("a", "b"),
            Repeat((Launch(0, ("a", "b")),), "flag", (Launch(1, ("a",)), Copy("b", "a"))),
            Branch("flag", (), (Branch("flag", (Copy("a", "b"),), ()),)),
            Foreign("solve", (("a", Layout((("i", 2), ("j", 3)))), ("c", Layout(()))), ()),
        ),
        (
            Place("a", f32, 6, "param", 1),
            Place("b", f32, 6, "result"),
            Place("c", f32, 2, "constant", 0, b"\x00\x01\x02\x03\x04\x05\x06\x07"),
            Place("e", f32, 0, "constant"),
            Place("flag", bool_, 1, "arena", 64),
        ),
        (Layout((("i", 2), ("j", 3))),),
        (Layout(()),),
        128,
        (Check(1, 5, 'index {value} of "i"\nleaves it'),),
    )
    assert parse(text(module)) == module


@pytest.mark.parametrize(
    "source",
    [
        "",
        "kernel",
        "module x",
        TEXT + TEXT,
        TEXT.replace("%1: f32", "%7: f32"),
        TEXT + "      deep",
    ],
)
def test_anything_else_is_a_value_error(source):
    with pytest.raises(ValueError):
        parse(source)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_reads_back_random_modules(program):
    after = rewritten(program)
    orders = [[order_of(v) for v in vs] for vs in (after.params, after.results)]
    for scheduled in (False, True):
        target = Target("x86_64", "generic", "")
        module = lower(after, *orders, target, Options(), scheduled)
        assert parse(text(module)) == module
