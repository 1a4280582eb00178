"""A program on positional arrays, and the programs that follow from it.

    k = trace(spec, bound, types).kernel     params: the arrays of a call; results: as `out` says
    k.vjp((0,))                              params: k's, then a cotangent of each float result
    k.jvp((0,))                              params: k's, then a tangent of param 0
    k.batched((0, None))                     param 0 has a new first axis, so have the results
    k.executable().run(arrays)

A derivative takes the same arrays as its program, and no results of it: what backward needs of the
forward values it computes again, in the same kernels. `read` tells which arrays it looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np

from summand import ad, compiler
from summand.errors import DimError, InternalError, layout
from summand.interop.specs import ArrayType, Bound, Dims, Leaf, Spec, Tree, error
from summand.ir.nodes import Program, Type, operands
from summand.lang import trace as lang_trace
from summand.lang.array import Array, is_array, wrap
from summand.lang.batch import batch
from summand.lang.describe import Names
from summand.lang.graph import Buffer, Sized, placeholder, serial_now
from summand.lang.pytree import flatten_up_to
from summand.lang.rename import canonical, dims_of_program
from summand.rewrite.drop_unused import drop_unused
from summand.runtime.executable import Executable

Order = tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Kernel:
    """A program with the order of axes of its parameters and results. Equal only to itself.

    What follows from it is made once and kept with it.
    """

    program: Program
    params: tuple[Order, ...]
    results: tuple[Order, ...]
    name: str
    _made: dict[object, Kernel | Executable] = field(default_factory=dict)

    def __repr__(self) -> str:
        taken, given = (", ".join(map(str, t)) for t in (self.param_types, self.result_types))
        return f"{self.name}: {taken} -> {given}"

    @property
    def param_types(self) -> tuple[ArrayType, ...]:
        """Element types and shapes of the parameters."""
        return tuple(_type(p.type, o) for p, o in zip(self.program.params, self.params))

    @property
    def result_types(self) -> tuple[ArrayType, ...]:
        """Element types and shapes of the results."""
        return tuple(_type(r.type, o) for r, o in zip(self.program.results, self.results))

    @property
    def inexact_results(self) -> tuple[int, ...]:
        """The positions of the results that have cotangents and tangents."""
        results = enumerate(self.program.results)
        return tuple(n for n, r in results if r.type.dtype.is_inexact)

    @property
    def read(self) -> frozenset[int]:
        """The positions of the parameters that the results depend on."""
        seen = set(self.program.results)
        for eqn in self.program.eqns:
            seen.update(operands(eqn.op))
        return frozenset(n for n, p in enumerate(self.program.params) if p in seen)

    def vjp(self, wrt: tuple[int, ...], of: tuple[int, ...] | None = None) -> Kernel:
        """The cotangents of the parameters `wrt`: takes the parameters, then the cotangents of
        the results `of` (all float ones). Raises DerivativeError where there is none."""
        chosen = self.inexact_results if of is None else of
        return self._kernel(("vjp", wrt, chosen), lambda: self._vjp(wrt, chosen))

    def _vjp(self, wrt: tuple[int, ...], of: tuple[int, ...]) -> Kernel:
        chosen = tuple(self.program.results[n] for n in of)
        program = ad.vjp(Program(self.program.params, self.program.eqns, chosen), wrt)
        seeds = tuple(self.results[n] for n in of)
        grads = tuple(self.params[n] for n in wrt)
        return self._derived(program, len(of), seeds, grads, "gradient of ")

    def jvp(self, wrt: tuple[int, ...]) -> Kernel:
        """The tangents of the float results: takes the parameters, then the tangents of `wrt`."""
        return self._kernel(("jvp", wrt), lambda: self._jvp(wrt))

    def _jvp(self, wrt: tuple[int, ...]) -> Kernel:
        program = ad.jvp(self.program, wrt)
        tangents = tuple(self.params[n] for n in wrt)
        pushed = tuple(self.results[n] for n in self.inexact_results)
        return self._derived(program, len(self.results), tangents, pushed, "tangent of ")

    def _derived(
        self,
        program: Program,
        skip: int,
        more: tuple[Order, ...],
        results: tuple[Order, ...],
        what: str,
    ) -> Kernel:
        """The derivative without the first `skip` results, which are the program's own."""
        own = program.results[skip:]
        slim = drop_unused(Program(program.params, program.eqns, own))
        return Kernel(slim, (*self.params, *more), results, what + self.name)

    def batched(self, axes: tuple[int | None, ...], size: int) -> Kernel:
        """The program for each position of a new axis, which some parameters have at `axes`.

        Results that depend on none of them lack it; the others have it first.
        """
        return self._kernel(("batched", axes, size), lambda: self._batched(axes, size))

    def _batched(self, axes: tuple[int | None, ...], size: int) -> Kernel:
        taken = dims_of_program(self.program)
        new = next(n for n in _batch_names() if n not in taken)
        program = batch(self.program, [{} if a is None else {new: size} for a in axes])
        params = tuple(o if a is None else (*o[:a], new, *o[a:]) for o, a in zip(self.params, axes))
        results = tuple(
            (new, *o) if new in r.type.names else o for o, r in zip(self.results, program.results)
        )
        return Kernel(program, params, results, self.name)

    def taking(self, positions: tuple[int, ...]) -> Kernel:
        """The same with these parameters only, which must hold all that are read."""
        return self._kernel(("taking", positions), lambda: self._taking(positions))

    def _taking(self, positions: tuple[int, ...]) -> Kernel:
        if not self.read <= set(positions):
            raise InternalError(f"{self.name} reads {sorted(self.read)}, not only {positions}")
        params = tuple(self.program.params[n] for n in positions)
        program = Program(params, self.program.eqns, self.program.results)
        return Kernel(program, tuple(self.params[n] for n in positions), self.results, self.name)

    def executable(self) -> Executable:
        """The compiled program, for dense arrays with their axes in order."""
        found = self._made.get("executable")
        if not isinstance(found, Executable):
            found = compiler.compile(self.program, self.params, self.results)
            self._made["executable"] = found
        return found

    def request(self) -> compiler.Request:
        """What `executable` asks the compiler for."""
        return compiler.request(self.program, self.params, self.results)

    def _kernel(self, key: object, make: Callable[[], Kernel]) -> Kernel:
        found = self._made.get(key)
        if not isinstance(found, Kernel):
            found = self._made[key] = make()
        return found


def _type(type_: Type, order: Order) -> ArrayType:
    sizes = type_.sizes
    return ArrayType(type_.dtype, tuple(sizes[d] for d in order))


def _batch_names() -> Iterator[str]:
    yield "batch"
    number = 1
    while True:
        yield f"batch_{number}"
        number += 1


# ---- tracing


@dataclass(frozen=True, slots=True)
class Traced:
    """What a call of a decorated function came to.

    The kernel's parameters are the call's arrays, then `closures` (arrays of the framework that the
    function named with `close_over`), then `constants` (Summand's arrays that it read).
    """

    kernel: Kernel
    closures: tuple[object, ...]
    constants: tuple[np.ndarray, ...]


@dataclass(slots=True)
class _Closures:
    arrays: list[object] = field(default_factory=list)
    inputs: list[Sized] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)


_closures: ContextVar[_Closures | None] = ContextVar("summand_closures", default=None)


@contextmanager
def _closing(closures: _Closures) -> Iterator[None]:
    token = _closures.set(closures)
    try:
        yield
    finally:
        _closures.reset(token)


def close_over(x: object, dims: Dims, type_: ArrayType, what: str) -> Array:
    """An array of the framework, read from inside a decorated function: one more parameter.

    So it has gradients like any other argument. Raises ArgumentError outside such a function.
    """
    closures = _closures.get()
    if closures is None:
        raise error(f"{what} outside of a function", "Elsewhere write sm.array(numpy_array, i).")
    for number, known in enumerate(closures.arrays):
        if known is x and closures.orders[number] == tuple(d.key for d in dims):
            return wrap(closures.inputs[number])
    value = _placeholder(Leaf("closure", dims), type_)
    closures.arrays.append(x)
    closures.inputs.append(value)
    closures.orders.append(tuple(d.key for d in dims))
    return wrap(value)


def trace(spec: Spec, bound: Bound, types: Sequence[ArrayType]) -> Traced:
    """Run the function on placeholders. Raises what the function raises, and DimError or
    ArgumentError where its results are not what `out` says."""
    spec.check(bound.leaves, types)
    start = serial_now()
    inputs = [_placeholder(leaf, t) for leaf, t in zip(bound.leaves, types, strict=True)]
    closures = _Closures()
    with _closing(closures), lang_trace.tracing():
        result = spec.call(bound, [wrap(i) for i in inputs])
    roots = [
        _result(spec, leaf, x) for leaf, x in zip(spec.outs, _results(spec, result), strict=True)
    ]
    given = [*inputs, *closures.inputs]
    extracted = lang_trace.extract(roots, given, since=start)
    lang_trace.evaluate(extracted.captured)
    captured: list[Buffer] = [c.buffer for c in extracted.captured if c.buffer is not None]
    orders = [_keys(leaf.dims) for leaf in bound.leaves]
    orders += [*closures.orders, *(b.order for b in captured)]
    results = [_keys(leaf.dims) for leaf in spec.outs]
    program, names = canonical(extracted.program, [*orders, *results])
    kernel = Kernel(
        program,
        tuple(tuple(names[d] for d in o) for o in orders),
        tuple(tuple(names[d] for d in o) for o in results),
        spec.name,
    )
    return Traced(kernel, tuple(closures.arrays), tuple(b.array for b in captured))


def _keys(dims: Dims) -> Order:
    return tuple(d.key for d in dims)


def _placeholder(leaf: Leaf, type_: ArrayType) -> Sized:
    sizes = dict(zip(_keys(leaf.dims), type_.shape, strict=True))
    return placeholder(Type.of(type_.dtype, sizes), leaf.label, type_.weak)


def _results(spec: Spec, result: Tree) -> list[object]:
    """The leaves of what the function returned, as `out` nests them."""
    try:
        return flatten_up_to(spec.out_tree, result)
    except (ValueError, TypeError):
        what = f"{spec.name} returned {type(result).__name__}, which is not nested like out"
        raise error(what, "Give out one tuple of dims for each array that is returned.") from None


def _result(spec: Spec, leaf: Leaf, x: object) -> Sized:
    if not is_array(x):
        what = f"{spec.name} returned {type(x).__name__} as its {leaf.label}"
        raise error(what, "Return arrays of Summand: what sm's functions and operators give.")
    value = x.sized(f"{spec.name}")
    if sorted(value.dims) != sorted(_keys(leaf.dims)):
        names = Names([*value.dims, *_keys(leaf.dims)])
        what = f"{spec.name}: its {leaf.label} has other dims than out says"
        rows = [
            (f"returned: {names.type(value.dtype, value.type.dims)}", value.loc),
            (f"out:      {names.list(_keys(leaf.dims))}", None),
        ]
        advice = "Name all dims of the result in out, outermost first, or sum over the others."
        raise DimError(layout(what, rows, names.advice(advice)))
    return value
