"""Functions of JAX that are written in Summand: `summand.jax.function` and `array`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Generic, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from summand.errors import DTypeError
from summand.interop.jax_primitive import Value, bind, dtype_of, type_of
from summand.interop.kernel import close_over, trace
from summand.interop.specs import ArrayType, Bound, Spec, Tree, error, is_dims
from summand.lang.array import Array, Dim
from summand.lang.location import pass_over
from summand.lang.pytree import unflatten

pass_over(jax.__file__)

P = ParamSpec("P")
ARRAYS = (jax.Array, np.ndarray, np.generic)  # tracers are such, too
KEEP = 512  # calls with different constants that a function remembers


class Function(Generic[P]):
    """A function of JAX arrays. It is traced by JAX once for each structure and type of arguments,
    under whatever transforms are at work; its native code is shared by all of them."""

    def __init__(self, function: Callable[P, object], spec: Spec) -> None:
        self.spec = spec
        self._compiled: dict[Hashable, Callable[..., list[Value]]] = {}
        self._plain: dict[int, Callable[..., list[Value]]] = {}  # calls of arrays only, by number
        self._single = spec.out_tree.is_leaf()
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tree:
        """Run on arrays or tracers of JAX, or arrays of NumPy."""
        plain = not kwargs and all(isinstance(a, ARRAYS) for a in args)
        run = self._plain.get(len(args)) if plain else None
        if run is not None:
            results = run(*args)
        else:
            bound = self.spec.bind(args, kwargs, _is_array)
            run = self._jitted(bound)
            results = run(*bound.arrays)
            if plain:
                self._plain[len(args)] = run
        return results[0] if self._single else unflatten(self.spec.out_tree, results)

    def _jitted(self, bound: Bound) -> Callable[..., list[Value]]:
        """What runs calls of this structure and with these constants."""
        run = self._compiled.get(bound.key)
        if run is None:
            run = jax.jit(functools.partial(_run, self.spec, replace(bound, arrays=[])))
            self._compiled[bound.key] = run
            if len(self._compiled) > KEEP:
                del self._compiled[next(iter(self._compiled))]
        return run

    def __get__(self, instance: object, owner: type) -> Callable[..., Tree]:
        """As a method: `self` is an argument like any other (hashable, or a pytree)."""
        return self if instance is None else functools.partial(self, instance)  # type: ignore[arg-type]


def _is_array(x: object) -> bool:
    return isinstance(x, ARRAYS)


def _run(spec: Spec, bound: Bound, *arrays: Value) -> list[Value]:
    """Trace the function for these arrays' types, and put its kernel into JAX's trace."""
    labels = [f"{spec.name}: {leaf.label}" for leaf in bound.leaves]
    types = [type_of(x, label) for x, label in zip(arrays, labels, strict=True)]
    traced = trace(spec, bound, types)
    kernel = traced.kernel
    first = len(kernel.params) - len(traced.constants)
    _check_width(spec, kernel.param_types[first:], "an array that it reads")
    _check_width(spec, kernel.result_types, "its result")
    own = zip(traced.constants, kernel.param_types[first:], strict=True)
    constants = [jnp.asarray(c.view(dtype_of(t.dtype))) for c, t in own]
    return bind([*arrays, *traced.closures, *constants], kernel)


def _check_width(spec: Spec, types: Sequence[ArrayType], what: str) -> None:
    """JAX has no 64-bit types unless it is told to; nothing is narrowed in silence."""
    for type_ in types:
        dtype = dtype_of(type_.dtype)
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            header = f"{spec.name}: {what} is {type_}, but JAX's 64-bit types are switched off"
            advice = (
                "Convert it, .astype(sm.f32) or sm.i32, "
                'or call jax.config.update("jax_enable_x64", True).'
            )
            raise DTypeError(f"{header}\n{advice}")


def array(x: Value, *dims: Dim) -> Array:
    """Name the axes of a JAX array that a decorated function reads from outside.

    It becomes an argument of the function, so gradients by it flow. Like all that `jax.jit` reads
    from outside, it is the one that was there when JAX traced the function.
    """
    type_ = type_of(x, "array")
    if not is_dims(dims) or len(dims) != len(type_.shape):
        advice = "Name each axis once: array(x, i, k)."
        raise error(f"array was given {type_} and {len(dims)} dims", advice)
    return close_over(jnp.asarray(x), dims, type_, "array")


def function(*, out: Tree, **inputs: Tree) -> Callable[[Callable[P, object]], Function[P]]:
    """Make a function of Summand arrays one of JAX arrays: `@function(x=(n, k), out=(n,))`.

    inputs: for each array argument its dims, outermost first; a pytree of them for a pytree.
    Arguments without dims may be numbers, arrays without axes, or hashable constants.
    out: the dims of the result, or a pytree of dims, nested like what the function returns.
    Raises ArgumentError, DimError or DTypeError in the terms of these names.
    """

    def decorate(function: Callable[P, object]) -> Function[P]:
        return Function(function, Spec.of(function, inputs, out))

    return decorate
