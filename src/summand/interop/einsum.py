"""`summand.einsum`: numpy.einsum for positional arrays, compiled.

    sm.einsum("nchw,oc->nohw", a, b)

One program for each form: subscripts, shapes, strides and element types. What NumPy says of a form,
its errors, its element type, whether the result is a view, is asked of NumPy itself, once, on tiny
arrays of the same kind. Arrays are read where they lie, in any strides.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from string import ascii_letters
from typing import Literal

import numpy as np
import opt_einsum
from opt_einsum.backends import dispatch as _dispatch

from summand import compiler, dtypes
from summand.dtypes import DType
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import ANY, SUM, Program, Type, Var
from summand.ir.strided import Flat, flat, in_memory, view
from summand.runtime.executable import Executable

Casting = Literal["no", "equiv", "safe", "same_kind", "unsafe"]
Sizes = dict[str, int]
Dims = tuple[str, ...]
KEEP = 1024  # forms whose programs are remembered

_made: OrderedDict[Hashable, _Form | None] = OrderedDict()  # None: NumPy's own einsum runs it


@dataclass(frozen=True, slots=True)
class _Form:
    """A form made ready. `reads` says how each operand is seen in memory."""

    executable: Executable
    reads: tuple[_Read, ...]
    result: np.dtype  # what NumPy's result has; the program's may be wider
    order: tuple[int, ...]  # the result's axes as they lie in memory
    axes: tuple[int, ...]  # where each axis of the result is in the program's


@dataclass(frozen=True, slots=True)
class _Read:
    """An operand as a dense array: of these axes, or flat."""

    axes: tuple[int, ...]
    flat: Flat | None
    converted: (
        np.dtype | None
    )  # what to make a row-major copy in: types and bytes that are not ours


def einsum(
    *operands: object,
    out: np.ndarray | None = None,
    optimize: object = False,
    dtype: object = None,
    order: str = "K",
    casting: Casting = "safe",
) -> np.ndarray:
    """Sum of products by subscripts: `einsum("ij,jk->ik", a, b)`, as numpy.einsum in every form.

    operands: subscripts and arrays, or arrays each with its list of labels. Any number of them.
    out, dtype, order, casting: as in numpy.einsum. The order of contractions is the compiler's;
    `optimize` is checked and else of no effect (a path of opt_einsum, its names, True or False).
    A form that only picks axes of one array gives a view, as NumPy's does. Element types without
    code of their own (longdouble, object, …) are computed by NumPy.
    Raises what numpy.einsum raises.
    """
    text, arrays = _operands(operands)
    options = (dtype, order, casting)
    given = None if out is None else (out.shape, out.strides, out.dtype, out.flags.writeable)
    key = (text, tuple((a.shape, a.strides, a.dtype) for a in arrays), options, given)
    if optimize is not False and optimize is not True:
        _check_path(text, arrays, optimize)
    form: _Form | None
    if key in _made:
        form = _made[key]
    else:
        form = _made[key] = _form(text, arrays, out, options)
        if len(_made) > KEEP:
            _made.popitem(last=False)
    if form is None:
        return np.einsum(text, *arrays, out=out, dtype=dtype, order=order, casting=casting)  # type: ignore[call-overload, no-any-return]
    return _run(form, arrays, out)


def _operands(operands: Sequence[object]) -> tuple[str, list[np.ndarray]]:
    """Subscripts as one string without spaces, and the arrays."""
    if operands and isinstance(operands[0], str):
        return operands[0].replace(" ", ""), [np.asarray(x) for x in operands[1:]]
    if len(operands) < 2:
        np.einsum(*operands)  # type: ignore[call-overload]
    arrays = [np.asarray(x) for x in operands[: len(operands) // 2 * 2 : 2]]
    lists = operands[1 : len(arrays) * 2 : 2]
    try:
        text = ",".join(_labels(x) for x in lists)
        if len(operands) % 2:
            text += "->" + _labels(operands[-1])
    except (TypeError, ValueError, AttributeError):
        np.einsum(*operands)  # type: ignore[call-overload]
        raise
    return text, arrays


def _labels(x: object) -> str:
    """A list of labels as NumPy spells it: 0 is A, 26 is a."""
    return "".join("..." if n is Ellipsis else _letter(n) for n in x)  # type: ignore[attr-defined]


def _letter(number: object) -> str:
    place = int(number.__index__())  # type: ignore[attr-defined]
    if not 0 <= place < 52:
        raise ValueError(f"{place} is not a label")
    return chr(ord("A") + place) if place < 26 else chr(ord("a") + place - 26)


def _check_path(text: str, arrays: Sequence[np.ndarray], optimize: object) -> None:
    """Raise what opt_einsum raises for a path or strategy that it does not know."""
    path = list(optimize[1:]) if _is_numpy_path(optimize) else optimize  # type: ignore[index]
    shapes = [a.shape for a in arrays]
    opt_einsum.contract_path(text, *shapes, shapes=True, optimize=path)


def _is_numpy_path(x: object) -> bool:
    return isinstance(x, (list, tuple)) and bool(x) and x[0] == "einsum_path"


# ---- what NumPy says


def _form(
    text: str,
    arrays: Sequence[np.ndarray],
    out: np.ndarray | None,
    options: tuple[object, str, Casting],
) -> _Form | None:
    """The form made ready; None where NumPy is to run it. Raises what NumPy raises."""
    dtype, order, casting = options
    like = _alike(text, arrays, order, dtype, casting, out)
    computed = np.dtype(dtype) if dtype is not None else like.dtype  # type: ignore[call-overload]
    if out is not None and dtype is None:
        computed = np.result_type(*(a.dtype for a in arrays), out.dtype)
    inputs, output, _ = opt_einsum.parser.parse_einsum_input((text, *arrays))
    view = len(arrays) == 1 and set(inputs) <= set(output) and out is None and dtype is None
    if view or any(_element_type(t) is None for t in (computed, *(a.dtype for a in arrays))):
        return None
    terms = [_dims(term) for term in inputs.split(",")]
    return _compiled(terms, _dims(output), arrays, computed, in_memory(like))


def _alike(
    text: str,
    arrays: Sequence[np.ndarray],
    order: str,
    dtype: object,
    casting: Casting,
    out: np.ndarray | None,
) -> np.ndarray:
    """NumPy's result for small zeros in place of the arrays: its type and order in memory.

    One more operand, of no elements, sees to it that nothing is computed.
    """
    sizes = sorted({n for a in [*arrays, *([] if out is None else [out])] for n in a.shape})
    small = {n: n if n < 2 else 2 + place for place, n in enumerate(sizes)}
    unused = next(c for c in ascii_letters if c not in text) if len(set(text)) < 52 else ""
    left, arrow, right = text.partition("->")
    longer = f"{left},{unused * 2}{arrow}{right}"
    tiny = [_zeros(a, small) for a in arrays]
    to = None if out is None else _zeros(out, small)
    try:
        return np.asarray(
            np.einsum(  # type: ignore[call-overload]
                longer,
                *tiny,
                np.zeros((0, 0), np.bool_),
                out=to,
                dtype=dtype,
                order=order,
                casting=casting,
            )
        )
    except Exception:
        np.einsum(text, *arrays, out=out, dtype=dtype, order=order, casting=casting)  # type: ignore[call-overload]
        raise


def _zeros(like: np.ndarray, small: dict[int, int]) -> np.ndarray:
    """Zeros with other sizes, but in the same order in memory, and as writable."""
    axes = in_memory(like)
    made = np.zeros([small[like.shape[k]] for k in axes], like.dtype)
    made = made.transpose([axes.index(k) for k in range(like.ndim)])
    made.flags.writeable = like.flags.writeable
    return made


_WIDER = {"uint16": dtypes.u32}  # sums of either agree in the low bits


def _element_type(dtype: np.dtype) -> DType | None:
    native = dtype.newbyteorder("=")
    if native.name in ("longdouble", "clongdouble", "bfloat16"):
        return None
    return _WIDER.get(native.name) or dtypes.from_numpy(native)


# ---- the program


def _compiled(
    terms: Sequence[Dims],
    output: Dims,
    arrays: Sequence[np.ndarray],
    computed: np.dtype,
    axes: tuple[int, ...],
) -> _Form | None:
    """The program of a form, for operands as they lie in memory."""
    sizes: Sizes = {}
    for term, array in zip(terms, arrays, strict=True):
        for dim, size in zip(term, array.shape, strict=True):
            sizes[dim] = size if sizes.get(dim, 1) == 1 else sizes[dim]
    element = _element_type(computed)
    assert element is not None
    b = Builder()
    reads: list[_Read] = []
    orders: list[Dims] = []
    factors: list[Var] = []
    for number, (term, array) in enumerate(zip(terms, arrays, strict=True)):
        read = _read(array)
        param, order, index = _param(b, read, number, term, array, sizes)
        reads.append(read)
        orders.append(order)
        factors.append(b.convert(b.reindex(param, index, sizes), element))
    program = _sum_of_products(b, factors, output, sizes)
    executable = compiler.compile(program, orders, [tuple(output[axis] for axis in axes)])
    back = tuple(axes.index(k) for k in range(len(axes)))
    return _Form(executable, tuple(reads), computed.newbyteorder("="), axes, back)


def _dims(labels: str) -> Dims:
    return tuple(f"d{ord(label)}" for label in labels)


def _read(array: np.ndarray) -> _Read:
    """How an operand lies in memory."""
    element = _element_type(array.dtype)
    if array.dtype.name in _WIDER or not array.dtype.isnative:
        return _Read(tuple(range(array.ndim)), None, element.numpy if element else None)
    return _Read(in_memory(array), flat(array), None)


def _param(
    b: Builder, read: _Read, number: int, term: Dims, array: np.ndarray, sizes: Sizes
) -> tuple[Var, Dims, dict[str, Form]]:
    """An operand's parameter, its order in memory, and where each of its dims is read."""
    element = _element_type(array.dtype)
    assert element is not None
    repeats = [size == 1 and sizes[dim] != 1 for dim, size in zip(term, array.shape, strict=True)]
    if read.flat is not None:
        dim = f"flat{number}"
        own = [d for d, repeat in zip(term, repeats, strict=True) if not repeat]
        steps = [s for s, repeat in zip(read.flat.strides, repeats, strict=True) if not repeat]
        form = Form.make(zip(own, steps, strict=True), read.flat.start)
        return b.param(Type.of(element, {dim: read.flat.length})), (dim,), {dim: form}
    names = [f"a{number}_{axis}" for axis in range(array.ndim)]
    index = {
        name: Form.of(0 if repeat else dim)
        for name, dim, repeat in zip(names, term, repeats, strict=True)
    }
    param = b.param(Type.of(element, dict(zip(names, array.shape, strict=True))))
    return param, tuple(names[axis] for axis in read.axes), index


def _sum_of_products(b: Builder, factors: Sequence[Var], output: Dims, sizes: Sizes) -> Program:
    """The product over all dims, summed over those that the output lacks; of bools: any of all."""
    truth = factors[0].type.dtype is dtypes.bool_
    product = factors[0]
    for factor in factors[1:]:
        product = b.map("and" if truth else "mul", product, factor)
    product = b.expand(product, sizes)
    summed = [d for d in sizes if d not in output]
    if summed:
        (product,) = b.reduce(ANY if truth else SUM, summed, product)
    return b.finish([product])


# ---- running


def _run(form: _Form, arrays: Sequence[np.ndarray], out: np.ndarray | None) -> np.ndarray:
    inputs = [_seen(read, array) for read, array in zip(form.reads, arrays, strict=True)]
    if out is not None and _may_fill(form, out, arrays):
        form.executable.run(inputs, [out.transpose(form.order)])
        return out
    (found,) = form.executable.run(inputs)
    found = found.transpose(form.axes)
    if out is not None:
        np.copyto(out, found, casting="unsafe")  # NumPy has said that it may be
        return out
    if found.dtype != form.result:
        found = found.astype(form.result)
    return found if found.ndim else found[()]


def _may_fill(form: _Form, out: np.ndarray, arrays: Sequence[np.ndarray]) -> bool:
    """True where the program can write its result straight into the caller's array."""
    port = form.executable.visible[0]
    fits = out.dtype == np.dtype(port.dtype) and out.transpose(form.order).flags.carray
    return fits and not any(np.may_share_memory(out, a) for a in arrays)


def _seen(read: _Read, array: np.ndarray) -> np.ndarray:
    """The dense array that the program reads: no copy but for foreign element types."""
    if read.converted is not None:
        return np.asarray(array, read.converted, order="C")
    return array.transpose(read.axes) if read.flat is None else view(array, read.flat)


# ---- as a backend of opt_einsum


def tensordot(
    x: np.ndarray, y: np.ndarray, axes: tuple[Sequence[int], Sequence[int]]
) -> np.ndarray:
    """Sum of products over pairs of axes, which are given by position, as opt_einsum gives them."""
    left, right = list(range(x.ndim)), list(range(x.ndim, x.ndim + y.ndim))
    for a, b in zip(*axes, strict=True):
        right[b] = left[a]
    output = [*(n for n in left if n not in right), *(n for n in right if n not in left)]
    return einsum(x, left, y, right, output)


def transpose(x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The array with its axes in another order: a view."""
    return x.transpose(axes)


# opt_einsum.contract(..., backend="summand") looks here for these three functions
_dispatch._aliases["summand"] = __name__
