"""Scatters large enough for private copies, for windows in the lanes and for rows of all lengths,
against NumPy; in every bit the same on 1, 2 and 8 threads."""

import numpy as np
import pytest

import summand as sm
from summand import compiler
from summand.compiler import Log, build
from summand.loops.text import text
from summand.runtime.executable import Executable
from summand.runtime.pool import Pool

n, m, p, c, h = sm.dims("n m p c h")
RNG = np.random.default_rng(0)
POOLS = {threads: Pool(threads) for threads in (1, 2, 8)}


def run(function, *arguments):
    """The results on one thread, after a check that more of them give the same bits."""
    request, buffers = sm.jit(function).request(*arguments)
    artifact = build(request, Log())
    bits = {
        t: [r.tobytes() for r in Executable(artifact, pool).run(buffers)]
        for t, pool in POOLS.items()
    }
    assert bits[1] == bits[2] == bits[8]
    return sm.jit(function)(*arguments)


def loops(function, *arguments):
    request, _ = sm.jit(function).request(*arguments)
    return text(compiler.lowered(request, Log()))


def places(count, size, order):
    found = RNG.integers(0, size, count)
    return np.sort(found) if order == "sorted" else found


@pytest.mark.parametrize("order", ["sorted", "mixed", "one place"])
@pytest.mark.parametrize("count", [65_536, 65_537])
def test_copies_of_few_places(count, order):
    at = np.full(count, 3) if order == "one place" else places(count, 50, order)
    x = RNG.standard_normal(count)
    f = lambda x, at: sm.sum[p](x, at={n: at}, sizes={n: 50})  # noqa: E731
    args = sm.array(x, p), sm.array(at, p)
    expected = np.zeros(50)
    np.add.at(expected, at, x)
    np.testing.assert_allclose(run(f, *args).numpy(n), expected, rtol=1e-10, atol=1e-10)
    assert "part=" in loops(f, *args)


@pytest.mark.parametrize("fold, start", [("max", -np.inf), ("min", np.inf), ("prod", 1.0)])
def test_copies_combine_as_their_monoid_does(fold, start):
    """Places that nothing reaches keep the identity; NaN and infinities reach their own place."""
    x = RNG.standard_normal((70_000, 4)).astype(np.float32)
    x[[5, 99, 7000]] = np.array([[np.inf], [-np.inf], [np.nan]], np.float32)
    if fold == "prod":
        x = np.sign(x)
    at = RNG.integers(0, 30, 70_000) * 2
    f = lambda x, at: getattr(sm, fold)[p](x, at={n: at}, sizes={n: 61})  # noqa: E731
    found = run(f, sm.array(x, p, h), sm.array(at, p)).numpy(n, h)
    expected = np.full((61, 4), start, np.float32)
    at_places = {"max": np.maximum, "min": np.minimum, "prod": np.multiply}[fold]
    with np.errstate(invalid="ignore"):
        at_places.at(expected, at, x)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 12, 16, 20, 64])
@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_rows_into_places(width, order):
    x = RNG.integers(-9, 9, (30_011, width)).astype(np.float32)
    at = places(30_011, 101, order)
    f = lambda x, at: sm.sum[p](x, at={n: at}, sizes={n: 101})  # noqa: E731
    expected = np.zeros((101, width), np.float32)
    np.add.at(expected, at, x)
    found = run(f, sm.array(x, p, c), sm.array(at, p)).numpy(n, c)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("taps, bins", [((4, 4), (31, 16)), ((3, 5), (7, 9)), ((1, 2), (2, 1))])
@pytest.mark.parametrize("mode", ["drop", "clip"])
def test_windows_around_computed_places(taps, bins, mode):
    """Positions that are added to a computed place lie apart, so they fill the lanes; not so where
    places are moved to the border."""
    k, l = sm.Dim("k", taps[0]), sm.Dim("l", taps[1])
    a = RNG.integers(-3, bins[0], 5_003).astype(np.int32)
    b = RNG.integers(-3, bins[1], 5_003).astype(np.int32)
    u = RNG.integers(-9, 9, (5_003, taps[0])).astype(np.float32)
    v = RNG.integers(-9, 9, (5_003, taps[1])).astype(np.float32)

    def f(u, v, a, b):
        at = {n: a + k, m: l + b}
        return sm.sum[p, k, l](u * v, at=at, sizes={n: bins[0], m: bins[1]}, mode=mode)

    args = sm.array(u, p, k), sm.array(v, p, l), sm.array(a, p), sm.array(b, p)
    expected = np.zeros(bins)
    for i in range(taps[0]):
        for j in range(taps[1]):
            x, y = a + i, b + j
            inside = (x >= 0) & (x < bins[0]) & (y >= 0) & (y < bins[1])
            if mode == "clip":
                inside[:] = True
                x, y = x.clip(0, bins[0] - 1), y.clip(0, bins[1] - 1)
            np.add.at(expected, (x[inside], y[inside]), (u[:, i] * v[:, j])[inside])
    np.testing.assert_array_equal(run(f, *args).numpy(n, m), expected)
    assert ("ordered(p)" in loops(f, *args)) == (mode == "drop" and max(taps) > 2)


def test_one_place_reached_by_two_positions_of_a_window():
    """Windows that overlap themselves are walked in order."""
    k, l = sm.Dim("k", 3), sm.Dim("l", 4)
    a = RNG.integers(0, 20, 999).astype(np.int32)
    x = RNG.integers(-9, 9, (999, 3, 4)).astype(np.float32)
    f = lambda x, a: sm.sum[p, k, l](x, at={n: a + k + l}, sizes={n: 30}, mode="drop")  # noqa: E731
    expected = np.zeros(30)
    for i in range(3):
        for j in range(4):
            np.add.at(expected, a + i + j, x[:, i, j])
    found = run(f, sm.array(x, p, k, l), sm.array(a, p)).numpy(n)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("width", [4, 32])
def test_batches_of_windows_are_tasks(width):
    """A window that leaves its batch is dropped, so that batches never meet."""
    b, i = sm.Dim("b", 6), sm.Dim("i", 3)
    a = RNG.integers(-4, 40, (6, 2_000)).astype(np.int32)
    x = RNG.integers(-9, 9, (6, 2_000, 3, width)).astype(np.float32)
    f = lambda x, a: sm.sum[p, i](x, at={n: a + i}, sizes={n: 37}, mode="drop")  # noqa: E731
    args = sm.array(x, b, p, i, c), sm.array(a, b, p)
    expected = np.zeros((6, 37, width))
    for batch in range(6):
        for tap in range(3):
            at = a[batch] + tap
            inside = (at >= 0) & (at < 37)
            np.add.at(expected[batch], at[inside], x[batch, inside, tap])
    np.testing.assert_array_equal(run(f, *args).numpy(b, n, c), expected)
    assert any("grid" in line and "b_o=" in line for line in loops(f, *args).splitlines())


def test_rows_as_long_as_matrices_are_shared_out():
    """No copies of them are made."""
    x = RNG.integers(-9, 9, (40, 64, 80)).astype(np.float32)
    at = RNG.integers(0, 5, 40)
    f = lambda x, at: sm.sum[p](x, at={n: at}, sizes={n: 5})  # noqa: E731
    args = sm.array(x, p, m, c), sm.array(at, p)
    expected = np.zeros((5, 64, 80))
    np.add.at(expected, at, x)
    np.testing.assert_array_equal(run(f, *args).numpy(n, m, c), expected)
    assert "part=" not in loops(f, *args)


@pytest.mark.parametrize("count", [70_001, 3_000, 300, 17])
@pytest.mark.parametrize("bins", [16, 4_000])
def test_what_a_scatter_reads_is_computed_in_pieces(count, bins):
    """In vectors, into scratch: with copies or without, and where pieces do not divide anything."""
    k = sm.Dim("k", 4)
    x = RNG.random(count, dtype=np.float32)

    def f(x):
        place = sm.floor(x * (bins - 3)).astype(sm.i32) - 1 + k
        weight = sm.exp(-((x * (bins - 3) - place) ** 2))
        return sm.sum[p, k](weight, at={n: place}, sizes={n: bins}, mode="drop")

    wide = x * np.float32(bins - 3)
    place = np.floor(wide).astype(int)[:, None] - 1 + np.arange(4)
    weight = np.exp(-((wide.astype(np.float64)[:, None] - place) ** 2))
    inside = (place >= 0) & (place < bins)
    expected = np.zeros(bins)
    np.add.at(expected, place[inside], weight[inside])
    args = (sm.array(x, p),)
    np.testing.assert_allclose(run(f, *args).numpy(n), expected, rtol=1e-4, atol=1e-4)
    written = loops(f, *args)
    assert "scratch(v0" in written and "ordered(p)" in written
    assert sm.jit(f).peak_bytes(*args) <= 8 * bins * 4 + (1 << 16)  # of tasks' own scratch


@pytest.mark.parametrize("source", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("kind", ["i8", "u8", "i16", "i32", "u32", "i64", "u64"])
def test_floats_that_become_places_saturate(source, kind):
    """As the interpreter says: at an integer's ends, NaN as 0; also in the rest of a vector."""
    ends = [2.0**b + d for b in (7, 8, 15, 16, 31, 32, 63, 64) for d in (-1, -0.5, 0, 1)]
    values = np.array([*ends, *(-e for e in ends), np.inf, -np.inf, np.nan, -0.0, 0.9, -0.9])
    with np.errstate(over="ignore"):
        x = sm.array(np.concatenate([values, values[:5]]).astype(source), p)
    f = lambda x: x.astype(getattr(sm, kind))  # noqa: E731
    with sm.interpret():
        expected = sm.jit(f)(x).numpy(p)
    np.testing.assert_array_equal(sm.jit(f)(x).numpy(p), expected)
