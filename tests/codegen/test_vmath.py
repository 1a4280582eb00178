"""Functions in generated code against references of higher precision."""

import math

import numpy as np
import pytest

from summand.codegen.cpu.vmath import FUNCTIONS
from summand.dtypes import f32, f64
from tests.codegen.harness import BASELINE, run
from tests.codegen.reference import BOUNDS, REFERENCES, samples, ulps

NO_FMA = "+sse4.2,+avx,+avx2"
UNARY = [n for n in FUNCTIONS if n not in ("pow", "atan2")]
INF, NAN = math.inf, math.nan


def error(name, args, dtype, lanes, features=None):
    with np.errstate(all="ignore"):
        want = REFERENCES[name](*args)
        got = run(name, args, (dtype,) * len(args), dtype, lanes, features)
    return ulps(got, want, dtype)


def test_every_function_has_a_reference_and_a_bound():
    assert set(REFERENCES) == set(FUNCTIONS)
    assert set(BOUNDS) == {(n, t) for n in FUNCTIONS for t in ("f32", "f64")}


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("name", UNARY)
def test_error_is_bounded(name, dtype):
    x = samples(dtype, 20_000)
    for lanes, features in ((512 // dtype.bits, None), (1, None), (8, BASELINE)):
        worst, where = error(name, (x,), dtype, lanes, features)
        assert worst <= BOUNDS[name, dtype.name], (lanes, features, x[where])


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("name", ["sin", "cos", "exp", "log", "tanh"])
def test_without_fused_multiply_add(name, dtype):
    x = samples(dtype, 20_000)
    worst, where = error(name, (x,), dtype, 4, NO_FMA)
    assert worst <= BOUNDS[name, dtype.name] + 2, x[where]


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("features", [None, BASELINE, NO_FMA])
def test_pow(dtype, features):
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.uniform(0, 4, 5000), np.exp(rng.uniform(-80, 80, 5000))])
    y = np.concatenate([rng.uniform(-30, 30, 5000), rng.uniform(-1.2, 1.2, 5000)])
    near = rng.uniform(0.99, 1.01, 5000), rng.uniform(-8000, 8000, 5000)
    whole = -rng.uniform(0, 20, 5000), rng.integers(-20, 20, 5000)
    x, y = np.concatenate([x, near[0], whole[0]]), np.concatenate([y, near[1], whole[1]])
    args = (x.astype(dtype.numpy), y.astype(dtype.numpy))
    worst, where = error("pow", args, dtype, 8, features)
    assert worst <= BOUNDS["pow", dtype.name], (args[0][where], args[1][where])


@pytest.mark.parametrize("dtype", [f32, f64])
def test_atan2(dtype):
    rng = np.random.default_rng(3)
    tops = np.exp(rng.uniform(-80, 80, 10_000)) * rng.choice([-1, 1], 10_000)
    args = (tops.astype(dtype.numpy), (tops * rng.standard_normal(10_000)).astype(dtype.numpy))
    worst, where = error("atan2", args, dtype, 8)
    assert worst <= BOUNDS["atan2", dtype.name], (args[0][where], args[1][where])


SPECIAL = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, 2.5, -2.5]
EDGES = {
    f32: [1e-45, -1e-45, 1e-40, 3e38, -3e38],
    f64: [5e-324, -5e-324, 1e-310, 1.7e308, -1.7e308],
}


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_special_values_of_two_arguments(name, lanes, dtype):
    few = np.array(SPECIAL + EDGES[dtype], dtype.numpy)
    x, y = (g.reshape(-1) for g in np.meshgrid(few, few))
    got = run(name, (x, y), (dtype, dtype), dtype, lanes)
    with np.errstate(all="ignore"):
        want = REFERENCES[name](x, y).astype(dtype.numpy)
    same_special(got, want)


def same_special(got, want):
    """Equal where the reference is 0, infinite or NaN, and of one sign everywhere."""
    special = (want == 0) | ~np.isfinite(want)
    np.testing.assert_array_equal(got[special], want[special])
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name, dtype):
    x = np.array(SPECIAL + EDGES[dtype], dtype.numpy)
    with np.errstate(all="ignore"):
        want = REFERENCES[name](x).astype(dtype.numpy)
    for lanes in (1, 512 // dtype.bits, 4):
        same_special(run(name, (x,), (dtype,), dtype, lanes), want)


@pytest.mark.parametrize("dtype", [f32, f64])
def test_exp_reaches_denormals_and_overflows_where_it_must(dtype):
    last = {f32: (88.72283, -103.2), f64: (709.782, -744.4)}[dtype]
    x = np.array([last[0], last[0] + 0.01, last[1], last[1] - 3], dtype.numpy)
    got = run("exp", (x,), (dtype,), dtype, 8)
    assert np.isfinite(got[0])
    assert got[1] == INF
    assert 0 < got[2] < np.finfo(dtype.numpy).tiny
    assert got[3] == 0


@pytest.mark.parametrize("lanes", [2, 3, 5, 32])
def test_any_number_of_lanes(lanes):
    x = samples(f32, 2000)
    for name in ("exp", "log", "tanh", "sin"):
        worst, where = error(name, (x,), f32, lanes)
        assert worst <= BOUNDS[name, "f32"], x[where]
