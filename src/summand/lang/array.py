"""What the user holds: `Array`, index expressions and `Dim`, with the operators of all three.

    q, kv = sm.dims("q kv")
    q - kv           an Index: affine in dims, usable as an index
    q >= kv          an Array: true where it holds; its sizes follow from what it meets
    x * (q - kv)     an Array

An `Index` is an Array of integers, and a `Dim` is an Index, so each goes wherever a number does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from summand.dtypes import DType
from summand.errors import ArgumentError, DimError, DTypeError, Loc, TraceError
from summand.ir.index import Form
from summand.ir.nodes import Scalar
from summand.lang import keys
from summand.lang.data import from_storage, to_dtype, to_storage
from summand.lang.describe import Names, message, ordered, sizes_in_order, source_row
from summand.lang.elementwise import convert, elementwise, fitted, form_value, weak_scalar
from summand.lang.fold import check_integer, check_mode
from summand.lang.graph import Sized, leaf
from summand.lang.location import here
from summand.lang.look import Exported, axes, looked_at, numbers, shown
from summand.lang.operators import Operators
from summand.lang.power import power
from summand.lang.reindex import STRICT, Edge, Place, reindex, unknown_dim
from summand.lang.unsized import Value, force

Number = bool | int | float | complex


class Array(Operators["Array"]):
    """A function from named dims to numbers. Lazy: computed when it is looked at, and kept.

    Made by `sm.array` and by every operation; never by this constructor.
    """

    __slots__ = ("_edge", "_value")

    def __init__(self, value: Value, edge: Edge = STRICT) -> None:
        self._value = value
        self._edge = edge

    # ---- what it is

    @property
    def value(self) -> Value:
        """The graph's value, for the other modules of this stage."""
        return self._value

    @property
    def dims(self) -> tuple[Dim, ...]:
        """The dims, listed as the user did when he made the array; no operation minds the order."""
        value = self.value
        if isinstance(value, Sized):
            return tuple(Dim.of_key(d) for d, _ in sizes_in_order(value))
        return tuple(Dim.of_key(d) for d, _ in ordered((d, 0) for d in value.dims))

    @property
    def sizes(self) -> dict[Dim, int]:
        """The dims' sizes. Raises DimError where one is ambiguous."""
        return {Dim.of_key(d): n for d, n in sizes_in_order(self.sized("sizes"))}

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.value.dtype

    def sized(self, what: str) -> Sized:
        """The value with all its sizes; `what` names who asks, for the message."""
        value = self.value
        if isinstance(value, Sized):
            return value
        found = force(value, what, here(), look=True)
        self._value = found
        return found

    # ---- indexing

    def __getitem__(self, key: object) -> Array:
        """`A[dim: index, …]`; see LANGUAGE.md for the kinds of index."""
        value = self.value
        return wrap(reindex(value, places(self, key), self._edge))

    def fill(self, value: Number) -> Array:
        """This array continued with `value` outside its range; holds for the next `[...]`."""
        return Array(self.value, Edge("fill", self._fill_value(value)))

    def _fill_value(self, value: Number) -> Scalar:
        """A number that this array's type can hold."""
        number, dtype = _plain_number(value), self.dtype
        whole = isinstance(number, (bool, int))
        fits = dtype.is_complex or (dtype.is_float and not isinstance(number, complex))
        if not (fits or whole):
            what = f"{number} cannot continue an array of {dtype.name}"
            advice = "Convert the array first: a.astype(sm.f32).fill(...)."
            raise DTypeError(message(what, source_row(here()), advice))
        return fitted(number, dtype)

    def at(self, mode: str = "raise") -> Array:
        """This array with another meaning of an index out of range, for the next `[...]`.

        mode: "raise" (an error), "clip" (the nearest element), "fill" (0; `.fill(v)` for others).
        """
        return Array(self.value, Edge(check_mode(mode, here())))

    # ---- conversion

    def astype(self, dtype: object) -> Array:
        """The same values as another element type."""
        return wrap(convert(self.value, to_dtype(dtype), weak=False))

    @property
    def real(self) -> Array:
        """The real part."""
        return wrap(elementwise("real", self.value)) if self.dtype.is_complex else wrap(self.value)

    @property
    def imag(self) -> Array:
        """The imaginary part."""
        return apply("imag", self) if self.dtype.is_complex else self * 0

    def conj(self) -> Array:
        """The complex conjugate."""
        return apply("conj", self) if self.dtype.is_complex else wrap(self.value)

    # ---- looking at it

    def numpy(self, *dims: Dim) -> np.ndarray:
        """The numbers as a read-only ndarray whose axes are `dims`, in this order.

        The dims may be left out where there is at most one. bf16 comes as float32.
        """
        sized = self.sized("numpy()")
        order = axes(sized, [dim_key(d, "numpy()") for d in dims])
        buffer = looked_at("numpy()", sized, order)
        return numbers(buffer, order, sized.dtype)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        out = self.numpy()
        if dtype is not None:
            return out.astype(dtype)  # type: ignore[call-overload, no-any-return]
        return out.copy() if copy else out

    def item(self) -> Number:
        """The only number of an array without dims."""
        return self._scalar("item()")

    def _scalar(self, what: str) -> Number:
        sized = self.sized(what)
        if sized.dims:
            names = Names(sized.dims)
            shown = names.type(sized.dtype, sizes_in_order(sized))
            header = f"{what} needs an array without dims, not {shown}"
            advice = f"Reduce or select first: sm.sum[{names[sized.dims[0]]}](a)."
            if what == "bool()":
                advice = "Use sm.any[...] or sm.all[...]; to choose by element, sm.where."
            raise DimError(message(header, source_row(here()), advice))
        buffer = looked_at(what, sized, ())
        out: Number = from_storage(buffer.array, sized.dtype).item()
        return out

    def __float__(self) -> float:
        return float(self._scalar("float()"))  # type: ignore[arg-type]

    def __int__(self) -> int:
        return int(self._scalar("int()"))  # type: ignore[arg-type]

    def __complex__(self) -> complex:
        return complex(self._scalar("complex()"))

    def __bool__(self) -> bool:
        return bool(self._scalar("bool()"))

    def __index__(self) -> int:
        if not self.dtype.is_integer:
            raise TypeError(f"{self.dtype} cannot be used as an integer")
        return int(self)

    def __len__(self) -> int:
        raise _unordered("len()")

    def __iter__(self) -> Array:
        raise _unordered("iteration")

    def __repr__(self) -> str:
        return shown(self.value)

    def __format__(self, spec: str) -> str:
        return format(self._scalar("format()"), spec) if spec else repr(self)

    def __reduce__(self) -> tuple[object, ...]:
        sized = self.sized("pickling")
        order = tuple(d for d, _ in sizes_in_order(sized))
        buffer = looked_at("pickling", sized, order)
        stored = buffer.array.transpose([buffer.order.index(d) for d in order]).copy()
        dims = tuple(Dim.of_key(d) for d in order)
        return (_unpickled_array, (stored, dims, sized.dtype.name))

    def dlpack(self, *dims: Dim) -> Exported:
        """The numbers for `torch.from_dlpack` and its like, without a copy, axes in this order."""
        sized = self.sized("dlpack()")
        order = axes(sized, [dim_key(d, "dlpack()") for d in dims])
        return Exported(looked_at("dlpack()", sized, order), order)

    def __dlpack__(self, **options: object) -> object:
        return self.dlpack().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.dlpack().__dlpack_device__()

    # ---- operators that know more than `Operators` does

    def _apply(self, fn: str, *args: object) -> Array:
        return apply(fn, *args)

    def __pow__(self, other: object) -> Array:
        return wrap(power(operand(self), exponent(other)))

    def __rpow__(self, other: object) -> Array:
        return wrap(power(operand(other), operand(self)))

    def __pos__(self) -> Array:
        return wrap(self.value)

    def __eq__(self, other: object) -> Array:  # type: ignore[override]
        return apply("eq", self, other) if _is_operand(other) else NotImplemented

    def __ne__(self, other: object) -> Array:  # type: ignore[override]
        return apply("ne", self, other) if _is_operand(other) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


class Index(Array):
    """An affine or quasi-affine expression over dims: `2*x + kx - 1`, `x // 4`, `x % 4`.

    As an index it re-indexes an array; as a number it is its value at each position.
    """

    __slots__ = ("form",)

    def __init__(self, form: Form) -> None:
        self.form = form
        self._edge = STRICT

    @property
    def value(self) -> Value:
        """The positions as integers."""
        return form_value(self.form)

    def sized(self, what: str) -> Sized:
        """The positions as integers, with all sizes."""
        return force(self.value, what, here())

    def __add__(self, other: object) -> Array:
        form = form_of(other)
        return super().__add__(other) if form is None else Index(self.form + form)

    def __radd__(self, other: object) -> Array:
        form = form_of(other)
        return super().__radd__(other) if form is None else Index(form + self.form)

    def __sub__(self, other: object) -> Array:
        form = form_of(other)
        return super().__sub__(other) if form is None else Index(self.form - form)

    def __rsub__(self, other: object) -> Array:
        form = form_of(other)
        return super().__rsub__(other) if form is None else Index(form - self.form)

    def __mul__(self, other: object) -> Array:
        by = _integer(other)
        return super().__mul__(other) if by is None else Index(self.form * by)

    def __rmul__(self, other: object) -> Array:
        by = _integer(other)
        return super().__rmul__(other) if by is None else Index(self.form * by)

    def __floordiv__(self, other: object) -> Array:
        by = _integer(other)
        return super().__floordiv__(other) if by is None or by <= 0 else Index(self.form // by)

    def __mod__(self, other: object) -> Array:
        by = _integer(other)
        return super().__mod__(other) if by is None or by <= 0 else Index(self.form % by)

    def __neg__(self) -> Array:
        return Index(-self.form)

    def __pos__(self) -> Array:
        return self

    def __repr__(self) -> str:
        return Names(self.form.dims).form(self.form)


class Dim(Index):
    """A dim: an identity with a name for messages, and a size only where nothing else gives one.

    Two dims of one name differ. `==` and hash go by identity; `sm.eq(i, j)` compares positions.
    """

    __slots__ = ("key",)
    key: str

    def __init__(self, name: str, size: int | None = None) -> None:
        _check_dim(name, size)
        self._set(keys.new_key(name, here(), size))

    def _set(self, key: str) -> None:
        self.key = key
        super().__init__(Form.of(key))

    @classmethod
    def of_key(cls, key: str) -> Dim:
        """The dim that a key stands for."""
        dim = cls.__new__(cls)
        dim._set(key)
        return dim

    @property
    def name(self) -> str:
        """The name, for messages."""
        return keys.info(self.key).name

    @property
    def size(self) -> int | None:
        """The dim's own size, where it has one."""
        return keys.info(self.key).size

    @property
    def loc(self) -> Loc | None:
        """The line that made it."""
        return keys.info(self.key).loc

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        return isinstance(other, Dim) and other.key == self.key

    def __ne__(self, other: object) -> bool:  # type: ignore[override]
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.key)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        return (_unpickled_dim, keys.pickled(self.key))


def _unpickled_dim(process: str, key: str) -> Dim:
    return Dim.of_key(keys.unpickled(process, key))


def _unpickled_array(stored: np.ndarray, dims: Sequence[Dim], dtype: str) -> Array:
    return Array(leaf(stored, [d.key for d in dims], to_dtype(dtype)))


Operand = Array | Number | np.generic | np.ndarray


def _check_dim(name: object, size: object) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        what = f"{name!r} is not a dim's name"
        raise ArgumentError(message(what, source_row(here()), 'Write sm.Dim("k"); letters first.'))
    whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool)
    if size is not None and not (whole and int(size) >= 0):  # type: ignore[call-overload]
        what = f"{size!r} is not a size"
        raise ArgumentError(message(what, source_row(here()), "A size is an integer >= 0."))


def dim_key(dim: object, what: str) -> str:
    """The key of a dim that a user passed. Raises ArgumentError for anything else."""
    if isinstance(dim, Dim):
        return dim.key
    header = f"{what} takes a dim, not {type(dim).__name__} {dim!r}"
    raise ArgumentError(message(header, source_row(here()), 'Make one: k = sm.Dim("k").'))


def dims(names: str) -> tuple[Dim, ...]:
    """One `Dim` for each name: `n, k = sm.dims("n k")`. Commas are allowed."""
    if not isinstance(names, str):
        what = f"dims takes names in one string, not {type(names).__name__}"
        raise ArgumentError(message(what, source_row(here()), 'Write n, k = sm.dims("n k").'))
    return tuple(Dim(name) for name in names.replace(",", " ").split())


# ---- from what a user passes to values


def wrap(value: Value) -> Array:
    """An Array for a value."""
    return Array(value)


def apply(fn: str, *args: object) -> Array:
    """An elementwise operation on anything that is a number or an array."""
    return Array(elementwise(fn, *[operand(a) for a in args]))


def is_array(x: object) -> TypeGuard[Array]:
    """True for an array of numbers; false for dims and index expressions, which are constants."""
    return isinstance(x, Array) and not isinstance(x, Index)


def _is_operand(x: object) -> bool:
    return isinstance(x, (Array, bool, int, float, complex, np.generic)) or (
        isinstance(x, np.ndarray) and x.ndim == 0
    )


def operand(x: object) -> Value:
    """The value of an array or a number. Raises ArgumentError for anything else."""
    if isinstance(x, Array):
        return x.value
    if isinstance(x, (bool, int, float, complex)):
        return weak_scalar(_plain_number(x))
    if isinstance(x, (np.generic, np.ndarray)) and x.ndim == 0:
        if x.dtype.name in ("bool", "int64", "float64", "complex128"):
            return weak_scalar(_plain_number(x.item()))
        array, dtype = to_storage(x, None, copy=True)
        return leaf(array, (), dtype)
    raise not_an_array(x)


def not_an_array(x: object) -> ArgumentError:
    """The error for an operand that is neither an array of ours nor a number."""
    if isinstance(x, np.ndarray):
        what = f"an ndarray of shape {x.shape} has no named dims"
        advice = "Name them: sm.array(x, i, j)."
    elif hasattr(x, "__getitem__") and type(x).__module__.startswith("summand"):
        what = "a state of a recurrence was used whole"
        advice = "Read it at an earlier position: h[t: t - 1]."
    elif type(x).__module__.partition(".")[0] == "torch":
        what = f"{type(x).__name__} is a tensor of torch, which has no named dims"
        advice = "Pass it as an argument, or name its dims: smt.array(x, i, j)."
    else:
        what = f"{type(x).__name__} is not an array or a number"
        advice = "Make it one: sm.array(x, i, j)."
    return ArgumentError(message(what, source_row(here()), advice))


def _plain_number(x: object) -> Scalar:
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, (bool, int, float, complex)):
        return x
    what = f"{type(x).__name__} is not a number"
    raise ArgumentError(message(what, source_row(here()), "Write a Python number."))


def exponent(x: object) -> Value | int | float:
    """An exponent: Python numbers stay what they are, so that x**2 is x*x."""
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        return x
    return operand(x)


def _integer(x: object) -> int | None:
    if isinstance(x, (int, np.integer)) and not isinstance(x, bool):
        return int(x)
    return None


def form_of(x: object) -> Form | None:
    """The form of an index expression or an integer; None for anything else."""
    if isinstance(x, Index):
        return x.form
    by = _integer(x)
    return None if by is None else Form.of(by)


def places(array: Array, key: object) -> dict[str, Place]:
    """The indices of `A[dim: index, …]`."""
    out: dict[str, Place] = {}
    for item in key if isinstance(key, tuple) else (key,):
        if not isinstance(item, slice) or not isinstance(item.start, Dim) or item.step is not None:
            raise _bad_index(array, item)
        if item.start.key in out:
            what = f"{item.start.name} is indexed twice"
            raise DimError(message(what, source_row(here()), "Give each dim one index."))
        if item.start.key not in array.value.dims:
            raise unknown_dim(array.value, item.start.key, "index", here())
        out[item.start.key] = place(item.stop, item.start.key)
    return out


def place(index: object, dim: str) -> Place:
    """One index: a form or an integer value."""
    form = form_of(index)
    if form is not None:
        return form
    if isinstance(index, Array) or (isinstance(index, np.generic) and index.ndim == 0):
        value = operand(index)
        check_integer(value, dim, here())
        return value
    name = keys.info(dim).name
    what = f"the index of {name} is a {type(index).__name__}"
    advice = (
        f"An index is an integer, a dim, an expression in dims, or an integer array: a[{name}: 3]."
    )
    if isinstance(index, np.ndarray):
        advice = f"Name its dims: a[{name}: sm.array(idx, p)]."
    raise ArgumentError(message(what, source_row(here()), advice))


def _bad_index(array: Array, item: object) -> ArgumentError:
    names = Names(array.value.dims)
    first = names[array.value.dims[0]] if array.value.dims else "k"
    shown_item = item.name if isinstance(item, Dim) else repr(item)
    what = f"an index names its dim; [{shown_item}] does not"
    return ArgumentError(message(what, source_row(here()), f"Write a[{first}: index]."))


def _unordered(what: str) -> TraceError:
    header = f"{what} of an array is not defined: its dims have no order"
    advice = "Read sizes from a.sizes[k]; for NumPy's view say a.numpy(i, k)."
    return TraceError(message(header, source_row(here()), advice))
