import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from summand.ad import vjp
from summand.dtypes import f64, i32
from summand.ir.builder import Builder
from summand.ir.index import parse
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.nodes import SUM, Interleave, Reduce, ReduceAt, Type
from summand.ir.text import text
from summand.ir.verify import verify
from summand.rewrite.drop_unused import drop_unused
from summand.rewrite.places.window_adjoint import window_adjoint


def array(**sizes):
    return Type.of(f64, sizes)


def scatter(index, places, mode="fill", **sizes):
    b = Builder()
    x = b.param(array(**sizes))
    dims = [d for d in sizes if not d.startswith("keep")]
    forms = {d: parse(t) for d, t in index.items()}
    return b.finish(b.reduce_at(SUM, dims, [x], forms, places, mode))


def random_args(program, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Named(rng.normal(size=[n for _, n in p.type.dims]), tuple(d for d, _ in p.type.dims))
        for p in program.params
    ]


def same(program):
    verify(program)
    new = drop_unused(window_adjoint(program))
    verify(new)
    args = random_args(program)
    for a, b in zip(run(program, args), run(new, args), strict=True):
        np.testing.assert_allclose(a.array, b.array, rtol=1e-12, atol=1e-12)
    return new


def gone(program):
    return not any(isinstance(e.op, ReduceAt) for e in program.eqns)


CASES = [
    ({"u": "x + k - 1"}, {"u": 7}, {"x": 7, "k": 3}),
    ({"u": "x + 2*k"}, {"u": 9}, {"x": 7, "k": 3}),
    ({"u": "2*x + k"}, {"u": 9}, {"x": 4, "k": 3}),
    ({"u": "2*x + k - 1"}, {"u": 8}, {"x": 4, "k": 3}),
    ({"u": "3*x + k"}, {"u": 11}, {"x": 4, "k": 2}),
    ({"u": "3*x + 2*k - 2"}, {"u": 11}, {"x": 4, "k": 5}),
    ({"u": "4*x + 2*k"}, {"u": 20}, {"x": 4, "k": 3}),
    ({"u": "2*x + 2*k + 1"}, {"u": 12}, {"x": 3, "k": 3}),
    ({"u": "6 - x"}, {"u": 7}, {"x": 7}),
    ({"u": "9 - 2*x - k"}, {"u": 10}, {"x": 4, "k": 3}),
    ({"u": "2*x + k + l"}, {"u": 12}, {"x": 4, "k": 3, "l": 2}),
    ({"u": "3*x + 2*k + l"}, {"u": 16}, {"x": 4, "k": 2, "l": 3}),
    ({"x": "2*x + k", "y": "3*y + l - 1"}, {"x": 9, "y": 11}, {"x": 4, "k": 3, "y": 4, "l": 3}),
    ({"r": "q - k + 5"}, {"r": 11}, {"q": 6, "k": 6}),
    ({"u": "b//2"}, {"u": 4}, {"b": 7}),
    ({"u": "b//2", "v": "b%2"}, {"u": 4, "v": 2}, {"b": 8}),
    ({"u": "b//4", "v": "b%2"}, {"u": 3, "v": 2}, {"b": 9}),
    ({"u": "(b//2)%3", "v": "b//6"}, {"u": 3, "v": 2}, {"b": 11}),
    ({"u": "4*b + k"}, {"u": 12}, {"b": 3, "k": 4}),
    ({"u": "x", "v": "x"}, {"u": 4, "v": 4}, {"x": 4}),
    ({"u": "x + k", "v": "x"}, {"u": 6, "v": 4}, {"x": 4, "k": 3}),
    ({"u": "2*x + k", "v": "k"}, {"u": 9, "v": 3}, {"x": 4, "k": 3}),
    ({"u": "2*x + k", "v": "3*x"}, {"u": 9, "v": 10}, {"x": 4, "k": 3}),
    ({"u": "3"}, {"u": 5}, {"x": 4}),
    ({"u": "2*x + keep_c"}, {"u": 10}, {"x": 4, "keep_c": 3}),
    ({"u": "keep_c"}, {"u": 3}, {"x": 4, "keep_c": 3}),
    ({"u": "5*x"}, {"u": 3}, {"x": 4}),
    ({"u": "100*x + k"}, {"u": 250}, {"x": 3, "k": 4}),
]


@pytest.mark.parametrize(("index", "places", "sizes"), CASES)
def test_scatters_become_reductions(index, places, sizes):
    assert gone(same(scatter(index, places, **sizes)))


def test_what_stays():
    for index, places, sizes in [
        ({"u": "(b + c)//2"}, {"u": 4}, {"b": 3, "c": 4}),
        ({"u": "x + k - 1"}, {"u": 4}, {"x": 4, "k": 3}),
    ]:
        mode = "clip" if "x" in sizes else "fill"
        assert not gone(same(scatter(index, places, mode, **sizes)))


coefficients = st.integers(-4, 4)


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(st.tuples(coefficients, coefficients, coefficients), min_size=1, max_size=2),
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.integers(-3, 3),
    st.integers(1, 9),
    st.booleans(),
)
def test_random_affine_places(rows, extents, const, size, swap):
    terms = ["x", "k", "keep_c"]
    index = {}
    for name, row in zip("uv" if not swap else "xk", rows, strict=False):
        form = parse(str(const))
        for c, d in zip(row, terms, strict=True):
            form = form + parse(d) * c
        index[name] = str(form)
    program = scatter(index, dict.fromkeys(index, size), **dict(zip(terms, extents, strict=True)))
    new = same(program)
    assert gone(new) or len(rows) == 2


def convolution(stride):
    b = Builder()
    size = 4
    p = b.param(array(x=(size - 1) * stride + 3, c=2))
    w = b.param(array(kx=3, c=2, o=4))
    read = b.reindex(p, {"x": parse(f"{stride}*x + kx")}, {"x": size, "kx": 3})
    return b.finish(b.reduce(SUM, ["kx", "c"], b.map("mul", read, w)))


def test_the_gradient_of_a_convolution_is_one_contraction_for_each_residue():
    new = same(vjp(convolution(2), (0, 1)))
    parts = next(e.op.parts for e in new.eqns if isinstance(e.op, Interleave))
    sums = [e for e in new.eqns if isinstance(e.op, Reduce)]
    assert all(any(e.out == p for e in sums) for p in parts)
    assert [e.op.dims for e in sums if e.out in parts] == [("kx", "o"), ("kx", "o")]


@pytest.mark.parametrize("sizes", [{}, {"c": 2}])
def test_a_factor_outside_a_sum_does_not_keep_it_from_joining(sizes):
    b = Builder()
    g, w, s = b.param(array(x=4, o=3)), b.param(array(k=3, o=3, c=2)), b.param(array(**sizes))
    total = b.reduce(SUM, ["o"], b.map("mul", g, w))[0]
    places = {"u": parse("2*x + k")}
    new = same(b.finish(b.reduce_at(SUM, ["x", "k"], [b.map("mul", s, total)], places, {"u": 9})))
    assert [e.op.dims for e in new.eqns if isinstance(e.op, Reduce)] == [("k", "o"), ("k", "o")]


def test_golden_stride_one():
    program = scatter({"u": "x + k - 1"}, {"u": 7}, x=7, k=3)
    assert (
        text(same(program))
        == """\
program (%0: f64{k=3,x=7}) {
  %1: f64{k=3,u=7} = reindex %0 {x: -k + u + 1} fill 0
  %2: f64{u=7} = reduce sum {k} %1
  return %2
}
"""
    )


def test_golden_stride_two():
    program = scatter({"u": "2*x + k"}, {"u": 9}, x=4, k=3)
    assert (
        text(same(program))
        == """\
program (%0: f64{k=3,x=4}) {
  %1: f64{k=2,u=5} = reindex %0 {k: 2*k, x: -k + u} fill 0
  %2: f64{u=5} = reduce sum {k} %1
  %3: f64{k=1,u=4} = reindex %0 {k: 2*k + 1, x: -k + u} trusted
  %4: f64{u=4} = reduce sum {k} %3
  %5: f64{u=9} = interleave (u 2) (%2, %4)
  return %5
}
"""
    )


def test_gathered_places_stay():
    b = Builder()
    x, at = b.param(array(p=4)), b.param(Type.of(i32, {"p": 4}))
    program = b.finish(b.reduce_at(SUM, ["p"], [x], {"a": at}, {"a": 3}, "fill"))
    assert window_adjoint(program) == program


def test_second_derivative_of_a_strided_convolution():
    once = vjp(convolution(2), (0, 1))
    assert gone(same(vjp(once, (0, 1, 2))))


def moved(fn, position_first, mode="fill", far=("k",), place="u", places=6):
    """Σ_{x,k} a{x,k} · b{k} into the place x + r, x - r or r - x."""
    b = Builder()
    a, weight = b.param(array(x=7, k=3, keep=2)), b.param(array(k=3))
    distance = b.param(Type.of(i32, {d: {"k": 3, "keep": 2}[d] for d in far}))
    pair = (b.iota("x", 7), distance)
    at = b.map(fn, *(pair if position_first else reversed(pair)))
    value = b.map("mul", a, weight)
    return b.finish(b.reduce_at(SUM, ["x", "k"], [value], {place: at}, {place: places}, mode))


@pytest.mark.parametrize("far", [(), ("k",), ("k", "keep")])
@pytest.mark.parametrize("place", ["u", "x"])
@pytest.mark.parametrize(
    "fn, first", [("add", True), ("add", False), ("sub", True), ("sub", False)]
)
def test_positions_moved_by_a_table(fn, first, far, place):
    program = moved(fn, first, far=far, place=place)
    table = np.random.default_rng(1).integers(-4, 9, [{"k": 3, "keep": 2}[d] for d in far])
    args = [*random_args(program)[:2], Named(table.astype(np.int32), far)]
    new = window_adjoint(program)
    verify(new)
    assert not any(isinstance(e.op, ReduceAt) for e in new.eqns)
    (expected,), (found,) = run(program, args), run(new, args)
    order = sorted(expected.order)
    np.testing.assert_allclose(found.transposed(order).array, expected.transposed(order).array)


def test_moved_positions_that_stay():
    """Where an index out of range is an error, the distance varies with the position, or few of
    many places are reached."""
    b = Builder()
    a, distance = b.param(array(x=7)), b.param(Type.of(i32, {"x": 7}))
    at = b.map("add", b.iota("x", 7), distance)
    varies = b.finish(b.reduce_at(SUM, ["x"], [a], {"u": at}, {"u": 6}, "fill"))
    for program in (moved("add", True, mode="raise"), varies, moved("add", True, places=64)):
        assert any(isinstance(e.op, ReduceAt) for e in window_adjoint(program).eqns)


def test_short_windows_that_move_along_many_places_stay():
    """Four bins of sixty: read from every bin, nearly all would find nothing."""
    b = Builder()
    a, base = b.param(array(x=4, keep=50)), b.param(Type.of(i32, {"keep": 50}))
    at = b.map("add", b.iota("x", 4), base)
    out = b.reduce_at(SUM, ["keep", "x"], [a], {"u": at}, {"u": 60}, "fill")
    program = b.finish(out)
    assert text(window_adjoint(program)) == text(program)
