"""Programs at the edges of size: very many dims, operations, results; very large arrays."""

import subprocess
import sys
import time

import numpy as np
import pytest

import summand as sm
from summand.runtime import machine
from tests.robust.both import agree, floats

i, j, k, t = sm.dims("i j k t")

SECONDS = 60  # far above what each takes on a busy machine; a compiler that hangs is the point


def within(began):
    assert time.monotonic() - began < SECONDS


# ---- many dims


def test_thirty_dims():
    dims = sm.dims(" ".join(f"d{n}" for n in range(30)))
    sizes = [2 if n % 6 == 0 else 1 for n in range(30)]
    x = np.arange(32, dtype=np.float32).reshape(sizes)
    array = sm.array(x, *dims)
    np.testing.assert_array_equal((array * 2 + 1).numpy(*dims), x * 2 + 1)
    backwards = tuple(reversed(dims))
    np.testing.assert_array_equal(sm.jit(sm.exp)(array * 0).numpy(*backwards), np.ones(sizes[::-1]))
    assert float(sm.sum[dims](array)) == x.sum()
    (found,) = agree(lambda a: sm.sum[dims[1:]](a * a), array)
    np.testing.assert_array_equal(found, (x * x).sum(axis=tuple(range(1, 30))))
    slope = sm.grad(lambda a: sm.sum[dims](a * a))(array)
    np.testing.assert_array_equal(slope.numpy(*dims), 2 * x)


def test_thirty_dims_of_thirty_arrays():
    dims = sm.dims(" ".join(f"d{n}" for n in range(15)))
    product = sm.array(np.float32(1))
    for d in dims:
        product = product * floats([1.0, 2.0], d)
    assert float(sm.sum[dims](product)) == 3.0**15


# ---- long chains


def test_a_chain_of_operations():
    began = time.monotonic()
    x = floats([0.5, 1.0], k)
    for _ in range(2000):
        x = x * 0.999 + 0.001
    expected = np.array([0.5, 1.0], np.float32)
    for _ in range(2000):
        expected = expected * np.float32(0.999) + np.float32(0.001)
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-4)
    within(began)


def test_a_chain_interpreted():
    x = floats([0.5, 1.0], k)
    for _ in range(2000):
        x = x * 0.999
    with sm.interpret():
        np.testing.assert_allclose(x.numpy(), [0.5 * 0.999**2000, 0.999**2000], rtol=1e-3)


def test_a_chain_that_does_not_fold():
    began = time.monotonic()
    x = floats(np.linspace(-1, 1, 50), k)
    y = x
    for _ in range(1000):
        y = sm.where(y > 0, y - x, y + x * x)
    assert np.isfinite(y.numpy()).all()
    within(began)


def test_the_gradient_of_a_chain():
    began = time.monotonic()

    def loss(x):
        for _ in range(500):
            x = x * 1.001 + 0.001 * x
        return sm.sum[k](x)

    slope = sm.jit(sm.grad(loss))(floats([1.0, 2.0], k))
    np.testing.assert_allclose(slope.numpy(), [1.002**500] * 2, rtol=1e-3)
    within(began)


def test_a_chain_of_reductions():
    began = time.monotonic()
    x = floats(np.full(8, 0.125), k)
    for _ in range(200):
        x = x / sm.sum[k](x)
    np.testing.assert_allclose(x.numpy(), np.full(8, 0.125), rtol=1e-4)
    within(began)


def test_a_chain_of_reads():
    began = time.monotonic()
    x = floats(np.arange(8), k)
    for _ in range(500):
        x = x.fill(0)[k : k - 1] + x
    assert x.numpy()[0] == 0
    within(began)


def test_deep_nests_of_tuples_as_arguments():
    tree = floats([1.0], k)
    for _ in range(200):
        tree = (tree,)

    def inner(tree):
        while isinstance(tree, tuple):
            (tree,) = tree
        return tree + 1

    assert sm.jit(inner)(tree).numpy() == 2


# ---- wide programs


def test_a_hundred_results():
    began = time.monotonic()
    results = sm.jit(lambda x: tuple(x * n + 1 for n in range(100)))(floats([1.0, 2.0], k))
    np.testing.assert_array_equal(results[7].numpy(), [8, 15])
    within(began)


def test_a_hundred_arguments():
    began = time.monotonic()
    total = sm.jit(lambda xs: sum(xs))([floats([float(n)], k) for n in range(100)])
    assert total.numpy() == sum(range(100))
    within(began)


def test_a_large_fused_program():
    began = time.monotonic()

    def f(x, w):
        for n in range(40):
            x = sm.tanh(sm.sum[k](x * w)[j:k] + x * (n * 0.01))
        return x

    agree(f, floats(np.linspace(0, 1, 8), k), floats(np.eye(8) * 0.5, k, j))
    within(began)


def test_nested_control():
    def nest(depth, x):
        if depth == 0:
            return x + 1
        return sm.while_loop(
            lambda s: s[0] < 2, lambda s: (s[0] + 1, nest(depth - 1, s[1])), (0, x)
        )[1]

    (found,) = agree(lambda x: nest(6, x), floats([0.0, 1.0], k))
    np.testing.assert_array_equal(found, [64, 65])


# ---- large sizes


def test_offsets_beyond_32_bits():
    """A window near the end of 2.2e9 bytes; in a process of its own, since it needs the memory."""
    needed = 5 << 30
    if machine.memory_bytes() < needed:
        pytest.skip(f"needs {needed >> 30} GB of free memory")
    code = """
import numpy as np, summand as sm
n = 2_200_000_000
x = np.zeros(n, np.uint8)          # the system gives these pages when they are touched
x[[0, 5, 2**31 - 1, 2**31 + 7, n - 1]] = [1, 2, 3, 4, 5]
k, w, p = sm.dims("k w p")
w = sm.Dim("w", 16)
a = sm.array(x, k, copy=False)
assert a[k: w + (n - 16)].numpy(w)[-1] == 5
assert a[k: w + 2**31].numpy(w)[7] == 4
at = sm.array(np.array([5, 2**31 - 1, 2**31 + 7, n - 1]), p)
assert list(a[k: at].numpy()) == [2, 3, 4, 5]
assert a[k: -1].numpy() == 5
try:
    a[k: at + 1].numpy()
except IndexError as error:
    assert "2200000000" in str(error)
else:
    raise AssertionError("no error")
r, c = sm.dims("r c")
m = sm.array(x.reshape(220_000, 10_000), r, c, copy=False)
last = m[r: 219_999].numpy(c)
assert last[-1] == 5 and last.sum() == 5
strided = sm.array(x.reshape(220_000, 10_000), r, c, copy=False)[c: 9_999].numpy(r)
assert strided[-1] == 5 and strided.sum() == 5
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
