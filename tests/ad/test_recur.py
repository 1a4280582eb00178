import numpy as np
import pytest

from summand.ad import vjp
from summand.dtypes import f64, i32
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.interp import run
from summand.ir.nodes import SUM, Read, Recur, Reduce, Type
from summand.ir.verify import verify
from tests.ad.gradcheck import check, named, random_args


def array(**sizes):
    return Type.of(f64, sizes)


def lstm_like(keep=(), forward=True, size=3):
    """h[t] = tanh(Σ_j W{i,j} h[t-1]{j} + x[t]{i}) · g, with h a tuple of two states."""
    body = Builder()
    h, c = body.param(array(i=size)), body.param(array(i=size))
    w, x, g = body.param(array(i=size, j=size)), body.param(array(i=size)), body.param(array())
    t = body.param(Type(i32))
    (wh,) = body.reduce(SUM, ["j"], body.map("mul", w, body.rename(h, {"i": "j"})))
    late = body.map("convert", t, dtype=f64)
    new_c = body.map("add", body.map("mul", c, g), body.map("add", wh, x))
    new_h = body.map("tanh", body.map("add", new_c, body.map("mul", late, g)))
    inner = body.finish([new_h, new_c])
    b = Builder()
    w, x, g = b.param(array(i=size, j=size)), b.param(array(i=size, t=5)), b.param(array())
    h0, c0 = b.param(array(i=size)), b.param(array(i=size))
    one = 1 if forward else -1
    op = Recur(
        ("t",),
        (forward,),
        (5,),
        (Read(0, (one,)), Read(1, (one,))),
        (h0, c0),
        (w, x, g),
        inner,
        keep,
    )
    kinds = keep or ("all", "all")
    types = [array(i=size, t=5) if k == "all" else array(i=size) for k in kinds]
    return b.finish(b.emit(op, types))


@pytest.mark.parametrize("keep", [(), ("last", "all"), ("last", "last")])
def test_two_states_with_a_product(keep):
    check(lstm_like(keep))


def test_from_the_end():
    check(lstm_like(forward=False))


def test_only_the_last_state_is_used():
    inner = lstm_like()
    b = Builder()
    args = [b.param(p.type) for p in inner.params]
    h, _ = b.inline(inner, args)
    check(b.finish([b.reindex(h, {"t": Form.of(4)}, {})]))


def second_order(n=6):
    """f[t] = a f[t-1] + sin(f[t-2]) + x[t], a and the initial values along t."""
    body = Builder()
    one, two, a, x = (body.param(Type(f64)) for _ in range(4))
    body.param(Type(i32))
    new = body.map("add", body.map("add", body.map("mul", a, one), body.map("sin", two)), x)
    inner = body.finish([new])
    b = Builder()
    a, x, i1, i2 = b.param(array(t=n)), b.param(array(t=n)), b.param(array()), b.param(array(t=n))
    op = Recur(("t",), (True,), (n,), (Read(0, (1,)), Read(0, (2,))), (i1, i2), (a, x), inner)
    return b.finish(b.emit(op, [array(t=n)]))


@pytest.mark.parametrize("n", [1, 2, 6])
def test_two_shifts_and_inits_along_time(n):
    check(second_order(n))


def test_a_shift_of_three_with_one_initial_value():
    body = Builder()
    s, x = body.param(array(c=2)), body.param(array(c=2))
    body.param(Type(i32))
    inner = body.finish([body.map("mul", s, x)])
    b = Builder()
    x, init = b.param(array(t=7, c=2)), b.param(array(c=2))
    op = Recur(("t",), (True,), (7,), (Read(0, (3,)),), (init,), (x,), inner)
    check(b.finish(b.emit(op, [array(t=7, c=2)])))


def soft_dtw(m=3, n=4):
    body = Builder()
    up, left, diagonal, cost = (body.param(array(b=2)) for _ in range(4))
    body.param(Type(i32))
    body.param(Type(i32))
    e = [body.map("exp", body.map("neg", v)) for v in (up, left, diagonal)]
    low = body.map("neg", body.map("log", body.map("add", body.map("add", e[0], e[1]), e[2])))
    inner = body.finish([body.map("add", cost, low)])
    b = Builder()
    cost, edge = b.param(array(b=2, i=m, j=n)), b.param(array(b=2, i=m))
    corner = b.param(array(b=2))
    reads = (Read(0, (1, 0)), Read(0, (0, 1)), Read(0, (1, 1)))
    op = Recur(("i", "j"), (True, True), (m, n), reads, (corner, edge, corner), (cost,), inner)
    return b.finish(b.emit(op, [array(b=2, i=m, j=n)]))


def test_two_recurrence_dims():
    check(soft_dtw())


def test_a_stencil_in_the_body():
    body = Builder()
    u, k = body.param(array(x=5)), body.param(array())
    body.param(Type(i32))
    sides = [body.reindex(u, {"x": Form.of("x") + s}, {"x": 5}, "fill") for s in (-1, 1)]
    around = body.map("add", *sides)
    inner = body.finish([body.map("add", u, body.map("mul", k, body.map("sin", around)))])
    b = Builder()
    u0, k = b.param(array(x=5)), b.param(array())
    op = Recur(("t",), (True,), (4,), (Read(0, (1,)),), (u0,), (k,), inner)
    check(b.finish(b.emit(op, [array(t=4, x=5)])))


def test_states_without_a_derivative_are_not_carried():
    """A counter and an independent float state beside the one that is differentiated."""
    body = Builder()
    count, free, s = body.param(Type(i32)), body.param(array()), body.param(array())
    x = body.param(array())
    body.param(Type(i32))
    more = body.map("add", count, body.constant(1, i32))
    drift = body.map("mul", free, body.constant(0.5, f64))
    new = body.map("add", body.map("mul", s, drift), x)
    inner = body.finish([more, drift, new])
    b = Builder()
    x, f0 = b.param(array(t=4)), b.param(array())
    zero = b.constant(0, i32)
    reads = (Read(0, (1,)), Read(1, (1,)), Read(2, (1,)))
    op = Recur(("t",), (True,), (4,), reads, (zero, f0, f0), (x,), inner)
    outs = b.emit(op, [Type.of(i32, {"t": 4}), array(t=4), array(t=4)])
    program = b.finish([outs[2]])
    check(program)
    by_x = vjp(program, (0,))
    back = [e.op for e in by_x.eqns if isinstance(e.op, Recur)][1]
    assert len(back.reads) == 1


def test_gradient_of_a_weight_is_summed_outside():
    program = vjp(lstm_like(), (0,))
    back = [e for e in program.eqns if isinstance(e.op, Recur)][1]
    assert back.op.forward == (False,)
    sums = [e.op.dims for e in program.eqns if getattr(e.op, "monoid", None) == SUM]
    assert ("t",) in sums


def test_no_steps():
    program = vjp(second_order(0), (0, 2))
    verify(program)
    out = run(program, random_args(program))
    assert out[2].array == 0


def test_a_long_recurrence_by_hand():
    """d/da of a^n."""
    body = Builder()
    s, a = body.param(array()), body.param(array())
    body.param(Type(i32))
    inner = body.finish([body.map("mul", s, a)])
    b = Builder()
    a = b.param(array())
    one = b.constant(1.0, f64)
    op = Recur(("t",), (True,), (50,), (Read(0, (1,)),), (one,), (a,), inner, ("last",))
    program = vjp(b.finish(b.emit(op, [array()])), (0,))
    verify(program)
    out = run(program, [named(a, 1.01), named(a, 1.0)])
    np.testing.assert_allclose(out[1].array, 50 * 1.01**49)


@pytest.mark.parametrize("keep", [(), ("last", "last")])
def test_contractions_of_the_body_are_kept_for_the_way_back(keep):
    program = lstm_like(keep, size=17)
    derived = check(program, wrt=[0, 1, 3], args=random_args(program, scale=0.1), modes=["vjp"])
    ahead, *_, back = [e.op for e in derived.eqns if isinstance(e.op, Recur)]
    assert sum(isinstance(e.op, Reduce) for e in ahead.body.eqns) == 1
    # transposed, and nothing of the way forward
    assert [e.op.dims for e in back.body.eqns if isinstance(e.op, Reduce)] == [("i",)]
