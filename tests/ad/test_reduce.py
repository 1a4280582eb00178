import numpy as np
import pytest

from summand.ad import jvp, vjp
from summand.dtypes import f64, i32
from summand.ir.builder import Builder
from summand.ir.index import Form, parse
from summand.ir.interp import run
from summand.ir.nodes import MAX, MIN, PROD, SUM, Eqn, Iota, Monoid, Reduce, Sort, TopK, Type
from tests.ad.gradcheck import check, named


def array(**sizes):
    return Type.of(f64, sizes)


def test_contraction():
    b = Builder()
    x, y = b.param(array(i=3, k=4)), b.param(array(k=4, j=2))
    check(b.finish(b.reduce(SUM, ["k"], b.map("mul", x, y))))


def test_the_gradient_of_a_contraction_is_two_contractions():
    b = Builder()
    x, y = b.param(array(i=3, k=4)), b.param(array(k=4, j=2))
    program = vjp(b.finish(b.reduce(SUM, ["k"], b.map("mul", x, y))), (0, 1))
    reductions = [e.op.dims for e in program.eqns if isinstance(e.op, Reduce)]
    assert reductions == [("k",), ("j",), ("i",)]
    assert len(program.eqns) == 6


def test_sum_of_a_broadcast_counts_the_copies():
    b = Builder()
    x, y = b.param(array(i=3)), b.param(array(j=2))
    m = b.map("add", x, y)
    (s,) = b.reduce(SUM, ["i", "j"], m)
    check(b.finish([s, b.map("mul", s, s)]))


def test_softmax():
    b = Builder()
    x = b.param(array(i=3, k=5))
    (m,) = b.reduce(MAX, ["k"], x)
    e = b.map("exp", b.map("sub", x, m))
    (s,) = b.reduce(SUM, ["k"], e)
    check(b.finish([b.map("div", e, s)]))


@pytest.mark.parametrize("monoid", [MAX, MIN, PROD])
@pytest.mark.parametrize("dims", [("k",), ("k", "l")])
def test_named_monoids(monoid, dims):
    b = Builder()
    x = b.param(array(i=2, k=3, l=7))
    y = b.param(array(i=2))
    check(b.finish([b.map("mul", b.reduce(monoid, dims, x)[0], y)]))


@pytest.mark.parametrize("monoid", [MAX, MIN])
def test_a_tie_goes_to_the_first(monoid):
    b = Builder()
    x = b.param(array(k=20))
    program = b.finish(b.reduce(monoid, ["k"], x))
    out = run(vjp(program, (0,)), [named(x, np.zeros(20)), named(program.results[0], 1.0)])
    np.testing.assert_array_equal(out[1].array, np.eye(20)[0])
    t = named(x, np.arange(20) + 5.0)
    out = run(jvp(program, (0,)), [named(x, np.zeros(20)), t])
    assert out[1].array == 5.0


def test_nan_stays_in_the_value_and_never_leaves_the_array():
    b = Builder()
    x = b.param(array(k=20))
    program = b.finish(b.reduce(MAX, ["k"], x))
    data = np.zeros(20)
    data[7] = np.nan
    out = run(vjp(program, (0,)), [named(x, data), named(program.results[0], 1.0)])
    assert np.isnan(out[0].array)


def test_product_with_zeros():
    b = Builder()
    x = b.param(array(k=4))
    program = b.finish(b.reduce(PROD, ["k"], x))
    out = run(vjp(program, (0,)), [named(x, [2.0, 0, 3, 5]), named(program.results[0], 1.0)])
    np.testing.assert_array_equal(out[1].array, [0, 30, 0, 0])


def max_plus():
    b = Builder()
    x, y = b.param(array(i=3, k=20)), b.param(array(k=20, j=4))
    program = b.finish(b.reduce(MAX, ["k"], b.map("add", x, y)))
    return program


def test_max_plus():
    check(max_plus())


def test_the_gradient_of_max_plus_touches_selected_elements_only():
    program = vjp(max_plus(), (0, 1))
    cubes = [o for e in program.eqns for o in e.outs if len(o.type.dims) == 3]
    assert [o.type.dtype for o in cubes if o.type.dtype is f64] == [f64]  # the sum itself


def test_selection_through_nonlinear_maps():
    b = Builder()
    x, y, w = b.param(array(i=3, k=20)), b.param(array(k=20, j=4)), b.param(array(i=3))
    place = b.convert(b.iota("k", 20), f64)
    e = b.map("mul", b.map("sin", b.map("sub", x, y)), b.map("add", w, place))
    check(b.finish(b.reduce(MIN, ["k"], e)))


def test_selection_through_a_long_chain():
    b = Builder()
    x, y = b.param(array(i=2, k=20)), b.param(array(k=20, j=2))
    e = b.map("add", x, y)
    for _ in range(1500):
        e = b.map("sin", e)
    vjp(b.finish(b.reduce(MAX, ["k"], e)), (0, 1))


def test_selection_through_a_rename():
    b = Builder()
    x, y = b.param(array(i=3, k=20)), b.param(array(j=4, u=20))
    e = b.map("mul", x, b.rename(y, {"u": "k"}))
    check(b.finish(b.reduce(MAX, ["q"], b.rename(e, {"k": "q"}))))


def log_sum_exp():
    """(m, s) stands for s · exp(m)."""
    b = Builder()
    m1, s1, m2, s2 = (b.param(Type(f64)) for _ in range(4))
    m = b.map("max", m1, m2)
    low = b.constant(-1e30, f64)
    left = b.map("mul", s1, b.map("exp", b.map("sub", b.map("max", m1, low), b.map("max", m, low))))
    right = b.map(
        "mul", s2, b.map("exp", b.map("sub", b.map("max", m2, low), b.map("max", m, low)))
    )
    return Monoid("lse", (-1e30, 0.0), b.finish([m, b.map("add", left, right)]))


def test_users_monoid_of_two_components():
    b = Builder()
    x, y = b.param(array(i=2, k=4)), b.param(array(i=2, k=4))
    m, s = b.reduce(log_sum_exp(), ["k"], x, b.map("exp", y))
    check(b.finish([b.map("add", m, b.map("log", s))]))


def affine():
    """Composition of x -> a x + c; not commutative."""
    b = Builder()
    a1, c1, a2, c2 = (b.param(Type(f64)) for _ in range(4))
    a = b.map("mul", a1, a2)
    c = b.map("add", b.map("mul", c1, a2), c2)
    return Monoid("affine", (1.0, 0.0), b.finish([a, c]), commutative=False)


def test_users_monoid_that_does_not_commute_over_two_dims():
    b = Builder()
    x, y = b.param(array(k=3, l=2, i=2)), b.param(array(k=3, l=2, i=2))
    check(b.finish(b.reduce(affine(), ["l", "k"], x, y)))


def test_one_value_as_both_components():
    b = Builder()
    x = b.param(array(i=2, k=4))
    check(b.finish(b.reduce(affine(), ["k"], x, x)))


# ---- reindex, reduce_at


FORMS = [
    ({"x": "2*x + kx - 1"}, {"x": 4, "kx": 3}, "fill"),
    ({"x": "x + kx"}, {"x": 4, "kx": 3}, "trusted"),
    ({"x": "6 - x"}, {"x": 7}, "trusted"),
    ({"x": "b//2"}, {"b": 14}, "trusted"),
    ({"x": "y"}, {}, "trusted"),
    ({"x": "3*q - 1"}, {"q": 4}, "clip"),
    ({"x": "y", "y": "x"}, {"x": 7, "y": 7}, "trusted"),
    ({"x": "3"}, {}, "trusted"),
]


@pytest.mark.parametrize(("index", "sizes", "mode"), FORMS)
def test_reindex(index, sizes, mode):
    b = Builder()
    x = b.param(array(x=7, y=7, c=2))
    forms = {d: parse(t) for d, t in index.items()}
    y = b.reindex(x, forms, {"y": 7, **sizes}, mode, 5.0 if mode == "fill" else 0)
    check(b.finish([b.map("mul", y, y)]))


@pytest.mark.parametrize("mode", ["fill", "clip"])
def test_gather_and_scatter(mode):
    b = Builder()
    x, at = b.param(array(x=4, c=2)), b.param(Type.of(i32, {"p": 5, "c": 2}))
    y = b.reindex(x, {"x": at}, {}, mode)
    (z,) = b.reduce_at(SUM, ["p"], [b.map("mul", y, y)], {"a": at}, {"a": 3}, mode)
    program = b.finish([b.map("mul", z, z)])
    places = named(at, [[0, 3, -1, 2, 2], [1, 1, 5, 0, 2]])
    rng = np.random.default_rng(3)
    check(program, wrt=[0], args=[named(x, rng.normal(size=(2, 4))), places])


def test_sum_into_affine_places():
    b = Builder()
    x = b.param(array(x=3, k=2, c=2))
    (y,) = b.reduce_at(SUM, ["x", "k"], [x], {"u": parse("2*x + k - 1")}, {"u": 5}, "fill")
    check(b.finish([b.map("mul", y, y)]))


@pytest.mark.parametrize("monoid", [MAX, MIN, PROD, affine(), log_sum_exp()])
@pytest.mark.parametrize("mode", ["fill", "clip"])
def test_other_monoids_into_places(monoid, mode):
    b = Builder()
    args = [b.param(array(p=3, q=2, c=2)) for _ in range(monoid.arity)]
    at = b.param(Type.of(i32, {"p": 3, "q": 2, "c": 2}))
    outs = b.reduce_at(
        monoid, ["p", "q"], args, {"a": at, "e": Form.of("q")}, {"a": 3, "e": 3}, mode
    )
    outs = [b.map("mul", o, b.map("convert", b.iota("a", 3), dtype=f64)) for o in outs]
    finite = [
        b.map("where", b.map("lt", b.map("abs", o), b.constant(1e20, f64)), o, b.constant(0.0, f64))
        for o in outs
    ]
    program = b.finish(finite)
    rng = np.random.default_rng(0)
    values = [named(p, rng.uniform(0.5, 2, (2, 3, 2))) for p in args]
    places = named(at, rng.integers(-1, 4, (2, 3, 2)))
    check(program, wrt=range(len(args)), args=[*values, places])


# ---- order


def test_sort():
    b = Builder()
    x = b.param(array(i=2, k=5))
    s, _ = b.emit(Sort(x, "k", True), [x.type, x.type.with_dtype(i32)])
    w = b.param(array(k=5))
    check(b.finish([b.map("mul", s, w)]))


def test_top_k():
    b = Builder()
    x = b.param(array(i=2, k=5))
    out = array(i=2, r=3)
    s, _ = b.emit(TopK(x, "k", "r"), [out, out.with_dtype(i32)])
    check(b.finish([b.map("mul", s, b.convert(b.iota("r", 3), f64))]))


def test_no_zero_arithmetic():
    b = Builder()
    x, y = b.param(array(i=3)), b.param(array(i=3))
    z = b.map("add", b.map("mul", x, b.map("exp", y)), b.map("sin", y))
    program = vjp(b.finish([z]), (0,))
    assert [e.op.fn for e in program.eqns] == ["exp", "mul", "sin", "add", "mul"]
    assert all(isinstance(e, Eqn) and not isinstance(e.op, Iota) for e in program.eqns)


def test_interleave():
    b = Builder()
    x, y = b.param(array(u=3, c=2)), b.param(array(u=2, c=2))
    out = b.interleave([x, y], [("u", 2)])
    assert out.type == array(u=5, c=2)
    (s,) = b.reduce(SUM, ["c"], b.map("mul", out, out))
    check(b.finish([s, out]))


# ---- what cancels


def selects(program):
    return [e for e in program.eqns if getattr(getattr(e.op, "monoid", None), "arity", 1) > 1]


def test_the_maximum_of_a_softmax_has_no_derivative():
    b = Builder()
    x, w, mask = b.param(array(i=3, k=20)), b.param(array(k=20)), b.param(array(i=3, k=20))
    low = b.constant(float("-inf"), f64)
    z = b.map("mul", b.map("sin", x), w)
    z = b.map("where", b.map("gt", mask, b.constant(-1.0, f64)), z, low)
    (m,) = b.reduce(MAX, ["k"], z)
    e = b.map("exp", b.map("sub", z, m))
    (s,) = b.reduce(SUM, ["k"], e)
    p = b.map("div", e, s)
    total = b.map("add", m, b.map("log", s))
    program = b.finish([p, total])
    assert not selects(check(program, wrt=[0, 1]))


def test_a_maximum_that_matters_keeps_its_derivative():
    b = Builder()
    x = b.param(array(i=3, k=20))
    (m,) = b.reduce(MAX, ["k"], x)
    e = b.map("exp", b.map("sub", x, m))
    (s,) = b.reduce(SUM, ["k"], e)
    safe = b.map("add", s, b.constant(1e-3, f64))
    program = b.finish([b.map("div", e, safe)])
    assert selects(check(program))


@pytest.mark.parametrize("misaligned", [False, True])
def test_a_shifted_maximum_does_not_cancel(misaligned):
    b = Builder()
    x = b.param(array(i=3, k=20))
    (m,) = b.reduce(MAX, ["k"], x)
    other = b.reindex(m, {"i": parse("2 - i")}, {"i": 3}) if misaligned else m
    e = b.map("exp", b.map("sub", x, other))
    (s,) = b.reduce(SUM, ["k"], b.map("exp", b.map("sub", x, m)))
    program = b.finish([b.map("div", e, s)])
    assert bool(selects(check(program))) == misaligned
