"""Random numbers: counter-based and keyed, so a key gives the same numbers everywhere.

    key = sm.random.key(0)
    w = sm.random.normal(key, {n: 64, d: 8})
    a, b = sm.random.split(key, 2)

Element p of the shape gets Threefry-2x32 of the key at counter p (Salmon et al. 2011), p counted
row-major in the order in which the shape lists its dims. Use a key once; `split` makes new ones.
"""

from __future__ import annotations

import math

import numpy as np

from summand.dtypes import DType, f32, f64, u32, u64
from summand.errors import ArgumentError, DTypeError
from summand.ir.index import Form
from summand.ir.nodes import RandomBits, Type
from summand.lang import keys
from summand.lang.array import Array, Dim, Number, apply, operand, wrap
from summand.lang.create import Shape, shape
from summand.lang.data import to_dtype
from summand.lang.describe import message, source_row
from summand.lang.elementwise import convert, elementwise, weak_scalar
from summand.lang.functions import where
from summand.lang.graph import Sized, constant, emit
from summand.lang.location import here
from summand.lang.order import argsort
from summand.lang.reindex import reindex
from summand.lang.unsized import Value, force

_SPLIT = 0x9E3779B97F4A7C15  # keeps the counters of split apart from those of the numbers


def key(seed: int | Array) -> Array:
    """A key (u64, no dims) from a seed."""
    if isinstance(seed, Array):
        return seed.astype(u64)
    if not isinstance(seed, (int, np.integer)):
        what = f"the seed of a random key is an integer, not {type(seed).__name__}"
        raise ArgumentError(message(what, source_row(here()), "Write sm.random.key(0)."))
    return wrap(constant(int(seed) % (1 << 64), u64))


def _bits(key: Array, sizes: dict[str, int]) -> Sized:
    """32 random bits for each position."""
    value = force(operand(key), "random", here())
    if value.dtype is not u64:
        what = f"a random key is u64, not {value.dtype.name}"
        raise ArgumentError(message(what, source_row(here()), "Write sm.random.key(0)."))
    type_ = Type.of(u32, {**value.type.sizes, **sizes})
    dims = tuple(sizes)
    return emit(lambda k: RandomBits(k, dims), (value,), (type_,))[0]


def _words(key: Array, sizes: dict[str, int], count: int) -> list[Value]:
    """Several independent words for each position."""
    word = keys.new_key("word", None)
    bits = _bits(key, {**sizes, word: count})
    return [reindex(bits, {word: Form.of(i)}) for i in range(count)]


def bits(key: Array, sizes: Shape) -> Array:
    """32 random bits (u32) for each position."""
    return wrap(_bits(key, shape(sizes)))


def split(key: Array, into: int | Dim = 2) -> tuple[Array, ...] | Array:
    """New keys: a tuple of `into` keys, or an array of keys over a sized dim."""
    other = apply("xor", key, wrap(constant(_SPLIT, u64)))
    if isinstance(into, Dim):
        return wrap(_joined(_words(other, shape((into,)), 2)))
    along = keys.new_key("split", None)
    joined = _joined(_words(other, {along: into}, 2))
    return tuple(wrap(reindex(joined, {along: Form.of(i)})) for i in range(into))


def _joined(words: list[Value]) -> Value:
    """Two u32 words as one u64."""
    high, low = (convert(w, u64, weak=False) for w in words)
    return elementwise("or", elementwise("shl", high, weak_scalar(32)), low)


def _unit(key: Array, sizes: dict[str, int], dtype: DType) -> Value:
    """Uniform in [0, 1), on the grid of 2^-24 (2^-53 for f64)."""
    if dtype is f64:
        joined = elementwise("shr", _joined(_words(key, sizes, 2)), weak_scalar(11))
        return elementwise("mul", convert(joined, f64, weak=False), weak_scalar(2.0**-53))
    return _grid(_bits(key, sizes))


def _grid(word: Value) -> Value:
    top = convert(elementwise("shr", word, weak_scalar(8)), f32, weak=False)
    return elementwise("mul", top, weak_scalar(2.0**-24))


def _float(dtype: object) -> DType:
    found = to_dtype(dtype)
    if not found.is_float:
        what = f"random numbers are floats, not {found.name}"
        raise DTypeError(message(what, source_row(here()), "For integers use sm.random.randint."))
    return found


def uniform(
    key: Array,
    sizes: Shape,
    low: Array | Number = 0.0,
    high: Array | Number = 1.0,
    dtype: object = "f32",
) -> Array:
    """Uniform in [low, high)."""
    found = _float(dtype)
    unit = wrap(convert(_unit(key, shape(sizes), found), found, weak=False))
    if isinstance(low, float) and isinstance(high, float) and (low, high) == (0.0, 1.0):
        return unit
    return low + unit * apply("sub", high, low)


def normal(key: Array, sizes: Shape, dtype: object = "f32") -> Array:
    """Normal with mean 0 and variance 1. Box and Muller 1958."""
    found = _float(dtype)
    wide = f64 if found is f64 else f32
    words = _words(key, shape(sizes), 4 if wide is f64 else 2)
    if wide is f64:
        first, second = (_wide(words[:2]), _wide(words[2:]))
    else:
        first, second = (_grid(w) for w in words)
    half = 2.0**-54 if wide is f64 else 2.0**-25  # off 0, where log is infinite
    radius = elementwise("log", elementwise("add", first, weak_scalar(half)))
    radius = elementwise("sqrt", elementwise("mul", radius, weak_scalar(-2.0)))
    angle = elementwise("cos", elementwise("mul", second, weak_scalar(2 * math.pi)))
    return wrap(convert(elementwise("mul", radius, angle), found, weak=False))


def _wide(words: list[Value]) -> Value:
    top = elementwise("shr", _joined(words), weak_scalar(11))
    return elementwise("mul", convert(top, f64, weak=False), weak_scalar(2.0**-53))


def bernoulli(key: Array, sizes: Shape, p: Array | Number = 0.5) -> Array:
    """True with probability p."""
    return uniform(key, sizes) < p


def randint(key: Array, sizes: Shape, low: int, high: int, dtype: object = "i32") -> Array:
    """Integers in low … high-1. 64 random bits each, so the bias is below 2^-64 · (high - low)."""
    if high <= low:
        what = f"randint has no integer between {low} and {high}"
        raise ArgumentError(message(what, source_row(here()), "See that low < high."))
    joined = _joined(_words(key, shape(sizes), 2))
    span = convert(constant(high - low, u64), u64)
    offset = wrap(elementwise("mod", joined, span)).astype(dtype)
    return offset + low


def permutation(key: Array, over: Dim, size: int | None = None) -> Array:
    """The integers 0 … size-1 in random order, along `over`."""
    found = shape((over,)) if size is None else shape({over: size})
    return argsort(wrap(_bits(key, found)), over)


def dropout(key: Array, x: Array, rate: float) -> Array:
    """x with elements zeroed at this rate, the others scaled by 1 / (1 - rate)."""
    keep = bernoulli(key, x.sizes, 1.0 - rate)
    return where(keep, x * (1.0 / (1.0 - rate)), 0.0)
