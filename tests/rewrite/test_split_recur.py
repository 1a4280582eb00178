from hypothesis import given, settings

from summand.ad import vjp
from summand.dtypes import f64, i32
from summand.errors import DerivativeError
from summand.ir.builder import Builder
from summand.ir.nodes import SUM, Read, Recur, Reduce, Type
from summand.ir.text import text
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.recur import split
from summand.rewrite.recur.split import split_recur
from tests.programs import programs
from tests.rewrite.agreement import assert_same_results


def array(**sizes):
    return Type.of(f64, sizes)


def network(steps=5):
    """h[t] = tanh(W h[t-1] + U x[t] + exp(v)), output y[t] = Σ_i h[t]{i} c{i}."""
    body = Builder()
    h, w = body.param(array(b=2, i=3)), body.param(array(i=3, j=3))
    u, x = body.param(array(i=3, k=4)), body.param(array(b=2, k=4))
    v, c = body.param(array(i=3)), body.param(array(i=3))
    body.param(Type(i32))
    (wh,) = body.reduce(SUM, ["j"], body.map("mul", w, body.rename(h, {"i": "j"})))
    (ux,) = body.reduce(SUM, ["k"], body.map("mul", u, x))
    new = body.map("tanh", body.map("add", body.map("add", wh, ux), body.map("exp", v)))
    (y,) = body.reduce(SUM, ["i"], body.map("mul", new, c))
    inner = body.finish([new, y])
    b = Builder()
    args = [
        b.param(t)
        for t in (
            array(i=3, j=3),
            array(i=3, k=4),
            array(b=2, k=4, t=steps),
            array(i=3),
            array(i=3),
            array(b=2, i=3),
        )
    ]
    op = Recur(("t",), (True,), (steps,), (Read(0, (1,)),), (args[5],), tuple(args[:5]), inner)
    return b.finish(b.emit(op, [array(b=2, i=3, t=steps), array(b=2, t=steps)]))


def loops(program):
    return [e.op for e in program.eqns if isinstance(e.op, Recur)]


def contractions(program):
    return [e.op.dims for e in program.eqns if isinstance(e.op, Reduce)]


def test_what_reads_no_state_is_hoisted_and_what_feeds_none_is_sunk():
    program = network()
    new = drop_unused(split_recur(program))
    assert_same_results(program, new)
    (loop,) = loops(new)
    assert contractions(loop.body) == [("j",)]
    assert contractions(new) == [("k",), ("i",)]
    assert len(loop.captured) == 3  # w, the hoisted product, exp(v)


def test_golden():
    body = Builder()
    s, a, x = body.param(array()), body.param(array()), body.param(array(k=4))
    body.param(Type(i32))
    (drive,) = body.reduce(SUM, ["k"], x)
    new = body.map("add", body.map("mul", s, a), drive)
    inner = body.finish([new, body.map("mul", new, s)])
    b = Builder()
    a, x, s0 = b.param(array()), b.param(array(k=4, t=5)), b.param(array())
    op = Recur(("t",), (True,), (5,), (Read(0, (1,)),), (s0,), (a, x), inner)
    program = b.finish(b.emit(op, [array(t=5)] * 2))
    new = split_recur(program)
    assert_same_results(program, new)
    assert (
        text(new)
        == """\
program (%0: f64{}, %1: f64{k=4,t=5}, %2: f64{}) {
  %3: f64{t=5} = reduce sum {k} %1
  %4: f64{t=5} = recur (t forward 5) (0[1]) (%2) (%0, %1, %3) (%0: f64{}, %1: f64{}, %2: f64{k=4}, %4: f64{}, %3: i32{}) {
    %5: f64{} = mul %0 %1
    %6: f64{} = add %5 %4
    return %6
  }
  %5: f64{t=5} = reindex %4 {t: t - 1} fill 0
  %6: i32{t=5} = iota t
  %7: i32{} = constant 1
  %8: bool{t=5} = ge %6 %7
  %9: f64{t=5} = where %8 %5 %2
  %10: f64{t=5} = mul %4 %9
  return %4, %10
}
"""  # noqa: E501
    )


def test_gradients_of_weights_are_contractions_over_time_and_batch():
    program = drop_unused(vjp(network(), tuple(range(6))))
    new = drop_unused(split_recur(program))
    assert_same_results(program, new)
    _, back = loops(new)
    widest = max(o.type.count for e in back.body.eqns for o in e.outs)
    assert all(r.type.count <= 6 for r in back.body.results), "only states of size b·i are stored"
    assert widest <= 18
    assert contractions(back.body) == [("i",)]


def test_a_small_output_of_a_large_state_stays_inside():
    body = Builder()
    s = body.param(array(n=16))
    x = body.param(array(n=16))
    body.param(Type(i32))
    new = body.map("mul", s, x)
    inner = body.finish([new, *body.reduce(SUM, ["n"], new)])
    b = Builder()
    x, s0 = b.param(array(n=16, t=5)), b.param(array(n=16))
    op = Recur(("t",), (True,), (5,), (Read(0, (1,)),), (s0,), (x,), inner, ("last", "all"))
    program = b.finish(b.emit(op, [array(n=16), array(t=5)]))
    new = split_recur(program)
    assert_same_results(program, new)
    assert len(loops(new)[0].body.results) == 2


def reading(columns):
    """m[t] = m[t-1] + Σ_i s[t]{i,j} m[t-1]{j}, and y[t] = Σ_j s[t]{i,j} m[t]{j}: both read s."""
    body = Builder()
    m, s = body.param(array(j=columns)), body.param(array(i=3, j=columns))
    body.param(Type(i32))
    (more,) = body.reduce(SUM, ["i"], body.map("mul", s, m))
    new = body.map("add", m, more)
    (y,) = body.reduce(SUM, ["j"], body.map("mul", s, new))
    inner = body.finish([new, y])
    b = Builder()
    start, slices = b.param(array(j=columns)), b.param(array(i=3, j=columns, t=5))
    op = Recur(("t",), (True,), (5,), (Read(0, (1,)),), (start,), (slices,), inner)
    return b.finish(b.emit(op, [array(j=columns, t=5), array(i=3, t=5)]))


def test_a_small_sum_of_what_the_loop_reads_stays_inside(monkeypatch):
    assert contractions(loops(split_recur(reading(30)))[0].body) == [("i",)]  # little to read again
    monkeypatch.setattr(split, "FAR", 1)
    for columns, inside in ((30, [("i",), ("j",)]), (4, [("i",)])):
        program = reading(columns)
        new = drop_unused(split_recur(program))
        assert_same_results(program, new)
        (loop,) = loops(new)
        assert contractions(loop.body) == inside


def test_a_value_that_is_stored_anyway_is_not_stored_twice():
    """h = a·h + x: the reverse loop stores one cotangent, for both a and x."""
    body = Builder()
    s, a, x = body.param(array(n=3)), body.param(array(n=3)), body.param(array(n=3))
    body.param(Type(i32))
    inner = body.finish([body.map("add", body.map("mul", s, a), x)])
    b = Builder()
    a, x, s0 = b.param(array(n=3, t=5)), b.param(array(n=3, t=5)), b.param(array(n=3))
    op = Recur(("t",), (True,), (5,), (Read(0, (1,)),), (s0,), (a, x), inner)
    program = drop_unused(vjp(b.finish(b.emit(op, [array(n=3, t=5)])), (0, 1)))
    new = drop_unused(split_recur(program))
    assert_same_results(program, new)
    back = loops(new)[1]
    assert back.keep == ("none", "all")


def test_an_earlier_state_that_is_a_result_itself():
    body = Builder()
    s, x = body.param(array()), body.param(array())
    body.param(Type(i32))
    inner = body.finish([body.map("mul", s, x), s, body.map("sin", s)])
    b = Builder()
    x, s0 = b.param(array(t=5)), b.param(array())
    op = Recur(("t",), (True,), (5,), (Read(0, (1,)),), (s0,), (x,), inner, ("none", "all", "all"))
    outs = b.emit(op, [array(), array(t=5), array(t=5)])
    program = b.finish(outs[1:])
    assert_same_results(program, split_recur(program))


@given(programs(kinds=("recurrence", "fold", "binary", "unary", "reindex", "gather")))
@settings(max_examples=60, deadline=None, database=None)
def test_random_programs(program):
    assert_same_results(program, split_recur(program))
    wrt = tuple(n for n, p in enumerate(program.params) if p.type.dtype is f64)
    try:
        derived = vjp(program, wrt)
    except DerivativeError:
        return
    assert_same_results(derived, drop_unused(split_recur(derived)))
