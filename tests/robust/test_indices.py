"""Indices out of range at run time: an IndexError with value and dim, wherever the read stands."""

import numpy as np
import pytest

import summand as sm
from tests.robust.both import floats

b, i, k, p, t = sm.dims("b i k p t")

THREE = [1.0, 2.0, 3.0]


def at(*values, dtype=np.int64):
    return sm.array(np.array(values, dtype), p)


def in_elementwise(x, index):
    return sm.exp(x[k:index] * 2) + 1


def in_a_reduction(x, index):
    return sm.sum[p](x[k:index] * x[k:index])


def with_another_dim(x, index):
    return (x + sm.zeros({b: 4}))[k:index]


def in_a_recurrence(x, index):
    return sm.recur(lambda h: h[p : p - 1] + x[k:index], over=p, init=0)


def by_the_state_of_a_recurrence(x, index):
    def step(h):
        before = h[p : p - 1]
        return x[k : before.astype(sm.i64) * 0 + index] + 0 * before

    return sm.recur(step, over=p, init=0.0)


def in_a_branch(x, index):
    return sm.cond(sm.sum[k](x) > 0, lambda: x[k:index], lambda: index * 1.0)


def in_a_loop(x, index):
    def body(s):
        count, total = s
        return count + 1, total + x[k:index]

    return sm.while_loop(lambda s: s[0] < 3, body, (0, index * 0.0))[1]


def in_the_test_of_a_loop(x, index):
    return sm.while_loop(lambda s: sm.sum[p](x[k:index]) + s < 1, lambda s: s + 1, 100.0)


def in_a_gradient(x, index):
    return sm.grad(lambda x: sm.sum[p](x[k:index] ** 2))(x)


def in_a_gradient_of_a_gradient(x, index):
    inner = sm.grad(lambda x: sm.sum[p](x[k:index] ** 3))
    return sm.grad(lambda x: sm.sum[k](inner(x) ** 2))(x)


def in_a_forward_derivative(x, index):
    return sm.jvp(lambda x: x[k:index], (x,), (x,))[1]


def in_a_gradient_of_a_recurrence(x, index):
    def loss(x):
        h = sm.recur(lambda h: h[p : p - 1] * 0.5 + x[k:index], over=p, init=0.0)
        return sm.sum[p](h * h)

    return sm.grad(loss)(x)


def in_a_gradient_of_a_branch(x, index):
    def loss(x):
        found = sm.cond(sm.sum[k](x) > 0, lambda: x[k:index], lambda: x[k:index] * 2)
        return sm.sum[p](found * found)

    return sm.grad(loss)(x)


def in_a_checkpoint(x, index):
    return sm.grad(lambda x: sm.sum[p](sm.checkpoint(lambda x: x[k:index] ** 2)(x)))(x)


def under_vmap(x, index):
    rows = x + sm.zeros({b: 2})
    return sm.vmap(lambda r: sm.sum[p](r[k:index]), b)(rows)


def as_a_place(x, index):
    bins = sm.Dim("k", 3)
    return sm.sum[p](index * 1.0, at={bins: index}) + 0 * x[k:bins]


def as_a_place_in_a_gradient(x, index):
    bins = sm.Dim("k", 3)

    def loss(w):
        return sm.sum[bins](sm.sum[p](w * w, at={bins: index}) ** 2)

    return sm.grad(loss)(index * 1.0)


def under_an_unused_mask(x, index):
    return sm.where(index < 3, x[k:index], 0)


READS = [
    in_elementwise,
    in_a_reduction,
    with_another_dim,
    in_a_recurrence,
    by_the_state_of_a_recurrence,
    in_a_branch,
    in_a_loop,
    in_the_test_of_a_loop,
    in_a_gradient,
    in_a_gradient_of_a_gradient,
    in_a_forward_derivative,
    in_a_gradient_of_a_recurrence,
    in_a_gradient_of_a_branch,
    in_a_checkpoint,
    under_vmap,
    as_a_place,
    as_a_place_in_a_gradient,
    under_an_unused_mask,
]


@pytest.mark.parametrize("bad", [3, -1, -(2**62), 2**62 + 1])
@pytest.mark.parametrize("read", READS)
def test_out_of_range(read, bad):
    x, index = floats(THREE, k), at(0, 2, bad, 1)
    compiled = sm.jit(read)
    with pytest.raises(IndexError, match=rf"{bad} .*k.* 3"):
        compiled(x, index)
    with sm.interpret(), pytest.raises(IndexError, match=rf"{bad} .*k.* 3"):
        sm.evaluate(read(x, index))
    sm.evaluate(compiled(x, at(0, 2, 1, 1)))  # in range, the same program is fine


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u4", "u8"])
def test_of_every_integer_type(dtype):
    x, top = floats(THREE, k), np.iinfo(dtype).max
    for bad in (3, top):
        with pytest.raises(IndexError, match="out of range for k"):
            sm.jit(in_elementwise)(x, at(1, bad, dtype=dtype))
    if dtype[0] == "i":
        with pytest.raises(IndexError, match=str(np.iinfo(dtype).min)):
            sm.jit(in_elementwise)(x, at(1, np.iinfo(dtype).min, dtype=dtype))


def test_two_dims_at_once():
    x = floats(np.zeros((3, 5)), i, k)
    f = sm.jit(lambda x, u, v: x[i:u, k:v])
    with pytest.raises(IndexError, match=r"3 .*i.* 3"):
        f(x, at(0, 3), at(4, 4))
    with pytest.raises(IndexError, match=r"5 .*k.* 5"):
        f(x, at(0, 2), at(4, 5))
    assert f(x, at(0, 2), at(4, 0)).numpy().shape == (2,)


def test_a_branch_that_is_not_taken_reads_nothing():
    def f(x, index, flag):
        return sm.cond(flag > 0, lambda: x[k:index], lambda: index * 1.0)

    x, index = floats(THREE, k), at(0, 99)
    np.testing.assert_array_equal(sm.jit(f)(x, index, -1.0).numpy(), [0, 99])
    with pytest.raises(IndexError, match="99"):
        sm.jit(f)(x, index, 1.0)


def test_a_loop_whose_index_runs_away_ends():
    links = sm.array(np.array([1, 2, 7]), k)
    with pytest.raises(IndexError, match=r"7 .*k.* 3"):
        sm.jit(lambda n: sm.while_loop(lambda s: s < 100, lambda s: n[k:s], 0))(links)


def test_the_error_names_the_line_after_a_warm_start():
    x = floats(THREE, k)
    for _ in range(2):
        with pytest.raises(IndexError, match=r"test_indices\.py:"):
            sm.jit(in_elementwise)(x, at(0, 5))


def test_many_bad_indices_among_many():
    index = np.zeros(100_003, np.int64)
    index[77_777] = -5
    with pytest.raises(IndexError, match="-5"):
        sm.jit(in_a_reduction)(floats(THREE, k), sm.array(index, p))


def test_modes_that_mean_it():
    x, index = floats(THREE, k), at(-9, 1, 2**40)
    clip = sm.jit(lambda x, index: x.at("clip")[k:index])
    fill = sm.jit(lambda x, index: x.fill(7)[k:index])
    np.testing.assert_array_equal(clip(x, index).numpy(), [1, 2, 3])
    np.testing.assert_array_equal(fill(x, index).numpy(), [7, 2, 7])
    slope = sm.jit(sm.grad(lambda x, index: sm.sum[p](x.fill(7)[k:index] * floats(THREE, p))))
    np.testing.assert_array_equal(slope(x, index).numpy(), [0, 2, 0])
    slope = sm.jit(sm.grad(lambda x, index: sm.sum[p](x.at("clip")[k:index] * floats(THREE, p))))
    np.testing.assert_array_equal(slope(x, index).numpy(), [1, 2, 3])


@pytest.mark.parametrize(
    "far,kind",
    [
        (2**31 - 40, "int32"),
        (2**31 - 40, "int64"),
        (2**40, "int64"),
        (2**62, "int64"),
        (-(2**31), "int64"),
        (-(2**62), "int64"),
    ],
)
def test_places_moved_far_outside_are_outside(far, kind):
    """A distance for each row, between 0 and what does not fit 32 bits."""
    i, x = sm.dims("i x")
    moves = np.array([0, 3, far, -3, far + 5, -far], dtype=kind)
    rows = np.arange(6 * 37, dtype=np.float32).reshape(6, 37) + 1
    a, d = sm.array(rows, i, x), sm.array(moves, i)
    found = sm.jit(lambda a, d: a.fill(0)[x : x + d] * 2)(a, d).numpy(i, x)
    wanted = np.zeros_like(rows)
    for row, move in enumerate(moves.tolist()):
        for place in range(37):
            if 0 <= place + move < 37:
                wanted[row, place] = 2 * rows[row, place + move]
    np.testing.assert_array_equal(found, wanted)
