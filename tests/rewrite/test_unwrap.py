import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from summand.ad import vjp
from summand.dtypes import bf16, bool_, complex64, f32, f64, i32
from summand.ir.builder import Builder
from summand.ir.index import parse
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import SUM, Monoid, ReduceAt, Type
from summand.ir.text import text
from summand.ir.verify import verify
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.places.unwrap import unwrap
from summand.rewrite.places.window_adjoint import window_adjoint
from summand.rewrite.simplify.simplify import simplify
from tests.rewrite.agreement import assert_same_results


def array(**sizes):
    return Type.of(f64, sizes)


def read(index, given, mode="trusted", fill=0, **sizes):
    b = Builder()
    u = b.param(array(**given))
    forms = {d: parse(t) for d, t in index.items()}
    return b.finish([b.reindex(u, forms, sizes, mode, fill)])


def args_of(program, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Named(rng.normal(size=[n for _, n in p.type.dims]), tuple(d for d, _ in p.type.dims))
        for p in program.params
    ]


def unwrapped(program, exact=True):
    verify(program)
    new = unwrap(program)
    verify(new)
    args = args_of(program)
    for a, b in zip(run(program, args), run(new, args), strict=True):
        if exact:
            np.testing.assert_array_equal(a.array, b.array)
        else:
            np.testing.assert_allclose(a.array, b.array, rtol=1e-13)
    return new


def test_a_periodic_read_becomes_two():
    new = unwrapped(read({"y": "(y + 1) % 5"}, {"y": 5, "x": 2}, y=5))
    assert text(new) == (
        "program (%0: f64{x=2,y=5}) {\n"
        "  %1: f64{x=2,y=5} = reindex %0 {y: y + 1} fill -0.0\n"
        "  %2: f64{x=2,y=5} = reindex %0 {y: y - 4} fill -0.0\n"
        "  %3: f64{x=2,y=5} = add %1 %2\n"
        "  return %3\n"
        "}\n"
    )


READS = [
    ({"y": "(y + 4) % 5"}, {"y": 5}, {"y": 5}),
    ({"y": "(-y) % 5"}, {"y": 5}, {"y": 5}),
    ({"y": "(y + k + 6) % 7"}, {"y": 7}, {"y": 5, "k": 3}),
    ({"y": "(y + 3) % 8", "x": "(x + 5) % 6"}, {"y": 8, "x": 6}, {"y": 8, "x": 6}),
    ({"y": "2*((y + 1) % 4) + k"}, {"y": 8}, {"y": 4, "k": 2}),
    ({"y": "(2*y + 3) % 8"}, {"y": 8}, {"y": 4}),
]


@pytest.mark.parametrize("index, given, sizes", READS, ids=[str(c[0]) for c in READS])
def test_reads_keep_every_bit(index, given, sizes):
    unwrapped(read(index, given, **sizes))
    unwrapped(read(index, given, "clip", **sizes))
    unwrapped(read(index, given, "fill", 7.5, **sizes))


def test_a_remainder_that_may_leave_its_dim_keeps_its_fill():
    unwrapped(read({"y": "(y + 3) % 8"}, {"y": 5}, "fill", -1.0, y=8))
    unwrapped(read({"y": "(y + 3) % 8"}, {"y": 5}, "clip", y=8))


@pytest.mark.parametrize("dtype", [f32, bf16, i32, bool_, complex64])
def test_every_type_keeps_its_bits(dtype):
    b = Builder()
    u = b.param(Type.of(dtype, {"x": 8, "y": 3}))
    program = b.finish([b.reindex(u, {"x": parse("(x + 3) % 8")}, {"x": 8})])
    assert_same_results(program, unwrap(program), exact=True)


def test_signs_of_zeros_stay():
    program = read({"y": "(y + 1) % 4"}, {"y": 3}, "fill", 0, y=4)
    (found,) = run(unwrap(program), [Named(np.array([0.0, -0.0, 1.0]), ("y",))])
    np.testing.assert_array_equal(np.signbit(found.array), [True, False, False, False])


def test_blocks_and_long_wraps_stay():
    for index, size in (("y % 4", 16), ("(y + 1) % 3", 12), ("(y + 1)//4", 8)):
        program = read({"y": index}, {"y": 12}, y=size)
        assert text(unwrap(program)) == text(program)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(-20, 20), st.sampled_from([1, -1]), st.integers(0, 1))
def test_the_gradient_of_a_rotation_has_no_scatter(n, by, sign, extra):
    """Two reads and, by their adjoints, two reads again."""
    b = Builder()
    u = b.param(array(y=n, x=2))
    form = (parse("y") * sign + by) % n
    out = b.reindex(u, {"y": form}, {"y": max(1, n - extra)})
    program = b.finish([b.map("mul", out, out)])
    back = vjp(program, [0])
    new = drop_unused(window_adjoint(unwrapped(simplify(back), exact=False)))
    verify(new)
    args = args_of(program)
    out_dims = tuple(d for d, _ in program.results[0].type.dims)
    seed = Named(np.ones([k for _, k in program.results[0].type.dims]), out_dims)
    for a, c in zip(run(back, [*args, seed]), run(new, [*args, seed]), strict=True):
        np.testing.assert_allclose(a.array, c.array, rtol=1e-12)
    assert not any(isinstance(e.op, ReduceAt) for e in new.eqns)


def test_two_wrapped_places():
    b = Builder()
    v = b.param(array(y=5, x=4))
    forms = {"y": parse("(y + 2) % 5"), "x": parse("(x + 3) % 4")}
    program = b.finish(b.reduce_at(SUM, ["y", "x"], [v], forms, {"y": 5, "x": 4}))
    new = drop_unused(window_adjoint(unwrapped(program)))
    assert not any(isinstance(e.op, ReduceAt) for e in new.eqns)


def test_other_monoids_and_modes_stay():
    b = Builder()
    v = b.param(array(y=5))
    form = {"y": parse("(y + 2) % 5")}
    program = b.finish(b.reduce_at(SUM, ["y"], [v], form, {"y": 5}, "clip"))
    assert text(unwrap(program)) == text(program)


def test_a_monoid_of_several_values_stays():
    c = Builder()
    a, _, x, y = (c.param(array()) for _ in range(4))
    affine = Monoid("affine", (1.0, 0.0), c.finish([c.map("mul", x, a), c.map("add", x, y)]))
    b = Builder()
    v = b.param(array(y=5))
    form = {"y": parse("(y + 2) % 5")}
    program = b.finish(b.reduce_at(affine, ["y"], [v, v], form, {"y": 5}))
    assert text(unwrap(program)) == text(program)
