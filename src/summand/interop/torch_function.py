"""Functions of PyTorch's tensors, written in index notation: the decorator of `summand.torch`.

    @smt.function(P=(n, k), W=(k, j), out=(n, j))
    def linear(P, W): return sm.sum[k](P * W)

    linear(p, w)      tensors in, tensors out; a citizen of autograd, torch.compile and torch.func

A call is keyed by the types and shapes of its tensors and the values of its constants. The first of
a kind is traced to an `Operation`, which is compiled when it first runs; all later ones go straight
to PyTorch's dispatcher.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import ParamSpec, cast
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from summand import dtypes
from summand.errors import DeviceError, DimError, DTypeError
from summand.interop.kernel import Traced, close_over, trace
from summand.interop.specs import ArrayType, Spec, Tree, error
from summand.interop.torch_closures import Source, source_of
from summand.interop.torch_op import run
from summand.interop.torch_programs import SUMMAND, TORCH, Operation
from summand.lang.array import Array, Dim
from summand.lang.describe import message, source_row
from summand.lang.location import here
from summand.lang.pytree import unflatten
from summand.lang.trace import is_tracing

P = ParamSpec("P")
Key = tuple[tuple[Hashable, ...], tuple[tuple[str, Hashable], ...]]

NUMBER = "number"  # a Python float in a key
CONSTANT = "constant"
KEEP = 512  # kinds of calls that a function remembers


@dataclass(frozen=True, slots=True)
class Slot:
    """The tensor or Python float of this number in a call; only its type counts."""

    number: int
    type: ArrayType
    is_tensor: bool


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What one kind of call was traced to: the operation, and its inputs besides the call's own.

    `closed` has the types of the tensors that `sources` led to.
    """

    operation: Operation
    text: str
    digest: str
    sources: tuple[Source, ...]
    closed: tuple[tuple[torch.dtype, torch.Size], ...]
    constants: tuple[Tensor, ...]


class Calls:
    """The calls of one decorated function: what their kinds were traced to."""

    def __init__(self, spec: Spec, autocast: torch.dtype | bool | None) -> None:
        self.spec = spec
        self.autocast = autocast
        self.entries: dict[Hashable, Entry] = {}
        self.number = str(next(_numbers))  # a string: torch.compile makes variables of integers
        self._form = unflatten(spec.out_tree, range(len(spec.outs)))
        _calls[self.number] = self

    def call(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Tree:
        """Run on tensors; inside another function's trace, a part of that."""
        compiling = torch.compiler.is_dynamo_compiling()
        if not compiling and is_tracing():
            return self.spec.function(*args, **kwargs)
        symbolic = compiling or torch._C._len_torch_dispatch_stack() > 0
        tensors: list[Tensor] = []
        numbers: list[float] = []
        key = _key(args, kwargs, tensors, numbers, symbolic, self._cast())
        if compiling:
            entry = _constant_entry(self.number, key)
        else:
            entry = self.entry(key)
        if entry.sources:
            tensors += [s.current(self.spec.function) for s in entry.sources]
        if entry.constants:
            tensors += entry.constants
        out = run(entry.text if symbolic else entry.digest, tensors, numbers)
        return _packed(self._form, out)

    def entry(self, key: Key) -> Entry:
        """The trace for calls of this kind, made now or before."""
        try:
            entry = self.entries.get(key)
        except TypeError:  # a constant that has no hash; `bind` says which
            entry = None
        if entry is None or (entry.sources and entry.closed != self._closed(entry.sources)):
            entry = self._traced(key)
            self.entries[key] = entry
            if len(self.entries) > KEEP:
                del self.entries[next(iter(self.entries))]
        return entry

    def _cast(self) -> torch.dtype | None:
        """The type that autocast asks for here."""
        if self.autocast is None or not torch.is_autocast_enabled("cpu"):
            return None
        return torch.get_autocast_dtype("cpu") if self.autocast is True else self.autocast

    def _closed(self, sources: Sequence[Source]) -> tuple[tuple[torch.dtype, torch.Size], ...]:
        now = [s.current(self.spec.function) for s in sources]
        return tuple((t.dtype, t.shape) for t in now)

    def _traced(self, key: Key) -> Entry:
        """Run the function on placeholders."""
        args, kwargs = _structure(key)
        bound = self.spec.bind(args, kwargs, lambda x: isinstance(x, Slot))
        arrays = bound.arrays
        traced = trace(self.spec, bound, [_type_of(x) for x in arrays])
        slots = [(x.number, n, x.is_tensor) for n, x in enumerate(arrays) if isinstance(x, Slot)]
        positions = [n for _, n, is_tensor in sorted(slots) if is_tensor]
        numbers = [n for _, n, is_tensor in sorted(slots) if not is_tensor]
        fixed = [n for n, x in enumerate(arrays) if not isinstance(x, Slot)]
        captured = range(len(arrays), len(traced.kernel.params))
        closed, constant = captured[: len(traced.closures)], captured[len(traced.closures) :]
        tensors = [*positions, *closed, *fixed, *constant]
        if not tensors:
            raise error(f"{self.spec.name} was given no tensor", "Pass one, or use sm.jit.")
        operation = Operation(traced.kernel.taking((*tensors, *numbers)), len(tensors))
        constants = [torch.tensor(arrays[n], dtype=TORCH[_type_of(arrays[n]).dtype]) for n in fixed]
        constants += [_constant(traced, n) for n in range(len(constant))]
        values = [v for v in bound.values if not isinstance(v, Slot)]
        sources = tuple(source_of(self.spec.function, values, t) for t in traced.closures)
        closed_types = self._closed(sources)
        return Entry(
            operation, operation.text, operation.digest, sources, closed_types, tuple(constants)
        )


_calls: WeakValueDictionary[str, Calls] = WeakValueDictionary()  # by their numbers
_numbers = itertools.count()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # as torch is
def _constant_entry(number: str, key: Key) -> Entry:
    """The trace of a call that torch.compile sees, which need not look into this."""
    return _calls[number].entry(key)


# ---- calls to keys, and back


def _key(
    args: Sequence[object],
    kwargs: Mapping[str, object],
    tensors: list[Tensor],
    numbers: list[float],
    symbolic: bool,
    low: torch.dtype | None,
) -> Key:
    """What the trace depends on; tensors and Python floats are collected on the way."""
    named: tuple[tuple[str, Hashable], ...] = ()
    if kwargs:
        named = tuple((k, _part(x, tensors, numbers, symbolic, low)) for k, x in kwargs.items())
    return tuple([_part(x, tensors, numbers, symbolic, low) for x in args]), named


def _part(
    x: object, tensors: list[Tensor], numbers: list[float], symbolic: bool, low: torch.dtype | None
) -> Hashable:
    if isinstance(x, Tensor):
        if not x.is_cpu or x.layout is not torch.strided or x.is_nested:
            raise out_of_reach(x)
        tensor = x.to(low) if low is not None and x.is_floating_point() else x
        tensors.append(tensor)
        shape = tuple([index(n) for n in x.shape]) if symbolic else x.shape
        return (tensor.dtype, shape)
    if isinstance(x, float):
        numbers.append(x)
        return NUMBER
    if isinstance(x, (tuple, list)):
        parts = [_part(v, tensors, numbers, symbolic, low) for v in x]
        return ("list" if isinstance(x, list) else type(x), *parts)
    if isinstance(x, dict):
        items = [(k, _part(v, tensors, numbers, symbolic, low)) for k, v in x.items()]
        return ("dict", *items)
    if symbolic and isinstance(x, int) and not isinstance(x, bool):
        return (CONSTANT, int, index(x))
    return (CONSTANT, type(x), x)


def _structure(key: Key) -> tuple[list[object], dict[str, object]]:
    """The arguments that a key describes, with slots for tensors and floats."""
    args, kwargs = key
    count = itertools.count()
    return [_unpart(p, count) for p in args], {name: _unpart(p, count) for name, p in kwargs}


def _unpart(part: Hashable, count: Iterator[int]) -> object:
    if part == NUMBER:
        return Slot(next(count), ArrayType(dtypes.f64, (), weak=True), is_tensor=False)
    assert isinstance(part, tuple)
    first, *rest = part
    if isinstance(first, torch.dtype):
        return Slot(next(count), _array_type(first, rest[0]), is_tensor=True)
    if first == CONSTANT:
        return rest[1]
    if first == "dict":
        return {k: _unpart(p, count) for k, p in rest}
    values = [_unpart(p, count) for p in rest]
    if first == "list":
        return values
    return first(*values) if hasattr(first, "_fields") else first(values)


def _packed(form: Tree, out: Sequence[Tensor]) -> Tree:
    """Results nested as `form` nests their numbers; in terms that torch.compile can follow."""
    if not isinstance(form, (tuple, list, dict)):
        return out[cast("int", form)]
    if isinstance(form, dict):
        return {k: _packed(f, out) for k, f in form.items()}
    parts = [_packed(f, out) for f in form]
    if isinstance(form, list):
        return parts
    make: Callable[..., Tree] = type(form)
    return make(*parts) if hasattr(form, "_fields") else tuple(parts)


def _type_of(x: object) -> ArrayType:
    """The type of a slot, or of a Python number that stands for an array."""
    match x:
        case Slot():
            return x.type
        case bool():
            return ArrayType(dtypes.bool_, (), weak=True)
        case int():
            return ArrayType(dtypes.i32, (), weak=True)
        case _:
            return ArrayType(dtypes.complex128, (), weak=True)


def _array_type(dtype: torch.dtype, shape: Sequence[int]) -> ArrayType:
    found = SUMMAND.get(dtype)
    if found is None:
        what = f"a tensor of {dtype} was given"
        advice = f"There are {', '.join(str(d).removeprefix('torch.') for d in SUMMAND)}."
        raise DTypeError(message(what, source_row(here()), advice))
    return ArrayType(found, tuple(shape))


def _constant(traced: Traced, number: int) -> Tensor:
    """An array of Summand's that the function read, as a tensor of its own."""
    array = traced.constants[number]
    first = len(traced.kernel.params) - len(traced.constants)
    dtype = TORCH[traced.kernel.param_types[first + number].dtype]
    tensor = torch.from_numpy(np.array(array, order="C"))
    return tensor if tensor.dtype is dtype else tensor.view(dtype)


def out_of_reach(x: Tensor) -> DeviceError:
    """The error for a tensor whose numbers no program can read."""
    if x.is_nested:
        what = "a nested tensor was given, whose rows differ in size"
        advice = "Pad it: torch.nested.to_padded_tensor(x, 0), and pass a mask."
    elif x.layout is not torch.strided:
        what = f"a tensor of layout {x.layout} was given; Summand computes on dense tensors"
        advice = "Make it dense: x.to_dense()."
    elif x.is_meta:
        what = "a meta tensor was given, which has a shape but no numbers"
        advice = "Materialise the module first: module.to_empty(device='cpu'), then load its state."
    else:
        what = f"a tensor on {x.device} was given; Summand has no code for this device yet"
        advice = "Move it: x.cpu(). It is never copied to another device in silence."
    return DeviceError(message(what, source_row(here()), advice))


# ---- what users call


def function(
    *, out: Tree, autocast: torch.dtype | bool | None = None, **dims: Tree
) -> Callable[[Callable[P, object]], Callable[P, Tree]]:
    """Make a function of Summand's arrays a function of tensors.

    dims: for each argument that holds tensors, a tuple of one dim for each axis, outermost first (a
    pytree of them for a pytree). Python floats are inputs without gradients; other arguments are
    constants of the program. out: the same for the results, which are row-major.
    autocast: under torch.autocast, floating tensors are converted to its type (True) or to the
    given type before the call; None leaves them as they are.
    Raises DimError, DTypeError, ArgumentError or DeviceError at a call that does not fit.
    """

    def decorate(f: Callable[P, object]) -> Callable[P, Tree]:
        calls = Calls(Spec.of(f, dims, out), autocast)

        @functools.wraps(f)
        def called(*args: P.args, **kwargs: P.kwargs) -> Tree:
            return calls.call(args, kwargs)

        called.__dict__["calls"] = calls
        return called

    return decorate


def calls_of(function: Callable[..., object]) -> Calls:
    """The calls of a decorated function so far. Raises ArgumentError for any other."""
    calls = getattr(function, "calls", None)
    if isinstance(calls, Calls):
        return calls
    raise error("a function that smt.function has decorated is wanted", "Decorate it.")


def array(x: Tensor, *dims: Dim) -> Array:
    """A tensor that a decorated function closes over, with a dim for each axis.

    It is an input of the program like any argument, so gradients reach it. Each call reads it anew
    from where the function has it: a variable, or a parameter or buffer of a module.
    Raises ArgumentError outside of a decorated function.
    """
    if not isinstance(x, Tensor):
        raise error(f"smt.array takes a tensor, not {type(x).__name__}", "Write sm.array(x, i).")
    if not x.is_cpu or x.layout is not torch.strided or x.is_nested:
        raise out_of_reach(x)
    if len(dims) != x.dim():
        named = ", ".join(d.name for d in dims) or "none"
        what = f"a tensor of shape {tuple(x.shape)} needs {x.dim()} dims, given: {named}"
        raise DimError(message(what, source_row(here()), "Name each axis once."))
    return close_over(x, dims, _array_type(x.dtype, tuple(x.shape)), "smt.array")
