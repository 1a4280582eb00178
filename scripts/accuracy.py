"""Measure the error of every function in generated code, and write docs/accuracy.md.

    python -m scripts.accuracy            writes the page, in some ten seconds
    python -m scripts.accuracy --check    only compare with the bounds that the tests use

References are in f64 for f32, and in the machine's long double for f64.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from tests.codegen.harness import run
from tests.codegen.reference import BOUNDS, REFERENCES, samples, ulps

from summand.dtypes import DType, f32, f64

PAGE = Path(__file__).resolve().parents[1] / "docs" / "accuracy.md"
CHUNK = 1 << 17
HEAD = """\
# Accuracy of functions in generated code

Summand calls no mathematical library when a kernel runs: these functions are written into the
kernel, for any number of lanes (`src/summand/codegen/cpu/vmath*.py`). The table gives the greatest
error found, in units in the last place of the exact result (0.5 is correct rounding), and where.
`scripts/accuracy.py` measures it and writes this page; the tests hold the functions to the bounds.

Special values are those of C's Annex F: zeros keep their sign, denormals are read and written,
results overflow to infinity and underflow to zero. `sin`, `cos` and `tan` are right for
arguments of any size. `add`, `sub`, `mul`, `div`, `sqrt` and rounding are IEEE's, except that a
product and the sum that uses it may be one fused operation. `max` and `min` propagate NaN. `mod`
and `floordiv` are exact at any ratio of magnitudes, as in Python; an integer divided by zero is 0.

"""


def arguments(name: str, dtype: DType, count: int) -> list[np.ndarray]:
    """Arguments of all magnitudes, and near where a function changes fast."""
    if name not in ("pow", "atan2"):
        return [samples(dtype, count)]
    rng = np.random.default_rng(1)
    if name == "atan2":
        y = np.exp(rng.uniform(-80, 80, count)) * rng.choice([-1, 1], count)
        x = y * np.exp(rng.uniform(-4, 4, count)) * rng.choice([-1, 1], count)
        return [y.astype(dtype.numpy), x.astype(dtype.numpy)]
    third = count // 3
    x = [rng.uniform(0, 4, third), np.exp(rng.uniform(-80, 80, third))]
    y = [rng.uniform(-30, 30, third), rng.uniform(-1.2, 1.2, third)]
    x.append(rng.uniform(0.99, 1.01, third))
    y.append(rng.uniform(-8000, 8000, third))
    return [np.concatenate(v).astype(dtype.numpy) for v in (x, y)]


def measure(name: str, dtype: DType, count: int) -> tuple[float, str]:
    """The greatest error and the arguments that have it."""
    args = arguments(name, dtype, count)
    worst, place = 0.0, ""
    for start in range(0, args[0].size, CHUNK):
        part = [a[start : start + CHUNK] for a in args]
        with np.errstate(all="ignore"):
            want = REFERENCES[name](*part)
        got = run(name, part, (dtype,) * len(part), dtype, 512 // dtype.bits)
        error, at = ulps(got, want, dtype)
        if error > worst:
            worst, place = error, ", ".join(f"{a[at]:.9g}" for a in part)
    return worst, place


def main() -> int:
    """Measure, and write the page or compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--count", type=int, default=1_000_000)
    options = parser.parse_args()
    rows = ["| function | f32: ulp | at | f64: ulp | at |", "| --- | --- | --- | --- | --- |"]
    failed = False
    for name in REFERENCES:
        cells = [name]
        for dtype in (f32, f64):
            worst, place = measure(name, dtype, options.count // (1 if dtype is f32 else 4))
            cells += [f"{worst:.2f}", place]
            failed |= worst > BOUNDS[name, dtype.name]
        rows.append("| " + " | ".join(cells) + " |")
        print(rows[-1], flush=True)
    if not options.check:
        tail = (
            f"\n{options.count:,} random bit patterns, as many arguments near 0; f64 a quarter.\n"
        )
        PAGE.write_text(HEAD + "\n".join(rows) + "\n" + tail)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
