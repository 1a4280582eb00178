"""Arrays and sums of more than 2³¹ elements: places, positions, tasks and offsets past 32 bits."""

import gc

import numpy as np
import pytest

import summand as sm
from summand.errors import DimError, IndexRangeError
from summand.runtime import machine

i, j, p = sm.dims("i j p")

PAST = 2**31 + 1031  # elements; a prime number of vectors, and no multiple of any tile
SIDE = 46_411  # its square is more than 2³¹
GB = 1e9


@pytest.fixture
def room(request):
    """Skips where the memory that a test names is not there; gives back what it took."""
    needed = request.param * GB
    free = machine.memory_bytes()
    if free < needed + 2 * GB:
        pytest.skip(f"needs {needed / GB:.0f} GB of free memory, there are {free / GB:.1f}")
    yield
    gc.collect()


def needs(gigabytes):
    return pytest.mark.parametrize("room", [gigabytes], indirect=True, ids=[f"{gigabytes} GB"])


def zeros_but(places, size=PAST, dtype=np.int8):
    """Zeros, of which the system maps only the pages that are written."""
    x = np.zeros(size, dtype)
    for place, value in places.items():
        x[place] = value
    return x


# ---- more than 2³¹ elements in memory


@needs(5)
def test_reductions_of_a_long_array(room):
    last = PAST - 1
    x = sm.array(zeros_but({0: 3, 2**31 - 1: 5, 2**31: 7, 2**31 + 17: 9, last: 2}), i, copy=False)
    total, greatest, where, least = sm.jit(
        lambda x: (sm.sum[i](x), sm.max[i](x), sm.argmax[i](x), sm.min[i](x))
    )(x)
    assert int(total) == 26 and int(greatest) == 9 and int(least) == 0
    assert int(where) == 2**31 + 17
    assert where.dtype == sm.i64


@needs(5)
def test_reads_of_a_long_array(room):
    places = {5: 1, 2**31 - 1: 2, 2**31: 3, PAST - 1: 4}
    x = sm.array(zeros_but(places), i, copy=False)
    at = sm.array(np.array([*places, 6, 2**31 + 1]), p)
    np.testing.assert_array_equal(x[i:at].numpy(), [1, 2, 3, 4, 0, 0])
    with pytest.raises(IndexRangeError, match=str(PAST)):
        x[i : at * 2].numpy()
    far = sm.Dim("far", 1031)
    end = sm.jit(lambda x: x[i : far + 2**31])(x).numpy()
    expected = np.zeros(1031, np.int8)
    expected[[0, -1]] = 3, 4
    np.testing.assert_array_equal(end, expected)
    third = sm.jit(lambda x: sm.sum[j](x[i : 3 * j + 2]))(x)
    assert int(third) == sum(v for k, v in places.items() if k % 3 == 2)


@needs(7)
def test_a_long_result(room):
    x = sm.array(zeros_but({0: 1, 2**31 + 5: 2, PAST - 1: 3}), i, copy=False)
    y = sm.jit(lambda x: x * 2 + 1)(x).numpy()
    assert y.shape == (PAST,) and y.dtype == np.int8
    np.testing.assert_array_equal(y[[0, 1, 2**31 + 4, 2**31 + 5, PAST - 1]], [3, 1, 1, 5, 7])
    assert (y[1 : 2**31 : 4099] == 1).all()
    assert int(y[2**31 :].sum(dtype=np.int64)) == 1031 + 4 + 6


@needs(5)
def test_an_outer_product_of_more_than_32_bits(room):
    a = (np.arange(SIDE) % 7).astype(np.int8)
    b = (np.arange(SIDE) % 5).astype(np.int8)
    found = sm.jit(lambda a, b: a * b)(sm.array(a, i), sm.array(b, j)).numpy(i, j)
    assert found.size > 2**31
    rows = [0, 1, SIDE // 2, SIDE - 1]
    np.testing.assert_array_equal(found[rows], a[rows, None] * b)
    np.testing.assert_array_equal(found[:, rows], a[:, None] * b[rows])


@needs(5)
def test_sums_into_more_than_32_bits_of_places(room):
    places = sm.Dim("places", PAST)
    at = np.array([0, 2**31 - 1, 2**31, 2**31, PAST - 1])
    values = np.array([1, 2, 3, 4, 5], np.int8)
    found = sm.jit(lambda v, at: sm.max[p](v, at={places: at}))(
        sm.array(values, p), sm.array(at, p)
    ).numpy()
    assert found.shape == (PAST,)
    np.testing.assert_array_equal(found[[0, 1, 2**31 - 1, 2**31, PAST - 1]], [1, -128, 2, 4, 5])


# ---- more than 2³¹ points that no memory holds


def test_positions_past_32_bits():
    long = sm.Dim("long", PAST)
    found = sm.jit(lambda y: sm.max[long](sm.where(long < PAST - y, long, 0)))(
        sm.array(np.int64(17))
    )
    assert int(found) == PAST - 18 > 2**31


def test_positions_of_two_dims_whose_product_is_past_32_bits():
    pair = sm.jit(lambda a, b: sm.argmax[i, j](a * b))
    some, many = np.zeros(4, np.float32), np.zeros(SIDE, np.float32)
    some[1] = many[7] = 1
    rows, columns = pair(sm.array(some, i), sm.array(many, j))
    assert (int(rows), int(columns)) == (1, 7) and rows.dtype == columns.dtype == sm.i32
    text = pair.inspect("traced", sm.array(many, i), sm.array(many, j))  # 10 seconds to run
    assert "i64{i=46411,j=46411}" in text


def test_a_sum_over_more_points_than_32_bits_count():
    a, b = np.ones(SIDE, np.float32), np.arange(SIDE, dtype=np.float32) % 3 * 2
    value, slope = sm.jit(
        sm.value_and_grad(lambda a, b: sm.sum[i, j](sm.maximum(a - b, 0.0) * (a + b)), argnums=0)
    )(sm.array(a, i), sm.array(b, j))
    zeros = int((b == 0).sum())  # elsewhere a < b
    assert float(value) == pytest.approx(SIDE * zeros, rel=1e-5)
    np.testing.assert_allclose(slope.numpy(i)[[0, SIDE - 1]], 2 * zeros, rtol=1e-5)


@pytest.mark.parametrize("order", [sm.sort, sm.argsort])
def test_orders_of_a_long_dim_are_refused(order):
    x = sm.zeros({i: PAST}, sm.i8)
    with pytest.raises(DimError, match="2147484679"):
        order(x, i)
    with pytest.raises(DimError, match="2147484679"):
        sm.top_k(x, i, sm.Dim("best", 3))
