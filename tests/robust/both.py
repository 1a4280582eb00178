"""Run a function compiled and on the interpreter, and compare what comes out."""

import numpy as np

import summand as sm


def floats(x, *dims, dtype="f32"):
    """An array of floats from a nested list."""
    return sm.array(np.asarray(x), *dims, dtype=dtype)


def numbers(result):
    """The arrays of a result (one, or a tuple) with their dims in a fixed order."""
    results = result if isinstance(result, tuple) else (result,)
    return [r.numpy(*sorted(r.dims, key=lambda d: d.name)) for r in results]


def compiled(function, *args):
    """The numbers that the compiled function gives."""
    return numbers(sm.jit(function)(*args))


def interpreted(function, *args):
    """The numbers that the interpreter gives."""
    with sm.interpret():
        return numbers(function(*args))


def agree(function, *args, rtol=2e-5, atol=1e-6):
    """Both ways give the same shapes, types and numbers; returns the compiled ones."""
    found, expected = compiled(function, *args), interpreted(function, *args)
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    return found
