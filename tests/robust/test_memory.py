"""Programs too large for memory are refused before anything is allocated, by name and size."""

import time

import numpy as np
import pytest

import summand as sm
from tests.robust.both import floats

i, j, k = sm.dims("i j k")

N = 200_000
LARGE = np.ones(N)


def outer():
    return sm.array(LARGE, i) * sm.array(LARGE, j)


PROGRAMS = {
    "lazy": lambda: outer().numpy(i, j),
    "compiled": lambda: sm.jit(lambda a, b: a * b)(sm.array(LARGE, i), sm.array(LARGE, j)),
    "only compiled": lambda: sm.jit(lambda a, b: a * b).compile(
        sm.array(LARGE, i), sm.array(LARGE, j)
    ),
    "sorted": lambda: sm.sum[i, j](sm.sort(outer(), i)).numpy(),
    "in a loop": lambda: sm.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + 1), (0, outer())
    )[1].numpy(i, j),
    "in a branch": lambda: sm.cond(
        sm.sum[i](sm.array(LARGE, i)) > 0, lambda: outer(), lambda: outer() * 2
    ).numpy(i, j),
    "a jacobian": lambda: sm.jacobian(lambda a: sm.exp(a[i:j]))(sm.array(LARGE, i)).numpy(i, j),
    "zeros": lambda: sm.zeros({i: N, j: N}, sm.f64).numpy(i, j),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_outer_product_of_320_gigabytes(name):
    began = time.monotonic()
    with pytest.raises(MemoryError, match=r"f64\{i.*, ?j.*=2\d{5}\} +(298|390)\.\d GB"):
        PROGRAMS[name]()
    assert time.monotonic() - began < 20


def test_the_line_that_asked_for_it_is_named():
    for name in ("lazy", "compiled", "sorted", "in a loop"):
        with pytest.raises(MemoryError, match=r"test_memory\.py:"):
            PROGRAMS[name]()


def test_more_than_64_bits_can_count():
    dims = sm.dims(" ".join(f"d{n}" for n in range(10)))
    product = sm.array(1.0)
    for d in dims:
        product = product * sm.array(np.ones(100_000, np.float32), d)
    with pytest.raises(MemoryError, match="d9=100000"):
        product.numpy(*dims)
    with pytest.raises(MemoryError):
        sm.ones({k: 2**70}).numpy()


def test_many_values_that_fit_one_by_one():
    n = 60_000  # 14.4 GB each
    x, y = floats(np.ones(n), i), floats(np.ones(n), j)
    f = sm.jit(lambda x, y: tuple(x * y + n for n in range(20)))
    with pytest.raises(MemoryError, match="GB"):
        f(x, y)


def test_sums_over_more_than_memory_holds_are_fine():
    assert (
        float(sm.sum[i, j](sm.eq(i, j) * 1.0 * floats(np.ones(3000), i) * floats(np.ones(3000), j)))
        == 3000
    )
    found = sm.sum[j](sm.exp(-sm.square(floats(np.zeros(70_000), i) - floats(np.ones(500), j))))
    assert found.numpy().shape == (70_000,)


def test_a_failure_leaves_everything_usable():
    for _ in range(3):
        with pytest.raises(MemoryError):
            PROGRAMS["compiled"]()
    assert float(sm.sum[k](floats([1, 2], k))) == 3
