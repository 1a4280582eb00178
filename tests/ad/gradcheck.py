"""Derivatives against float64 finite differences, and ⟨Jv, u⟩ = ⟨v, Jᵀu⟩, run on the oracle."""

import numpy as np

from summand.ad import jvp, vjp
from summand.ir.interp import run
from summand.ir.named import Named
from summand.ir.verify import verify

STEP = 1e-6


def named(var, array):
    return Named(np.asarray(array, var.type.dtype.numpy), tuple(d for d, _ in var.type.dims))


def random_args(program, seed=0, scale=1.0):
    """Normal floats; small non-negative integers; random bools."""
    rng = np.random.default_rng(seed)
    return [random_like(p, rng, scale) for p in program.params]


def random_like(var, rng, scale=1.0):
    shape = [n for _, n in var.type.dims]
    kind = var.type.dtype.kind
    if kind == "bool":
        return named(var, rng.integers(0, 2, shape).astype(bool))
    if kind in ("int", "uint"):
        return named(var, rng.integers(0, 3, shape))
    array = rng.normal(size=shape) * scale
    if kind == "complex":
        array = array + 1j * rng.normal(size=shape) * scale
    return named(var, array)


def dot(xs, ys):
    return sum(float(np.sum(x.array * y.array).real) for x, y in zip(xs, ys, strict=True))


def inexact(program):
    return [n for n, r in enumerate(program.results) if r.type.dtype.is_inexact]


def close(a, b, rtol, what):
    assert abs(a - b) <= rtol * (1 + max(abs(a), abs(b))), f"{what}: {a} against {b}"


def moved(args, wrt, direction, by):
    out = list(args)
    for i, v in zip(wrt, direction, strict=True):
        out[i] = Named(args[i].array + by * v.array, args[i].order)
    return out


def check(program, wrt=None, args=None, modes=("jvp", "vjp"), order=2, rtol=2e-6, seed=0):
    """Compare both modes with finite differences, and each other; then the derivative of the
    derivative, up to `order`."""
    verify(program)
    wrt = tuple(range(len(program.params))) if wrt is None else tuple(wrt)
    args = random_args(program, seed) if args is None else args
    rng = np.random.default_rng(seed + 1)
    v = [random_like(program.params[i], rng) for i in wrt]
    keep = inexact(program)
    u = [random_like(program.results[n], rng) for n in keep]
    plain = run(program, args)
    ahead = run(program, moved(args, wrt, v, STEP))
    behind = run(program, moved(args, wrt, v, -STEP))
    slope = (dot(u, [ahead[n] for n in keep]) - dot(u, [behind[n] for n in keep])) / (2 * STEP)
    for mode in modes:
        if mode == "jvp":
            derived = jvp(program, wrt)
            verify(derived)
            out = run(derived, [*args, *v])
            found = dot(u, out[len(plain) :])
        else:
            derived = vjp(program, wrt)
            verify(derived)
            out = run(derived, [*args, *u])
            found = dot(v, out[len(plain) :])
        for a, b in zip(plain, out, strict=False):
            np.testing.assert_array_equal(a.array, b.array)
        close(found, slope, rtol, f"{mode} against finite differences")
        if order > 1:
            check_second(derived, program, args, v if mode == "jvp" else u, wrt, modes, rtol, seed)
    return derived


def check_second(derived, program, args, extra, wrt, modes, rtol, seed):
    """Differentiate the derivative by the same parameters, in all of the modes."""
    check(derived, wrt, [*args, *extra], modes, order=1, rtol=rtol * 50, seed=seed + 7)
