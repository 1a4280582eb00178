"""Dims, index expressions, inferred extents, re-indexing."""

import numpy as np
import pytest

import summand as sm
from summand.errors import ArgumentError, DimError, DTypeError, IndexRangeError

i, j, k, t, x, kx = sm.dims("i j k t x kx")


def ramp(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def same(found, expected, *dims):
    np.testing.assert_array_equal(found.numpy(*dims), expected)


# ---- dims


def test_a_dim_is_an_identity():
    first, second = sm.Dim("k"), sm.Dim("k")
    assert first == first
    assert first != second
    assert {first: 1, second: 2}[second] == 2
    assert repr(first) == "k"
    assert bool(first == first) is True


def test_dims_takes_blanks_and_commas():
    assert [d.name for d in sm.dims("a, b c")] == ["a", "b", "c"]


def test_what_is_no_name_no_size_no_dim():
    for names in (3, ["n", "k"], None):
        with pytest.raises(ArgumentError, match="names in one string"):
            sm.dims(names)
    for size in (-1, 2.5, "2", True):
        with pytest.raises(ArgumentError, match="is not a size"):
            sm.Dim("k", size)
    a = sm.array(ramp(2, 2), i, k)
    with pytest.raises(ArgumentError, match=r"numpy\(\) takes a dim, not str"):
        a.numpy("i", "k")
    for index in ([0, 1], 1.0, None, True, sm.array(np.array([True, False]), k)):
        with pytest.raises((ArgumentError, DTypeError), match="the index of k is"):
            a[k:index]
    with pytest.raises(ArgumentError, match="an index names its dim"):
        a[k:0:1]
    with pytest.raises(DimError, match="indexed twice"):
        a[k:0, k:1]


def test_dims_survive_their_arrays_and_arrays_their_dims():
    a = sm.array(ramp(3), sm.Dim("gone"))
    (found,) = a.dims
    assert found.name == "gone"
    assert a.sizes == {found: 3}
    same(sm.sum[found](a), 3.0)


def test_order_of_dims_is_not_observable():
    a = ramp(3, 4)
    first, second = sm.array(a, i, k), sm.array(a.T, k, i)
    assert bool(sm.all[i, k](first == second))
    same(first + second, 2 * a, i, k)


def test_a_size_of_one_is_a_size_like_others():
    with pytest.raises(DimError, match="k has two sizes"):
        (sm.array(ramp(3, 1), i, k) + sm.array(ramp(4), k)).numpy(i, k)


def test_elementwise_takes_the_union_of_dims():
    a, b = sm.array(ramp(3), i), sm.array(ramp(4), k)
    same(a * b, np.outer(ramp(3), ramp(4)), i, k)
    assert set((a * b).dims) == {i, k}


def test_eq_is_the_kronecker_delta():
    a = sm.array(ramp(3, 3), i, j)
    same(sm.sum[i, j](a * sm.eq(i, j)), np.trace(ramp(3, 3)))


def test_unicode_and_keyword_like_names():
    theta = sm.Dim("θ")
    same(sm.exp(sm.array(np.zeros(2), theta)), np.ones(2), theta)


# ---- a dim as a number


def test_a_dim_is_its_index():
    a = sm.array(ramp(3, 4), i, k)
    rows, columns = np.indices((3, 4))
    same(a * (i - k), ramp(3, 4) * (rows - columns), i, k)
    same(a + i * k, ramp(3, 4) + rows * columns, i, k)
    same(sm.where(i >= k, a, 0), np.tril(ramp(3, 4)), i, k)
    same(a + (i % 2) + i // 2 + -k, ramp(3, 4) + rows % 2 + rows // 2 - columns, i, k)
    same(a * (i / 2), ramp(3, 4) * (rows / 2), i, k)
    same(2**i + 0 * a, 2**rows + 0 * a.numpy(i, k), i, k)


def test_sized_dims_stand_alone():
    w = sm.Dim("w", 4)
    same(w * w, np.arange(4) ** 2, w)
    same(sm.sum[w](w), 6)


def test_unsized_expressions_take_sizes_from_what_they_meet():
    mask = i >= j
    for n in (3, 5):
        a = sm.array(np.ones((n, n)), i, j)
        same(sm.where(mask, a, 0), np.tril(np.ones((n, n))), i, j)


def test_positions_at_other_positions():
    later = (i >= j)[i : t + 1]
    a = sm.array(np.ones((3, 4)), t, j)
    rows, columns = np.indices((3, 4))
    same(sm.where(later, a, 0), rows + 1 >= columns, t, j)


def test_a_reduction_may_wait_for_sizes():
    a = sm.array(ramp(4), i)
    running = sm.sum[j](sm.where(j <= i, a[i:j], 0))
    same(running * sm.array(np.ones(4), i), np.cumsum(ramp(4)), i)


# ---- re-indexing


def test_rename_select_reverse_shift():
    a = sm.array(ramp(3, 4), i, k)
    same(a[k:t], ramp(3, 4), i, t)
    same(a[i:1], ramp(3, 4)[1], k)
    same(a[i:-1, k:-2], ramp(3, 4)[-1, -2])
    same(a[k : 3 - k], ramp(3, 4)[:, ::-1], i, k)
    same(a[k : k + 1], ramp(3, 4)[:, 1:], i, k)
    same(a[k : np.int64(2)], ramp(3, 4)[:, 2], i)


def test_a_sized_dim_reads_a_prefix():
    a, head = sm.array(ramp(5), x), sm.Dim("head", 3)
    same(a[x:head], ramp(5)[:3], head)
    same(a[x : head + 2], ramp(5)[2:], head)
    same(a[x : 2 * head], ramp(5)[::2], head)
    with pytest.raises(IndexRangeError, match="reads x at 0 … 5"):
        a[x : sm.Dim("head", 6)]


def test_swap_and_diagonal():
    a = sm.array(ramp(3, 3), i, k)
    same(a[i:k, k:i], ramp(3, 3).T, i, k)
    same(a[i:k], np.diag(ramp(3, 3)), k)


def test_windows():
    image, kernel = ramp(9), np.array([1.0, 2, 3], np.float32)
    P, W = sm.array(image, x), sm.array(kernel, kx)
    for stride, dilation in [(1, 1), (2, 1), (1, 2), (3, 2)]:
        count = (9 - 1 - 2 * dilation) // stride + 1
        expected = [
            sum(image[stride * p + dilation * q] * kernel[q] for q in range(3))
            for p in range(count)
        ]
        same(sm.sum[kx](P[x : stride * x + dilation * kx] * W), expected, x)


def test_a_pooling_window_says_its_size():
    w = sm.Dim("w", 2)
    a = sm.array(ramp(7), x)
    same(sm.max[w](a[x : 2 * x + w]), [1, 3, 5], x)


def test_bare_uses_come_first():
    a, b = ramp(9), np.ones(3, np.float32)
    same(sm.array(a, x)[x : x + 2] * sm.array(b, x), a[2:5], x)


def test_blocks():
    block, inside = sm.Dim("block"), sm.Dim("inside", 4)
    a = sm.array(ramp(12), x)
    split = a[x : 4 * block + inside]
    same(split, ramp(12).reshape(3, 4), block, inside)
    back = split[block : x // 4, inside : x % 4]
    same(back, ramp(12), x)


def test_repeat_and_tile():
    a = sm.array(ramp(3), x)
    same(a[x : x // 2], np.repeat(ramp(3), 2), x)
    with pytest.raises(DimError, match="nothing gives x a size"):
        a[x : x % 3].numpy(x)
    same(a[x : x % 3] + sm.array(np.zeros(7), x), np.resize(ramp(3), 7), x)


def test_fill_keeps_the_arrays_own_size():
    a, w = ramp(5), np.array([1.0, 2, 3], np.float32)
    found = sm.sum[kx](sm.array(a, x).fill(0)[x : x + kx - 1] * sm.array(w, kx))
    same(found, np.convolve(a, w[::-1], "same"), x)
    same(sm.array(a, x).fill(7)[x : x - 2], [7, 7, 0, 1, 2], x)
    same(sm.array(a, x).fill(-1)[x:9], -1)
    step = sm.array(np.array([1, 2]), k)
    same(sm.array(a, x).fill(7)[x : x - step], [[7, 7], [0, 7], [1, 0], [2, 1], [3, 2]], x, k)


def test_clip_repeats_the_edge():
    a = sm.array(ramp(4), x)
    same(a.at(mode="clip")[x : x - 2], [0, 0, 0, 1], x)


def test_gather():
    a = sm.array(ramp(4, 3), i, k)
    rows = np.array([[3, 0], [1, 1]])
    index = sm.array(rows, j, t)
    same(a[i:index], ramp(4, 3)[rows], j, t, k)
    columns = sm.array(np.array([0, 2, 1, 0]), i)
    same(a[k:columns], ramp(4, 3)[range(4), [0, 2, 1, 0]], i)
    same(a[i:index, k:1], ramp(4, 3)[rows, 1], j, t)


def test_gather_beside_forms_and_windows():
    a = ramp(6, 5)
    starts = np.array([0, 3, 2])
    w = sm.Dim("w", 3)
    found = sm.array(a, i, k)[i : sm.array(starts, j) + w, k : k + 1]
    expected = np.stack([a[s : s + 3, 1:] for s in starts])
    same(found, expected, j, w, k)


def test_gather_modes():
    a = sm.array(ramp(3), i)
    index = sm.array(np.array([-1, 1, 5]), j)
    same(a.at(mode="clip")[i:index], [0, 1, 2], j)
    same(a.at(mode="fill")[i:index], [0, 1, 0], j)
    same(a.fill(9)[i:index], [9, 1, 9], j)
    with pytest.raises(IndexRangeError, match="-1 is out of range for i"):
        a[i:index].numpy(j)


def test_reads_that_cannot_be_in_range():
    a = sm.array(ramp(4), x)
    with pytest.raises(IndexRangeError):
        a[x : x - 1]
    with pytest.raises(IndexRangeError):
        a[x:-5]
    with pytest.raises(IndexRangeError):
        sm.sum[kx](a[x : x + kx] * sm.array(ramp(6), kx))


def test_zero_sizes():
    a = sm.array(ramp(0, 3), i, k)
    same(sm.sum[i](a), np.zeros(3), k)
    same(sm.sum[k](a), np.zeros(0), i)
    same(a[k : k + 1], np.zeros((0, 2)), i, k)
    one = sm.array(ramp(1), t)
    same(one[t : t + 1], np.zeros(0), t)


def test_reads_of_arrays_without_elements():
    empty = sm.array(ramp(0), i)
    index = sm.array(np.array([0, 1]), j)
    with pytest.raises(IndexRangeError, match="which has none"):
        empty[i:index]
    with pytest.raises(IndexRangeError, match="which has none"):
        empty.at(mode="clip")[i:index]
    same(empty.fill(3)[i:index], [3, 3], j)
    same(empty.fill(3)[i : t - 1] + sm.array(ramp(2), t), [3, 4], t)
    same(empty[i : sm.array(np.zeros(0, int), j)], np.zeros(0), j)


def test_fill_is_of_the_arrays_type():
    numbers = sm.array(np.array([1, 2], np.uint8), i)
    same(numbers.fill(255)[i : i - 1], [255, 1], i)
    for bad in (256, -1, 0.5, -sm.inf):
        with pytest.raises(DTypeError):
            numbers.fill(bad)
    with pytest.raises(DTypeError):
        sm.array(ramp(2), i).fill(1j)
    same(sm.array(np.array([True]), i).fill(True)[i : i - 1], [True], i)


def test_quasi_affine_reads_are_proven_exactly():
    a = sm.array(ramp(4), x)
    same(a[x : t - t // 2 * 2] + sm.array(np.zeros(5), t), [0, 1, 0, 1, 0], t)
    same(a[x : t // 2 + t % 2] + sm.array(np.zeros(7), t), [0, 1, 1, 2, 2, 3, 3], t)


def test_index_expressions_print():
    assert repr(2 * x + kx - 1) in ("kx + 2*x - 1", "2*x + kx - 1")
    assert repr(x) == "x"
