"""Elementwise operations: the types that meet, the conversions that the tensor IR wants, the node.

    x{f32, i} * n{i32, k}   ->   mul(x, convert n)   f32{i, k}
    x{f32, i} * 2           ->   2 is an f32 here: Python numbers are weak, as in JAX

A weak value takes the type that it meets if that can hold its kind; among weak values only, bool,
int, float and complex numbers meet at i32, f32 and complex64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from summand.dtypes import DType, bool_, complex64, complex128, f32, f64, i32, i64, promote
from summand.errors import DTypeError, Loc
from summand.ir.index import Form
from summand.ir.nodes import Iota, Map, Scalar, Type
from summand.ir.prims import POSITION, PRIMS
from summand.lang import keys
from summand.lang.describe import Names, Row, message, name_of, sizes_in_order, source_row
from summand.lang.graph import Sized, constant, constant_value, emit
from summand.lang.location import here
from summand.lang.unsized import Sizes, Unsized, Value, combine, force, settle

_KIND_RANK = {"bool": 0, "uint": 1, "int": 1, "float": 2, "complex": 3}
_FLOAT_ONLY = frozenset(
    [
        "div",
        "exp",
        "expm1",
        "log",
        "log1p",
        "sqrt",
        "rsqrt",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "erf",
        "atan2",
    ]
)
_ROUNDING = frozenset(("floor", "ceil", "round", "trunc"))
_TESTS = frozenset(("isnan", "isinf", "isfinite"))
_BOOL_TWIN = {"add": "or", "mul": "and", "max": "or", "min": "and"}
_SYMBOL = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floordiv": "//",
    "mod": "%",
    "pow": "**",
    "and": "&",
    "or": "|",
    "xor": "^",
    "not": "~",
    "neg": "-",
    "shl": "<<",
    "shr": ">>",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
}


def scalar_type(value: Scalar) -> DType:
    """The type of a Python number where nothing else decides."""
    if isinstance(value, bool):
        return bool_
    if isinstance(value, int):
        return i32 if -(2**31) <= value < 2**31 else i64
    return f32 if isinstance(value, float) else complex64


def weak_scalar(value: Scalar) -> Sized:
    """A Python number as a value."""
    return constant(value, scalar_type(value), weak=True)


def common(values: Sequence[Value]) -> tuple[DType, bool]:
    """The type at which values meet, and whether it is still weak."""
    strong = [v.dtype for v in values if not v.weak]
    weak = [v.dtype for v in values if v.weak]
    out: DType | None = None
    for t in strong:
        out = t if out is None else promote(out, t)
    if out is None:
        out = weak[0]
        for t in weak[1:]:
            out = promote(out, t)
        return out, True
    for t in weak:
        if _KIND_RANK[t.kind] <= _KIND_RANK[out.kind]:
            continue
        wide = t.is_complex and out is f64
        out = complex128 if wide else t
    return out, False


def convert(value: Value, dtype: DType, weak: bool | None = None) -> Value:
    """The same values as another element type; a constant is made anew."""
    keep = value.weak if weak is None else weak
    if value.dtype is dtype and value.weak == keep:
        return value
    if isinstance(value, Unsized):
        return combine(
            (value,),
            dtype,
            keep,
            lambda _, parts: convert_sized(parts[0], dtype, keep),
            value.loc,
            lambda parts: convert(parts[0], dtype, keep),
        )
    return convert_sized(value, dtype, keep)


def convert_sized(value: Sized, dtype: DType, weak: bool = False) -> Sized:
    """`convert` for a value with sizes."""
    if value.dtype is dtype:
        return Sized(value.node, value.out, weak)
    number = constant_value(value)
    if number is not None and value.weak:
        return constant(fitted(number, dtype), dtype, weak)
    type_ = value.type.with_dtype(dtype)
    return emit(lambda a: Map("convert", (a,)), (value,), (type_,), weak=weak)[0]


def fitted(number: Scalar, dtype: DType) -> Scalar:
    """A Python number as one of this type. Raises DTypeError where an integer does not fit."""
    if dtype.is_integer and isinstance(number, int):
        signed = dtype.kind == "int"
        least = -(1 << (dtype.bits - 1)) if signed else 0
        greatest = (1 << (dtype.bits - (1 if signed else 0))) - 1
        if not least <= number <= greatest:
            what = f"{number} does not fit in {dtype.name} ({least} … {greatest})"
            raise DTypeError(message(what, source_row(here()), "Convert the array first: .astype."))
        return int(number)
    if dtype.is_float and isinstance(number, (bool, int)):
        try:
            return float(number)
        except OverflowError:
            what = f"an integer of {number.bit_length()} bits is beyond every float"
            raise DTypeError(message(what, source_row(here()), "Write sm.inf.")) from None
    return number


def elementwise(fn: str, *values: Value) -> Value:
    """The scalar op `fn` over the union of the operands' dims."""
    fn, values = _adapted(fn, values)
    if fn in _ROUNDING and not values[0].dtype.is_inexact:
        return values[0]
    if fn in _TESTS and not values[0].dtype.is_inexact:
        return elementwise("ne" if fn != "isfinite" else "eq", values[0], values[0])
    dtype, weak = _result(fn, values)
    if all(isinstance(v, Sized) for v in values):
        sized = tuple(v for v in values if isinstance(v, Sized))
        sizes = _merged(sized)
        if sizes is not None:
            return _node(fn, sized, Type.of(dtype, sizes), weak)
    return settle(
        combine(
            values,
            dtype,
            weak,
            lambda _, parts: _built(fn, parts, weak),
            here(),
            lambda parts: elementwise(fn, *parts),
        )
    )


def _built(fn: str, parts: tuple[Sized, ...], weak: bool) -> Sized:
    """The node, once every operand has sizes; positions of a long dim may be wider by now."""
    dtype, _ = _result(fn, parts)
    return _node(fn, parts, Type.of(dtype, _merged(parts) or {}), weak)


def _node(fn: str, values: tuple[Sized, ...], type_: Type, weak: bool) -> Sized:
    return emit(lambda *args: Map(fn, args), values, (type_,), weak=weak)[0]


def _merged(values: Sequence[Sized]) -> dict[str, int] | None:
    """The union of the operands' dims; None where two sizes meet."""
    sizes: dict[str, int] = {}
    for value in values:
        for dim, size in value.type.dims:
            if sizes.setdefault(dim, size) != size:
                return None
    return sizes


def _adapted(fn: str, values: tuple[Value, ...]) -> tuple[str, tuple[Value, ...]]:
    """Operands as the op wants them: of one type, floats for `exp`, bool for `where`."""
    if fn == "where":
        pred, a, b = values
        dtype, weak = common((a, b))
        return fn, (truth(pred), convert(a, dtype, weak), convert(b, dtype, weak))
    if fn in ("stop_gradient", "barrier", "real", "imag", "conj"):
        return fn, values
    dtype, weak = common(values)
    if fn == "complex" or (fn in _FLOAT_ONLY and not dtype.is_inexact):
        dtype = dtype if dtype.is_inexact else f32
    if dtype is bool_ and fn in _BOOL_TWIN:
        fn = _BOOL_TWIN[fn]
    return fn, tuple(convert(v, dtype, weak) for v in values)


def truth(value: Value) -> Value:
    """`value != 0`, or the value itself where it is bool."""
    if value.dtype is bool_:
        return value
    return elementwise("ne", value, weak_scalar(0))


def _result(fn: str, values: Sequence[Value]) -> tuple[DType, bool]:
    """The result's type. Raises DTypeError where the op has no rule."""
    out = PRIMS[fn].rule(*(v.dtype for v in values))
    if out is None:
        raise no_rule(fn, values, here())
    weak = all(v.weak for v in (values[1:] if fn == "where" else values)) and out is not bool_
    return out, weak


def no_rule(fn: str, values: Sequence[Value], loc: Loc | None) -> DTypeError:
    """The error for an op that has no rule for these types."""
    names = Names(d for v in values for d in v.dims)
    shown = _SYMBOL.get(fn, fn)
    types = " and ".join(dict.fromkeys(v.dtype.name for v in values))
    rows: list[Row] = []
    for value in values:
        if isinstance(value, Sized):
            text = names.type(value.dtype, sizes_in_order(value))
            rows.append((f"{name_of(value, loc)}: {text}", value.loc))
    if any(v.dtype.is_complex for v in values):
        advice = "Complex numbers have no order: use .real, .imag or abs()."
    elif any(v.dtype is bool_ for v in values):
        advice = "Convert first: .astype(sm.f32); for truth values use & | ^ ~."
    else:
        advice = "Convert one operand: .astype(...)."
    return DTypeError(message(f"{shown} has no rule for {types}", rows + source_row(loc), advice))


# ---- dims as numbers


def form_value(form: Form) -> Value:
    """An index form as a value: an integer that depends on the positions along its dims."""
    if form.is_const:
        return weak_scalar(form.const)
    dims = tuple(sorted(form.dims, key=keys.by_name))
    value = Unsized(
        dims=dims,
        dtype=POSITION,
        weak=False,
        known=(),
        defaults=(),
        reads=(),
        parts=(),
        build=lambda sizes, _: _positions(form, sizes),
        loc=here(),
        form=form,
    )
    return settle(value)


def iota(dim: str, size: int) -> Sized:
    """Positions along a dim; i64 where i32 does not hold them."""
    dtype = POSITION if size < 2**31 else i64
    return emit(lambda: Iota(dim), (), (Type(dtype, ((dim, size),)),))[0]


def _positions(form: Form, sizes: Sizes) -> Sized:
    """The nodes that compute a form."""
    total: Value | None = None
    for atom, coefficient in form.terms:
        if isinstance(atom, str):
            term: Value = iota(atom, sizes[atom])
        else:
            inner = _positions(atom.form, sizes)
            op = "floordiv" if atom.op == "//" else "mod"
            term = elementwise(op, inner, weak_scalar(atom.by))
        if abs(coefficient) != 1:
            term = elementwise("mul", term, weak_scalar(abs(coefficient)))
        if total is None:
            total = elementwise("neg", term) if coefficient < 0 else term
        else:
            total = elementwise("sub" if coefficient < 0 else "add", total, term)
    if total is None:
        return constant(form.const, POSITION)
    if form.const:
        op = "sub" if form.const < 0 else "add"
        total = elementwise(op, total, weak_scalar(abs(form.const)))
    return force(total, "positions", None)


def expand(value: Sized, sizes: Mapping[str, int]) -> Sized:
    """The value with further dims, along which it is constant."""
    out: Value = value
    for dim, size in sizes.items():
        if dim not in value.dims:
            position = iota(dim, size)
            out = elementwise("where", elementwise("eq", position, position), out, out)
    return force(out, "expand", None)
