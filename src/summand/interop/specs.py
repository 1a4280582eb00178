"""Dims of a decorated function's arguments and results, by name: the same in every framework.

    @function(P=(n, i, k), W={"a": (k, j)}, out=(n, i, j))
    def f(P, W, scale=1.0): ...

    spec = Spec.of(f, {"P": …, "W": …}, out)     read once, when the function is decorated
    call = spec.bind(args, kwargs, is_array)     the arrays of one call, each with its dims

A spec is a tuple of dims, outermost first, or a pytree of them. An argument without a spec may hold
arrays without dims. Python floats are such arrays; what is no array is a constant of the program.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from summand.dtypes import DType
from summand.errors import ArgumentError, DimError, layout
from summand.lang.array import Dim
from summand.lang.describe import message, source_row
from summand.lang.location import here
from summand.lang.pytree import Structure, flatten, flatten_up_to, suffixes, unflatten

Tree = object
Dims = tuple[Dim, ...]
IsArray = Callable[[object], bool]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One array of a call or result: what messages call it (`W['a']`), and its dims."""

    label: str
    dims: Dims


@dataclass(frozen=True, slots=True)
class ArrayType:
    """What is known of an array before it has numbers. `weak`: a Python number's."""

    dtype: DType
    shape: tuple[int, ...]
    weak: bool = False

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Bound:
    """The arguments of one call, flat: `arrays` are inputs of the program, all else constants.

    `key` differs between calls that need traces of their own, types of the arrays aside.
    """

    arrays: list[object]
    leaves: tuple[Leaf, ...]  # of the arrays
    key: Hashable
    values: list[object]  # of all leaves; ARRAY at the arrays' places
    parts: tuple[tuple[str, Structure], ...]  # parameters in order, each with its leaves' structure

    def arguments(self, arrays: Sequence[object]) -> Iterator[tuple[str, object]]:
        """The parameters with their values, where `arrays` stand for the call's own."""
        own = iter(arrays)
        leaves = iter([next(own) if v is ARRAY else v for v in self.values])
        for name, structure in self.parts:
            yield name, unflatten(structure, [next(leaves) for _ in range(structure.num_leaves)])


class _Array:
    """The place of an array among the leaves of a call."""


ARRAY = _Array()


@dataclass(frozen=True, slots=True)
class Spec:
    """A function with the dims of its arguments and results."""

    function: Callable[..., object]
    signature: inspect.Signature
    inputs: Mapping[str, Tree]
    outs: tuple[Leaf, ...]
    out_tree: Structure
    name: str

    @staticmethod
    def of(function: Callable[..., object], inputs: Mapping[str, Tree], out: Tree) -> Spec:
        """Read what was given to the decorator. Raises ArgumentError."""
        if not callable(function):
            raise error(f"function decorates a function, not {type(function).__name__}", "")
        name = getattr(function, "__name__", type(function).__name__)
        signature = inspect.signature(function)
        for parameter, given in inputs.items():
            if parameter not in signature.parameters:
                listed = ", ".join(signature.parameters) or "none"
                raise error(f"{name} has no argument {parameter}", f"Its arguments are: {listed}.")
            _check_dims(f"{name}: {parameter}", given)
        _check_dims(f"{name}: out", out)
        dims, tree = flatten(out, is_leaf=is_dims)
        outs = [Leaf(f"result{s}", as_dims(d)) for s, d in zip(suffixes(tree), dims, strict=True)]
        plain = {n: as_dims(d) if is_dims(d) else d for n, d in inputs.items()}
        return Spec(function, signature, plain, tuple(outs), tree, name)

    def bind(
        self, args: Sequence[object], kwargs: Mapping[str, object], is_array: IsArray
    ) -> Bound:
        """The arrays of a call, each with its dims. Raises ArgumentError for what fits nowhere."""
        try:
            given = self.signature.bind(*args, **kwargs).arguments
        except TypeError as fault:
            raise error(f"{self.name}: {fault}", f"It takes {self.signature}.") from None
        arrays: list[object] = []
        leaves: list[Leaf] = []
        values: list[object] = []
        parts: list[tuple[str, Structure]] = []
        for name, value in given.items():
            found, structure = self._leaves(name, value)
            parts.append((name, structure))
            for label, leaf, dims in found:
                number = (float, complex) if dims is None else (bool, int, float, complex)
                if is_array(leaf) or isinstance(leaf, number):
                    arrays.append(leaf)
                    leaves.append(Leaf(label, dims or ()))
                    values.append(ARRAY)
                else:
                    self._check_constant(label, leaf, dims)
                    values.append(leaf)
        constants = tuple((type(v), v) for v in values)
        key = (tuple(parts), tuple(leaves), constants)
        return Bound(arrays, tuple(leaves), key, values, tuple(parts))

    def call(self, bound: Bound, arrays: Sequence[object]) -> object:
        """Call the function with other arrays in place of the call's own."""
        named = inspect.BoundArguments(self.signature, dict(bound.arguments(arrays)))
        return self.function(*named.args, **named.kwargs)

    def check(self, leaves: Sequence[Leaf], types: Sequence[ArrayType]) -> None:
        """Raise DimError where axes and dims differ in number, or one dim has two sizes."""
        seen: dict[str, tuple[int, str]] = {}
        for leaf, type_ in zip(leaves, types, strict=True):
            if len(leaf.dims) != len(type_.shape):
                what = f"{self.name}: {leaf.label} has {len(type_.shape)} axes, but other dims"
                rows = [(f"given: {type_}", None), (f"dims:  {_listed(leaf.dims)}", None)]
                raise DimError(layout(what, rows, "Pass an array with one axis for each dim."))
            for dim, size in zip(leaf.dims, type_.shape, strict=True):
                if dim.size is not None:
                    seen.setdefault(dim.key, (dim.size, f"{dim.name} itself"))
                before, who = seen.setdefault(dim.key, (size, leaf.label))
                if before != size:
                    what = f"{self.name}: {dim.name} has two sizes"
                    rows = [(f"{who}: {dim.name}={before}", None)]
                    rows.append((f"{leaf.label}: {dim.name}={size}", None))
                    advice = "Pass arrays that agree, or give one of them a dim of its own."
                    raise DimError(layout(what, rows, advice))

    def _leaves(
        self, name: str, value: object
    ) -> tuple[list[tuple[str, object, Dims | None]], Structure]:
        """The leaves of an argument with their labels and dims (None: no spec), and their form."""
        spec = self.inputs.get(name)
        if is_dims(spec) and value is not None:
            return [(name, value, as_dims(spec))], _ONE
        if spec is None and isinstance(value, (bool, int, float, complex, str)):
            return [(name, value, None)], _ONE
        if spec is None:
            leaves, tree = flatten(value, none_is_leaf=True)
            return [(name + s, x, None) for s, x in zip(suffixes(tree), leaves)], tree
        if value is None:
            return [(name, None, ())], _ONE
        dims, tree = flatten(spec, is_leaf=is_dims)
        try:
            parts = flatten_up_to(tree, value)
        except (ValueError, TypeError):
            what = f"{self.name}: {name} is not nested like its dims"
            raise error(what, "Nest the dims in the decorator as the argument is.") from None
        found = zip(suffixes(tree), parts, dims, strict=True)
        return [(name + s, x, as_dims(d)) for s, x, d in found], tree

    def _check_constant(self, label: str, value: object, dims: Dims | None) -> None:
        if dims is not None and value is not None:
            what = f"{self.name}: {label} is no array, but {type(value).__name__}"
            raise error(what, f"It has the dims {_listed(dims)}: pass an array.")
        try:
            hash(value)
        except TypeError:
            what = f"{self.name}: {label} is neither an array nor hashable: {type(value).__name__}"
            raise error(what, "Pass arrays and hashable constants.") from None


_ONE = flatten(0)[1]  # the structure of a single leaf


def is_dims(x: object) -> bool:
    """True for the dims of one array: a tuple or list of nothing but dims."""
    return isinstance(x, (tuple, list)) and all(isinstance(d, Dim) for d in x)


def as_dims(x: object) -> Dims:
    """The dims for which `is_dims` holds, as a tuple."""
    if isinstance(x, tuple):
        return x
    return tuple(d for d in cast("Iterable[object]", x) if isinstance(d, Dim))


def error(what: str, advice: str) -> ArgumentError:
    """An ArgumentError with the user's own line."""
    return ArgumentError(message(what, source_row(here()), advice))


def _listed(dims: Dims) -> str:
    names = ", ".join(d.name for d in dims)
    return f"({names},)" if len(dims) == 1 else f"({names})"


def _check_dims(what: str, spec: Tree) -> None:
    """Every leaf of a spec is a tuple of different dims."""
    for leaf in flatten(spec, none_is_leaf=True, is_leaf=is_dims)[0]:
        if not is_dims(leaf):
            header = f"{what} is given by {leaf!r}, which is not a tuple of dims"
            raise error(header, "Write one dim for each axis: x=(n, k).")
        dims = as_dims(leaf)
        if len(set(dims)) != len(dims):
            raise error(f"{what} has one dim for two axes: {_listed(dims)}", "Name each axis once.")
