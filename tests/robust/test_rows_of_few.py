"""Every row of the off-road suite with one of its sizes 1 or 0: compiled as interpreted, or the
same error both ways."""

import numpy as np
import pytest
from benchmarks.offroad.case import make
from benchmarks.offroad.rows import every_row

import summand as sm
from summand.errors import SummandError

pytestmark = pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")

ROWS = every_row()
OF_THE_ROW = (ValueError, ZeroDivisionError)  # what its own Python makes of such a size


def results(case):
    """The result, the value and the gradients with the axes of their inputs; or the error."""

    def both(*arrays):
        value, gradients = case.function("grad")(*arrays)
        return case.row.program(case.sizes, *arrays), value, *gradients

    dims = [*case.result_dims("fwd"), *case.result_dims("grad")]
    try:
        found = sm.jit(both)(*case.arguments())
        return [a.numpy(*order) for a, order in zip(found, dims, strict=True)]
    except (SummandError, *OF_THE_ROW) as error:
        return type(error), str(error).splitlines()[0]


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("key", ROWS)
def test_row(key, size):
    row = ROWS[key]
    for name in row.tiny:
        try:
            case = make(row, {**row.tiny, name: size})
        except OF_THE_ROW:
            continue  # there are no such inputs
        with sm.interpret():
            expected = results(case)
        found = results(case)
        if isinstance(expected, tuple):
            assert found == expected, name
            continue
        assert isinstance(found, list), (name, found)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape, name
            most = np.abs(b[np.isfinite(b)]).max(initial=1.0)
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * most, err_msg=name)
