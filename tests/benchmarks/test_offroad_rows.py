"""Every row of the off-road suite at tiny sizes, as listed and perturbed, in both passes, against
its float64 reference. No peer is needed."""

import numpy as np
import pytest
from benchmarks.offroad.case import make
from benchmarks.offroad.perturb import near_size, perturbed
from benchmarks.offroad.rows import every_row

ROWS = every_row()


@pytest.mark.parametrize("key", ROWS)
def test_row(key):
    row = ROWS[key]
    for case in (make(row, row.tiny), perturbed(row, row.tiny, seed=1)):
        (result,) = case.runner("fwd").results()
        assert result.dtype == np.float32
        assert case.forward_error(result) < row.tolerance
        value, *gradients = case.runner("grad").results()
        assert float(value) == pytest.approx((result.astype(np.float64) ** 2).sum(), rel=1e-4)
        assert case.gradient_error(gradients) < row.tolerance


def test_keys_in_order():
    keys = list(ROWS)
    numbers = [key for key in keys if not ROWS[key].control]
    assert keys[: len(numbers)] == numbers
    assert keys[0] == "1"


def test_a_large_size_is_perturbed_at_once():
    size = near_size(ROWS["sum"], "i", 1 << 28, np.random.default_rng(7))
    assert 0.85 * (1 << 28) <= size <= 1.16 * (1 << 28)
    assert all(size % d for d in range(2, 20_000))
