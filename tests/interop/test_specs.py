"""Dims of decorated functions, and the programs that follow from one: no framework is needed."""

import numpy as np
import pytest

import summand as sm
from summand import dtypes
from summand.errors import ArgumentError, DimError
from summand.interop.kernel import close_over, trace
from summand.interop.specs import ArrayType, Spec

n, i, k, j = sm.dims("n i k j")


def is_ndarray(x):
    return isinstance(x, np.ndarray)


def typed(x):
    if isinstance(x, np.ndarray):
        return ArrayType(dtypes.from_numpy(x.dtype), x.shape)
    return ArrayType(dtypes.f64, (), weak=True)


def traced(function, inputs, out, *args, **kwargs):
    spec = Spec.of(function, inputs, out)
    bound = spec.bind(args, kwargs, is_ndarray)
    return trace(spec, bound, [typed(x) for x in bound.arrays]), bound


def layer(P, W, scale=1.0, *, power=1):
    total = sm.sum[k](sm.exp(P) * W["a"]) * scale
    return {"y": total**power, "p": P}


SPECS = {"P": (n, i, k), "W": {"a": (k, j)}}
OUT = {"y": (n, i, j), "p": (k, n, i)}
RNG = np.random.default_rng(0)
P, W = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(4, 5))


def test_a_call_runs_on_arrays_in_the_order_of_the_dims():
    found, bound = traced(layer, SPECS, OUT, P, {"a": W}, 2.0, power=2)
    assert [leaf.label for leaf in bound.leaves] == ["P", "W['a']", "scale"]
    p, y = found.kernel.executable().run([P, W, np.array(2.0)])
    np.testing.assert_allclose(y, (np.exp(P) @ W * 2) ** 2)
    np.testing.assert_array_equal(p, P.transpose(2, 0, 1))
    assert found.kernel.result_types[1] == ArrayType(dtypes.f64, (2, 3, 5))


def test_derivatives_take_the_arrays_of_their_program():
    kernel = traced(layer, SPECS, OUT, P, {"a": W}, 2.0)[0].kernel
    (dw,) = (
        kernel.vjp((1,))
        .executable()
        .run([P, W, np.array(2.0), np.zeros((4, 2, 3)), np.ones((2, 3, 5))])
    )
    np.testing.assert_allclose(dw, np.broadcast_to(2 * np.exp(P).sum((0, 1))[:, None], W.shape))
    assert kernel.vjp((1,)).read == {0, 2, 4}  # linear in W, so W itself is not looked at
    slim = kernel.vjp((1,)).taking((0, 2, 4))
    (again,) = slim.executable().run([P, np.array(2.0), np.ones((2, 3, 5))])
    np.testing.assert_array_equal(again, dw)
    tangents = kernel.jvp((1,)).executable().run([P, W, np.array(2.0), W])
    np.testing.assert_allclose(tangents[1], np.exp(P) @ W * 2)


def test_a_new_axis_may_stand_anywhere():
    kernel = traced(layer, SPECS, OUT, P, {"a": W}, 2.0)[0].kernel
    batched = kernel.batched((1, None, None), 6)
    many = RNG.normal(size=(2, 6, 3, 4))
    _, y = batched.executable().run([many, W, np.array(2.0)])
    np.testing.assert_allclose(y, (np.exp(many) @ W * 2).transpose(1, 0, 2, 3))
    assert kernel.batched((None, 0, None), 6).result_types[0].shape == (4, 2, 3)  # P has no batch


def test_arrays_of_the_framework_can_be_closed_over():
    bias = RNG.normal(size=5)

    def function(P):
        named = close_over(bias, (j,), typed(bias), "array")
        return sm.sum[k](P) * named + close_over(bias, (j,), typed(bias), "array")

    found, _ = traced(function, {"P": (n, i, k)}, (n, i, j), P)
    assert found.closures == (bias,)
    (y,) = found.kernel.executable().run([P, bias])
    np.testing.assert_allclose(y, P.sum(2)[..., None] * bias + bias)


def test_what_the_function_reads_of_summand_is_a_constant():
    table = sm.array(np.arange(4.0), k) * 2
    found, _ = traced(lambda P: sm.sum[k](P * table), {"P": (n, i, k)}, (n, i), P)
    (y,) = found.kernel.executable().run([P, *found.constants])
    np.testing.assert_allclose(y, P @ (np.arange(4.0) * 2))


def twice(P):
    return sm.sum[k](P)


BAD = {
    "unknown argument": (
        lambda: Spec.of(twice, {"Q": (i, k)}, (i,)),
        ArgumentError,
        "twice has no argument Q",
    ),
    "no dims": (
        lambda: Spec.of(twice, {"P": "ik"}, (i,)),
        ArgumentError,
        "twice: P is given by 'ik', which is not a tuple of dims",
    ),
    "one dim for two axes": (
        lambda: Spec.of(twice, {"P": (i, i)}, (i,)),
        ArgumentError,
        "twice: P has one dim for two axes: (i, i)",
    ),
    "number of axes": (
        lambda: traced(twice, {"P": (i, k)}, (i,), P),
        DimError,
        "twice: P has 3 axes, but other dims\n"
        "  given: f64[2, 3, 4]\n"
        "  dims:  (i, k)\n"
        "Pass an array with one axis for each dim.",
    ),
    "two sizes": (
        lambda: traced(lambda P, W: P * W, {"P": (i, k), "W": (k,)}, (i, k), W, P[0, 0]),
        DimError,
        "<lambda>: k has two sizes\n"
        "  P: k=5\n"
        "  W: k=4\n"
        "Pass arrays that agree, or give one of them a dim of its own.",
    ),
    "own size": (
        lambda: traced(twice, {"P": (i, sm.Dim("k", 7))}, (i,), W),
        DimError,
        "twice: k has two sizes\n  k itself: k=7\n  P: k=5",
    ),
    "not an array": (
        lambda: traced(twice, {"P": (i, k)}, (i,), [[1, 2]]),
        ArgumentError,
        "twice: P is no array, but list",
    ),
    "array without dims": (
        lambda: traced(lambda P, q: P * q, {"P": (i, k)}, (i, k), W, W),
        DimError,
        "<lambda>: q has 2 axes, but other dims\n  given: f64[4, 5]\n  dims:  ()",
    ),
    "not hashable": (
        lambda: traced(lambda P, q: P, {"P": (i, k)}, (i, k), W, {1}),
        ArgumentError,
        "<lambda>: q is neither an array nor hashable: set",
    ),
    "arguments": (
        lambda: traced(twice, {"P": (i, k)}, (i,), W, W),
        ArgumentError,
        "twice: too many positional arguments",
    ),
    "nesting": (
        lambda: traced(layer, SPECS, OUT, P, {"b": W}),
        ArgumentError,
        "layer: W is not nested like its dims",
    ),
    "wrong dims returned": (
        lambda: traced(twice, {"P": (i, k)}, (k,), W),
        DimError,
        "twice: its result has other dims than out says\n  returned: f64{i=4}",
    ),
    "wrong nesting returned": (
        lambda: traced(twice, {"P": (i, k)}, ((i,), (i,)), W),
        ArgumentError,
        "twice returned Array, which is not nested like out",
    ),
    "no array returned": (
        lambda: traced(lambda P: 3.0, {"P": (i, k)}, (), W),
        ArgumentError,
        "<lambda> returned float as its result",
    ),
    "closed over outside": (
        lambda: close_over(W, (i, k), typed(W), "array"),
        ArgumentError,
        "array outside of a function",
    ),
}


@pytest.mark.parametrize("make, kind, text", BAD.values(), ids=BAD)
def test_errors(make, kind, text):
    with pytest.raises(kind) as found:
        make()
    assert str(found.value).startswith(text), str(found.value)
