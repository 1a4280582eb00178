"""Every scalar op as LLVM text, for any number of lanes.

    emit_op(fn, "max", [x, y], f32, 16)      emit_fold_op(fn, "add", total, x, f32, 16)

Floats may be contracted (a·b + c in one rounding); nothing else is reassociated or assumed.
16-bit floats are computed in f32 registers and rounded by "convert" alone. Integers never trap
(`ops_int`); functions such as exp are in `vmath`. Complex values do not reach this stage.
"""

from __future__ import annotations

from collections.abc import Sequence

from summand.codegen.cpu import ops_float, vmath
from summand.codegen.cpu.arith import Arith
from summand.codegen.cpu.elements import narrow_half, widen_half
from summand.codegen.cpu.ops_int import Integers
from summand.codegen.cpu.text import Function, Value, constant, register_type, vector
from summand.dtypes import DType, bf16, bool_, f16, f32, f64, i8, i16, i32, i64
from summand.errors import InternalError

IDENTITIES = ("stop_gradient", "barrier", "real", "conj")
REFUSED = ("complex",)
_COMPARE = {
    "lt": ("olt", "slt", "ult"),
    "le": ("ole", "sle", "ule"),
    "gt": ("ogt", "sgt", "ugt"),
    "ge": ("oge", "sge", "uge"),
    "eq": ("oeq", "eq", "eq"),
    "ne": ("une", "ne", "ne"),
}
_SIGNED = {"i1": bool_, "i8": i8, "i16": i16, "i32": i32, "i64": i64, "float": f32, "double": f64}
_ARITHMETIC = {"add": "fadd", "sub": "fsub", "mul": "fmul"}
_ROUNDING = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "roundeven"}
_FOLDS = {"sum": "add", "prod": "mul", "any": "or", "all": "and"}


def emit_op(fn: Function, name: str, args: Sequence[Value], dtype: DType, lanes: int) -> Value:
    """The value of op `name` (of `ir/prims.py`) with a result of type `dtype`, in `lanes` lanes.

    Arguments of integer type need their `Value.dtype`; those of arithmetic have the result's type.
    """
    source = _dtype_of(args[0])
    if name in IDENTITIES:
        return args[0]
    if name == "convert":
        return convert(fn, args[0], source, dtype, lanes)
    if name == "where":
        return Value(fn.select(*args).name, args[1].type, dtype)
    if name in _COMPARE:
        return _compare(fn, name, args, source, lanes)
    if name in ("and", "or", "xor", "not"):
        return _bitwise(fn, name, args, dtype, lanes)
    if source is bool_:
        return _of_bools(fn, name, args, dtype, lanes)
    if source.is_float:
        value = _float_op(Arith(fn, _computed(source), lanes), name, args)
    else:
        value = _integer_op(Integers(fn, source, lanes), name, args)
    if value is None:
        raise InternalError(f"codegen: {name} has no code for {source}")
    return Value(value.name, value.type, bool_ if name.startswith("is") else dtype)


def emit_quotient(fn: Function, x: Value, number: float, dtype: DType, lanes: int) -> Value:
    """x / number, of floats."""
    out = ops_float.over(Arith(fn, _computed(dtype), lanes), x, number)
    return Value(out.name, out.type, dtype)


def emit_fold_op(
    fn: Function, name: str, acc: Value, value: Value, dtype: DType, lanes: int, nan: bool = True
) -> Value:
    """acc ⊕ value, for a fold's accumulator: add, mul, max, min, and, or (or the monoid's name).

    `nan=False` leaves open what max and min of floats give when a NaN occurs, for one instruction.
    """
    op = _FOLDS.get(name, name)
    if op in ("max", "min") and dtype.is_float:
        extreme = ops_float.maximum if op == "max" else ops_float.minimum
        out = extreme(Arith(fn, _computed(dtype), lanes), value, acc, nan)
        return Value(out.name, out.type, dtype)
    return emit_op(fn, op, [acc, value], dtype, lanes)


def joins_nan(fn: Function, name: str, dtype: DType, lanes: int) -> bool:
    """Whether a fold may leave the NaNs of its values to `join_nan`, which takes two at once."""
    extreme = _FOLDS.get(name, name) in ("max", "min") and dtype.is_float
    return extreme and ops_float.joins(Arith(fn, _computed(dtype), lanes))


def join_nan(fn: Function, acc: Value, one: Value, two: Value, dtype: DType, lanes: int) -> Value:
    """A greatest or least value, but NaN where one of two values that it was chosen from is."""
    out = ops_float.join_nan(Arith(fn, _computed(dtype), lanes), acc, one, two)
    return Value(out.name, out.type, dtype)


def _computed(dtype: DType) -> DType:
    return f32 if dtype in (f16, bf16) else dtype


def _dtype_of(value: Value) -> DType:
    """An argument's type; integers without one are signed."""
    if value.dtype is not None:
        return value.dtype
    element = value.type.removesuffix(">").split()[-1]
    return _SIGNED[element]


def _compare(fn: Function, name: str, args: Sequence[Value], source: DType, lanes: int) -> Value:
    of_floats, signed, unsigned = _COMPARE[name]
    a, b = args
    if source.is_float:
        text = f"fcmp {of_floats} {a.type} {a}, {b}"
    else:
        text = f"icmp {signed if source.kind == 'int' else unsigned} {a.type} {a}, {b}"
    return fn.pure(text, vector("i1", lanes), bool_)


def _bitwise(fn: Function, name: str, args: Sequence[Value], dtype: DType, lanes: int) -> Value:
    type_ = register_type(dtype, lanes)
    if name == "not":
        ones = constant(True if dtype is bool_ else -1, type_)
        return fn.pure(f"xor {type_} {args[0]}, {ones}", type_, dtype)
    return fn.pure(f"{name} {type_} {args[0]}, {args[1]}", type_, dtype)


def _of_bools(fn: Function, name: str, args: Sequence[Value], dtype: DType, lanes: int) -> Value:
    """max, min and imag of bools (sums of bools are converted before)."""
    if name == "imag":
        return constant(False, register_type(dtype, lanes), dtype)
    if name not in ("max", "min"):
        raise InternalError(f"codegen: {name} has no code for bool")
    return _bitwise(fn, "or" if name == "max" else "and", args, dtype, lanes)


def _integer_op(n: Integers, name: str, args: Sequence[Value]) -> Value | None:
    match name:
        case "add" | "sub" | "mul":
            return n.op(name, *args)
        case "max" | "min":
            return n.extreme(name, *args)
        case "floordiv":
            return n.floordiv(*args)
        case "mod":
            return n.mod(*args)
        case "pow":
            return n.pow(*args)
        case "shl":
            return n.shl(*args)
        case "shr":
            return n.shr(*args)
        case "neg":
            return n.neg(*args)
        case "abs":
            return n.abs(*args)
        case "sign":
            return n.sign(*args)
        case "imag":
            return n.c(0)
        case _:
            return None


def _float_op(a: Arith, name: str, args: Sequence[Value]) -> Value | None:
    x = args[0]
    if name in _ARITHMETIC:
        return a.fn.pure(f"{_ARITHMETIC[name]} contract {a.type} {x}, {args[1]}", a.type)
    if name in _ROUNDING:
        return a.call(_ROUNDING[name], x)
    if name in vmath.FUNCTIONS:
        return vmath.emit(a, name, args)
    match name:
        case "div":
            return a.div(x, args[1])
        case "floordiv":
            return ops_float.floordiv(a, x, args[1])
        case "mod":
            return ops_float.mod(a, x, args[1])
        case "max":
            return ops_float.maximum(a, x, args[1])
        case "min":
            return ops_float.minimum(a, x, args[1])
        case "neg":
            return a.neg(x)
        case "abs":
            return a.abs(x)
        case "sign":
            return ops_float.sign(a, x)
        case "sqrt":
            return a.call("sqrt", x)
        case "isnan":
            return a.compare("uno", x, x)
        case "ordinal":
            return ops_float.ordinal(a, x)
        case "isinf":
            return ops_float.isinf(a, x)
        case "isfinite":
            return ops_float.isfinite(a, x)
        case "imag":
            return a.c(0.0)
        case _:
            return None


# ---- conversions


def convert(fn: Function, x: Value, source: DType, dtype: DType, lanes: int) -> Value:
    """The same value in another type. Floats saturate at an integer's ends; NaN becomes 0."""
    type_ = register_type(dtype, lanes)
    if dtype is bool_:
        return _to_bool(fn, x, source, lanes)
    if source.is_float and dtype.is_float:
        return _between_floats(fn, x, source, dtype, lanes)
    if source.is_float:
        return _to_integer(fn, x, source, dtype, lanes)
    if dtype.is_float:
        how = "sitofp" if source.kind == "int" else "uitofp"
        wide = fn.cast(how, x, type_, dtype)
        return _between_floats(fn, wide, f32, dtype, lanes) if dtype in (f16, bf16) else wide
    if dtype.bits < source.bits and source is not bool_:
        return fn.cast("trunc", x, type_, dtype)
    return fn.cast("sext" if source.kind == "int" else "zext", x, type_, dtype)


def _to_integer(fn: Function, x: Value, source: DType, dtype: DType, lanes: int) -> Value:
    """A float as an integer, saturated. Of vectors LLVM would convert lane by lane."""
    type_, signed = register_type(dtype, lanes), dtype.kind == "int"
    name = "fptosi" if signed else "fptoui"
    if lanes == 1:
        from_ = "f64" if source is f64 else "f32"
        value = fn.call(f"llvm.{name}.sat.{type_}.{from_}", type_, [x])
        return Value(value.name, type_, dtype)

    def compared(how: str, a: Value, b: Value) -> Value:
        return fn.pure(f"fcmp {how} {a.type} {a}, {b}", vector("i1", lanes))

    bits = dtype.bits - 1 if signed else dtype.bits
    held = min(bits, 53 if source is f64 else 24)  # bits of the greatest float below 2**bits
    least = constant(-(2.0**bits) if signed else 0.0, x.type)
    most = constant(2.0**bits - 2.0 ** (bits - held), x.type)
    inside = fn.select(compared("ord", x, x), x, Value("zeroinitializer", x.type))
    inside = fn.select(compared("ogt", inside, least), inside, least)
    inside = fn.select(compared("olt", inside, most), inside, most)
    whole = fn.cast(name, inside, type_, dtype)
    if held == bits:
        return whole
    above = compared("oge", x, constant(2.0**bits, x.type))
    end = constant((1 << bits) - 1 if signed else -1, type_, dtype)  # or all bits
    return fn.select(above, end, whole)


def _to_bool(fn: Function, x: Value, source: DType, lanes: int) -> Value:
    if source is bool_:
        return x
    zero = constant(0, x.type)
    test = "fcmp une" if source.is_float else "icmp ne"
    return fn.pure(f"{test} {x.type} {x}, {zero}", vector("i1", lanes), bool_)


def _between_floats(fn: Function, x: Value, source: DType, dtype: DType, lanes: int) -> Value:
    type_ = register_type(dtype, lanes)
    if dtype is f64:
        return fn.cast("fpext", x, type_, dtype)
    if dtype is f32:
        return fn.cast("fptrunc", x, type_, dtype)
    if dtype is source:
        return x
    narrow = _round_to_odd(fn, x, lanes) if source is f64 else x
    if dtype is bf16:
        return round_to_bf16(fn, narrow, lanes)
    return widen_half(fn, narrow_half(fn, narrow, lanes), lanes)


def _round_to_odd(fn: Function, x: Value, lanes: int) -> Value:
    """An f64 as f32 so that rounding the f32 to 16 bits gives what rounding the f64 would.

    An inexact result whose last bit is 0 moves to its neighbour on the other side of x.
    """
    a = Arith(fn, f32, lanes)
    near = fn.cast("fptrunc", x, a.type, f32)
    wide = Arith(fn, f64, lanes)
    back = fn.cast("fpext", near, wide.type, f64)
    inexact = wide.compare("one", back, x)
    bits = a.to_bits(near)
    even = a.icompare("eq", a.integer("and", bits, a.k(1)), a.k(0))
    above = wide.compare("ogt", wide.abs(back), wide.abs(x))
    step = a.select(above, a.k(-1), a.k(1))
    odd = a.from_bits(a.integer("add", bits, step))
    return a.select(a.both(inexact, even), odd, near)


def round_to_bf16(fn: Function, x: Value, lanes: int) -> Value:
    """An f32 rounded to the nearest bf16, half to even, still in f32 registers."""
    a = Arith(fn, f32, lanes)
    bits = a.to_bits(x)
    odd = a.integer("and", a.integer("lshr", bits, a.k(16)), a.k(1))
    rounded = a.integer("add", a.integer("add", bits, a.k(0x7FFF)), odd)
    kept = a.from_bits(a.integer("and", rounded, a.k(-0x10000)))
    value = a.select(a.compare("uno", x, x), a.c(float("nan")), kept)
    return Value(value.name, value.type, bf16)
