"""Recurrences that are loops around nests: sums of states inside, states updated in place."""

from dataclasses import replace

import pytest

from summand import dtypes as dt
from summand.ad import vjp
from summand.ir.builder import Builder
from summand.ir.nodes import SUM, Read, Recur, Reduce, Type
from summand.loops.nodes import Load, Loop, Nest
from summand.options import Options
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.rebuild import Rebuild
from summand.rewrite.recur import absorb as absorbing
from summand.rewrite.recur.absorb import absorb
from summand.rewrite.recur.split import split_recur
from summand.runtime import machine
from summand.schedule.lower import lower
from summand.schedule.moves import nests_of
from tests.lower.agreement import TARGET, assert_compiles, assert_lowers, order_of, rewritten
from tests.lower.cases import value
from tests.programs import arguments
from tests.rewrite.agreement import assert_same_results

SMALL = replace(TARGET, l2=1 << 10)  # a cache that the states of a test overflow


def delta_rule(b=2, i=5, j=7, t=6, keep="all"):
    """S = S[t-1] + k (v - sum{i} k S[t-1]);  y = sum{i} q S."""
    inner = Builder()
    s, k, v = value(inner, b=b, i=i, j=j), value(inner, b=b, i=i), value(inner, b=b, j=j)
    inner.param(Type(dt.i32))
    read = inner.reduce(SUM, ["i"], inner.map("mul", k, s))[0]
    error = inner.map("sub", v, inner.map("mul", inner.constant(0.3, dt.f32), read))
    body = inner.finish([inner.map("add", s, inner.map("mul", k, error))])
    new = Builder()
    k, v, q = value(new, b=b, i=i, t=t), value(new, b=b, j=j, t=t), value(new, b=b, i=i, t=t)
    start = value(new, b=b, i=i, j=j)
    op = Recur(("t",), (True,), (t,), (Read(0, (1,)),), (start,), (k, v), body, ("all",))
    (s,) = new.emit(op, [Type.of(dt.f32, {"b": b, "i": i, "j": j, "t": t})])
    return new.finish(new.reduce(SUM, ["i"], new.map("mul", q, s)))


def product(b, h, w):
    """0.1 sum{n} h w: small enough that rounding does not grow from step to step."""
    (mixed,) = b.reduce(SUM, ["n"], b.map("mul", h, w))
    return b.map("mul", b.constant(0.1, dt.f32), b.rename(mixed, {"m": "n"}))


def exchanged(n=5, t=4):
    """a, b = b, a + sum b: an earlier state is a result while the other is updated."""
    inner = Builder()
    a, b, w = value(inner, n=n), value(inner, n=n), value(inner, n=n, m=n)
    inner.param(Type(dt.i32))
    mixed = product(inner, b, w)
    body = inner.finish([b, inner.map("add", a, mixed)])
    new = Builder()
    w, one, two = value(new, n=n, m=n), value(new, n=n), value(new, n=n)
    reads = (Read(0, (1,)), Read(1, (1,)))
    op = Recur(("t",), (True,), (t,), reads, (one, two), (w,), body, ("last", "last"))
    return new.finish(new.emit(op, [Type.of(dt.f32, {"n": n})] * 2))


def peepholes(b=6, n=5, t=4):
    """A sum over the batch of what the loop computes, beside a state of the batch."""
    inner = Builder()
    h, w, x = value(inner, b=b, n=n), value(inner, n=n, m=n), value(inner, b=b, n=n)
    inner.param(Type(dt.i32))
    mixed = product(inner, h, w)
    new = inner.map("tanh", inner.map("add", mixed, x))
    gate = inner.reduce(SUM, ["b"], inner.map("exp", inner.map("mul", new, mixed)))[0]
    body = inner.finish([new, gate])
    out = Builder()
    w, x, start = value(out, n=n, m=n), value(out, b=b, n=n, t=t), value(out, b=b, n=n)
    op = Recur(("t",), (True,), (t,), (Read(0, (1,)),), (start,), (w, x), body, ("all", "all"))
    sizes = ({"b": b, "n": n, "t": t}, {"n": n, "t": t})
    return out.finish(out.emit(op, [Type.of(dt.f32, s) for s in sizes]))


def only_loop(program):
    (op,) = [e.op for e in program.eqns if isinstance(e.op, Recur)]
    return op


def test_sums_of_states_move_into_the_loop():
    program = rewritten(delta_rule())
    inside = absorb(program, SMALL)
    assert_same_results(program, inside)
    assert only_loop(inside).keep == ("none", "all")
    assert_lowers(inside, arguments(inside))


def weighed(**sizes):
    """The delta rule's y, and z = sum{j} tanh(y) S."""
    program = delta_rule(**sizes)
    new = Rebuild(program)
    for eqn in program.eqns:
        new.copy(eqn)
    (state,) = [e.out for e in program.eqns if isinstance(e.op, Recur)]
    y = new.of(program.results[0])
    (z,) = new.reduce(SUM, ["j"], new.map("mul", new.map("tanh", y), new.of(state)))
    return new.finish([y, z])


def test_sums_may_read_other_sums_of_the_step():
    """The gradient of what a read-out is multiplied by needs the read-out of the same step."""
    program = rewritten(weighed())
    inside = absorb(program, SMALL)
    assert_same_results(program, inside)
    assert only_loop(inside).keep == ("none", "all", "all")
    assert not any(isinstance(e.op, Reduce) for e in inside.eqns)
    assert_lowers(inside, arguments(inside))


def squashed(b=2, i=9, j=8, t=5):
    """S = w e, y = sum{j} e S[t-1] for e = tanh(S[t-1] + x): only one nest reads e."""
    inner = Builder()
    s, w, x = value(inner, b=b, i=i, j=j), value(inner, b=b, i=i), value(inner, b=b, i=i, j=j)
    inner.param(Type(dt.i32))
    e = inner.map("tanh", inner.map("add", s, x))
    (y,) = inner.reduce(SUM, ["j"], inner.map("mul", e, s))
    body = inner.finish([inner.map("mul", w, e), y])
    new = Builder()
    w, x, start = value(new, b=b, i=i, t=t), value(new, b=b, i=i, j=j), value(new, b=b, i=i, j=j)
    keep = ("last", "all")
    op = Recur(("t",), (True,), (t,), (Read(0, (1,)),), (start,), (w, x), body, keep)
    sizes = ({"b": b, "i": i, "j": j}, {"b": b, "i": i, "t": t})
    return new.finish(new.emit(op, [Type.of(dt.f32, s) for s in sizes]))


def test_what_one_nest_of_a_step_makes_and_reads_needs_no_memory():
    program = squashed()
    module = assert_lowers(program, arguments(program))
    (kernel,) = module.kernels
    loaded = {i.buffer for n in nests_of(kernel.body) for i in n.code if isinstance(i, Load)}
    assert {b.name for b in kernel.scratch} <= loaded


def projected(outputs, b=2, n=8, t=6):
    """h = tanh(h[t-1] + x);  y = sum{n} h W, with so many outputs."""
    inner = Builder()
    h, x = value(inner, b=b, n=n), value(inner, b=b, n=n)
    inner.param(Type(dt.i32))
    body = inner.finish([inner.map("tanh", inner.map("add", h, x))])
    new = Builder()
    x, w, start = value(new, b=b, n=n, t=t), value(new, n=n, o=outputs), value(new, b=b, n=n)
    op = Recur(("t",), (True,), (t,), (Read(0, (1,)),), (start,), (x,), body, ("all",))
    (h,) = new.emit(op, [Type.of(dt.f32, {"b": b, "n": n, "t": t})])
    return new.finish(new.reduce(SUM, ["n"], new.map("mul", h, w)))


@pytest.mark.parametrize(("outputs", "inside"), [(2, True), (32, False)])
def test_contractions_of_states_stay_outside(outputs, inside, monkeypatch):
    """With many terms for each state all steps at once make a better product."""
    program = rewritten(projected(outputs, b=8, n=4 * outputs))
    monkeypatch.setattr(absorbing, "carries", lambda op: False)
    after = absorb(program, SMALL)
    assert_same_results(program, after)
    assert (len(only_loop(after).body.results) == 2) == inside


def test_the_latest_state_is_updated_in_place():
    program = rewritten(delta_rule())
    params = [order_of(p) for p in program.params]
    module = lower(program, params, [order_of(r) for r in program.results], SMALL, Options())
    loops = [s for k in module.kernels for s in k.body if isinstance(s, Loop)]
    assert [sum(isinstance(s, Nest) for s in loop.body) for loop in loops] == [2]
    assert_lowers(program, arguments(program), target=SMALL)


def test_an_earlier_state_that_is_a_result_outlives_the_update():
    program = exchanged()
    assert_lowers(program, arguments(program))
    assert_lowers(program, arguments(program), scheduled=True)


def test_sums_over_the_batch_leave_the_loop():
    program = peepholes()
    split = split_recur(program)
    assert_same_results(program, split)
    assert all("b" in r.type.names for r in only_loop(split).body.results)


@pytest.mark.parametrize("sizes", [(2, 17, 33, 9), (3, 16, 16, 5), (1, 7, 1, 3), (5, 1, 20, 2)])
def test_compiled(sizes, monkeypatch):
    target = replace(machine.target(), l2=1 << 10)
    monkeypatch.setattr(machine, "target", lambda: target)
    plain = delta_rule(*sizes)
    gradient = drop_unused(vjp(plain, tuple(range(len(plain.params)))))
    for program in (plain, gradient, exchanged(sizes[2]), peepholes(*sizes[:3])):
        assert_compiles(program)
