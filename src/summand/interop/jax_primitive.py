"""A compiled program as a primitive of JAX, with all that JAX wants to know of one.

    summand_p.bind(*arrays, kernel=kernel, linear=None)    ->  the kernel's results

Its derivatives, batched forms and transposes are kernels again, so transforms nest in any order.
A tangent is computed by `kernel.jvp`, of which `linear` remembers where it came from: transposed it
is `kernel.vjp`, which takes the primal values that it reads and nothing that was computed forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from summand import dtypes
from summand.dtypes import DType
from summand.errors import DerivativeError, DeviceError, DTypeError
from summand.interop.kernel import Kernel
from summand.interop.specs import ArrayType
from summand.interop.xla import target

Value = object  # what JAX computes with: arrays, tracers, symbolic zeros


@dataclass(frozen=True, slots=True)
class Linear:
    """That a kernel gives the tangents of `base` for tangents of its parameters `wrt`.

    Its own parameters are those of `base` in `primals`, then the tangents.
    """

    base: Kernel
    wrt: tuple[int, ...]
    primals: tuple[int, ...]


summand_p = Primitive("summand")
summand_p.multiple_results = True


def bind(arrays: Sequence[Value], kernel: Kernel, linear: Linear | None = None) -> list[Value]:
    """The results of a kernel."""
    return list(summand_p.bind(*arrays, kernel=kernel, linear=linear))


def dtype_of(dtype: DType) -> np.dtype:
    """JAX's name of an element type."""
    return np.dtype(jnp.bfloat16) if dtype is dtypes.bf16 else dtype.numpy


def type_of(x: Value, label: str) -> ArrayType:
    """The type of an array or tracer. Raises DTypeError for elements that Summand has not."""
    shape, dtype = jnp.shape(x), jax.dtypes.canonicalize_dtype(jax.dtypes.result_type(x))
    found = dtypes.from_numpy(np.dtype(dtype))
    if found is None:
        advice = f"There are {', '.join(dtypes.BY_NAME)}: convert it with .astype."
        raise DTypeError(f"{label} has elements of type {dtype}, which Summand has not\n{advice}")
    weak = bool(getattr(getattr(x, "aval", None), "weak_type", False))
    return ArrayType(found, tuple(int(n) for n in shape), weak)


def _abstract(*args: Value, kernel: Kernel, linear: Linear | None) -> list[jax.core.ShapedArray]:
    return _avals(kernel)


def _avals(kernel: Kernel) -> list[jax.core.ShapedArray]:
    return [jax.core.ShapedArray(t.shape, dtype_of(t.dtype)) for t in kernel.result_types]


def _evaluate(*args: Value, kernel: Kernel, linear: Linear | None) -> list[jax.Array]:
    """Without jax.jit (`jax.disable_jit`): the native call itself."""
    arrays = [np.asarray(a) for a in args]
    stored = [a.view(np.uint16) if a.dtype.name == "bfloat16" else a for a in arrays]
    results = kernel.executable().run(stored)
    types = kernel.result_types
    return [
        jnp.asarray(r.view(dtype_of(t.dtype)) if t.dtype is dtypes.bf16 else r)
        for r, t in zip(results, types, strict=True)
    ]


def _lower(
    ctx: mlir.LoweringRuleContext, *operands: Value, kernel: Kernel, linear: Linear | None
) -> Sequence[Value]:
    lowered: Sequence[Value] = jax.ffi.ffi_lowering(target(kernel))(ctx, *operands)
    return lowered


def _refuse(
    ctx: mlir.LoweringRuleContext, *operands: Value, kernel: Kernel, linear: Linear | None
) -> Sequence[Value]:
    raise DeviceError(
        f"{kernel.name}: Summand compiles for the CPU; it has no code for other devices yet\n"
        'Move the arrays: jax.device_put(x, jax.devices("cpu")[0]).'
    )


# ---- derivatives


def _push(
    primals: Sequence[Value],
    tangents: Sequence[Value],
    *,
    kernel: Kernel,
    linear: Linear | None,
) -> tuple[list[Value], list[Value]]:
    """Results and their tangents."""
    results = bind(primals, kernel, linear)
    wrt = tuple(n for n, t in enumerate(tangents) if not isinstance(t, ad.Zero))
    pushed: list[Value] = [ad.Zero(t.to_tangent_aval()) for t in _avals(kernel)]
    if not wrt:
        return results, pushed
    push = kernel.jvp(wrt)
    own = range(len(primals))
    needed = _read_backward(kernel, wrt) | push.read
    kept = tuple(n for n in own if n in needed)
    slim = push.taking((*kept, *range(len(own), len(own) + len(wrt))))
    given = [*(primals[n] for n in kept), *(tangents[n] for n in wrt)]
    moved = bind(given, slim, Linear(kernel, wrt, kept))
    for place, tangent in zip(kernel.inexact_results, moved, strict=True):
        pushed[place] = tangent
    return results, pushed


def _read_backward(kernel: Kernel, wrt: tuple[int, ...]) -> frozenset[int]:
    """The parameters that the transpose of a tangent will ask for."""
    try:
        return kernel.vjp(wrt).read
    except DerivativeError:  # it has tangents only (a while loop): nobody can transpose them
        return frozenset()


def _pull(
    cotangents: Sequence[Value], *args: Value, kernel: Kernel, linear: Linear | None
) -> list[Value]:
    """The cotangents of the arguments that are not known, in which the kernel is linear."""
    unknown = tuple(n for n, a in enumerate(args) if ad.is_undefined_primal(a))
    of = tuple(n for n, c in enumerate(cotangents) if not isinstance(c, ad.Zero))
    pulled: list[Value] = [None] * len(args)
    if not of:
        for n in unknown:
            pulled[n] = ad.Zero(args[n].aval)  # type: ignore[attr-defined]
        return pulled
    seeds = [cotangents[n] for n in of]
    if linear is not None and min(unknown) >= len(linear.primals):
        base, first = linear.base, len(linear.primals)
        wrt = tuple(linear.wrt[n - first] for n in unknown)
        results = tuple(base.inexact_results[n] for n in of)
        values = dict(zip(linear.primals, args[:first], strict=True))
        found = _bind_read(base.vjp(wrt, results), values, len(base.params), seeds)
    else:
        values = {n: _filled(a) for n, a in enumerate(args)}
        of = tuple(n for n in of if n in kernel.inexact_results)
        found = _bind_read(kernel.vjp(unknown, of), values, len(args), seeds)
    for n, grad in zip(unknown, found, strict=True):
        pulled[n] = grad
    return pulled


def _bind_read(
    kernel: Kernel, values: dict[int, Value], own: int, seeds: Sequence[Value]
) -> list[Value]:
    """The results of a derivative, given only what it reads."""
    values = {**values, **{own + n: seed for n, seed in enumerate(seeds)}}
    kept = tuple(sorted(kernel.read))
    return bind([values[n] for n in kept], kernel.taking(kept))


def _filled(x: Value) -> Value:
    """A linear argument's own value does not matter."""
    if ad.is_undefined_primal(x):
        return jnp.zeros(x.aval.shape, x.aval.dtype)  # type: ignore[attr-defined]
    return x


# ---- vmap


def _batch(
    args: Sequence[Value],
    axes: Sequence[object],
    *,
    kernel: Kernel,
    linear: Linear | None,
) -> tuple[list[Value], list[object]]:
    """One more dim: nothing is moved, the kernel reads it where it is."""
    mapped = tuple(a if isinstance(a, int) else None for a in axes)
    size = next(jnp.shape(x)[a] for x, a in zip(args, mapped, strict=True) if a is not None)
    batched = kernel.batched(mapped, size)
    results = bind(args, batched)
    longer = zip(batched.results, kernel.results, strict=True)
    return results, [0 if len(b) > len(k) else batching.not_mapped for b, k in longer]


summand_p.def_abstract_eval(_abstract)
summand_p.def_impl(_evaluate)
ad.primitive_jvps[summand_p] = _push
ad.primitive_transposes[summand_p] = _pull
batching.primitive_batchers[summand_p] = _batch
mlir.register_lowering(summand_p, _refuse)
mlir.register_lowering(summand_p, _lower, platform="cpu")
