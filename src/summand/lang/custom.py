"""`sm.checkpoint` and `sm.custom_vjp`: functions whose derivative is not that of their equations.

    f = sm.checkpoint(block)                keeps the arguments only, and computes block again
    @sm.custom_vjp                          then f.defvjp(forward, backward)
    def f(x, n): ...

Both become one equation with sub-programs in the graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Generic, ParamSpec, TypeVar, cast

from summand.errors import ArgumentError, DimError
from summand.ir.builder import Builder
from summand.ir.nodes import Custom, Program, Type
from summand.lang.array import is_array, operand, wrap
from summand.lang.describe import Names, message, ordered, sizes_in_order, source_row
from summand.lang.elementwise import convert, expand
from summand.lang.graph import Sized, constant, emit, placeholder, placeholder_for, serial_now
from summand.lang.location import here
from summand.lang.pytree import Structure, flatten, leaves_of, unflatten, unflatten_call
from summand.lang.signature import check_function
from summand.lang.trace import Extracted, extract, tracing, with_captured
from summand.lang.unsized import force

P = ParamSpec("P")
R = TypeVar("R")
Tree = object


class _Call:
    """One call: the arrays among its arguments, and how to put others in their place."""

    def __init__(self, args: object, kwargs: object) -> None:
        self.leaves, self.tree = flatten((args, kwargs), none_is_leaf=True)
        self.places = [i for i, x in enumerate(self.leaves) if is_array(x)]
        self.values = [force(operand(self.leaves[i]), "argument", here()) for i in self.places]

    def placeholders(self) -> list[Sized]:
        """Placeholders for the arrays."""
        return [placeholder_for(v, "argument") for v in self.values]

    def run(self, function: Callable[..., Tree], inputs: Sequence[Sized]) -> Tree:
        """The function on placeholders."""
        given = list(self.leaves)
        for place, value in zip(self.places, inputs, strict=True):
            given[place] = wrap(value)
        args, kwargs = unflatten_call(self.tree, given)
        with tracing():
            return function(*args, **kwargs)


def checkpoint(function: Callable[P, R]) -> Callable[P, R]:
    """The same function; its derivative computes it again instead of keeping its inner values."""

    check_function(function, "checkpoint")

    @functools.wraps(function, updated=())
    def recomputed(*args: P.args, **kwargs: P.kwargs) -> R:
        call = _Call(args, kwargs)
        start = serial_now()
        inputs = call.placeholders()
        outs, tree = flatten(call.run(function, inputs))
        results = [force(operand(o), "checkpoint", here()) for o in outs]
        found = extract(results, inputs, since=start)
        values = [*call.values, *found.captured]
        types = [r.type for r in found.program.results]
        made = emit(lambda *v: Custom(found.program, None, None, v), values, types)
        return cast("R", unflatten(tree, [wrap(m) for m in made]))

    return recomputed


class custom_vjp(Generic[P, R]):
    """A function with a reverse derivative of the user's own.

    defvjp(forward, backward): forward takes the arguments and gives (result, residuals); backward
    takes (residuals, cotangent of the result) and gives a tuple with one cotangent for each
    argument, None for those that are not float arrays.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        check_function(function, "custom_vjp")
        self.function = function
        self.forward: Callable[..., tuple[Tree, Tree]] | None = None
        self.backward: Callable[..., tuple[Tree, ...]] | None = None
        functools.update_wrapper(self, function, updated=())

    def defvjp(
        self,
        forward: Callable[..., tuple[Tree, Tree]],
        backward: Callable[..., tuple[Tree, ...]],
    ) -> None:
        """Give the derivative."""
        check_function(forward, "defvjp")
        check_function(backward, "defvjp")
        self.forward = forward
        self.backward = backward

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result; its derivative is the one given by `defvjp`."""
        if self.forward is None or self.backward is None:
            what = f"{getattr(self.function, '__name__', 'the function')} has no derivative yet"
            advice = "Call f.defvjp(forward, backward) after its definition."
            raise ArgumentError(message(what, source_row(here()), advice))
        call = _Call(args, kwargs)
        primal, tree, shape = self._primal(call)
        forward, residuals, residual_tree = self._forward(call, shape)
        backward = self._backward(call, shape, tree, residuals, residual_tree)
        captured = tuple(dict.fromkeys((*primal.captured, *forward.captured, *backward.captured)))
        count = len(call.values)
        programs = _with_captured(primal, forward, backward, captured, count, len(residuals))
        values = [*call.values, *captured]
        made = emit(lambda *v: Custom(*programs, v), values, shape)
        return cast("R", unflatten(tree, [wrap(m) for m in made]))

    def _primal(self, call: _Call) -> tuple[Extracted, Structure, list[Type]]:
        start = serial_now()
        inputs = call.placeholders()
        outs, tree = flatten(call.run(self.function, inputs))
        results = [force(operand(o), "custom_vjp", here()) for o in outs]
        return extract(results, inputs, since=start), tree, [r.type for r in results]

    def _forward(
        self, call: _Call, shape: Sequence[Type]
    ) -> tuple[Extracted, list[Sized], Structure]:
        assert self.forward is not None
        start = serial_now()
        inputs = call.placeholders()
        pair = call.run(self.forward, inputs)
        if not isinstance(pair, tuple) or len(pair) != 2:
            what = "the forward function of custom_vjp does not return (result, residuals)"
            raise ArgumentError(message(what, source_row(here()), "Return a pair."))
        outs = [force(operand(o), "custom_vjp", here()) for o in leaves_of(pair[0])]
        saved, tree = flatten(pair[1])
        residuals = [force(operand(s), "custom_vjp", here()) for s in saved]
        if len(outs) != len(shape):
            what = f"forward gives {len(outs)} results, the function {len(shape)}"
            raise ArgumentError(message(what, source_row(here()), "Return the same result."))
        matched = [_matched(o, t, "a result of forward") for o, t in zip(outs, shape, strict=True)]
        return extract([*matched, *residuals], inputs, since=start), residuals, tree

    def _backward(
        self,
        call: _Call,
        shape: Sequence[Type],
        tree: Structure,
        residuals: Sequence[Sized],
        residual_tree: Structure,
    ) -> Extracted:
        assert self.backward is not None
        start = serial_now()
        saved = [placeholder(r.type, "residual") for r in residuals]
        cotangents = [placeholder(t, "cotangent") for t in shape]
        with tracing():
            given = self.backward(
                unflatten(residual_tree, [wrap(s) for s in saved]),
                unflatten(tree, [wrap(c) for c in cotangents]),
            )
        leaves = leaves_of(given, none_is_leaf=True)
        if len(leaves) == len(call.leaves):
            leaves = [leaves[i] for i in call.places]
        if len(leaves) != len(call.values):
            what = f"backward gives {len(leaves)} cotangents for {len(call.leaves)} arguments"
            advice = "Return a tuple with one for each argument, None where there is none."
            raise ArgumentError(message(what, source_row(here()), advice))
        pulled = [
            _cotangent(x, v.type)
            for x, v in zip(leaves, call.values, strict=True)
            if v.dtype.is_inexact
        ]
        inexact = [c for c in cotangents if c.dtype.is_inexact]
        return extract(pulled, [*saved, *inexact], since=start)


def _cotangent(x: object, type_: Type) -> Sized:
    return _matched(
        constant(0, type_.dtype) if x is None else force(operand(x), "custom_vjp", here()),
        type_,
        "a cotangent",
    )


def _matched(value: Sized, type_: Type, what: str) -> Sized:
    """A value with the dims and dtype of its counterpart."""
    value = force(convert(value, type_.dtype, weak=False), what, here())
    stray = [x for x in value.type.dims if x not in type_.dims]
    if stray:
        names = Names([*value.dims, *type_.names])
        found = names.type(value.dtype, sizes_in_order(value))
        wanted = names.type(type_.dtype, ordered(type_.dims))
        header = f"{what} is {found}, not {wanted}"
        raise DimError(message(header, source_row(here()), "Sum over the dims that are too many."))
    return expand(value, type_.sizes)


def _with_captured(
    primal: Extracted,
    forward: Extracted,
    backward: Extracted,
    captured: Sequence[Sized],
    count: int,
    residuals: int,
) -> tuple[Program, Program, Program]:
    """All three programs in terms of one list of captured values.

    Forward hands the captured values on as residuals; their own cotangents are zero.
    """
    first = with_captured(primal, captured, count)
    second = with_captured(forward, captured, count)
    outs = second.results[: len(first.results)]
    saved = second.results[len(first.results) :]
    second = Program(second.params, second.eqns, (*outs, *saved, *second.params[count:]))
    third = with_captured(backward, captured, len(backward.program.params) - len(backward.captured))
    given = len(third.params) - len(captured)
    b = Builder()
    kept = [b.param(p.type) for p in third.params[:residuals]]
    own = [b.param(p.type) for p in third.params[given:]]
    cotangents = [b.param(p.type) for p in third.params[residuals:given]]
    pulled = b.inline(third, [*kept, *cotangents, *own])
    zeros = [b.expand(b.constant(0, c.dtype), c.type.sizes) for c in captured if c.dtype.is_inexact]
    return first, second, b.finish([*pulled, *zeros])
