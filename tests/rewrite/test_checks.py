"""Range checks as results: golden text, and every place where an index may be."""

import numpy as np
import pytest

from summand import dtypes as dt
from summand.errors import IndexRangeError
from summand.ir.builder import Builder
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import SUM, Cond, Read, Recur, Type, While
from summand.ir.verify import verify
from summand.rewrite.checks import insert_checks
from tests.rewrite.golden import assert_golden

TABLE = Type.of(dt.f32, {"k": 8})


def test_gather():
    """The second index is in range for sure, the third one is checked already."""
    assert_golden(
        lambda p: insert_checks(p)[0],
        """
        program (%0: f32{k=8}, %1: i32{p=3}) {
          %2: f32{p=3} = reindex %0 {k: %1} raise
          %3: i32{} = constant 8
          %4: i32{p=3} = mod %1 %3
          %5: f32{p=3} = reindex %0 {k: %4} raise
          %6: f32{k=8} = reduce_at sum {p} %5 {k: %1} raise
          return %2, %6
        }
        """,
        """
        program (%0: f32{k=8}, %1: i32{p=3}) {
          %2: i64{p=3} = convert %1
          %3: i64{} = reduce min {p} %2
          %4: i64{} = reduce max {p} %2
          %5: f32{p=3} = reindex %0 {k: %1} clip
          %6: i32{} = constant 8
          %7: i32{p=3} = mod %1 %6
          %8: f32{p=3} = reindex %0 {k: %7} trusted
          %9: f32{k=8} = reduce_at sum {p} %8 {k: %1} clip
          return %5, %9, %3, %4
        }
        """,
    )


def outcome(program, *args):
    """What the checks say: None, or the message with the first offending value."""
    after, checks = insert_checks(program)
    verify(after)
    results = run(after, args)
    for check in checks:
        for number in (check.least, check.greatest):
            value = int(results[number].array)
            if not 0 <= value < check.size:
                return check.message.replace("{value}", str(value))
    return None


def assert_agrees(program, *args):
    """The checks complain exactly where the interpreter raises."""
    try:
        run(program, args)
    except IndexRangeError:
        assert "out of range for k" in outcome(program, *args)
        return True
    assert outcome(program, *args) is None
    return False


def table(n=8):
    return Named(np.arange(n, dtype=np.float32), ("k",))


def places(*values):
    return Named(np.array(values, np.int32), ("p",))


@pytest.mark.parametrize(("values", "fails"), [((0, 7), False), ((8, 1), True), ((3, -1), True)])
def test_gather_and_scatter(values, fails):
    b = Builder()
    x, i = b.param(TABLE), b.param(Type.of(dt.i32, {"p": 2}))
    taken = b.reindex(x, {"k": i}, {}, "raise")
    put = b.reduce_at(SUM, ["p"], [taken], {"k": i}, {"k": 8}, "raise")
    assert assert_agrees(b.finish([taken, *put]), table(), places(*values)) == fails


@pytest.mark.parametrize("wrong", [None, 0, 3])
def test_recurrence(wrong):
    b = Builder()
    x, i, zero = b.param(TABLE), b.param(Type.of(dt.i32, {"p": 4})), b.param(Type(dt.f32))
    c = Builder()
    before, whole = c.param(Type(dt.f32)), c.param(TABLE)
    at, _ = c.param(Type(dt.i32)), c.param(Type(dt.i32))
    body = c.finish([c.map("add", before, c.reindex(whole, {"k": at}, {}, "raise"))])
    op = Recur(("p",), (True,), (4,), (Read(0, (1,)),), (zero,), (x, i), body)
    program = b.finish(b.emit(op, [Type.of(dt.f32, {"p": 4})]))
    values = [1, 2, 3, 4]
    if wrong is not None:
        values[wrong] = 9
    start = Named(np.float32(0).reshape(()))
    assert assert_agrees(program, table(), places(*values), start) == (wrong is not None)


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("index", [2, 8, -5])
def test_branch(flag, index):
    """An index is checked only if its branch is taken."""
    b = Builder()
    p, x, i = b.param(Type(dt.bool_)), b.param(TABLE), b.param(Type(dt.i32))
    then, other = Builder(), Builder()
    y, j = then.param(TABLE), then.param(Type(dt.i32))
    z, _ = other.param(TABLE), other.param(Type(dt.i32))
    first = then.finish([then.reindex(y, {"k": j}, {}, "raise")])
    second = other.finish([other.reduce(SUM, ["k"], z)[0]])
    program = b.finish(b.emit(Cond(p, first, second, (x, i)), [Type(dt.f32)]))
    args = Named(np.array(flag)), table(), Named(np.array(index, np.int32))
    assert assert_agrees(program, *args) == (flag and not 0 <= index < 8)


@pytest.mark.parametrize(("start", "limit"), [(0, 5.0), (0, 100.0), (-1, 5.0), (9, 5.0)])
@pytest.mark.parametrize("in_test", [True, False])
def test_loop(start, limit, in_test):
    """table[n] is read by the test or by the body for n = start, start + 1, …"""
    b = Builder()
    x, n, stop = b.param(TABLE), b.param(Type(dt.i32)), b.param(Type(dt.f32))
    programs = []
    for is_test in (True, False):
        c = Builder()
        whole, most, at = c.param(TABLE), c.param(Type(dt.f32)), c.param(Type(dt.i32))
        read = c.convert(at, dt.f32)
        if is_test == in_test:
            read = c.reindex(whole, {"k": at}, {}, "raise")
        one = c.constant(1, dt.i32)
        step = c.map("where", c.map("eq", read, read), one, one)
        out = c.map("lt", read, most) if is_test else c.map("add", at, step)
        programs.append(c.finish([out]))
    program = b.finish(b.emit(While(*programs, (x, stop), (n,)), [Type(dt.i32)]))
    limit = min(limit, 20.0)
    args = table(), Named(np.array(start, np.int32)), Named(np.array(limit, np.float32))
    assert_agrees(program, *args)


def test_nothing_is_near_an_empty_dim():
    b = Builder()
    x, i = b.param(Type.of(dt.f32, {"k": 0})), b.param(Type.of(dt.i32, {"p": 1}))
    program = b.finish([b.reindex(x, {"k": i}, {}, "raise")])
    assert assert_agrees(program, table(0), places(0))


def test_no_index_no_check():
    b = Builder()
    x, i = b.param(TABLE), b.param(Type.of(dt.i32, {"p": 0}))
    program = b.finish([b.reindex(x, {"k": i}, {}, "raise")])
    assert insert_checks(program)[1] == ()
    assert_agrees(program, table(), places())
