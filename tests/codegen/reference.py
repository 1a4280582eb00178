"""References of higher precision, samples and bounds for the functions in generated code.

f32 is compared with f64, f64 with the machine's long double where that is wider. Errors are in
units of the last place of the exact value. `scripts/accuracy.py` measures on many more samples.
"""

import math

import numpy as np

from summand.dtypes import DType, f32


def wider(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)


def _lift(function):
    return lambda *args: function(*(wider(a) for a in args))


def _erf(x: np.ndarray) -> np.ndarray:
    """f64: 1 - erfc beyond 0.5 and the Taylor series below, in long double."""
    if x.dtype == np.float32:
        return np.array([math.erf(v) for v in x.astype(np.float64)])
    wide = x.astype(np.longdouble)
    small = np.where(np.abs(wide) < 0.75, wide, 0)
    term, total = small, small
    for n in range(1, 30):
        term = term * -(small * small) / n
        total = total + term / (2 * n + 1)
    near = total * 2 / np.sqrt(np.arccos(np.longdouble(-1)))
    tail = np.array([math.erfc(abs(v)) for v in x], np.longdouble)
    return np.copysign(np.where(np.abs(wide) < 0.75, np.abs(near), 1 - tail), wide)


REFERENCES = {
    "exp": _lift(np.exp),
    "expm1": _lift(np.expm1),
    "log": _lift(np.log),
    "log1p": _lift(np.log1p),
    "sinh": _lift(np.sinh),
    "cosh": _lift(np.cosh),
    "tanh": _lift(np.tanh),
    "rsqrt": _lift(lambda x: 1 / np.sqrt(x)),
    "pow": _lift(np.power),
    "erf": _erf,
    "sin": _lift(np.sin),
    "cos": _lift(np.cos),
    "tan": _lift(np.tan),
    "asin": _lift(np.arcsin),
    "acos": _lift(np.arccos),
    "atan": _lift(np.arctan),
    "atan2": _lift(np.arctan2),
}
_WIDE = {"tan": 3.0, "expm1": 2.0, "asin": 2.0, "atan": 2.0, "tanh": 2.0, "atan2": 2.0}
_NARROW = {"exp": 1.0, "log": 1.0, "pow": 1.0, "acos": 1.2}
BOUNDS = {
    (name, t): _WIDE.get(name, _NARROW.get(name, 1.6))
    for name in REFERENCES
    for t in ("f32", "f64")
}


def samples(dtype: DType, count: int, seed: int = 0) -> np.ndarray:
    """All magnitudes (random bits), then uniform ranges around zero."""
    rng = np.random.default_rng(seed)
    kind = f"u{dtype.bytes}"
    bits = rng.integers(0, 2**dtype.bits, count, dtype=np.uint64).astype(kind).view(dtype.numpy)
    parts = [rng.uniform(-s, s, count // 4) for s in (0.01, 1, 3, 10, 100, 1e4, 1e9)]
    return np.concatenate([bits, *(p.astype(dtype.numpy) for p in parts)])


def ulps(got: np.ndarray, want: np.ndarray, dtype: DType) -> tuple[float, int]:
    """The greatest error and where it is; infinite where only one is NaN or infinite."""
    info = np.finfo(dtype.numpy)
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(np.abs(want))[1], info.minexp + 1)
        unit = np.ldexp(np.ones_like(want), exponent - (24 if dtype is f32 else 53))
        distance = np.abs(got.astype(want.dtype) - want) / unit
        rounded = want.astype(dtype.numpy)
    finite = np.isfinite(got) & np.isfinite(want)
    same = (np.isnan(got) & np.isnan(want)) | (got == rounded)
    edge = np.isinf(got) != np.isinf(rounded)
    close = edge & (np.abs(np.where(finite, want, info.max)) > float(info.max) * (1 - 2**-20))
    errors = np.where(finite, distance, np.where(same | close, 0, np.inf)).astype(np.float64)
    worst = int(np.argmax(errors))
    return float(errors[worst]), worst
