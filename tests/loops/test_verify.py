"""The loop IR's verifier accepts what lowering makes and refuses what is broken."""

import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from summand.dtypes import bool_, f32, f64
from summand.errors import InternalError
from summand.loops.nodes import (
    Copy,
    Kernel,
    Launch,
    Layout,
    Module,
    Place,
    Repeat,
)
from summand.loops.text import parse
from summand.loops.verify import verify
from summand.loops.verify_module import verify_module
from summand.options import Options, Target
from summand.schedule.lower import lower
from tests.lower.agreement import order_of, rewritten
from tests.programs import programs

GOOD = """\
kernel k(x: f32[64], y: f32[8], p: i32[8]) scratch(s: f32[8])
  grid I=2
  let o = clip(5*I, 0, 4)
    when 0 <= o - 1 < 9
      nest i=4 j=8 ordered(j) schedule(lanes i=4; loops j)
        bound j from i - 1 to i + 3
        %0: f32 = load x[8*i + j + 32*I]
        %1: f32 = load x[j + i - 3] if 0 <= j + i - 3 < 64 else 0.0
        %2: i32 = load p[o + i]
        %3: f32 = add %0 %1
        %4: f32 = fold add{j} from 0 of %3
        %5: f32 = carry j from %4 next %3
        %6: f32 = last %5
        %7: i32 = position 2*i + j
        %8: f32 = load x[8*i] if 0 <= 1*%7 < 3
        store y[o + i] = %4
        store add s[i + 1] if 0 <= i < 4 = %6
"""

KERNEL = parse(GOOD)


def test_accepts():
    verify(KERNEL)


BROKEN = [
    ("nest i=4", "nest i=4 o=1", "o is bound twice"),
    ("[8*i + j + 32*I]", "[8*i + j + 32*Z]", "Z is not bound"),
    ("[8*i + j + 32*I]", "[8*i + j + 40*I]", "cannot prove"),
    ("[8*i + j + 32*I]", "[8*i + j + 32*I - 1]", "cannot prove"),
    ("0 <= j + i - 3 < 64", "0 <= j + i - 3 < 65", None),
    ("load x[j + i - 3] if 0 <= j + i - 3 < 64", "load x[j + i - 3]", "cannot prove"),
    ("0, 4)", "0, 5)", "cannot prove"),
    ("store y[o + i]", "store y[o + i + 1]", "cannot prove"),
    ("store y[o + i]", "store z[o + i]", "no buffer z"),
    ("store y[o + i] = %4", "store y[o + i] = %7", "i32 meets f32"),
    ("store y[o + i] = %4", "store y[o + i] = %9", "%9 is not defined"),
    ("store add s", "store sub s", "cannot combine"),
    ("add %0 %1", "add %0 %4", "not defined before"),
    ("add %0 %1", "add %0 %2", "f32 meets i32"),
    ("add %0 %1", "add %0", "other arguments"),
    ("%3: f32 = add", "%3: i32 = add", "i32 meets f32"),
    ("add %0 %1", "plus %0 %1", "other arguments"),
    ("add %0 %1", "and %0 %1", "no rule"),
    ("fold add{j} from 0", "fold sub{j} from 0", "nothing folds"),
    ("fold add{j} from 0", "fold add{I} from 0", "no dim of the nest"),
    ("fold add{j} from 0", "fold add{j} from 0, 1", "one argument"),
    ("last %5", "last %4", "not carried"),
    (" ordered(j)", "", "not ordered"),
    (" ordered(j)", " ordered(j I)", "no dim of its nest"),
    ("bound j from i - 1", "bound j from j - 1", "bounded by itself"),
    ("bound j from i - 1", "bound I from i - 1", "no dim of its nest"),
    ("lanes i=4;", "lanes i=3;", "no power of two"),
    ("lanes i=4;", "lanes i=2;", "covers 2 of 4"),
    ("lanes i=4;", "lanes i=4 j=2;", "a state is carried"),
    ("loops j)", "loops j j)", "a loop twice"),
    ("loops j)", "loops j I)", "no dim of the nest"),
    ("lanes i=4;", "lanes I=4;", "no piece"),
    ("0 <= 1*%7 < 3", "0 <= 1*%6 < 3", "no integer"),
    ("x: f32[64]", "y: f32[64]", "one name"),
]


@pytest.mark.parametrize(("old", "new", "message"), BROKEN)
def test_refuses(old, new, message):
    assert old in GOOD
    kernel = parse(GOOD.replace(old, new, 1))
    if message is None:
        verify(kernel)
        return
    with pytest.raises(InternalError, match=re.escape(message)):
        verify(kernel)


def test_a_bound_proves_a_range():
    source = """\
kernel k(x: f32[16], y: f32[4])
  nest i=4 j=16
    bound j from i to 16 - i
    %0: f32 = load x[i + j]
    %1: f32 = load x[j - i]
    %2: f32 = add %0 %1
    %3: f32 = fold add{j} from 0 of %2
    store y[i] = %3
"""
    verify(parse(source))
    with pytest.raises(InternalError, match="cannot prove"):
        verify(parse(source.replace("to 16 - i", "to 17 - i")))


def test_a_clipped_gather_is_proven():
    source = """\
kernel k(p: i32[4], x: f32[9], y: f32[4])
  nest i=4
    %0: i32 = load p[i]
    %1: i32 = const 0
    %2: i32 = max %0 %1
    %3: i32 = const 8
    %4: i32 = min %2 %3
    %5: f32 = load x[1*%4]
    store y[i] = %5
"""
    verify(parse(source))


def module(kernel: Kernel, **changes) -> Module:
    places = (
        Place("a", f32, 4, "param"),
        Place("b", f32, 4, "result"),
        Place("t", f32, 4, "arena", 16),
        Place("f", bool_, 1, "arena", 32),
    )
    steps = (
        Launch(0, ("a", "t")),
        Repeat((), "f", (Copy("t", "b"),)),
    )
    layouts = (Layout((("i", 4),)),)
    return replace(Module((kernel,), steps, places, layouts, layouts, 33), **changes)


ONE = parse("""\
kernel k(x: f32[4], y: f32[4])
  nest i=4
    %0: f32 = load x[i]
    store y[i] = %0
""")


def test_accepts_a_module():
    verify_module(module(ONE))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": (Launch(1, ("a", "t")),)}, "no kernel 1"),
        ({"steps": (Launch(0, ("a",)),)}, "other buffers"),
        ({"steps": (Launch(0, ("a", "a")),)}, "writes to the param a"),
        ({"steps": (Launch(0, ("a", "f")),)}, "not what k takes"),
        ({"steps": (Copy("a", "f"),)}, "do not fit"),
        ({"steps": (Copy("a", "c"),)}, "no place c"),
        ({"steps": (Repeat((), "t", ()),)}, "no bool scalar"),
        ({"arena": 32}, "does not lie in the arena"),
        ({"places": (Place("a", f64, 3, "param"),)}, "another size"),
        ({"places": (Place("a", f32, 2, "constant", 0, b"1234"),)}, "other data"),
    ],
)
def test_refuses_a_module(changes, message):
    with pytest.raises(InternalError, match=re.escape(message)):
        verify_module(module(ONE, **changes))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(zero_sizes=True))
def test_accepts_what_lowering_makes(program):
    after = rewritten(program)
    orders = [[order_of(v) for v in vs] for vs in (after.params, after.results)]
    for scheduled in (False, True):
        verify_module(lower(after, *orders, Target("x86_64", "generic", ""), Options(), scheduled))
