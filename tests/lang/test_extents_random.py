"""Inferred sizes against a search by hand, over random windows."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import summand as sm
from summand.errors import DimError, IndexRangeError

x, kx, ky = sm.dims("x kx ky")
LIMIT = 60


def in_range(size, read, form, known):
    """Whether every read is in range where x has this size."""
    spans = [range(size), *(range(n) for n in known)]
    return all(0 <= form(*at) < read for at in itertools.product(*spans))


@settings(max_examples=150, deadline=None)
@given(
    read=st.integers(1, 12),
    stride=st.integers(-2, 4),
    taps=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    steps=st.tuples(st.integers(-2, 3), st.integers(0, 2)),
    offset=st.integers(-3, 6),
    by=st.sampled_from([1, 1, 2, 3]),
)
def test_the_greatest_size_for_which_every_read_is_in_range(read, stride, taps, steps, offset, by):
    def form(p, q, r):
        return (stride * p + steps[0] * q + steps[1] * r + offset) // by

    array = sm.array(np.arange(float(read)), x)
    weights = sm.array(np.ones(taps), kx, ky)
    index = (stride * x + steps[0] * kx + steps[1] * ky + offset) // by
    sizes = [n for n in range(1, LIMIT) if in_range(n, read, form, taps)]
    try:
        found = sm.sum[kx, ky](array[x:index] * weights)
        size = found.sizes.get(x)
    except IndexRangeError:
        assert not sizes
        return
    except DimError:
        assert stride == 0 or sizes[-1] == LIMIT - 1
        return
    if size is None:  # neither coefficient nor offset reads x: the dim is gone
        assert stride == 0
        return
    assert size == (max(sizes) if sizes else 0)
    expected = [
        sum(form(p, q, r) for q in range(taps[0]) for r in range(taps[1])) for p in range(size)
    ]
    np.testing.assert_array_equal(found.numpy(), np.array(expected, float))
