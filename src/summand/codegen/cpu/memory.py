"""Vector loads and stores of every pattern.

    pattern (0, 0, 0, 0)    one element in all lanes       load and splat
            (0, 1, 2, 3)    contiguous                     one vector load (masked where lanes end)
            (0, 1, 8, 9)    contiguous chunks              a load (masked or not) for each chunk
            (0, 1, 0, 1)    few elements                   these, and a shuffle
            (0, 2, 4, 6)    within a few vectors           loads and shuffles
            (0, 99, …)      anything else                  element by element
            computed        a gather; rows of lanes with one computed term: a load for each

Nothing outside the elements that lanes name is touched, but for `Place.space` elements around the
buffer that may be read: windows end at the last element that is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from summand.codegen.cpu.elements import from_memory, to_memory
from summand.codegen.cpu.text import (
    Function,
    Int,
    Scalar,
    Value,
    listed,
    memory_type,
    poison,
    scalar,
    suffix,
    vector,
)
from summand.dtypes import DType

CHUNKS = (32, 16, 8, 4, 2)


@dataclass(frozen=True, slots=True)
class Mask:
    """Which lanes an access may touch: known now, one condition for all, one for each lane."""

    static: tuple[bool, ...] | None = None
    uniform: Value | None = None
    lanes: Value | None = None

    @property
    def free(self) -> bool:
        """True where every lane is touched."""
        return self.static is None and self.uniform is None and self.lanes is None

    @property
    def never(self) -> bool:
        """True where no lane is touched."""
        return self.static is not None and not any(self.static)


ALL = Mask()


@dataclass(frozen=True, slots=True)
class Place:
    """Elements of a buffer, one a lane: pointer + offset + pattern[lane] (+ computed[lane]).

    `alike`: so many lanes after one another have the same computed term.
    """

    pointer: Value
    dtype: DType
    offset: int
    pattern: tuple[int, ...]
    computed: Value | None = None
    space: int = 0
    alike: int = 1

    @property
    def lanes(self) -> int:
        """How many elements."""
        return len(self.pattern)

    @property
    def uniform(self) -> bool:
        """One element for all lanes."""
        return self.computed is None and len(set(self.pattern)) == 1

    @property
    def contiguous(self) -> bool:
        """Consecutive elements."""
        first = self.pattern[0]
        return self.computed is None and all(p == first + k for k, p in enumerate(self.pattern))

    def chunk(self, mask: tuple[bool, ...] | None) -> int:
        """The longest aligned runs of lanes that are contiguous and not cut by the mask."""
        for c in CHUNKS:
            if c >= self.lanes or (self.computed is not None and c > self.alike):
                continue
            runs = range(0, self.lanes, c)
            whole = all(self.pattern[g + k] == self.pattern[g] + k for g in runs for k in range(c))
            if whole and (mask is None or all(len(set(mask[g : g + c])) == 1 for g in runs)):
                return c
        return 1


# ---- masks


def lane_mask(fn: Function, mask: Mask, lanes: int) -> Value:
    """The mask as one i1 for each lane."""
    out = Value("splat (i1 true)", vector("i1", lanes)) if lanes > 1 else Value("true", "i1")
    if mask.static is not None:
        out = listed(mask.static, "i1")
    for part in (mask.uniform, mask.lanes):
        if part is not None:
            wide = fn.splat_mask(part, lanes) if part.type == "i1" else part
            free = out.name in ("splat (i1 true)", "true")
            out = wide if free else fn.pure(f"and {out.type} {out}, {wide}", out.type)
    return out


def _any_lane(fn: Function, mask: Value) -> Value:
    if mask.type == "i1":
        return mask
    return fn.call(f"llvm.vector.reduce.or.{suffix(mask.type)}", "i1", (mask,))


def condition(fn: Function, mask: Mask) -> Value | None:
    """Whether any lane may be touched; None where that is certain."""
    out = mask.uniform
    if mask.lanes is not None:
        lanes = mask.lanes
        if mask.static is not None and lanes.type != "i1":
            known = listed(mask.static, "i1")
            lanes = fn.pure(f"and {lanes.type} {lanes}, {known}", lanes.type)
        some = _any_lane(fn, lanes)
        out = some if out is None else fn.pure(f"and i1 {out}, {some}", "i1")
    return out


# ---- loads


def load(fn: Function, place: Place, mask: Mask, fill: Scalar = 0) -> Value:
    """The elements of a place in registers; `fill` in lanes that the mask leaves out."""
    lanes = place.lanes
    missing = scalar(fill, place.dtype, lanes)
    if mask.never:
        return missing
    if place.uniform:
        return _load_uniform(fn, place, mask, missing)
    if place.computed is not None or mask.lanes is not None:
        return _load_masked(fn, place, mask, missing)
    inner = place
    if mask.uniform is not None:
        pointer = _guarded(fn, place, mask.uniform)
        if pointer is None:
            return _load_masked(fn, place, mask, missing)
        low = min(place.pattern)
        pattern = tuple(p - low for p in place.pattern)
        inner = Place(pointer, place.dtype, 0, pattern)
    value = from_memory(fn, _load_static(fn, inner, mask.static), place.dtype, lanes)
    if mask.static is not None and fill != 0:
        value = fn.select(listed(mask.static, "i1"), value, missing)
    if mask.uniform is not None and fill != 0:
        value = fn.select(mask.uniform, value, missing)
    return value


def load_either(
    fn: Function, condition_: Value, one: tuple[Place, Mask], two: tuple[Place, Mask]
) -> Value | None:
    """The consecutive elements of one place or the other, zeros where the mask of that one fails:
    one load, whose address is chosen. None where that cannot be."""
    lanes, dtype = one[0].lanes, one[0].dtype
    pointers = []
    for place, mask in (one, two):
        plain = mask.static is None and mask.lanes is None and not mask.never
        if lanes < 2 or not plain or not place.contiguous or place.lanes != lanes:
            return None
        pointer: Value | None = fn.at(
            place.pointer, place.offset + place.pattern[0], memory_type(dtype)
        )
        if mask.uniform is not None:
            pointer = _guarded(fn, place, mask.uniform)
        if pointer is None:
            return None
        pointers.append(pointer)
    chosen = Place(fn.select(condition_, *pointers), dtype, 0, tuple(range(lanes)))
    return from_memory(fn, _load_static(fn, chosen, None), dtype, lanes)


def _guarded(fn: Function, place: Place, condition_: Value) -> Value | None:
    """The first address where the condition holds, else that of zeros; None where the span is
    larger than the block of zeros may be."""
    span = (max(place.pattern) - min(place.pattern) + 1) * place.dtype.bytes
    zeros = fn.unit.zeros(span)
    if zeros is None:
        return None
    element = memory_type(place.dtype)
    pointer = fn.at(place.pointer, place.offset + min(place.pattern), element)
    return fn.select(condition_, pointer, zeros)


def _load_uniform(fn: Function, place: Place, mask: Mask, missing: Value) -> Value:
    holds = condition(fn, mask)
    element = memory_type(place.dtype)
    if holds is None:
        pointer = fn.at(place.pointer, place.offset + place.pattern[0], element)
    else:
        one = Place(place.pointer, place.dtype, place.offset, place.pattern[:1])
        guarded = _guarded(fn, one, holds)
        assert guarded is not None
        pointer = guarded
    stored = fn.op(f"load {element}, ptr {pointer}, align {place.dtype.bytes}", element)
    value = fn.splat(from_memory(fn, stored, place.dtype, 1), place.lanes)
    if mask.static is None and mask.lanes is None:
        is_zero = missing.name == scalar(0, place.dtype, place.lanes).name
        return value if holds is None or is_zero else fn.select(holds, value, missing)
    return fn.select(lane_mask(fn, mask, place.lanes), value, missing)


def _load_static(fn: Function, place: Place, mask: tuple[bool, ...] | None) -> Value:
    """Elements of a static pattern as they lie in memory; zero where the mask leaves one out."""
    if place.contiguous:
        return _load_run(fn, place, place.pattern[0], place.lanes, mask)
    few = sorted(set(place.pattern))
    if mask is None and 1 < len(few) < place.lanes and len(few) & (len(few) - 1) == 0:
        each = _load_static(fn, replace(place, pattern=tuple(few)), None)
        return fn.shuffle(each, None, [few.index(p) for p in place.pattern])
    chunk = place.chunk(mask)
    if chunk >= 4 or (chunk == 2 and place.lanes == 4):
        return _load_chunks(fn, place, chunk, mask)
    span = max(place.pattern) - min(place.pattern) + 1
    if mask is None and span <= 4 * place.lanes and place.lanes >= 4:
        return _load_windows(fn, place, span)
    return _load_elements(fn, place, mask)


def _load_run(
    fn: Function, place: Place, first: int, lanes: int, mask: tuple[bool, ...] | None = None
) -> Value:
    element = memory_type(place.dtype)
    type_ = vector(element, lanes)
    pointer = fn.at(place.pointer, place.offset + first, element)
    if mask is None:
        return fn.op(f"load {type_}, ptr {pointer}, align {place.dtype.bytes}", type_)
    zero = Value("zeroinitializer" if lanes > 1 else "0", type_)
    return _masked_load(fn, pointer, place.dtype, listed(mask, "i1"), zero)


def _masked_load(fn: Function, at: Value, dtype: DType, mask: Value, missing: Value) -> Value:
    type_ = missing.type
    name = f"llvm.masked.load.{suffix(type_)}.p0"
    fn.unit.declare(name, type_, ("ptr", "i32", mask.type, type_))
    return fn.op(
        f"call {type_} @{name}(ptr {at}, i32 {dtype.bytes}, {mask.type} {mask}, {type_} {missing})",
        type_,
    )


def _load_chunks(fn: Function, place: Place, chunk: int, mask: tuple[bool, ...] | None) -> Value:
    zero = Value("zeroinitializer", vector(memory_type(place.dtype), chunk))
    parts = [
        _load_run(fn, place, place.pattern[g], chunk) if mask is None or mask[g] else zero
        for g in range(0, place.lanes, chunk)
    ]
    return concatenate(fn, parts)


def _masked_chunks(fn: Function, place: Place, bits: Value | None) -> Value:
    """Contiguous chunks, each with its own part of a computed mask, if any, and its own place."""
    chunk = place.chunk(None)
    zero = Value("zeroinitializer", vector(memory_type(place.dtype), chunk))
    parts = []
    for g in range(0, place.lanes, chunk):
        at = _chunk_pointer(fn, place, g)
        if bits is None:
            align = place.dtype.bytes
            parts.append(fn.op(f"load {zero.type}, ptr {at}, align {align}", zero.type))
            continue
        mine = fn.shuffle(bits, None, range(g, g + chunk))
        parts.append(_masked_load(fn, at, place.dtype, mine, zero))
    return concatenate(fn, parts)


def _chunk_pointer(fn: Function, place: Place, lane: int) -> Value:
    """The address of the chunk that begins in a lane."""
    element = memory_type(place.dtype)
    pointer = place.pointer
    if place.computed is not None:
        offset = fn.extract(place.computed, lane)
        if offset.type != "i64":
            offset = fn.cast("sext", offset, "i64")
        pointer = fn.at(pointer, offset, element)
    return fn.at(pointer, place.offset + place.pattern[lane], element)


def concatenate(fn: Function, parts: Sequence[Value]) -> Value:
    """Vectors of one length (a power of two of them) as one."""
    width = len(parts) and int(parts[0].type[1:].split()[0]) if "x" in parts[0].type else 1
    parts = list(parts)
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [fn.shuffle(a, b, range(2 * width)) for a, b in pairs]
        width *= 2
    return parts[0]


def _load_windows(fn: Function, place: Place, span: int) -> Value:
    """Whole vectors from the first to the last element; the last window ends at the last one."""
    lanes, low = place.lanes, min(place.pattern)
    if span < lanes:
        room = place.space >= lanes - span
        mask = None if room else tuple(k < span for k in range(lanes))
        window = _load_run(fn, place, low, lanes, mask)
        return fn.shuffle(window, None, [p - low for p in place.pattern])
    starts = [*range(low, low + span - lanes, lanes), low + span - lanes]
    windows = [_load_run(fn, place, s, lanes) for s in starts]
    picks = [max(k for k, s in enumerate(starts) if s <= p < s + lanes) for p in place.pattern]
    result = fn.shuffle(
        windows[0],
        windows[1] if len(windows) > 1 else None,
        [
            (k * lanes + p - starts[k]) if k < 2 else -1
            for k, p in zip(picks, place.pattern, strict=True)
        ],
    )
    for number in range(2, len(windows)):
        take = [
            lanes + p - starts[k] if k == number else lane
            for lane, (k, p) in enumerate(zip(picks, place.pattern, strict=True))
        ]
        result = fn.shuffle(result, windows[number], take)
    return result


def _load_elements(fn: Function, place: Place, mask: tuple[bool, ...] | None) -> Value:
    element = memory_type(place.dtype)
    type_ = vector(element, place.lanes)
    out = poison(type_) if mask is None else Value("zeroinitializer", type_)
    for lane, p in enumerate(place.pattern):
        if mask is None or mask[lane]:
            at = fn.at(place.pointer, place.offset + p, element)
            one = fn.op(f"load {element}, ptr {at}, align {place.dtype.bytes}", element)
            out = fn.insert(out, one, lane)
    return out


def _load_masked(fn: Function, place: Place, mask: Mask, missing: Value) -> Value:
    """Under a mask that is computed, or from addresses that are."""
    element, lanes = memory_type(place.dtype), place.lanes
    type_ = vector(element, lanes)
    if lanes == 1:
        return _load_one(fn, place, mask, missing)
    is_zero = missing.name == scalar(0, place.dtype, lanes).name
    if place.contiguous and is_zero and mask.uniform is not None and mask.lanes is not None:
        elsewhere = _guarded(fn, place, mask.uniform)  # takes less than one mask of both
        if elsewhere is not None:
            place = replace(place, pointer=elsewhere, offset=-place.pattern[0])
            mask = replace(mask, uniform=None)
    bits = lane_mask(fn, mask, lanes)
    zero = Value("zeroinitializer", type_)
    if place.contiguous:
        at = fn.at(place.pointer, place.offset + place.pattern[0], element)
        stored = _masked_load(fn, at, place.dtype, bits, zero)
    elif place.chunk(None) >= 4:
        stored = _masked_chunks(fn, place, None if mask.free else bits)
    else:
        pointers = addresses(fn, place)
        name = f"llvm.masked.gather.{suffix(type_)}.{suffix(pointers.type)}"
        fn.unit.declare(name, type_, (pointers.type, "i32", bits.type, type_))
        args = f"{pointers.type} {pointers}, i32 {place.dtype.bytes}, {bits.type} {bits}"
        stored = fn.op(f"call {type_} @{name}({args}, {type_} zeroinitializer)", type_)
    value = from_memory(fn, stored, place.dtype, lanes)
    return value if mask.free or is_zero else fn.select(bits, value, missing)


def _load_one(fn: Function, place: Place, mask: Mask, missing: Value) -> Value:
    pointer = place.pointer
    if place.computed is not None:
        pointer = fn.at(pointer, place.computed, memory_type(place.dtype))
    plain = Place(pointer, place.dtype, place.offset, place.pattern)
    return _load_uniform(fn, plain, mask, missing)


def addresses(fn: Function, place: Place) -> Value:
    """A pointer for each lane."""
    element, lanes = memory_type(place.dtype), place.lanes
    offsets = place.computed
    base = fn.at(place.pointer, place.offset, element)
    if offsets is None:
        offsets = listed(place.pattern, "i64")
    elif any(place.pattern):
        shift = listed(place.pattern, "i64" if "i64" in offsets.type else "i32")
        offsets = fn.pure(f"add {offsets.type} {offsets}, {shift}", offsets.type)
    return fn.pure(
        f"getelementptr {element}, ptr {base}, {offsets.type} {offsets}", vector("ptr", lanes)
    )


# ---- stores


def store(fn: Function, place: Place, value: Value, mask: Mask, streaming: bool = False) -> None:
    """Store one element for each lane that the mask leaves in; the elements are distinct.

    `streaming` needs addresses that are multiples of the vector's size.
    """
    if mask.never:
        return
    stored = to_memory(fn, value, place.dtype, place.lanes)
    if place.lanes == 1:
        branch(fn, condition(fn, mask), lambda: _store_static(fn, place, stored, None))
        return
    rest = Mask(mask.static, None, mask.lanes)
    branch(fn, mask.uniform, lambda: _store_lanes(fn, place, stored, rest, streaming))


def _store_lanes(fn: Function, place: Place, stored: Value, mask: Mask, streaming: bool) -> None:
    if place.computed is not None or mask.lanes is not None:
        _store_masked(fn, place, stored, mask)
    else:
        _store_static(fn, place, stored, mask.static, streaming)


def branch(fn: Function, condition_: Value | None, body: Callable[[], None]) -> None:
    """Run the body where the condition holds (always, where there is none)."""

    def run(_: list[Value]) -> list[Value]:
        body()
        return []

    if condition_ is None:
        body()
    else:
        fn.when(condition_, [], run)


def _store_static(
    fn: Function,
    place: Place,
    stored: Value,
    mask: tuple[bool, ...] | None,
    streaming: bool = False,
) -> None:
    element = memory_type(place.dtype)
    pointer = place.pointer
    if place.computed is not None and place.lanes == 1:
        pointer = fn.at(pointer, place.computed, element)
    # One lane alone is stored as a scalar: of a truncated vector LLVM 22 would store all wide bits.
    if place.contiguous and place.lanes > 1 and (mask is None or sum(mask) > 1):
        at = fn.at(pointer, place.offset + place.pattern[0], element)
        if mask is not None:
            _masked_store(fn, at, place, stored, listed(mask, "i1"))
            return
        align = place.lanes * place.dtype.bytes if streaming else place.dtype.bytes
        tail = ", !nontemporal !0" if streaming else ""
        fn.do(f"store {stored.type} {stored}, ptr {at}, align {align}{tail}")
        return
    chunk = place.chunk(mask)
    for g in range(0, place.lanes, chunk):
        if mask is not None and not mask[g]:
            continue
        at = fn.at(pointer, place.offset + place.pattern[g], element)
        if chunk == 1:
            part = fn.extract(stored, g)
        else:
            part = fn.shuffle(stored, None, range(g, g + chunk))
        fn.do(f"store {part.type} {part}, ptr {at}, align {place.dtype.bytes}")


def _masked_store(fn: Function, at: Value, place: Place, stored: Value, mask: Value) -> None:
    name = f"llvm.masked.store.{suffix(stored.type)}.p0"
    fn.unit.declare(name, "void", (stored.type, "ptr", "i32", mask.type))
    args = f"{stored.type} {stored}, ptr {at}, i32 {place.dtype.bytes}, {mask.type} {mask}"
    fn.do(f"call void @{name}({args})")


def _store_masked(fn: Function, place: Place, stored: Value, mask: Mask) -> None:
    bits = lane_mask(fn, mask, place.lanes)
    if place.contiguous:
        at = fn.at(place.pointer, place.offset + place.pattern[0], memory_type(place.dtype))
        _masked_store(fn, at, place, stored, bits)
        return
    chunk = place.chunk(None)
    if chunk >= 4:
        for g in range(0, place.lanes, chunk):
            lanes = range(g, g + chunk)
            part, mine = fn.shuffle(stored, None, lanes), fn.shuffle(bits, None, lanes)
            _masked_store(fn, _chunk_pointer(fn, place, g), place, part, mine)
        return
    pointers = addresses(fn, place)
    name = f"llvm.masked.scatter.{suffix(stored.type)}.{suffix(pointers.type)}"
    fn.unit.declare(name, "void", (stored.type, pointers.type, "i32", bits.type))
    args = f"{stored.type} {stored}, {pointers.type} {pointers}"
    fn.do(f"call void @{name}({args}, i32 {place.dtype.bytes}, {bits.type} {bits})")


def combine_store(
    fn: Function,
    place: Place,
    value: Value,
    mask: Mask,
    combine: Callable[[Value, Value, int], Value],
) -> None:
    """place = combine(place, value, lanes). Lanes that may meet are done one after the other."""
    if mask.never:
        return
    apart = place.computed is None and len(set(place.pattern)) == place.lanes
    if apart and place.lanes > 1 and mask.uniform is None:
        old = load(fn, place, mask)
        store(fn, place, combine(old, value, place.lanes), mask)
        return
    for lane in range(place.lanes):
        if mask.static is not None and not mask.static[lane]:
            continue
        one = _lane_place(fn, place, lane)
        holds = Mask(
            uniform=mask.uniform,
            lanes=None if mask.lanes is None else fn.extract(mask.lanes, lane),
        )
        part = fn.extract(value, lane)

        def run(one: Place = one, part: Value = part) -> None:
            old = load(fn, one, ALL)
            store(fn, one, combine(old, part, 1), ALL)

        branch(fn, condition(fn, holds), run)


def _lane_place(fn: Function, place: Place, lane: int) -> Place:
    """The place of one lane only."""
    pointer = place.pointer
    if place.computed is not None:
        offset: Int = fn.extract(place.computed, lane)
        if isinstance(offset, Value) and offset.type != "i64":
            offset = fn.cast("sext", offset, "i64")
        pointer = fn.at(pointer, offset, memory_type(place.dtype))
    return Place(pointer, place.dtype, place.offset + place.pattern[lane], (0,))
