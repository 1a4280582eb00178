"""Where the states of recurrences lie."""

import numpy as np
import pytest

import summand as sm

y, x, t = sm.Dim("y", 48), sm.Dim("x", 32), sm.Dim("t", 3)


def step(v):
    """A stencil that wraps around."""
    now = v[t : t - 1]
    return now + now[x : (x + 1) % 32]


@pytest.mark.parametrize("dims", [(y, x), (x, y)])
def test_states_lie_as_the_arrays_do(dims):
    start = np.random.default_rng(0).standard_normal([d.size for d in dims]).astype(np.float32)
    u = sm.array(start, *dims)
    run = sm.jit(lambda u: sm.recur(step, over=t, init=u)[t:-1])
    text = run.inspect("loops", u)
    assert "end_lanes" not in text  # nothing is transposed
    assert " mod " not in text
    wanted = start
    for _ in range(t.size):
        wanted = wanted + np.roll(wanted, -1, dims.index(x))
    np.testing.assert_allclose(run(u).numpy(*dims), wanted, rtol=1e-5)
