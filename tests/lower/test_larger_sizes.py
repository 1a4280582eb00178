"""Programs as users write them, large enough for tiles, panels and blocks, against NumPy."""

import numpy as np

import summand as sm

i, j, d = sm.dims("i j d")
RNG = np.random.default_rng(0)


def test_one_array_read_at_two_places_of_a_tile():
    """A copy of the tile's rows serves the read at i, not the one at j."""
    points = RNG.standard_normal((128, 3), dtype=np.float32)

    @sm.jit
    def forces(X):
        away = X[i:j] - X
        return sm.sum[j](away * (sm.sum[d](away**2) + 0.01) ** -1.5)

    wide = points.astype(np.float64)
    away = wide[None] - wide[:, None]
    expected = (away * ((away**2).sum(2) + 0.01)[:, :, None] ** -1.5).sum(1)
    found = forces(sm.array(points, i, d)).numpy(i, d)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a_blocked_reduction_with_an_epilogue():
    """Weights' gradient of a strided convolution of matrices, times two."""
    n, x, y, c, o, k, m = sm.dims("n x y c o k m")
    a, b = sm.Dim("a", 3), sm.Dim("b", 3)
    poses = RNG.standard_normal((16, 15, 15, 32, 4, 4), dtype=np.float32)
    grads = RNG.standard_normal((16, 7, 7, 4, 32, 4), dtype=np.float32)

    @sm.jit
    def weights(P, G):
        return 2.0 * sm.sum[n, x, y, m](P[x : 2 * x + a, y : 2 * y + b] * G)

    windows = np.lib.stride_tricks.sliding_window_view(poses, (3, 3), (1, 2))[:, ::2, ::2]
    expected = 2 * np.einsum("nxycmkab,nxyjom->abcokj", windows, grads, optimize=True)
    found = weights(sm.array(poses, n, x, y, c, m, k), sm.array(grads, n, x, y, j, o, m))
    np.testing.assert_allclose(found.numpy(a, b, c, o, k, j), expected, rtol=1e-3, atol=1e-2)


def test_a_number_between_other_elements_is_stored_everywhere_first():
    p = sm.Dim("p")
    values = RNG.standard_normal((5, 9), dtype=np.float32)
    spread = sm.jit(lambda A: sm.sum[j](A, at={p: 3 * j}))
    expected = np.zeros((5, 25), np.float32)
    expected[:, ::3] = values
    np.testing.assert_array_equal(spread(sm.array(values, i, j)).numpy(i, p), expected)
    assert spread.inspect("loops").count("const 0.0") == 1
