"""Where a point's elements are: forms, addresses and masks at a point of the register block.

A dim's position is  position[d] (of the loops) + point[d] (in the block) + the lane's offset. What
the loops contribute is a run-time value, the rest are constants: so an address is a pointer,
advanced by the loops, plus a constant, plus a pattern over the lanes, and loads of one key share
pointers.

Guards whose dims are all static become constant masks; those that are equal in all lanes become one
condition; others are compared lane by lane.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from summand.codegen.cpu.lanes import Lanes
from summand.codegen.cpu.memory import Mask, Place
from summand.codegen.cpu.plan import Access, NestPlan, Point
from summand.codegen.cpu.text import Function, Int, Value, listed, memory_type, vector
from summand.ir.index import Form, Quasi
from summand.loops.nodes import Guard, Ref

I32 = 1 << 31
FAR = 1 << 30
UNBOUNDED = 1 << 62  # size of a guard that only says 0 <= form


@dataclass(frozen=True, slots=True)
class Spot:
    """A form's value in each lane: scalar + offsets[lane] (+ vector)."""

    scalar: Int
    offsets: tuple[int, ...]
    vector: Value | None = None

    @property
    def known(self) -> bool:
        """True where the value is static."""
        return self.vector is None and isinstance(self.scalar, int)

    @property
    def uniform(self) -> bool:
        """True where all lanes have the same value."""
        return self.vector is None and len(set(self.offsets)) == 1


class Places:
    """The loops' state while a nest is written, and what it makes of forms and addresses."""

    def __init__(
        self,
        fn: Function,
        plan: NestPlan,
        outer: dict[str, Int],
        bases: dict[str, Value],
    ) -> None:
        self.fn = fn
        self.plan = plan
        self.bases = bases
        self.outer = outer
        self.position: dict[str, Int] = dict(outer)
        self.size: dict[str, int] = {}
        for d, n in plan.extent.items():
            if d not in plan.looped:
                self.position[d] = 0
                self.size[d] = n
        self.multiple: dict[str, int] = {}  # the loops' positions are multiples of these
        self.lanes: Lanes = plan.lanes
        self.live: list[tuple[str, Guard]] = []  # conditions on a bounded dim, point by point
        self.holding: frozenset[Guard] = frozenset()  # guards that are known to hold here
        self.mixed = False  # in a step where some vector of the register block is out of range
        self.pointers: dict[object, Value] = {}
        self._patterns: dict[object, tuple[int, ...]] = {}
        self._terms: dict[Form, list[tuple[str | Quasi, int]]] = {}

    @abstractmethod
    def value(self, r: Ref, p: Point) -> Value:
        """A value at a point."""

    # ---- forms

    def _ordered(self, form: Form) -> list[tuple[str | Quasi, int]]:
        """Terms, those bound further out first: so partial sums are shared and leave the loops."""
        known = self._terms.get(form)
        if known is None:
            rank = {d: k + 1 for k, d in enumerate(self.plan.loops)}

            def depth(atom: str | Quasi) -> int:
                dims = {atom} if isinstance(atom, str) else atom.form.dims
                return max((rank.get(d, 0) for d in dims), default=0)

            known = sorted(form.terms, key=lambda t: (depth(t[0]), str(t[0])))
            self._terms[form] = known
        return known

    def spot(self, form: Form, p: Point) -> Spot:
        """A form's value at a point."""
        scalar: Int = 0
        const = form.const
        along: list[int] | None = None
        computed: Value | None = None
        for atom, c in self._ordered(form):
            part = self._atom(atom, p)
            scalar = self.fn.add(scalar, self.fn.mul(part.scalar, c))
            if len(part.offsets) == 1:
                const += c * part.offsets[0]
            else:
                along = along or [0] * len(part.offsets)
                along = [a + c * b for a, b in zip(along, part.offsets, strict=True)]
            if part.vector is not None:
                scaled = self._vector_op("mul", part.vector, c)
                computed = scaled if computed is None else self._vector_op("add", computed, scaled)
        offsets = (const,) if along is None else tuple(a + const for a in along)
        return Spot(scalar, offsets, computed)

    def _atom(self, atom: str | Quasi, p: Point) -> Spot:
        if isinstance(atom, Quasi):
            return self._quotient(atom, self.spot(atom.form, p))
        inside = p.get(atom, 0)
        along = self.lanes.offsets.get(atom)
        offsets = (inside,) if along is None else tuple(inside + o for o in along)
        return Spot(self.position[atom], offsets)

    def _quotient(self, atom: Quasi, inner: Spot) -> Spot:
        """`inner // by` or `inner % by`."""
        by, divides = atom.by, atom.op == "//"
        whole = inner.known or (inner.vector is None and self._is_multiple(atom.form, by))
        if whole:
            start = inner.scalar % by if isinstance(inner.scalar, int) else 0
            values = [o + start for o in inner.offsets]
            outside: Int = 0
            if divides:
                outside = self.fn.floordiv(inner.scalar, by)
            return Spot(outside, tuple(v // by if divides else v % by for v in values))
        step: Callable[[Int, int], Int] = self.fn.floordiv if divides else self.fn.mod
        if inner.uniform:
            return Spot(step(self.fn.add(inner.scalar, inner.offsets[0]), by), (0,))
        wide = self._spread(inner, "i64")
        quotient = self._vector_op("sdiv", wide, by)
        rest = self._vector_op("sub", wide, self._vector_op("mul", quotient, by))
        below = self._vector_op("ashr", rest, 63)  # -1 where it was rounded up
        if divides:
            result = self._vector_op("add", quotient, below)
        else:
            result = self._vector_op("add", rest, self._vector_op("and", below, by))
        return Spot(0, (0,) * len(inner.offsets), result)

    def _is_multiple(self, form: Form, by: int) -> bool:
        """Whether what the loops contribute to a form is a multiple of `by`."""
        for atom, c in form.terms:
            if not isinstance(atom, str):
                return False
            at = self.position[atom]
            factor = at if isinstance(at, int) else self.multiple.get(atom, 1)
            if c * factor % by:
                return False
        return True

    def _vector_op(self, op: str, a: Value, b: Value | int) -> Value:
        if isinstance(b, int):
            if (op, b) in (("mul", 1), ("add", 0)):
                return a
            element = a.type[1:-1].split(" x ")[1]
            b = Value(f"splat ({element} {b})", a.type)
        return self.fn.pure(f"{op} {a.type} {a}, {b}", a.type)

    def _spread(self, spot: Spot, element: str) -> Value:
        """A spot as a vector of integers."""
        count = len(spot.offsets)
        out = listed(spot.offsets, element)
        if isinstance(spot.scalar, Value) or spot.scalar:
            scalar = self.fn.i64(spot.scalar)
            if element != "i64":
                scalar = self.fn.cast("trunc", scalar, element)
            out = self._vector_op("add", self.fn.splat(scalar, count), out)
        if spot.vector is not None:
            more = self.fn.cast("trunc", spot.vector, out.type)
            out = self._vector_op("add", out, more)
        return out

    # ---- masks

    def tail(self, p: Point, dims: frozenset[str], lanes: Lanes) -> tuple[bool, ...] | None:
        """Which lanes are inside the dims' sizes; None where all are."""
        mask: list[bool] | None = None
        for d in lanes.offsets:
            if d in dims and d in self.size:
                room = self.size[d] - p.get(d, 0)
                if room < lanes.volume[d]:
                    inside = [o < room for o in lanes.offsets[d]]
                    mask = inside if mask is None else [a and b for a, b in zip(mask, inside)]
        return None if mask is None else tuple(mask)

    def asked(self, access: Access) -> tuple[Guard, ...]:
        """The guards of an access that may fail here."""
        return tuple(g for g in access.guards if g not in self.holding)

    def mask(
        self,
        guards: Sequence[Guard],
        p: Point,
        dims: frozenset[str],
        tail: tuple[bool, ...] | None = None,
    ) -> Mask:
        """Where the guards, and the bounds of `dims`, hold."""
        out = Mask(tail)
        for guard in guards:
            out = self._both(out, self.guard_mask(guard, p))
        for d, guard in self.live:
            if d in dims:
                out = self._both(out, self.guard_mask(guard, p))
        return out

    def _both(self, a: Mask, b: Mask) -> Mask:
        static = a.static or b.static
        if a.static is not None and b.static is not None:
            count = max(len(a.static), len(b.static))
            wide = [m if len(m) == count else m * count for m in (a.static, b.static)]
            static = tuple(x and y for x, y in zip(*wide, strict=True))
        return Mask(
            static,
            self._and(a.uniform, b.uniform),
            self._and(a.lanes, b.lanes),
        )

    def _and(self, a: Value | None, b: Value | None) -> Value | None:
        if a is None or b is None or a == b:
            return a or b
        return self.fn.pure(f"and {a.type} {a}, {b}", a.type)

    def guard_mask(self, guard: Guard, p: Point) -> Mask:
        """Where a guard holds."""
        spot = self._with_dynamic(self.spot(guard.form, p), guard.dynamic, p)
        if spot.known:
            assert isinstance(spot.scalar, int)
            inside = tuple(0 <= spot.scalar + o < guard.size for o in spot.offsets)
            return Mask() if all(inside) else Mask(inside)
        if spot.uniform:
            value = self.fn.i64(self.fn.add(spot.scalar, spot.offsets[0]))
            return Mask(uniform=self.fn.pure(f"icmp ult i64 {value}, {guard.size}", "i1"))
        element = "i64" if spot.vector is not None else "i32"
        if guard.dynamic and element == "i32":
            if guard.size + max(map(abs, spot.offsets)) >= FAR:
                element = "i64"
            else:  # what is far outside stays outside
                spot = replace(spot, scalar=self._near(spot.scalar))
        elif element == "i32":
            lo, hi = guard.form.interval(self.plan.ranges)
            reach = max(self.plan.step.values(), default=1) * (1 + _weight(guard.form))
            if lo - reach < -I32 or hi + reach >= I32:
                element = "i64"
        value = self._spread(spot, element)
        most = min(guard.size, I32) if element == "i32" else guard.size
        bound = f"splat ({element} {most if most < I32 or element == 'i64' else -I32})"
        bits = vector("i1", len(spot.offsets))
        mask = self.fn.pure(f"icmp ult {value.type} {value}, {bound}", bits)
        return Mask(lanes=self.fn.kept_mask(mask))

    def whole(self, guards: Sequence[Guard], p: Point) -> Value | None:
        """Whether guards hold in all lanes, as one comparison each; None where that takes more."""
        out: Value | None = None
        for guard in guards:
            spot = self._with_dynamic(self.spot(guard.form, p), guard.dynamic, p)
            low, high = min(spot.offsets), max(spot.offsets)
            if spot.vector is not None or high - low >= guard.size:
                return None
            first = self.fn.i64(self.fn.add(spot.scalar, low))
            fits = self.fn.pure(f"icmp ult i64 {first}, {guard.size - (high - low)}", "i1")
            out = self._and(out, fits)
        return out

    def _near(self, place: Int) -> Int:
        """A place, or where it is far from all arrays the nearest that fits 32 bits."""
        return self.fn.least(self.fn.greatest(place, -FAR), FAR)

    def computed(self, dynamic: Sequence[tuple[Ref, int]]) -> Int:
        """Σ value·factor of values that are the same in all of the register block."""
        return self._with_dynamic(Spot(0, (0,)), dynamic, {}).scalar

    def _with_dynamic(self, spot: Spot, dynamic: Sequence[tuple[Ref, int]], p: Point) -> Spot:
        """The spot plus Σ value·factor."""
        scalar, offsets, computed = spot.scalar, spot.offsets, spot.vector
        for r, factor in dynamic:
            value = self.value(r, p)
            how = "zext" if value.dtype is not None and value.dtype.kind != "int" else "sext"
            if value.type.startswith("<"):
                count = self.lanes.count
                wide = self.fn.cast(how, value, vector("i64", count))
                wide = self._vector_op("mul", wide, factor)
                computed = wide if computed is None else self._vector_op("add", computed, wide)
                offsets = offsets if len(offsets) == count else offsets * count
            else:
                one = self.fn.cast(how, value, "i64")
                scalar = self.fn.add(scalar, self.fn.mul(one, factor))
        return Spot(scalar, offsets, computed)

    # ---- addresses

    def base_pointer(self, access: Access) -> Value:
        """The pointer of an access before the nest's own loops."""
        key = access.key
        if key not in self.pointers:
            spot = self.spot(access.outer, {})
            offset = self.fn.add(spot.scalar, spot.offsets[0])
            for d, c in access.own:
                offset = self.fn.add(offset, self.fn.mul(self.position.get(d, 0), c))
            element = memory_type(access.buffer.dtype)
            self.pointers[key] = self.fn.at(self.bases[access.buffer.name], offset, element)
        return self.pointers[key]

    def advance(self, accesses: Sequence[Access], dim: str, by: Int) -> None:
        """Move the pointers of accesses along a dim."""
        done = set()
        for access in accesses:
            stride = dict(access.own).get(dim)
            if stride is None or access.key in done:
                continue
            done.add(access.key)
            pointer = self.base_pointer(access)
            element = memory_type(access.buffer.dtype)
            self.pointers[access.key] = self.fn.at(pointer, self.fn.mul(by, stride), element)

    def place(self, access: Access, p: Point) -> Place:
        """The elements of an access at a point."""
        lanes = self.plan.width(access.dims, self.lanes)
        pointer = self.base_pointer(access)
        offset = access.const + sum(c * p.get(d, 0) for d, c in access.own)
        pattern = self._pattern(access) if lanes > 1 else (0,)
        dtype = access.buffer.dtype
        if not access.quasi and not access.dynamic:
            return Place(pointer, dtype, offset, pattern, None, access.buffer.space)
        spot = Spot(0, pattern)
        if access.quasi:
            more = self.spot(Form(access.quasi), p)
            spread = more.offsets * (lanes // len(more.offsets))
            summed = tuple(a + b for a, b in zip(pattern, spread, strict=True))
            spot = Spot(more.scalar, summed, more.vector)
        spot = self._with_dynamic(spot, access.dynamic, p)
        pointer = self.fn.at(pointer, spot.scalar, memory_type(dtype))
        computed = self._narrowed(spot.vector, access)
        alike = 1 if access.quasi else self._alike(access)
        return Place(pointer, dtype, offset, spot.offsets, computed, access.buffer.space, alike)

    def _alike(self, access: Access) -> int:
        """How many lanes after one another have the same computed term."""
        dims = frozenset[str]().union(*(self.plan.deps[r] for r, _ in access.dynamic))
        return self.lanes.alike(dims)

    def _pattern(self, access: Access) -> tuple[int, ...]:
        key = (access.key, self.lanes is self.plan.end)
        known = self._patterns.get(key)
        if known is None:
            known = self._patterns[key] = access.pattern(self.lanes)
        return known

    def _narrowed(self, computed: Value | None, access: Access) -> Value | None:
        """Computed offsets as i32 where the buffer is small: gathers are faster then."""
        if computed is None or len(access.dynamic) != 1 or access.quasi:
            return computed
        affine = Form(tuple(access.own) + access.outer.terms, access.const)
        lo, hi = affine.interval(self.plan.ranges)
        if access.buffer.size + max(abs(lo), abs(hi)) >= I32 or not computed.type.startswith("<"):
            return computed
        return self.fn.cast("trunc", computed, vector("i32", self.lanes.count))


def _weight(form: Form) -> int:
    return sum(abs(c) * (1 if isinstance(a, str) else _weight(a.form)) for a, c in form.terms)
