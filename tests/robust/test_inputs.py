"""Arrays as callers have them: any layout and byte order, changed later, never written to."""

import numpy as np
import pytest

import summand as sm
from tests.guarded import Guarded

i, j, k, p = sm.dims("i j k p")

X = np.arange(35, dtype=np.float32).reshape(5, 7)


def misaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def read_only(x):
    out = x.copy()
    out.setflags(write=False)
    return out


LAYOUTS = {
    "C": lambda x: x.copy(),
    "Fortran": np.asfortranarray,
    "negative strides": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "negative inner stride": lambda x: x[:, ::-1].copy()[:, ::-1],
    "every other element": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "read-only": read_only,
    "misaligned": misaligned,
    "swapped bytes": lambda x: x.astype(x.dtype.newbyteorder()),
    "broadcast": lambda x: np.broadcast_to(x[0], x.shape),
    "a subclass": lambda x: x.copy().view(np.matrix),
    "of a buffer": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "a field of records": lambda x: records(x)["f"],
}


def records(x):
    out = np.zeros(x.shape, [("pad", "u1"), ("f", x.dtype)])
    out["f"] = x
    return out


@pytest.mark.parametrize("copy", [True, False], ids=["copied", "aliased"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i1", "i4", "i8", "u1", "c8", "c16", "?"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, dtype, copy):
    x = LAYOUTS[layout](X.astype(dtype))
    before = x.copy()
    expected = np.asarray(before).astype(np.dtype(dtype))
    array = sm.array(x, i, j, copy=copy)
    np.testing.assert_array_equal(array.numpy(i, j), expected)
    np.testing.assert_array_equal(array.numpy(j, i), expected.T)
    same = sm.where(array == array, array, array)
    np.testing.assert_array_equal(same[i:p].numpy(p, j), expected)
    np.testing.assert_array_equal(sm.jit(lambda a: a[i : 4 - i])(array).numpy(i, j), expected[::-1])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_compiled_function_takes_every_layout(layout):
    double = sm.jit(lambda a: a * 2)
    double(sm.array(X, i, j))
    x = LAYOUTS[layout](X)
    np.testing.assert_array_equal(double(sm.array(x, i, j)).numpy(i, j), 2 * np.asarray(x))


def test_the_caller_may_change_his_array_afterwards():
    x = X.copy()
    array = sm.array(x, i, j)
    lazy = array * 2
    done = sm.jit(lambda a: a * 2)(array)
    f = sm.jit(lambda: array + 1)
    f()
    x[...] = -1
    np.testing.assert_array_equal(array.numpy(i, j), X)
    np.testing.assert_array_equal(lazy.numpy(i, j), 2 * X)
    np.testing.assert_array_equal(done.numpy(i, j), 2 * X)
    np.testing.assert_array_equal(f().numpy(i, j), X + 1)


def test_a_result_that_is_an_argument_is_not_a_view_of_the_callers_array():
    x = X.copy()
    same = sm.jit(lambda a: a)(sm.array(x, i, j))
    x[...] = -1
    np.testing.assert_array_equal(same.numpy(i, j), X)


def test_results_are_read_only_and_live_on():
    results = [sm.jit(lambda a: a + 1)(sm.array(X + n, i, j)).numpy(i, j) for n in range(5)]
    for n, found in enumerate(results):
        np.testing.assert_array_equal(found, X + n + 1)
        with pytest.raises(ValueError):
            found[0, 0] = 0
    copy = np.array(results[0])
    copy[0, 0] = 9  # his own


def test_a_result_that_is_an_argument_cannot_be_written_through():
    x = sm.array(X, i, j)
    seen = x.numpy(i, j)
    with pytest.raises(ValueError):
        seen[0, 0] = 9


@pytest.mark.parametrize("side", ["start", "end"])
@pytest.mark.parametrize("size", [1, 7, 16, 33, 1000])
def test_nothing_beside_an_aliased_array_is_read(side, size):
    guard = Guarded((size,), "f4", side)
    rows = Guarded((3, size), "f4", side)
    try:
        guard.array[...] = np.arange(size)
        rows.array[...] = 1
        x = sm.array(guard.array, k, copy=False)
        m = sm.array(rows.array, i, k, copy=False)
        np.testing.assert_array_equal(sm.exp(x * 0).numpy(), np.ones(size))
        np.testing.assert_array_equal((x.fill(0)[k : k - 1] + x).numpy()[:1], [0])
        np.testing.assert_allclose(sm.sum[k](x * m).numpy(), [size * (size - 1) / 2] * 3)
        np.testing.assert_array_equal(sm.max[k](x).numpy(), size - 1)
        at = sm.array(np.array([size - 1, 0]), p)
        np.testing.assert_array_equal(x[k:at].numpy(), [size - 1, 0])
    finally:
        del x, m
        guard.close()
        rows.close()


def test_arrays_without_dims():
    one, two = sm.array(1.5), sm.array(np.float32(2))
    for f in (lambda a, b: a * b, lambda a, b: sm.where(a < b, a, b), lambda a, b: a):
        assert np.shape(sm.jit(f)(one, two).numpy()) == ()
    assert float(sm.jit(lambda a, b: a * b)(one, two)) == 3
    assert float(sm.sum[()](one)) == 1.5
    assert float(sm.grad(lambda a: a * a)(one)) == 3
    assert one[()].dims == ()
    at = sm.array(np.int64(2))
    assert float(sm.array(X[0], k)[k:at]) == 2
    assert float(sm.array(np.array(4.0))) == 4
    np.testing.assert_array_equal(sm.array(X[0], k)[k : sm.array(np.int8(-0))].numpy(), 0)


def test_dims_of_size_one():
    a = sm.array(np.full((1, 1), 2.0, np.float32), i, k)
    b = sm.array(np.full((1, 1), 3.0, np.float32), k, j)
    f = sm.jit(lambda a, b: sm.sum[k](a * b))
    np.testing.assert_array_equal(f(a, b).numpy(i, j), [[6]])
    slope = sm.jit(sm.grad(lambda a, b: sm.sum[i, j](sm.sum[k](a * b) ** 2), (0, 1)))
    d_a, d_b = slope(a, b)
    assert d_a.numpy(i, k) == 36 and d_b.numpy(k, j) == 24
    h = sm.recur(lambda h: h[i : i - 1] + a, over=i, init=1)
    np.testing.assert_array_equal(h.numpy(i, k), [[3]])
    for reduce in (sm.max, sm.min, sm.sum, sm.prod, sm.mean, sm.logsumexp):
        assert float(reduce[i, k](a)) == pytest.approx(2)
    assert int(sm.argmax[k](a).numpy()[0]) == 0
    np.testing.assert_array_equal(sm.sort(a, k).numpy(i, k), [[2]])
    zero = sm.array(np.array([0]), p)
    np.testing.assert_array_equal(a[k:zero].numpy(i, p), [[2]])
    place = sm.Dim("place", 1)
    found = sm.sum[k](a, at={place: sm.array(np.array([0]), k)})
    np.testing.assert_array_equal(found.numpy(i, place), [[2]])
    np.testing.assert_array_equal(a.fill(5)[k : k - 1].numpy(i, k), [[5]])
