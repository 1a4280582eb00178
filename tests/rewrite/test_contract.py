"""Products under sums: what the order becomes, and that it means the same."""

from hypothesis import HealthCheck, given, settings

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.nodes import SUM, Map, Reduce, Type
from summand.rewrite.contract import contract
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.merge_equal import merge_equal
from tests.programs import programs
from tests.rewrite.agreement import assert_same_results


def value(b, **sizes):
    return b.param(Type.of(dt.f32, sizes))


def sums(program):
    return [(e.op.dims, e.out.type.names) for e in program.eqns if isinstance(e.op, Reduce)]


def contracted(program):
    after = drop_unused(contract(program))
    assert_same_results(program, after)
    return after


def test_factors_without_the_dim_leave_the_sum():
    b = Builder()
    x, y, z, w = value(b, i=4, k=5), value(b, k=5, j=6), value(b, i=4), value(b, j=6)
    p = b.map("div", b.map("mul", b.map("mul", x, z), y), b.map("exp", w))
    after = contracted(b.finish(b.reduce(SUM, ["k"], p)))
    assert sums(after) == [(("k",), {"i", "j"})]
    assert after.eqns[-1].op.fn == "div"


def test_a_chain_of_matrices_ends_at_the_vector():
    b = Builder()
    a, m, v = value(b, i=20, k=30), value(b, k=30, j=40), value(b, j=40)
    p = b.map("mul", b.map("mul", a, m), v)
    after = contracted(b.finish(b.reduce(SUM, ["k", "j"], p)))
    assert sums(after) == [(("j",), {"k"}), (("k",), {"i"})]


def test_sums_of_several_statements_are_one_contraction():
    b = Builder()
    a, m, v = value(b, i=20, k=30), value(b, k=30, j=40), value(b, j=40)
    am = b.reduce(SUM, ["k"], b.map("mul", a, m))[0]
    after = contracted(b.finish(b.reduce(SUM, ["j"], b.map("mul", am, v))))
    assert sums(after) == [(("j",), {"k"}), (("k",), {"i"})]


def test_a_value_with_two_readers_stays():
    b = Builder()
    a, m, v = value(b, i=20, k=30), value(b, k=30, j=40), value(b, j=40)
    am = b.reduce(SUM, ["k"], b.map("mul", a, m))[0]
    program = b.finish([b.reduce(SUM, ["j"], b.map("mul", am, v))[0], am])
    assert sums(contracted(program)) == sums(program)


def test_an_outer_product_with_two_readers_is_taken_apart():
    b = Builder()
    t, u, v, w = value(b, i=20, j=9, k=8), value(b, j=9, r=12), value(b, k=8), value(b, i=20, r=12)
    tu = b.map("mul", t, u)
    one = b.reduce(SUM, ["j", "k"], b.map("mul", tu, v))[0]
    two = b.reduce(SUM, ["i", "j"], b.map("mul", tu, w))[0]
    after = contracted(b.finish([one, two]))
    products = [set(e.op.args) for e in after.eqns if isinstance(e.op, Map)]
    assert {u, w} in products
    assert {t, u} not in products


def test_sums_begin_with_what_several_of_them_contract():
    b = Builder()
    t, u, v, w = (
        value(b, i=20, j=9, k=8),
        value(b, j=9, r=12),
        value(b, k=8, r=12),
        value(b, i=20, r=12),
    )
    sizes = [(v, ["j", "k"], u), (w, ["i", "j"], u), (w, ["i", "k"], v)]
    outs = [b.reduce(SUM, dims, b.map("mul", b.map("mul", t, x), y))[0] for x, dims, y in sizes]
    after = merge_equal(contracted(b.finish(outs)))
    made = sums(drop_unused(after))
    assert made.count((("j",), {"i", "k", "r"})) == 1
    assert (("k",), {"i", "r"}) in made
    assert (("i",), {"k", "r"}) in made


def test_an_order_that_saves_nothing_is_kept():
    b = Builder()
    a, m, v = value(b, i=20, k=30), value(b, k=30, j=2), value(b, i=20, k=30)
    program = b.finish(b.reduce(SUM, ["k"], b.map("mul", b.map("mul", a, v), m)))
    assert contract(program) == program


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs_mean_the_same(program):
    assert_same_results(program, contract(program))
