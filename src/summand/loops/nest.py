"""One nest of the loop IR on NumPy buffers: all points of its box at once, in meaning one by one.

A value is an array with one axis for each dim of the nest, of size 1 where it does not depend on
the dim. Carries and what depends on them (a cycle of the code's graph) run position by position;
so does the whole nest over its `ordered` dims where it reads what it stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from summand.dtypes import narrow, widen
from summand.errors import InternalError
from summand.ir.index import Form
from summand.loops.apply import combine_at
from summand.loops.code import Box, Code
from summand.loops.nodes import Address, Fold, Guard, Kernel, Load, Nest, Store
from summand.loops.storage import garbage, value_type

LIMIT = 1 << 22  # points of a box that are evaluated at once


class Memory:
    """The buffers of a running kernel, and which task has written which element."""

    def __init__(self, kernel: Kernel, buffers: Mapping[str, np.ndarray]) -> None:
        self.kernel = kernel
        self.task = 0
        self.nodes = {b.name: b for b in (*kernel.params, *kernel.scratch)}
        self.arrays = {b.name: self._checked(b.name, buffers) for b in kernel.params}
        self.owner = {b.name: np.full(b.size, -1, np.int64) for b in kernel.params}

    def _checked(self, name: str, buffers: Mapping[str, np.ndarray]) -> np.ndarray:
        node = self.nodes[name]
        array = buffers[name]
        if array.ndim != 1 or array.size < node.size or array.dtype != node.dtype.numpy:
            self.fail(f"{name} is {array.dtype}{list(array.shape)}, not {node.dtype}[{node.size}]")
        return array

    def start_task(self, task: int) -> None:
        """Scratch holds nothing when a task begins."""
        self.task = task
        for b in self.kernel.scratch:
            self.arrays[b.name] = np.empty(b.size, b.dtype.numpy)
            garbage(self.arrays[b.name])

    def fail(self, what: str) -> None:
        """Raise the fault that a kernel's run has found."""
        raise InternalError(f"interp: kernel {self.kernel.name}, task {self.task}: {what}")

    def read(self, name: str, at: np.ndarray, touched: np.ndarray) -> np.ndarray:
        """Elements as values; where not touched, anything."""
        node = self.nodes[name]
        self._check(name, at, touched, "read")
        if node.size == 0:
            return np.zeros(at.shape, value_type(node.dtype))
        if name in self.owner and touched.any():
            owners = self.owner[name][at[touched]]
            if ((owners >= 0) & (owners != self.task)).any():
                self.fail(f"reads elements of {name} that another task writes")
        return widen(self.arrays[name][np.where(touched, at, 0)], node.dtype)

    def write(self, name: str, at: np.ndarray, values: np.ndarray, combine: str | None) -> None:
        """Store values (1-D, in order) at elements."""
        node = self.nodes[name]
        self._check(name, at, np.ones(at.shape, bool), "written")
        stored = narrow(values.astype(value_type(node.dtype), copy=False), node.dtype)
        array = self.arrays[name]
        if name in self.owner:
            self._claim(name, at, stored, combine)
        if combine is None:
            array[at] = stored
            if not _same(array[at], stored):
                self.fail(f"two points of a nest store different values to one element of {name}")
        elif node.dtype.numpy == value_type(node.dtype):
            combine_at(combine, array, at, stored)
        else:
            self._combine_narrow(name, at, values, combine)

    def _combine_narrow(self, name: str, at: np.ndarray, values: np.ndarray, combine: str) -> None:
        """16-bit floats are rounded after each combining store."""
        dtype = self.nodes[name].dtype
        array = self.arrays[name]
        for k in range(at.size):
            wide = widen(array[at[k : k + 1]], dtype)
            combine_at(combine, wide, np.zeros(1, np.int64), values[k : k + 1])
            array[at[k : k + 1]] = narrow(wide, dtype)

    def _check(self, name: str, at: np.ndarray, touched: np.ndarray, how: str) -> None:
        size = self.nodes[name].size
        bad = touched & ((at < 0) | (at >= size))
        if bad.any():
            self.fail(f"element {int(at[bad][0])} of {name}[{size}] is {how}")

    def _claim(self, name: str, at: np.ndarray, stored: np.ndarray, combine: str | None) -> None:
        """Tasks run at once: none may touch what another stores, unless both store the same."""
        owners = self.owner[name][at]
        foreign = (owners >= 0) & (owners != self.task)
        if foreign.any():
            same = _same(self.arrays[name][at[foreign]], stored[foreign])
            if combine is not None or not same:
                self.fail(f"two tasks store to one element of {name}")
        self.owner[name][at] = self.task


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def guards_hold(guards: Sequence[Guard], env: Mapping[str, int]) -> bool:
    """Whether guards over outer dims hold."""
    return all(0 <= g.form.evaluate(env) < g.size for g in guards)


def run_nest(nest: Nest, env: Mapping[str, int], memory: Memory) -> None:
    """Run a nest with its outer dims bound by `env`."""
    split = _to_bind(nest)
    if split is None:
        _run_box(nest, env, memory)
        return
    extent = nest.extents[split]
    low, high = _bounds_at(nest, split, env)
    inner = replace(
        nest,
        dims=tuple(x for x in nest.dims if x[0] != split),
        ordered=tuple(d for d in nest.ordered if d != split),
        bounds=tuple(b for b in nest.bounds if b.dim != split),
    )
    for p in range(max(low, 0), min(high, extent)):
        run_nest(inner, {**env, split: p}, memory)


def _to_bind(nest: Nest) -> str | None:
    """A dim to run position by position: an ordered one of a nest that reads what it stores, or
    the first one of a box too large to evaluate at once."""
    reads = {i.buffer for i in nest.code if isinstance(i, Load)}
    folded = {d for i in nest.code if isinstance(i, Fold) for d in i.dims}
    code = Code(nest)
    if reads & {s.buffer for s in nest.stores}:
        for d, _ in nest.dims:
            if d in nest.ordered and d not in code.carried:
                if d in folded:
                    raise InternalError(
                        f"interp: a nest folds {d} and stores along it what it reads"
                    )
                return d
        return None
    points = int(np.prod([n for _, n in nest.dims], dtype=np.int64))
    outer = nest.dims[0][0] if nest.dims else None
    if points <= LIMIT or outer is None or outer in code.carried or outer in folded:
        return None
    everywhere = all(outer in code.store_dims(s) for s in nest.stores)
    return outer if everywhere and not _bound_reads_own(nest, outer) else None


def _bound_reads_own(nest: Nest, dim: str) -> bool:
    own = set(nest.extents)
    return any(b.dim == dim and (f.dims & own) for b in nest.bounds for f in (*b.lo, *b.hi))


def _bounds_at(nest: Nest, dim: str, env: Mapping[str, int]) -> tuple[int, int]:
    low, high = 0, nest.extents[dim]
    for b in nest.bounds:
        if b.dim == dim:
            low = max([low, *(f.evaluate(env) for f in b.lo)])
            high = min([high, *(f.evaluate(env) for f in b.hi)])
    return low, high


def _run_box(nest: Nest, env: Mapping[str, int], memory: Memory) -> None:
    code = Code(nest)
    box = Box.over(nest, env)
    code.run(box, lambda load, dims, b: _load(load, dims, b, memory))
    for store in nest.stores:
        _store(store, code, box, memory)


def _load(load: Load, dims: frozenset[str], box: Box, memory: Memory) -> np.ndarray:
    at, ok = address(load.at, box)
    touched, at = np.broadcast_arrays(ok & box.valid(dims), at)
    value = memory.read(load.buffer, at, touched).astype(value_type(load.dtype), copy=False)
    if not load.at.guards:
        return value
    return np.where(ok, value, np.asarray(load.fill, dtype=value.dtype))


def address(at: Address, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Element offsets, and where all guards hold."""
    ok = np.ones((1,) * box.rank, bool)
    for guard in at.guards:
        value = _offset(guard.form, guard.dynamic, box)
        ok = ok & (value >= 0) & (value < guard.size)
    return _offset(at.form, at.dynamic, box), ok


def _offset(form: Form, dynamic: Sequence[tuple[int, int]], box: Box) -> np.ndarray:
    total = box.form(form)
    for ref, factor in dynamic:
        total = total + box.value(ref).astype(np.int64) * factor
    return total


def _store(store: Store, code: Code, box: Box, memory: Memory) -> None:
    at, ok = address(store.at, box)
    value = box.value(store.value)
    dims = code.store_dims(store)
    ok = ok & box.valid(dims)
    shape = box.shape(dims)
    at, ok, value = (np.broadcast_to(x, shape).reshape(-1) for x in (at, ok, value))
    memory.write(store.buffer, at[ok], value[ok], store.combine)
