"""Compare a rewritten program with the original on the interpreter."""

import numpy as np

from summand import dtypes as dt
from summand.dtypes import real_part, widen
from summand.ir.interp import run
from summand.ir.nodes import operands
from summand.ir.verify import verify
from tests.programs import arguments

# relative to the largest magnitude that takes part; a few roundings of each type
TOLERANCE = {dt.f16: 1e-2, dt.bf16: 8e-2, dt.f32: 2e-5, dt.f64: 1e-12}


def assert_same_results(before, after, *, exact=False, seed=0):
    """Verify `after`, run both, compare every result that `before` has."""
    verify(after)
    args = arguments(before, seed)
    wanted = run(before, args)
    found = run(after, args)
    for var, new, a, b in zip(before.results, after.results, wanted, found, strict=False):
        assert var.type == new.type
        assert_close(a.array, b.array, var.type.dtype, exact)


def assert_close(wanted, found, dtype, exact=False, computed_in=None):
    """`computed_in`: the narrowest type on the way, where that is not `dtype` itself."""
    if exact or not dtype.is_inexact:
        np.testing.assert_array_equal(wanted, found)
        return
    a, b = widen(wanted, dtype), widen(found, dtype)
    tolerance = max(TOLERANCE[real_part(dtype)], TOLERANCE.get(computed_in, 0.0))
    scale = np.max(np.abs(a[np.isfinite(a)]), initial=1.0)
    np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * scale)


def narrowest(program):
    """For each result the float type with the largest tolerance that it was computed through.

    A 16-bit value that is not stored keeps the precision of f32, so what depends on it may differ
    from the interpreter's by a rounding of 16 bits.
    """
    through = {p: _coarse([p.type.dtype]) for p in program.params}
    for eqn in program.eqns:
        types = [o.type.dtype for o in eqn.outs]
        coarse = _coarse([*types, *(through[v] for v in operands(eqn.op)), *_inside(eqn.op)])
        through |= dict.fromkeys(eqn.outs, coarse)
    return [through[r] for r in program.results]


def _inside(op):
    programs = [getattr(op, name, None) for name in ("body", "test", "then", "other", "primal")]
    return [
        o.type.dtype
        for program in programs
        if program is not None
        for eqn in program.eqns
        for o in eqn.outs
    ]


def _coarse(dtypes):
    return max((real_part(t) for t in dtypes), key=lambda t: TOLERANCE.get(t, 0.0))
