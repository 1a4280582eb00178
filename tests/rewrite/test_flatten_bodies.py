"""Control flow inside recurrences: taken out, and lowered, it means the same."""

import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.nodes import Cond, Read, Recur, Type, While
from summand.rewrite.recur.flatten import flatten_bodies
from tests.lower.agreement import assert_lowers
from tests.lower.cases import value
from tests.programs import arguments
from tests.rewrite.agreement import assert_same_results


def branch(fn):
    b = Builder()
    x = value(b, i=3)
    return b.finish([b.map(fn, x)])


def with_cond():
    b = Builder()
    h, u = value(b, i=3), value(b)
    b.param(Type(dt.i32))
    positive = b.map("gt", u, b.constant(0.0, dt.f32))
    (new,) = b.emit(Cond(positive, branch("tanh"), branch("neg"), (h,)), [h.type])
    return b.finish([b.map("add", new, u)])


def halving():
    b = Builder()
    x = value(b, i=3)
    n = b.param(Type(dt.i32))
    test = b.finish([b.map("lt", n, b.constant(3, dt.i32))])
    b = Builder()
    x, n = value(b, i=3), b.param(Type(dt.i32))
    half = b.map("mul", x, b.constant(0.5, dt.f32))
    return test, b.finish([half, b.map("add", n, b.constant(1, dt.i32))])


def with_while():
    b = Builder()
    h, u = value(b, i=3), value(b)
    at = b.param(Type(dt.i32))
    new, _ = b.emit(While(*halving(), (), (h, at)), [h.type, at.type])
    return b.finish([b.map("add", new, u)])


def recurrence(body, forward, keep):
    b = Builder()
    start, u = value(b, i=3), value(b, t=5)
    sizes = {"i": 3, **({"t": 5} if keep == "all" else {})}
    reads = (Read(0, (1 if forward else -1,)),)
    op = Recur(("t",), (forward,), (5,), reads, (start,), (u,), body, (keep,))
    return b.finish(b.emit(op, [Type.of(dt.f32, sizes)]))


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("keep", ["all", "last"])
@pytest.mark.parametrize("body", [with_cond(), with_while()], ids=["cond", "while"])
def test_bodies(body, forward, keep):
    program = recurrence(body, forward, keep)
    assert_same_results(program, flatten_bodies(program))
    assert_lowers(program, arguments(program))
    assert_lowers(program, arguments(program), scheduled=True)
