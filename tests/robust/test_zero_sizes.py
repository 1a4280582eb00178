"""Dims of size zero in every construct: what NumPy gives, compiled as interpreted."""

import numpy as np
import pytest

import summand as sm
from summand.errors import DimError, IndexRangeError
from tests.robust.both import agree, compiled, floats

i, j, k, p, t, x, w = sm.dims("i j k p t x w")

NONE = np.zeros(0)
BY_NONE = np.zeros((3, 0))
FOUR = np.arange(4.0)


def integers(values, *dims):
    return sm.array(np.asarray(values, np.int32), *dims)


MAPS = {
    "unary": lambda a: sm.exp(a) + 1,
    "where": lambda a: sm.where(a > 0, a, -a),
    "position": lambda a: a + k,
    "outer": lambda a: a + floats(FOUR, j),
    "convert": lambda a: a.astype(sm.i32),
    "rename": lambda a: a[k:j],
    "fill": lambda a: a.fill(7)[k : k - 1],
    "cond": lambda a: sm.cond(sm.sum[k](a) > 0, lambda: a, lambda: a + 1),
    "while": lambda a: sm.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + 1), (0, a))[1],
    "sort": lambda a: sm.sort(a, k),
    "argsort": lambda a: sm.argsort(a, k),
    "random": lambda a: a + sm.random.normal(sm.random.key(1), {k: 0}),
    "complex": lambda a: sm.abs(sm.complex(a, a)),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps(name):
    (found,) = agree(MAPS[name], floats(NONE, k))
    assert found.size == 0


REDUCTIONS = {
    "sum": (lambda a: sm.sum[k](a), 0.0),
    "prod": (lambda a: sm.prod[k](a), 1.0),
    "any": (lambda a: sm.any[k](a > 0), False),
    "all": (lambda a: sm.all[k](a > 0), True),
    "own": (lambda a: sm.Monoid(lambda u, v: u + v, 0.0)[k](a), 0.0),
    "logsumexp": (lambda a: sm.logsumexp[k](a), -np.inf),
    "mean": (lambda a: sm.mean[k](a), np.nan),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_over_nothing(name):
    over, expected = REDUCTIONS[name]
    (one,) = agree(over, floats(NONE, k))
    np.testing.assert_array_equal(one, expected)
    (three,) = agree(over, floats(BY_NONE, i, k))
    np.testing.assert_array_equal(three, [expected] * 3)
    (none,) = agree(over, floats(np.zeros((0, 3)), i, k))
    assert none.shape == (0,)


@pytest.mark.parametrize(
    "reduce", [sm.max, sm.min, sm.argmax, sm.argmin], ids=["max", "min", "argmax", "argmin"]
)
def test_extremes_over_nothing_are_errors(reduce):
    with pytest.raises(DimError, match="k"):
        reduce[k](floats(BY_NONE, i, k))
    (found,) = agree(lambda a: reduce[k](a), floats(np.zeros((0, 3)), i, k))
    assert found.shape == (0,)


@pytest.mark.parametrize("sizes", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (3, 0, 0)])
def test_contractions(sizes):
    n, m, o = sizes
    a, b = floats(np.ones((n, m)), i, k), floats(np.ones((m, o)), k, j)
    (found,) = agree(lambda a, b: sm.sum[k](a * b), a, b)
    assert found.shape == (n, o)
    assert not found.any()
    loss = sm.grad(lambda a, b: sm.sum[i, j](sm.exp(sm.sum[k](a * b))), (0, 1))
    d_a, d_b = agree(loss, a, b)
    assert d_a.shape == (n, m) and d_b.shape == (o, m)  # dims by name: j, k


def test_filled_nothing_is_the_fill():
    five = sm.Dim("five", 5)
    (found,) = agree(lambda a: a.fill(7)[k : five - 1], floats(NONE, k))
    np.testing.assert_array_equal(found, [7] * 5)


def test_blocks_of_nothing():
    two = sm.Dim("two", 2)
    (found,) = agree(lambda a: a[k : 2 * p + two], floats(NONE, k))
    assert found.shape == (0, 2)


def test_windows():
    def window(a, weights):
        return sm.sum[w](a[x : x + w] * weights)

    (found,) = agree(window, floats(np.ones(1), x), floats(np.ones(2), w))
    assert found.shape == (0,)
    gradients = sm.grad(lambda a, b: sm.sum[x](window(a, b) ** 2), (0, 1))
    for found in agree(gradients, floats(np.ones(1), x), floats(np.ones(2), w)):
        assert not found.any()


def test_a_constant_index_into_nothing():
    with pytest.raises(IndexRangeError):
        floats(NONE, k)[k:0]


@pytest.mark.parametrize("mode", ["raise", "clip", "fill"])
def test_gathers_at_no_places(mode):
    nowhere = integers([], p)
    for source in (floats(FOUR, k), floats(NONE, k)):
        (found,) = agree(lambda a, at: a.at(mode=mode)[k:at], source, nowhere)
        assert found.shape == (0,)
        (found,) = agree(sm.grad(lambda a, at: sm.sum[p](a[k:at] ** 2)), source, nowhere)
        assert found.shape == source.numpy().shape and not found.any()


def test_gathers_from_nothing():
    def read(mode):
        return lambda a, at: a.at(mode=mode)[k:at]

    somewhere = integers([0, -1], p)
    with pytest.raises(IndexError, match="an element of k is read, which has none"):
        compiled(read("raise"), floats(NONE, k), somewhere)
    (found,) = agree(read("fill"), floats(NONE, k), somewhere)
    np.testing.assert_array_equal(found, [0, 0])
    with pytest.raises(IndexError, match="k"):
        compiled(read("clip"), floats(NONE, k), somewhere)


def test_reduction_into_places():
    bins, none = sm.Dim("bins", 3), sm.Dim("none", 0)

    def into(dim):
        return lambda a, at: sm.sum[p](a, at={dim: at})

    (found,) = agree(into(bins), floats(NONE, p), integers([], p))
    np.testing.assert_array_equal(found, np.zeros(3))
    (found,) = agree(into(none), floats(NONE, p), integers([], p))
    assert found.shape == (0,)
    with pytest.raises(IndexError, match="none"):
        compiled(into(none), floats(FOUR, p), integers([0, 0, 0, 0], p))
    (found,) = agree(
        lambda a, at: sm.sum[p](a, at={none: at}, mode="drop"),
        floats(FOUR, p),
        integers([0, 0, 0, 0], p),
    )
    assert found.shape == (0,)


def decay(a):
    return sm.recur(lambda h: h[t : t - 1] * 0.5 + a, over=t, init=1.0)


def test_recurrence_of_no_steps():
    (found,) = agree(decay, floats(NONE, t))
    assert found.shape == (0,)
    (found,) = agree(lambda a: sm.sum[t](decay(a)), floats(np.zeros((3, 0)), i, t))
    np.testing.assert_array_equal(found, np.zeros(3))
    (found,) = agree(sm.grad(lambda a: sm.sum[t](decay(a) ** 2)), floats(NONE, t))
    assert found.shape == (0,)


def test_recurrence_of_no_lanes():
    (found,) = agree(decay, floats(np.zeros((4, 0)), t, i))
    assert found.shape == (0, 4)
    (found,) = agree(sm.grad(lambda a: sm.sum[i, t](decay(a) ** 2)), floats(np.zeros((4, 0)), t, i))
    assert found.shape == (0, 4)


def test_recurrence_of_two_dims_one_empty():
    def edit(cost):
        return sm.recur(
            lambda d: sm.minimum(d[i : i - 1], d[j : j - 1]) + cost, over=(i, j), init=1.0
        )

    for shape in [(0, 3), (3, 0), (0, 0)]:
        (found,) = agree(edit, floats(np.zeros(shape), i, j))
        assert found.shape == shape


@pytest.mark.parametrize("name", [n for n in MAPS if n in ("unary", "where", "outer", "cond")])
def test_gradients(name):
    def loss(a):
        out = MAPS[name](a)
        return sm.sum[out.dims](out)

    (found,) = agree(sm.grad(loss), floats(NONE, k))
    assert found.shape == (0,)


def test_forward_derivatives():
    a = floats(NONE, k)
    value, slope = agree(lambda a: sm.jvp(lambda b: sm.exp(b), (a,), (a,)), a)
    assert value.shape == slope.shape == (0,)
    (found,) = agree(lambda a: sm.jacobian(lambda b: sm.exp(b[k:j]))(a), a)
    assert found.shape == (0, 0)


def test_softmax_of_nothing():
    def softmax(z):
        e = sm.exp(z - sm.max[k](z))
        return e / sm.sum[k](e)

    (found,) = agree(softmax, floats(np.zeros((0, 4)), i, k))
    assert found.shape == (0, 4)
    with pytest.raises(DimError):
        softmax(floats(BY_NONE, i, k))
