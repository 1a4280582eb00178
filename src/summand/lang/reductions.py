"""What a user writes for reductions: `sm.sum[k](e)`, `sm.argmax[i, j](e)`, `sm.Monoid(f, 0)[k](e)`.

sm.sum[k](x * w)                 fold k away
sm.sum[p](e, at={a: idx})        fold p into the places idx[p] of a new dim a
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import overload

from summand.dtypes import bool_, f32, f64, i64, u64
from summand.errors import ArgumentError, DimError, DTypeError
from summand.ir.index import Form
from summand.ir.nodes import ALL, ANY, MAX, MIN, PROD, SUM
from summand.ir.nodes import Monoid as MonoidNode
from summand.ir.prims import POSITION
from summand.lang.array import Array, Dim, Number, operand, place, wrap
from summand.lang.describe import message, source_row
from summand.lang.elementwise import convert, elementwise, form_value, truth, weak_scalar
from summand.lang.fold import Places, aligned, check_mode, fold, fold_at
from summand.lang.graph import constant
from summand.lang.location import here
from summand.lang.monoid import arg_extreme
from summand.lang.unsized import Value, force

X = Array | Number
At = Mapping[Dim, "Array | int"]
Prepare = Callable[[Value], Value]


def reduced_dims(name: str, dims: object) -> tuple[str, ...]:
    """The keys of `k`, `(i, j)` or `[]`."""
    listed = dims if isinstance(dims, (tuple, list)) else (dims,)
    for dim in listed:
        if not isinstance(dim, Dim):
            what = f"sm.{name}[...] takes dims, not {type(dim).__name__}"
            raise ArgumentError(message(what, source_row(here()), f"Write sm.{name}[k](e)."))
    found = tuple(d.key for d in listed)
    if len(set(found)) != len(found):
        what = f"{name} names a dim twice"
        raise DimError(message(what, source_row(here()), "Name each dim once."))
    return found


class Reduction:
    """A reduction by a named monoid: `sum`, `prod`, `max`, `min`, `any`, `all`."""

    def __init__(
        self, name: str, monoid: MonoidNode, prepare: Prepare, empty: bool, doc: str
    ) -> None:
        self.name = name
        self.monoid = monoid
        self.prepare = prepare
        self.empty = empty
        self.__doc__ = doc

    def __getitem__(self, dims: Dim | Sequence[Dim]) -> BoundReduction:
        return BoundReduction(self, reduced_dims(self.name, dims))

    def __call__(self, *args: object) -> Array:
        """Refuse: which dims?"""
        raise _without_dims(self.name)

    def __repr__(self) -> str:
        return f"sm.{self.name}"


def _without_dims(name: str) -> ArgumentError:
    what = f"sm.{name} needs the dims that it folds"
    advice = f"Write sm.{name}[k](e); all of them: sm.{name}[e.dims](e)."
    return ArgumentError(message(what, source_row(here()), advice))


class BoundReduction:
    """A reduction over given dims; call it on an array."""

    def __init__(self, reduction: Reduction, dims: tuple[str, ...]) -> None:
        self.reduction = reduction
        self.dims = dims

    def __call__(
        self,
        e: X,
        *,
        at: At | None = None,
        mode: str = "raise",
        sizes: Mapping[Dim, int] | None = None,
    ) -> Array:
        """Fold. `at` sends elements to places: {new dim: integer array or index expression}.

        mode: what a place out of range means: "raise", "clip", or "drop". sizes: sizes of the new
        dims, where the dims have none of their own.
        """
        name, monoid = self.reduction.name, self.reduction.monoid
        value = self.reduction.prepare(operand(e))
        if at is None:
            return wrap(fold(name, monoid, self.dims, (value,), self.reduction.empty)[0])
        return wrap(fold_at(name, monoid, self.dims, (value,), places_of(at, mode, sizes))[0])


def places_of(at: At, mode: str, sizes: Mapping[Dim, int] | None) -> Places:
    """What `at=`, `mode=` and `sizes=` say."""
    if not at or not all(isinstance(d, Dim) for d in at):
        what = "at= maps new dims to their indices"
        raise ArgumentError(message(what, source_row(here()), "Write at={a: idx}."))
    index = tuple((d.key, place(i, d.key)) for d, i in at.items())
    said = tuple((d.key, int(n)) for d, n in (sizes or {}).items())
    return Places(index, said, check_mode(mode, here()))


# ---- what each reduction wants of its operand


def _as_counted(value: Value) -> Value:
    """Integers and bools add up in 64 bits, as in NumPy."""
    if value.dtype is bool_ or value.dtype.kind == "int":
        return convert(value, i64, weak=False)
    return convert(value, u64, weak=False) if value.dtype.kind == "uint" else value


def _as_ordered(value: Value) -> Value:
    if value.dtype.is_complex:
        what = f"{value.dtype.name} has no order"
        advice = "Use .real, .imag or abs() first."
        raise DTypeError(message(what, source_row(here()), advice))
    return value


def _identity(value: Value) -> Value:
    return value


sum_ = Reduction("sum", SUM, _as_counted, True, "Σ over dims; 0 over no elements.")
prod = Reduction("prod", PROD, _as_counted, True, "Π over dims; 1 over no elements.")
max_ = Reduction("max", MAX, _as_ordered, False, "The greatest; NaN where one is NaN.")
min_ = Reduction("min", MIN, _as_ordered, False, "The least; NaN where one is NaN.")
any_ = Reduction("any", ANY, truth, True, "Whether one holds; false over no elements.")
all_ = Reduction("all", ALL, truth, True, "Whether each holds; true over no elements.")


class Derived:
    """A reduction that is written in terms of others: `mean`, `argmax`, `logsumexp`, …"""

    def __init__(self, name: str, run: Callable[[tuple[str, ...], Value], Value], doc: str) -> None:
        self.name = name
        self.run = run
        self.__doc__ = doc

    def __getitem__(self, dims: Dim | Sequence[Dim]) -> Callable[[X], Array]:
        keys_of = reduced_dims(self.name, dims)
        return lambda e: wrap(self.run(keys_of, operand(e)))

    def __call__(self, *args: object) -> Array:
        """Refuse: which dims?"""
        raise _without_dims(self.name)

    def __repr__(self) -> str:
        return f"sm.{self.name}"


def _count(value: Value, dims: tuple[str, ...], name: str) -> int:
    sizes = force(value, name, here()).type.sizes
    count = 1
    for dim in dims:
        count *= sizes.get(dim, 1)
    return count


def _mean(dims: tuple[str, ...], value: Value) -> Value:
    narrow = value.dtype
    value = force(value, "mean", here())
    if not narrow.is_inexact:
        total: Value = convert(_summed(dims, _as_counted(value)), f64, weak=False)
        return convert(_divided(total, value, dims), f32, weak=False)
    wide = f32 if narrow.bits == 16 else narrow
    total = _summed(dims, convert(value, wide))
    return convert(_divided(total, value, dims), narrow, value.weak)


def _summed(dims: tuple[str, ...], value: Value) -> Value:
    return fold("mean", SUM, dims, (value,))[0]


def _divided(total: Value, value: Value, dims: tuple[str, ...]) -> Value:
    return elementwise("div", total, weak_scalar(float(_count(value, dims, "mean"))))


def _var(dims: tuple[str, ...], value: Value) -> Value:
    value = force(value, "var", here())
    deviation = elementwise("sub", value, _mean(dims, value))
    size = elementwise("abs", deviation)
    return _mean(dims, elementwise("mul", size, size))


def _std(dims: tuple[str, ...], value: Value) -> Value:
    return elementwise("sqrt", _var(dims, value))


def _norm(dims: tuple[str, ...], value: Value) -> Value:
    size = elementwise("abs", value)
    return elementwise("sqrt", fold("norm", SUM, dims, (elementwise("mul", size, size),))[0])


def _logsumexp(dims: tuple[str, ...], value: Value) -> Value:
    value = force(value, "logsumexp", here())
    if not value.dtype.is_inexact:
        value = convert(value, f32)
    top = fold("logsumexp", MAX, dims, (elementwise("stop_gradient", _as_ordered(value)),))[0]
    # An infinite maximum would make NaN of inf - inf; its exponentials are right without a shift.
    shift = elementwise("where", elementwise("isfinite", top), top, weak_scalar(0.0))
    total = fold("logsumexp", SUM, dims, (elementwise("exp", elementwise("sub", value, shift)),))[0]
    return elementwise("add", elementwise("log", total), shift)


mean = Derived("mean", _mean, "The mean; NaN over no elements. Of integers, in f32.")
var = Derived("var", _var, "The mean squared deviation from the mean.")
std = Derived("std", _std, "The root of `var`.")
norm = Derived("norm", _norm, "The root of the sum of squared magnitudes.")
logsumexp = Derived("logsumexp", _logsumexp, "log Σ exp, without overflow; -inf of nothing.")


class ArgReduction:
    """`argmax` and `argmin`: an index array, or one for each dim where several are given."""

    def __init__(self, name: str, extreme: str, doc: str) -> None:
        self.name = name
        self.extreme = extreme
        self.__doc__ = doc

    @overload
    def __getitem__(self, dims: Dim) -> Callable[[X], Array]: ...

    @overload
    def __getitem__(self, dims: Sequence[Dim]) -> Callable[[X], tuple[Array, ...]]: ...

    def __getitem__(
        self, dims: Dim | Sequence[Dim]
    ) -> Callable[[X], Array] | Callable[[X], tuple[Array, ...]]:
        found = reduced_dims(self.name, dims)
        if isinstance(dims, Dim):
            return lambda e: self._run(found, operand(e))[0]
        return lambda e: self._run(found, operand(e))

    def __call__(self, *args: object) -> Array:
        """Refuse: which dims?"""
        raise _without_dims(self.name)

    def _run(self, dims: tuple[str, ...], value: Value) -> tuple[Array, ...]:
        if not dims:
            raise _without_dims(self.name)
        loc = here()
        sized = force(_as_ordered(value), self.name, loc)
        for dim in dims:
            if dim not in sized.dims:
                fold(self.name, MAX, (dim,), (sized,))
        if sized.dtype.is_inexact:
            sized = force(elementwise("stop_gradient", sized), self.name, loc)
        sizes = sized.type.sizes
        count = _count(sized, dims, self.name)
        dtype = POSITION if count < 2**31 else i64
        flat: Value = constant(0, dtype)
        for dim in dims:
            scaled = elementwise("mul", flat, weak_scalar(sizes[dim]))
            flat = elementwise("add", scaled, form_value(Form.of(dim)))
        together = elementwise("where", elementwise("eq", sized, sized), flat, flat)
        parts = aligned((sized, force(together, self.name, loc)), self.name, loc)
        monoid = arg_extreme(self.extreme, sized.dtype, dtype)
        _, position = fold(self.name, monoid, dims, parts, empty=False)
        return tuple(wrap(p) for p in _split(position, [sizes[d] for d in dims]))


def _split(position: Value, sizes: Sequence[int]) -> list[Value]:
    """A flat position as one index for each dim."""
    out: list[Value] = []
    for size in reversed(sizes[1:]):
        out.append(elementwise("mod", position, weak_scalar(size)))
        position = elementwise("floordiv", position, weak_scalar(size))
    out.append(position)
    return out[::-1]


argmax = ArgReduction("argmax", "max", "The index of the greatest; ties go to the lower one.")
argmin = ArgReduction("argmin", "min", "The index of the least; ties go to the lower one.")
