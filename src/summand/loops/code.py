"""The straight-line code of a nest: which dims each value depends on, and its evaluation.

`Code` answers questions that need no numbers (the verifier asks them too); `Box` holds the numbers:
positions and values as arrays with one axis for each dim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import assert_never

import numpy as np

from summand.dtypes import DType
from summand.errors import InternalError
from summand.ir.index import Form
from summand.loops.apply import Components, apply, fold
from summand.loops.graph import components
from summand.loops.nodes import (
    Address,
    Apply,
    Arg,
    Carry,
    Combine,
    Const,
    Fold,
    Instr,
    Last,
    Load,
    Nest,
    Part,
    Position,
    Ref,
    Store,
)
from summand.loops.storage import value_type

Loader = Callable[[Load, frozenset[str], "Box"], np.ndarray]


def address_refs(at: Address) -> tuple[Ref, ...]:
    """Values that an address and its guards read."""
    of_guards = (r for g in at.guards for r, _ in g.dynamic)
    return (*(r for r, _ in at.dynamic), *of_guards)


def address_dims(at: Address) -> frozenset[str]:
    """Dims that the forms of an address and its guards read."""
    return at.form.dims.union(*(g.form.dims for g in at.guards))


def refs(instr: Instr) -> tuple[Ref, ...]:
    """Values that an instruction reads."""
    match instr:
        case Const() | Position() | Arg():
            return ()
        case Load():
            return address_refs(instr.at)
        case Apply() | Fold():
            return instr.args
        case Part():
            return (instr.of,)
        case Carry():
            return (instr.init, instr.next)
        case Last():
            return (instr.carry,)
        case _:
            assert_never(instr)


class Code:
    """Facts about a nest's code. `deps[r]`: the nest's own dims that value r depends on."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.names = [d for d, _ in nest.dims]
        self.own = frozenset(self.names)
        self.carried = {i.dim for i in nest.code if isinstance(i, Carry)}
        self._bound_reads = self._close_bounds()
        self.deps = self._find_deps()

    def _close_bounds(self) -> dict[str, frozenset[str]]:
        """For each bounded dim, the own dims that its bounds read, directly or not."""
        reads: dict[str, frozenset[str]] = {d: frozenset({d}) for d in self.names}
        for _ in self.names:
            for b in self.nest.bounds:
                seen = frozenset().union(*(f.dims for f in (*b.lo, *b.hi))) & self.own
                reads[b.dim] = reads[b.dim].union(*(reads[d] for d in seen))
        return reads

    def closed(self, dims: Iterable[str]) -> frozenset[str]:
        """Dims together with those that their bounds read."""
        return frozenset().union(*(self._bound_reads[d] for d in dims if d in self.own))

    def _find_deps(self) -> list[frozenset[str]]:
        deps = [frozenset[str]() for _ in self.nest.code]
        changed = True
        while changed:
            changed = False
            for r, instr in enumerate(self.nest.code):
                new = self._deps_of(instr, deps)
                if new != deps[r]:
                    deps[r] = new
                    changed = True
        return deps

    def _deps_of(self, instr: Instr, deps: list[frozenset[str]]) -> frozenset[str]:
        below = frozenset().union(*(deps[r] for r in refs(instr)))
        match instr:
            case Position():
                return self.closed(instr.form.dims)
            case Load():
                return below | self.closed(address_dims(instr.at))
            case Fold():
                return (below | self.closed(instr.dims)) - frozenset(instr.dims)
            case Carry():
                return below | self.closed((instr.dim,))
            case Last():
                carry = self.nest.code[instr.carry]
                return below - {carry.dim} if isinstance(carry, Carry) else below
            case _:
                return below

    def store_dims(self, store: Store) -> frozenset[str]:
        """The own dims for each point of which a store runs. One that updates what it stores to
        counts each point of the ordered dims, also where all of them are alike."""
        values = (store.value, *address_refs(store.at))
        below = frozenset().union(*(self.deps[r] for r in values))
        loads = (i.buffer for i in self.nest.code if isinstance(i, Load))
        if store.combine is not None or store.buffer in loads:
            below |= frozenset(self.nest.ordered)
        return below | self.closed(address_dims(store.at))

    # ---- evaluation

    def run(self, box: Box, load: Loader) -> None:
        """Evaluate all code into `box`."""
        self._group(list(range(len(self.nest.code))), box, load)

    def _group(self, group: Sequence[Ref], box: Box, load: Loader) -> None:
        """Evaluate values in an order that the graph allows; cycles run along their carries."""
        for component in components(group, lambda r: self._needs(r, box)):
            (first, *rest) = component
            if not rest and first not in self._needs(first, box):
                box.values[first] = self._one(self.nest.code[first], first, box, load)
            else:
                self._sequence(component, box, load)

    def _needs(self, r: Ref, box: Box) -> tuple[Ref, ...]:
        return () if r in box.values else refs(self.nest.code[r])

    def _one(self, instr: Instr, r: Ref, box: Box, load: Loader) -> Components:
        if r in box.values:
            return box.values[r]
        match instr:
            case Const():
                value = np.asarray(instr.value, dtype=value_type(instr.dtype))
                return (value.reshape((1,) * box.rank),)
            case Position():
                return (box.form(instr.form).astype(value_type(instr.dtype)),)
            case Load():
                return (load(instr, self.deps[r], box),)
            case Apply():
                return (apply(instr.fn, [box.value(a) for a in instr.args], instr.dtype),)
            case Fold():
                return self._fold(instr, box)
            case Part():
                return (box.values[instr.of][instr.index],)
            case Last():
                return (box.values[instr.carry][1],)
            case Carry():
                return self._constant_carry(instr, box)
            case Arg():
                raise InternalError("interp: an Arg outside of a combine")
            case _:
                assert_never(instr)

    def _constant_carry(self, carry: Carry, box: Box) -> Components:
        """A carry that no value which it feeds leads back to: `next`, one position later."""
        axis = self.names.index(carry.dim)
        extent = box.extents[axis]
        shape = box.shape(self.deps[carry.next] | self.deps[carry.init] | {carry.dim})
        init = np.broadcast_to(box.value(carry.init), box.shape(self.deps[carry.init]))
        rows = []
        state = init
        following = np.broadcast_to(box.value(carry.next), shape)
        valid = box.valid(frozenset({carry.dim}))
        for p in range(extent):
            rows.append(state)
            here = valid.take([p], axis) if valid.shape[axis] > 1 else valid
            state = np.where(here, following.take([p], axis), state)
        return _stack(rows, axis, box.value(carry.init)), state

    def _fold(self, instr: Fold, box: Box) -> Components:
        axes = tuple(self.names.index(d) for d in instr.dims)
        shape = box.shape(self.deps_under(instr))
        args = tuple(np.broadcast_to(box.value(a), shape) for a in instr.args)
        mask = box.valid(self.closed(instr.dims)) if self.nest.bounds else None
        dtypes = self._component_types(instr)
        combine = instr.combine
        return fold(combine, args, axes, mask, dtypes, lambda c: run_combine(combine, c))

    def deps_under(self, instr: Fold) -> frozenset[str]:
        """The dims of a fold's points: those it folds included."""
        return self.closed(instr.dims).union(*(self.deps[a] for a in instr.args))

    def _component_types(self, instr: Fold) -> list[DType]:
        if len(instr.args) == 1:
            return [instr.dtype]
        return [dtype_of(self.nest.code[a]) for a in instr.args]

    def _sequence(self, component: Sequence[Ref], box: Box, load: Loader) -> None:
        """Run a cycle along the outermost dim of its carries."""
        code = self.nest.code
        open_carries = [
            (r, c) for r in component if isinstance(c := code[r], Carry) and r not in box.values
        ]
        if not open_carries:
            raise InternalError(f"interp: values {list(component)} read each other without a carry")
        axis = min(self.names.index(c.dim) for _, c in open_carries)
        dim = self.names[axis]
        carries = [(r, c) for r, c in open_carries if c.dim == dim]
        state = {r: box.value(c.init) for r, c in carries}
        rows: dict[Ref, list[Components]] = {r: [] for r in component}
        for p in range(box.extents[axis]):
            inner = box.at(axis, p)
            inner.values.update({r: (state[r], state[r]) for r, _ in carries})
            self._group([r for r in component if r not in state], inner, load)
            for r in component:
                rows[r].append(inner.values[r])
            valid = inner.valid(frozenset({dim}))
            state = {r: np.where(valid, inner.value(c.next), state[r]) for r, c in carries}
        for r in component:
            parts = zip(*rows[r], strict=True) if rows[r] else ()
            stacked = tuple(_stack(part, axis, part[0]) for part in parts)
            if r in state:
                before = stacked[0] if stacked else np.empty(box.empty(axis), state[r].dtype)
                box.values[r] = (before, state[r])
            elif stacked:
                box.values[r] = stacked
            else:
                empty = np.empty(box.empty(axis), value_type(dtype_of(code[r])))
                box.values[r] = (empty, empty)


def dtype_of(instr: Instr) -> DType:
    """The type of an instruction's value."""
    return instr.dtype


def run_combine(combine: Combine, components: Components) -> Components:
    """The code of a combine of several components on (left …, right …)."""
    values: list[np.ndarray] = []
    for instr in combine.code:
        match instr:
            case Arg():
                values.append(components[instr.index])
            case Const():
                values.append(np.asarray(instr.value, dtype=value_type(instr.dtype)))
            case Apply():
                values.append(apply(instr.fn, [values[a] for a in instr.args], instr.dtype))
            case _:
                raise InternalError(f"interp: {instr} in the code of a combine")
    return tuple(values[r] for r in combine.results)


def _stack(rows: Sequence[np.ndarray], axis: int, like: np.ndarray) -> np.ndarray:
    """Rows side by side along an axis (of which each has one position)."""
    if not rows:
        return np.empty([0 if a == axis else n for a, n in enumerate(like.shape)], like.dtype)
    shape = np.broadcast_shapes(*(r.shape for r in rows))
    return np.concatenate([np.broadcast_to(r, shape) for r in rows], axis=axis)


class Box:
    """Positions and values of a nest's points; a dim bound to one position has extent 1."""

    def __init__(self, code: Nest, env: dict[str, object], extents: list[int]) -> None:
        self.nest = code
        self.env = env
        self.extents = extents
        self.names = [d for d, _ in code.dims]
        self.rank = len(extents)
        self.values: dict[Ref, Components] = {}

    @staticmethod
    def over(nest: Nest, env: Mapping[str, int]) -> Box:
        """The whole box of a nest."""
        rank = len(nest.dims)
        bound: dict[str, object] = dict(env)
        for axis, (d, n) in enumerate(nest.dims):
            shape = [n if a == axis else 1 for a in range(rank)]
            bound[d] = np.arange(n, dtype=np.int64).reshape(shape)
        return Box(nest, bound, [n for _, n in nest.dims])

    def at(self, axis: int, position: int) -> Box:
        """The slice of the box at one position of a dim, with the values known so far."""
        env = dict(self.env)
        dim = self.names[axis]
        whole = env[dim]
        assert isinstance(whole, np.ndarray)
        env[dim] = whole.take([position], axis)
        inner = Box(self.nest, env, [1 if a == axis else n for a, n in enumerate(self.extents)])
        for r, parts in self.values.items():
            inner.values[r] = tuple(
                v.take([position], axis) if v.shape[axis] > 1 else v for v in parts
            )
        return inner

    def value(self, r: Ref) -> np.ndarray:
        """A value that has been evaluated."""
        return self.values[r][0]

    def form(self, form: Form) -> np.ndarray:
        """A form's value at every point."""
        value = np.asarray(form.evaluate(self.env), dtype=np.int64)  # type: ignore[arg-type]
        return value if value.ndim == self.rank else value.reshape((1,) * self.rank)

    def shape(self, dims: Iterable[str]) -> tuple[int, ...]:
        """The shape of a value that depends on `dims`."""
        seen = set(dims)
        return tuple(n if d in seen else 1 for d, n in zip(self.names, self.extents, strict=True))

    def empty(self, axis: int) -> tuple[int, ...]:
        """The shape of a value along a dim without positions."""
        return tuple(0 if a == axis else n for a, n in enumerate(self.extents))

    def valid(self, dims: frozenset[str]) -> np.ndarray:
        """Where the bounds of `dims` hold."""
        ok = np.ones((1,) * self.rank, bool)
        for bound in self.nest.bounds:
            if bound.dim not in dims:
                continue
            position = self.form(Form.of(bound.dim))
            for low in bound.lo:
                ok = ok & (position >= self.form(low))
            for high in bound.hi:
                ok = ok & (position < self.form(high))
        return ok
