"""NaN and infinities inside reductions of scores that no memory holds: what NumPy gives."""

import numpy as np
import pytest

import summand as sm
from tests.robust.both import floats

pytestmark = pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")

b, q, k, d = sm.dims("b q k d")
B, Q, K, D = 2, 301, 517, 19  # the scores are larger than the second cache; no tile divides them


def softmax(z, over):
    e = sm.exp(z - sm.max[over](z))
    return e / sm.sum[over](e)


def attention(x, y, v, bias):
    """Attention with an added bias, which may mask."""
    return sm.sum[k](softmax(sm.sum[d](x * y) + bias, k) * v)


def attention_of_arrays(x, y, v, bias):
    z = np.einsum("bqd,bkd->bqk", x, y) + bias
    e = np.exp(z - z.max(2, keepdims=True))
    share = e / e.sum(2, keepdims=True)
    return (share[..., None] * v[:, None]).sum(2)


def inputs():
    rng = np.random.default_rng(0)
    shapes = [(B, Q, D), (B, K, D), (B, K, D), (Q, K)]
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def arrays(x, y, v, bias):
    return floats(x, b, q, d), floats(y, b, k, d), floats(v, b, k, d), floats(bias, q, k)


def nan_in_a_query(x, y, v, bias):
    x[1, 300, 3] = np.nan


def nan_in_a_key(x, y, v, bias):
    y[0, 516, 18] = np.nan


def nan_in_a_value(x, y, v, bias):
    v[1, 0, 0] = np.nan


def infinite_value(x, y, v, bias):
    v[0, 13, 5] = np.inf
    v[0, 14, 5] = -np.inf
    v[1, 516, 18] = -np.inf


def infinite_score(x, y, v, bias):
    bias[7, 3] = np.inf
    bias[300, 516] = np.inf


def masked(x, y, v, bias):
    bias[np.triu_indices(Q, 1, K)] = -np.inf


def masked_up_to_the_last_tile(x, y, v, bias):
    bias[:, :-2] = -np.inf


def rows_that_are_masked_whole(x, y, v, bias):
    bias[[0, 31, 300]] = -np.inf


def nan_behind_a_mask(x, y, v, bias):
    bias[17] = -np.inf
    bias[17, 400] = np.nan


CASES = (
    nan_in_a_query,
    nan_in_a_key,
    nan_in_a_value,
    infinite_value,
    infinite_score,
    masked,
    masked_up_to_the_last_tile,
    rows_that_are_masked_whole,
    nan_behind_a_mask,
)


def special(case):
    given = inputs()
    case(*given)
    return given


def assert_same(found, expected):
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_attention(case):
    given = special(case)
    found = sm.jit(attention)(*arrays(*given)).numpy(b, q, d)
    with np.errstate(all="ignore"):
        expected = attention_of_arrays(*(x.astype(np.float64) for x in given))
    assert_same(found, expected)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.__name__)
def test_reductions_of_scores(case):
    x, y, _, bias = special(case)
    names = ("max", "min", "argmax", "logsumexp")

    def folds(x, y, bias):
        z = sm.sum[d](x * y) + bias
        return tuple(getattr(sm, name)[k](z) for name in names)

    given = floats(x, b, q, d), floats(y, b, k, d), floats(bias, q, k)
    greatest, least, where, logs = (r.numpy(b, q) for r in sm.jit(folds)(*given))
    with np.errstate(all="ignore"):
        z = np.einsum("bqd,bkd->bqk", x, y) + bias
        exact = np.einsum("bqd,bkd->bqk", x.astype(np.float64), y) + bias
        top = exact.max(2)
        shift = np.where(np.isfinite(top), top, 0)
        expected = np.log(np.exp(exact - shift[..., None]).sum(2)) + shift
    assert_same(greatest, z.max(2))
    assert_same(least, z.min(2))
    assert_same(logs, expected)
    at = np.take_along_axis(exact, where[..., None].astype(int), 2)[..., 0]
    assert_same(at, top)  # near ties may be decided by rounding


@pytest.mark.parametrize("case", [masked, masked_up_to_the_last_tile, rows_that_are_masked_whole])
def test_gradients_of_masked_attention(case):
    """Masked scores have no gradient; rows that are masked whole have none that is a number, and
    only they."""
    given = special(case)
    loss = lambda *a: sm.sum[b, q, d](attention(*a) ** 2)  # noqa: E731
    slope = sm.jit(sm.grad(loss))(*arrays(*given)).numpy(b, q, d)
    whole = np.isneginf(given[3]).all(1)
    assert np.isnan(slope[:, whole]).all()
    assert np.isfinite(slope[:, ~whole]).all()
    assert slope[:, ~whole].any()
