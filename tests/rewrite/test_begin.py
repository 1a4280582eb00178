import pytest

from summand.dtypes import f64, i32
from summand.ir.builder import Builder
from summand.ir.nodes import Read, Recur, Type
from summand.ir.text import text
from summand.rewrite.recur.begin import begin
from tests.rewrite.agreement import assert_same_results

N, T = 4, 5


def array(**sizes):
    return Type.of(f64, sizes)


def backward(first=T - 1, init=0.0, twice=False, forward=False):
    """m = 0.5 (m[t+1] + c), c zero but at one step."""
    body = Builder()
    m, c = body.param(array(x=N)), body.param(array(x=N))
    body.param(Type.of(i32, {}))
    total = body.map("add", m, c)
    new = body.map("mul", total, body.constant(0.5, f64))
    inner = body.finish([body.map("add", new, c) if twice else new])
    b = Builder()
    a = b.param(array(x=N))
    here = b.map("eq", b.iota("t", T), b.constant(first, i32))
    addend = b.map("where", here, a, b.constant(0.0, f64))
    start = b.expand(b.constant(init, f64), {"x": N})
    reads = (Read(0, (1 if forward else -1,)),)
    op = Recur(("t",), (forward,), (T,), reads, (start,), (addend,), inner, ("all",))
    return b.finish(b.emit(op, [array(t=T, x=N)]))


def test_the_addend_of_the_first_step_is_the_initial_state():
    program = backward()
    after = begin(program)
    assert "add" not in text(after)
    assert_same_results(program, after)


def test_forward():
    program = backward(first=0, forward=True)
    after = begin(program)
    assert "add" not in text(after)
    assert_same_results(program, after)


@pytest.mark.parametrize("other", [{"first": 2}, {"init": 1.0}, {"twice": True}])
def test_others_stay(other):
    program = backward(**other)
    assert text(begin(program)) == text(program)
