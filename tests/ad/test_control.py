import numpy as np
import pytest

from summand.ad import jvp, vjp
from summand.dtypes import bool_, f64, i32
from summand.errors import DerivativeError, Loc
from summand.ir import foreign
from summand.ir.builder import Builder
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import SUM, Call, Cond, Custom, Map, Type, While
from tests.ad.gradcheck import check, named


def array(**sizes):
    return Type.of(f64, sizes)


def branch(fn):
    b = Builder()
    x, y = b.param(array(i=3)), b.param(array())
    return b.finish([b.map("mul", b.map(fn, x), y), b.map("add", x, x)])


@pytest.mark.parametrize("flag", [False, True])
def test_cond(flag):
    b = Builder()
    p, x, y = b.param(Type(bool_)), b.param(array(i=3)), b.param(array())
    outs = b.emit(Cond(p, branch("sin"), branch("exp"), (x, y)), [x.type, x.type])
    program = b.finish([b.map("mul", outs[0], x), outs[1]])
    check(program, wrt=[1, 2], args=[named(p, flag), named(x, [0.1, 0.2, 0.3]), named(y, 2.0)])


def doubling():
    """While sum(x) < limit: x = x · g + x, with a counter."""
    test = Builder()
    g, limit, n, x = (test.param(t) for t in (array(), array(), Type(i32), array(i=2)))
    program_test = test.finish([test.map("lt", test.reduce(SUM, ["i"], x)[0], limit)])
    body = Builder()
    g, limit, n, x = (body.param(t) for t in (array(), array(), Type(i32), array(i=2)))
    more = body.map("add", n, body.constant(1, i32))
    program_body = body.finish([more, body.map("add", body.map("mul", x, g), x)])
    b = Builder()
    g, limit, x = b.param(array()), b.param(array()), b.param(array(i=2))
    op = While(program_test, program_body, (g, limit), (b.constant(0, i32), x))
    b.loc = Loc("model.py", 7, "sm.while_loop(test, body, x)")
    outs = b.emit(op, [Type(i32), array(i=2)])
    return b.finish(outs)


def loop_args(program):
    g, limit, x = program.params
    return [named(g, 0.7), named(limit, 20.3), named(x, [0.5, 0.9])]


def test_while_forward():
    program = doubling()
    check(program, wrt=[0, 2], args=loop_args(program), modes=["jvp"], order=1)
    twice = jvp(jvp(program, (0, 2)), (0, 2))
    rng = np.random.default_rng(0)
    extra = [named(p, rng.normal(size=[n for _, n in p.type.dims])) for p in twice.params[3:]]
    run(twice, [*loop_args(program), *extra])


def test_while_in_reverse_is_refused():
    with pytest.raises(DerivativeError) as caught:
        vjp(doubling(), (0,))
    assert str(caught.value) == (
        "reverse derivative through while_loop, whose number of steps is not known\n"
        "  sm.while_loop(test, body, x)   model.py:7\n"
        "Use recur with a fixed number of steps, or forward mode (jvp)."
    )


def test_while_that_does_not_depend_on_the_parameter_is_no_obstacle():
    inner = doubling()
    b = Builder()
    args = [b.param(p.type) for p in inner.params]
    y = b.param(array(i=2))
    _, x = b.inline(inner, args)
    check(b.finish([b.map("mul", x, y)]), wrt=[3], args=[*loop_args(inner), named(y, [1.0, 2.0])])


def primal():
    b = Builder()
    x, y = b.param(array(i=3)), b.param(array(j=2))
    return b.finish([b.map("sin", b.map("mul", x, b.map("exp", y)))])


def test_checkpoint():
    b = Builder()
    x, y = b.param(array(i=3)), b.param(array(j=2))
    (out,) = b.emit(Custom(primal(), None, None, (x, y)), [array(i=3, j=2)])
    program = b.finish([b.map("mul", out, x)])
    check(program)
    derived = vjp(program, (0,))
    assert sum(isinstance(e.op, Map) and e.op.fn == "barrier" for e in derived.eqns) == 2


def custom(residual_scale=3.0):
    """sin(x) with a made-up derivative: 3 · cos(x)."""
    p = Builder()
    x = p.param(array(i=3))
    plain = p.finish([p.map("sin", x)])
    f = Builder()
    x = f.param(array(i=3))
    forward = f.finish([f.map("sin", x), f.map("cos", x)])
    r = Builder()
    cos, ct = r.param(array(i=3)), r.param(array(i=3))
    three = r.constant(residual_scale, f64)
    backward = r.finish([r.map("mul", three, r.map("mul", cos, ct))])
    b = Builder()
    x = b.param(array(i=3))
    return b.finish(b.emit(Custom(plain, forward, backward, (x,)), [array(i=3)]))


def test_custom_rule_is_used():
    program = custom()
    (x,) = program.params
    data = named(x, [0.1, 0.2, 0.3])
    out = run(vjp(program, (0,)), [data, named(x, np.ones(3))])
    np.testing.assert_allclose(out[1].array, 3 * np.cos(data.array))


def test_a_true_custom_rule_can_be_differentiated_again():
    check(custom(1.0), modes=["vjp"])


def test_forward_mode_of_a_custom_rule_is_refused():
    with pytest.raises(DerivativeError, match="custom_vjp rule"):
        jvp(custom(), (0,))


def test_integer_parameters_have_no_derivative():
    b = Builder()
    n = b.param(Type(i32))
    program = b.finish([b.convert(n, f64)])
    with pytest.raises(DerivativeError, match="not a float or complex"):
        vjp(program, (0,))


def square_rule(types):
    b = Builder()
    x, ct = b.param(types[0]), b.param(types[0])
    return b.finish([b.map("mul", b.map("add", x, x), ct)])


foreign.register(
    foreign.Foreign(
        "test_ad_square",
        run=lambda args: [Named(args[0].array ** 2, args[0].order)],
        types=lambda types: (types[0],),
        vjp=square_rule,
    )
)
foreign.register(
    foreign.Foreign("test_ad_opaque", run=lambda args: list(args), types=lambda types: (types[0],))
)


def called(name):
    b = Builder()
    x = b.param(array(i=3))
    return b.finish(b.emit(Call(name, (x,)), [x.type]))


def test_foreign_function_with_a_rule():
    check(called("test_ad_square"))


def test_foreign_function_without_a_rule():
    with pytest.raises(DerivativeError, match="has no derivative"):
        vjp(called("test_ad_opaque"), (0,))
    with pytest.raises(DerivativeError, match="has no derivative"):
        jvp(called("test_ad_opaque"), (0,))


def test_cost_is_linear():
    def chain(n):
        b = Builder()
        x = b.param(array(i=3))
        y = x
        for _ in range(n):
            y = b.map("add", b.map("sin", y), b.map("mul", x, y))
        return vjp(b.finish([y]), (0,))

    short, long = len(chain(50).eqns), len(chain(400).eqns)
    assert long <= 8 * short + 20
