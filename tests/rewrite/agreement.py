"""Compare a rewritten program with the original on the interpreter."""

import numpy as np

from summand import dtypes as dt
from summand.ir.interp import run
from summand.ir.scalars import widen
from summand.ir.verify import verify
from tests.programs import arguments

# relative to the largest magnitude that takes part; a few roundings of each type
TOLERANCE = {dt.f16: 1e-2, dt.bf16: 8e-2, dt.f32: 2e-5, dt.f64: 1e-12}


def assert_same_results(before, after, *, exact=False, seed=0):
    """Verify `after`, run both, compare every result that `before` has."""
    verify(after)
    args = arguments(before, seed)
    wanted = run(before, args)
    found = run(after, args)
    for var, new, a, b in zip(before.results, after.results, wanted, found, strict=False):
        assert var.type == new.type
        assert_close(a.array, b.array, var.type.dtype, exact)


def assert_close(wanted, found, dtype, exact=False):
    if exact or not dtype.is_inexact:
        np.testing.assert_array_equal(wanted, found)
        return
    a, b = widen(wanted, dtype), widen(found, dtype)
    part = dt.f32 if dtype is dt.complex64 else dt.f64 if dtype is dt.complex128 else dtype
    scale = np.max(np.abs(a[np.isfinite(a)]), initial=1.0)
    np.testing.assert_allclose(b, a, rtol=TOLERANCE[part], atol=TOLERANCE[part] * scale)
