"""Reductions, computed places, user monoids, order."""

import numpy as np
import pytest

import summand as sm
from summand.errors import ArgumentError, DimError, DTypeError, IndexRangeError

i, j, k, p = sm.dims("i j k p")
RNG = np.random.default_rng(3)
A = RNG.standard_normal((3, 4, 5))


def of(values, *dims, dtype=None):
    return sm.array(np.asarray(values), *dims, dtype=dtype)


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "mean", "var", "std"])
def test_named_reductions_are_numpys(name):
    a = of(A, i, j, k)
    np.testing.assert_allclose(
        getattr(sm, name)[j](a).numpy(i, k), getattr(np, name)(A, axis=1), rtol=1e-12
    )
    np.testing.assert_allclose(
        getattr(sm, name)[k, i](a).numpy(), getattr(np, name)(A, axis=(0, 2)), rtol=1e-12
    )
    np.testing.assert_allclose(float(getattr(sm, name)[a.dims](a)), getattr(np, name)(A))


def test_any_all_norm_logsumexp():
    a = of(A, i, j, k)
    np.testing.assert_array_equal(sm.any[j, k](a > 1).numpy(), (A > 1).any((1, 2)))
    np.testing.assert_array_equal(sm.all[j](a > -1).numpy(i, k), (A > -1).all(1))
    np.testing.assert_array_equal(sm.any[i](of([0, 2], i)).numpy(), True)
    np.testing.assert_allclose(sm.norm[k](a).numpy(i, j), np.linalg.norm(A, axis=2))
    big = A * 1000
    expected = np.log(np.exp(big - big.max(1, keepdims=True)).sum(1)) + big.max(1)
    np.testing.assert_allclose(sm.logsumexp[j](of(big, i, j, k)).numpy(i, k), expected)
    edges = of([[-np.inf, -np.inf], [np.inf, 1.0], [np.nan, 0.0]], i, j)
    np.testing.assert_array_equal(sm.logsumexp[j](edges).numpy(), [-np.inf, np.inf, np.nan])


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"]
)
def test_integers_add_up_in_64_bits(dtype):
    values = np.ones(300).astype(dtype)
    found = sm.sum[i](of(values, i)).numpy()
    assert found.dtype == values.sum().dtype
    assert found == 300
    assert sm.mean[i](of(values, i)).dtype is sm.f32


def test_16_bit_floats():
    values = np.full(5000, 20.0, np.float16)
    assert float(sm.mean[i](of(values, i))) == 20.0
    assert sm.mean[i](of(values, i)).dtype is sm.f16
    assert sm.sum[i](of(values, i)).dtype is sm.f16
    ones = np.ones(4097, np.float32)  # f16 counts by ones to 2048, bf16 to 256
    assert float(sm.sum[i](of(ones, i, dtype="f16"))) == 4096.0
    assert float(sm.sum[i](of(ones, i, dtype="bf16"))) == 4096.0


def test_nothing_to_fold():
    empty = of(np.zeros((0, 3)), i, j)
    np.testing.assert_array_equal(sm.sum[i](empty).numpy(), np.zeros(3))
    np.testing.assert_array_equal(sm.prod[i](empty).numpy(), np.ones(3))
    assert bool(sm.all[i, j](empty > 0)) is True
    for reduction in (sm.max, sm.min, sm.argmax):
        with pytest.raises(DimError, match="no elements"):
            reduction[i](empty)
    np.testing.assert_array_equal(sm.max[j](empty).numpy(), np.zeros(0))
    assert sm.sum[()](empty).dims == empty.dims


def test_nan_wins():
    a = of([1.0, np.nan, 3.0], i)
    assert np.isnan(float(sm.max[i](a)))
    assert np.isnan(float(sm.min[i](a)))
    assert int(sm.argmax[i](a)) == np.argmax([1.0, np.nan, 3.0])


def test_argmax_argmin():
    a = RNG.integers(0, 4, (3, 4, 5))
    for dtype in (np.int64, np.float32, np.uint8):
        x = of(a.astype(dtype), i, j, k)
        np.testing.assert_array_equal(sm.argmax[j](x).numpy(i, k), a.argmax(1))
        np.testing.assert_array_equal(sm.argmin[j](x).numpy(i, k), a.argmin(1))
    first, second = sm.argmax[j, k](of(a, i, j, k))
    flat = a.reshape(3, -1).argmax(1)
    np.testing.assert_array_equal(first.numpy(), flat // 5)
    np.testing.assert_array_equal(second.numpy(), flat % 5)
    assert int(sm.argmax[i](of([-np.inf, -np.inf], i))) == 0
    np.testing.assert_array_equal(sm.argmax[i](of([False, True], i)).numpy(), 1)


def test_refused():
    a = of(A, i, j, k)
    with pytest.raises(DimError, match="names a dim twice"):
        sm.sum[i, i](a)
    with pytest.raises(ArgumentError, match="takes dims"):
        sm.sum[0](a)
    with pytest.raises(DTypeError, match="has no order"):
        sm.max[i](of([1j], i))
    with pytest.raises(DimError, match="has no dim p"):
        sm.argmax[p](a)


# ---- places


def test_histogram_and_segments():
    ids = np.array([2, 0, 2, 1, 2])
    values = RNG.standard_normal((5, 3))
    bins = sm.Dim("bins", 4)
    expected = np.zeros((4, 3))
    np.add.at(expected, ids, values)
    found = sm.sum[p](of(values, p, k), at={bins: of(ids, p)})
    np.testing.assert_allclose(found.numpy(bins, k), expected)
    counts = sm.sum[p](1, at={bins: of(ids, p)})
    np.testing.assert_array_equal(counts.numpy(), [1, 1, 3, 0])
    top = sm.max[p](of(values, p, k), at={bins: of(ids, p)})
    assert top.numpy(bins, k)[3, 0] == -np.inf
    np.testing.assert_allclose(top.numpy(bins, k)[2], values[ids == 2].max(0))


def test_sizes_of_places():
    ids, bins = of([0, 1], p), sm.Dim("bins")
    found = sm.sum[p](of([1.0, 2.0], p), at={bins: ids}, sizes={bins: 3})
    np.testing.assert_array_equal(found.numpy(), [1, 2, 0])


def test_places_by_forms_are_a_full_convolution():
    a, b = RNG.standard_normal(4), RNG.standard_normal(3)
    out = sm.Dim("out")
    found = sm.sum[i, k](of(a, i) * of(b, k), at={out: i + k})
    np.testing.assert_allclose(found.numpy(), np.convolve(a, b))


def test_two_places_at_once():
    rows, columns = np.array([0, 1, 0]), np.array([2, 0, 2])
    r, c = sm.Dim("r", 2), sm.Dim("c", 3)
    found = sm.sum[p](of([1.0, 2, 3], p), at={r: of(rows, p), c: of(columns, p)})
    expected = np.zeros((2, 3))
    np.add.at(expected, (rows, columns), [1.0, 2, 3])
    np.testing.assert_array_equal(found.numpy(r, c), expected)


def test_a_place_may_be_called_like_what_is_folded():
    order = np.array([2, 0, 1])
    three = sm.Dim("three", 3)
    a = of([10.0, 20, 30], three)
    found = sm.sum[three](a, at={three: of(order, three)})
    np.testing.assert_array_equal(found.numpy(), [20, 30, 10])


def test_places_out_of_range():
    bins = sm.Dim("bins", 2)
    ids = of([0, 5, -1], p)
    x = of([1.0, 2, 4], p)
    with pytest.raises(IndexRangeError, match="out of range for bins"):
        sm.sum[p](x, at={bins: ids}).numpy()
    np.testing.assert_array_equal(sm.sum[p](x, at={bins: ids}, mode="drop").numpy(), [1, 0])
    np.testing.assert_array_equal(sm.sum[p](x, at={bins: ids}, mode="clip").numpy(), [5, 2])
    with pytest.raises(IndexRangeError):
        sm.sum[p](x, at={bins: p + 0})
    with pytest.raises(ArgumentError, match="mode is 'wrap'"):
        sm.sum[p](x, at={bins: ids}, mode="wrap")


# ---- monoids


def test_a_monoid_of_the_users():
    product = sm.Monoid(lambda a, b: a * b, 1, commutative=True)
    np.testing.assert_allclose(product[j](of(A, i, j, k)).numpy(i, k), A.prod(1))


def test_a_monoid_over_tuples_keeps_order():
    affine = sm.Monoid(lambda f, g: (f[0] * g[0], f[1] * g[0] + g[1]), (1.0, 0.0))
    a, b = RNG.standard_normal((2, 6, 3))
    scale, shift = affine[i]((of(a, i, k), of(b, i, k)))
    x = np.zeros(3)
    for step in range(6):
        x = a[step] * x + b[step]
    np.testing.assert_allclose(shift.numpy(), x)
    np.testing.assert_allclose(scale.numpy(), a.prod(0))


def test_components_take_each_others_dims():
    pair = sm.Monoid(lambda f, g: (f[0] + g[0], f[1] + g[1]), (0, 0))
    a, b = pair[i]((of([1.0, 2], i), of([[1.0, 2], [3, 4]], i, k)))
    np.testing.assert_array_equal(a.numpy(), [3, 3])
    np.testing.assert_array_equal(b.numpy(), [4, 6])


def test_a_combine_may_not_look_around():
    outside = of([1.0], i)
    with pytest.raises(ArgumentError, match="of its two operands alone"):
        sm.Monoid(lambda a, b: a + b + sm.sum[i](outside), 0)[j](of(A, i, j, k))


# ---- order


def test_sort_and_top_k():
    a = of(A, i, j, k)
    np.testing.assert_array_equal(sm.sort(a, j).numpy(i, j, k), np.sort(A, axis=1))
    np.testing.assert_array_equal(sm.argsort(a, k).numpy(i, j, k), np.argsort(A, axis=2))
    down = sm.sort(a, j, descending=True)
    np.testing.assert_array_equal(down.numpy(i, j, k), -np.sort(-A, axis=1))
    best = sm.Dim("best", 2)
    values, positions = sm.top_k(a, k, best)
    order = np.argsort(-A, axis=2, kind="stable")[..., :2]
    np.testing.assert_array_equal(positions.numpy(i, j, best), order)
    np.testing.assert_array_equal(values.numpy(i, j, best), np.take_along_axis(A, order, 2))
    np.testing.assert_array_equal(a[k:positions].numpy(i, j, best), values.numpy(i, j, best))
