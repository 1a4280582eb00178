"""A compiled program as a callable: arrays in, arrays out, one native call between.

    executable = Executable(artifact)
    y, = executable.run([x])

A call costs a few microseconds: each argument is compared with one precomputed tuple, and the
program is bound and run natively. It may be called from several threads at once.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from summand.errors import (
    ArgumentError,
    IndexRangeError,
    InternalError,
    OutOfMemoryError,
    layout,
)
from summand.runtime import jit, machine, memory, pool_code
from summand.runtime.artifact import Artifact, Port
from summand.runtime.pool import Call, Pool, Words, default

LARGE = 1 << 30  # bytes; what needs more looks at the system's free memory before each run
SMALL = 4096  # bytes; results below this need no alignment, and NumPy allocates them fastest
STRIDE = 4096  # bytes; scratch of different threads lies on different pages
SKEW = 2112  # bytes from a page to the scratch: stores there would delay loads at equal offsets

_pointer = ctypes.c_size_t.from_address  # see `memory.address_of`; a call of it would cost more

Labelled = tuple[np.ndarray, tuple[str, ...]]  # an array and its dims, outermost first
Find = Callable[[str], Callable[[Sequence[Labelled]], Sequence[Labelled]]]
Signature = tuple[type, np.dtype, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Bound:
    """A port made ready: what an array must look like, and where its address goes."""

    port: Port
    dtype: np.dtype
    signature: Signature
    misaligned: int  # mask of address bits that must be zero


@dataclass(frozen=True, slots=True)
class Native:
    """What machine code needs to run a program itself, as `Executable.run` does: addresses of the
    pool's `run`, its control block, and the program's words; slots with the constants' addresses;
    bytes of the arena and of each thread's scratch. Nothing here may outlive the executable."""

    run: int
    pool: int
    code: int
    slots: tuple[int, ...]
    arena: int
    stride: int


class Executable:
    """A loaded program."""

    def __init__(
        self, artifact: Artifact, pool: Pool | None = None, find: Find | None = None
    ) -> None:
        self.artifact = artifact
        self._find = find
        self.pool = pool or default()
        self._library = jit.load(artifact.objects, artifact.functions)
        self._code = self._link()
        self._params = tuple(_bind(p) for p in artifact.params)
        self._results = tuple(_bind(p) for p in artifact.results)
        self._inputs = tuple((b.port.slot, b.signature, b.misaligned, b) for b in self._params)
        self._outputs = tuple(
            (b.port.slot, b.port.shape, b.dtype, math.prod(b.port.shape) * b.dtype.itemsize < SMALL)
            for b in self._results
        )
        hidden = {c.number for c in artifact.checks}
        self._visible = tuple(i for i in range(len(self._results)) if i not in hidden)
        self._stride = -(-artifact.scratch // STRIDE) * STRIDE
        self._arena = -(-artifact.arena // STRIDE) * STRIDE
        self._arena += SKEW if artifact.scratch else 0
        self._constants = [self._constant(data) for _, data in artifact.constants]
        self._idle: list[Call] = []  # calls that no thread is using
        self._needs = self.temporary_bytes
        self._needs += sum(_nbytes(b.port) for b in self._results)
        self._refuse_beyond(machine.physical_memory())

    @property
    def temporary_bytes(self) -> int:
        """Bytes that a run holds over arguments and results: the arena, each thread's scratch."""
        return self._arena + self._stride * self.pool.threads

    def run(
        self, inputs: Sequence[np.ndarray], into: Sequence[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Run on arrays, one for each parameter, each with its dims in the parameter's order.

        Results are fresh, or written to the arrays `into`: one for each result, dense, writable,
        and apart from each other and from the inputs.
        Raises ArgumentError for an array of another type or shape, IndexRangeError where a gathered
        index left its range, OutOfMemoryError where results or temporaries do not fit.
        """
        call = self._free_call()
        held = self._bind(call, inputs)
        results = self._execute(call, into)
        del held
        self._idle.append(call)
        return results

    def run_at(self, addresses: Sequence[int]) -> list[np.ndarray]:
        """Run on dense arrays that lie at these addresses, one for each parameter.

        The caller vouches for their types and shapes and keeps them alive. Raises as `run` does.
        """
        if len(addresses) != len(self._inputs):
            wanted = len(self._inputs)
            raise ArgumentError(f"{wanted} addresses are wanted, {len(addresses)} were given")
        call = self._free_call()
        slots = call.slots
        held: list[np.ndarray] = []
        for address, (slot, _, misaligned, bound) in zip(addresses, self._inputs):
            if address & misaligned:
                held.append(_at_address(address, bound).copy())
                address = memory.address_of(held[-1])
            slots[slot] = address
        results = self._execute(call)
        self._idle.append(call)
        return results

    def _free_call(self) -> Call:
        try:
            return self._idle.pop()
        except IndexError:
            return self._new_call()

    @property
    def visible(self) -> tuple[Port, ...]:
        """The ports of the results that are handed out."""
        return tuple(self.artifact.results[i] for i in self._visible)

    def native(self) -> Native:
        """What a caller in machine code needs."""
        slots = [0] * self.artifact.slots
        for (slot, _), (_, address) in zip(self.artifact.constants, self._constants):
            slots[slot] = address
        code = ctypes.addressof(self._code)
        return Native(*self.pool.entry(), code, tuple(slots), self._arena, self._stride)

    def run_timed(
        self, inputs: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
        """Run; for each launch in the program, how often it ran and its clock ticks altogether."""
        call = self._new_call()
        count = len(self.artifact.launches)
        ticks = (ctypes.c_int64 * (2 * count + 1))()
        call.words[pool_code.CALL["ticks"]] = ctypes.addressof(ticks)
        held = self._bind(call, inputs)
        results = self._execute(call)
        del held
        return results, [(ticks[2 * k], ticks[2 * k + 1]) for k in range(count)]

    def _refuse_beyond(self, memory_there_is: int) -> None:
        """Raise where results and temporaries cannot be held: the system might kill the process."""
        if self._needs <= memory_there_is:
            return
        rows = [(_nbytes(b.port), f"result {_type_text(b.port)}") for b in self._results]
        rows += [(r.nbytes, f"temporary {r.name}") for r in self.artifact.regions]
        rows.sort(key=lambda row: -row[0])
        raise OutOfMemoryError(
            layout(
                "a program does not fit in memory",
                [
                    (f"it needs {_gigabytes(self._needs)}", None),
                    (f"there are {_gigabytes(memory_there_is)}", None),
                    *((f"{name}: {_gigabytes(size)}", None) for size, name in rows[:3]),
                ],
                "Reduce dims, or compute it in pieces.",
            )
        )

    def _bind(self, call: Call, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Bind the arguments to their slots; copies of them that must outlive the run."""
        slots = call.slots
        held: list[np.ndarray] = []
        header = memory.HEADER
        if len(inputs) != len(self._inputs):
            raise ArgumentError(f"{len(self._inputs)} arrays are wanted, {len(inputs)} were given")
        for array, (slot, signature, misaligned, bound) in zip(inputs, self._inputs):
            if (type(array), array.dtype, array.shape, array.strides) != signature:
                array = _conform(array, bound)
                held.append(array)
            address = _pointer(id(array) + header).value
            if address & misaligned:
                array = array.copy()
                held.append(array)
                address = memory.address_of(array)
            slots[slot] = address
        return held

    def _execute(self, call: Call, into: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """Run a call whose arguments are bound."""
        if self._needs >= LARGE:
            self._refuse_beyond(machine.memory_bytes() + memory.default().kept_bytes())
        results = self._allocate(call) if into is None else self._given(call, into)
        workspace = self._workspace(call)
        self.pool.run(call)
        del workspace
        if self.artifact.checks:
            return self._checked(results)
        return results

    def _allocate(self, call: Call) -> list[np.ndarray]:
        """Fresh arrays for the results, bound to their slots."""
        slots = call.slots
        results: list[np.ndarray] = []
        for slot, shape, dtype, small in self._outputs:
            if small:
                array = np.empty(shape, dtype)
                slots[slot] = _pointer(id(array) + memory.HEADER).value
                results.append(array)
                continue
            try:
                array, slots[slot] = memory.default().array(shape, dtype)
            except MemoryError as error:
                bound = self._results[len(results)]
                raise _no_memory(bound.port.name or "a result", shape, dtype) from error
            results.append(array)
        return results

    def _given(self, call: Call, into: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The caller's arrays for the visible results, fresh ones for the hidden."""
        if len(into) != len(self._visible):
            raise ArgumentError(f"{len(self._visible)} results, but {len(into)} arrays for them")
        results = self._allocate(call) if self.artifact.checks else list(into)
        for number, array in zip(self._visible, into):
            bound = self._results[number]
            fits = type(array) is np.ndarray and bound.signature[:3] == (
                np.ndarray,
                array.dtype,
                array.shape,
            )
            address = memory.address_of(array) if fits else 0
            if not fits or not array.flags.carray:
                raise ArgumentError(
                    f"an array for a result must be writable and dense, {bound.dtype}"
                    f"{list(bound.port.shape)}, but is {array.dtype}{list(array.shape)}"
                )
            results[number] = array
            call.slots[bound.port.slot] = address
        return results

    def _workspace(self, call: Call) -> memory.Block | None:
        """One block for the arena and every thread's scratch, bound to the call."""
        size = self._arena + self._stride * self.pool.threads
        if not size:
            return None
        try:
            block = memory.default().take(size)
        except MemoryError as error:
            raise _no_memory("temporaries", (size,), np.dtype(np.uint8)) from error
        base = block.address
        if call.words[pool_code.SCRATCH] != base + self._arena:
            for region in self.artifact.regions:
                call.slots[region.slot] = base + region.offset
            call.words[pool_code.SCRATCH] = base + self._arena
        return block

    def _checked(self, results: list[np.ndarray]) -> list[np.ndarray]:
        """Raise where an index that the program gathered by was out of range."""
        for check in self.artifact.checks:
            seen = results[check.number]
            bad = seen[(seen < 0) | (seen >= check.size)]
            if bad.size:
                raise IndexRangeError(check.message.replace("{value}", str(int(bad.flat[0]))))
        return [results[i] for i in self._visible]

    def _new_call(self) -> Call:
        call = Call(self._code, self.artifact.slots, self.artifact.args)
        if self.artifact.hosts:
            call.host = functools.partial(self._run_host, call.slots)
        call.words[pool_code.CALL["stride"]] = self._stride
        for (slot, _), (_, address) in zip(self.artifact.constants, self._constants):
            call.slots[slot] = address
        return call

    def _run_host(self, slots: Words, number: int) -> None:
        """Run a foreign function on the buffers of a call."""
        host = self.artifact.hosts[number]
        if self._find is None:
            raise InternalError(f"nothing runs the foreign function {host.name}")
        found = self._find(host.name)([(_view(slots, p), p.dims) for p in host.args])
        for port, (array, dims) in zip(host.outs, found, strict=True):
            _view(slots, port)[...] = array.transpose([dims.index(d) for d in port.dims])

    def _link(self) -> ctypes.Array[ctypes.c_int64]:
        """The program's words with each launch's function number replaced by its address."""
        words, at = list(self.artifact.code), 0
        while words[at] != pool_code.END:
            if words[at] == pool_code.LAUNCH:
                name = self.artifact.functions[words[at + 1]]
                words[at + 1] = self._library.address(name)
                at += pool_code.LAUNCH_WORDS + words[at + 5]
            else:
                at += pool_code.WORDS[words[at]]
        return (ctypes.c_int64 * len(words))(*words)

    @staticmethod
    def _constant(data: bytes) -> tuple[np.ndarray, int]:
        array, address = memory.default().array((len(data),), np.dtype(np.uint8))
        array[:] = np.frombuffer(data, np.uint8)
        return array, address


def _view(slots: Words, port: Port) -> np.ndarray:
    """A buffer of a running program as an array."""
    dtype = np.dtype(port.dtype)
    nbytes = dtype.itemsize * math.prod(port.shape)
    return np.ndarray(port.shape, dtype, memoryview(_at(slots[port.slot], nbytes)))


def _at_address(address: int, bound: _Bound) -> np.ndarray:
    """The dense array that a port finds at an address, aligned or not."""
    port = bound.port
    return np.ndarray(port.shape, bound.dtype, memoryview(_at(address, _nbytes(port))))


def _at(address: int, nbytes: int) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * nbytes).from_address(address)


def _gigabytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.3g} GB"


def _nbytes(port: Port) -> int:
    return math.prod(port.shape) * np.dtype(port.dtype).itemsize


def _type_text(port: Port) -> str:
    dims = port.dims or tuple(str(k) for k in range(len(port.shape)))
    sizes = ",".join(f"{d}={n}" for d, n in zip(dims, port.shape))
    return f"{port.dtype}{{{sizes}}}"


def _bind(port: Port) -> _Bound:
    dtype = np.dtype(port.dtype)
    strides = np.empty(port.shape, dtype).strides if 0 in port.shape else _dense(port.shape, dtype)
    signature = (np.ndarray, dtype, port.shape, strides)
    return _Bound(port, dtype, signature, dtype.alignment - 1)


def _dense(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Row-major strides, without allocating an array of that shape."""
    strides, step = [], dtype.itemsize
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _conform(array: np.ndarray, bound: _Bound) -> np.ndarray:
    """The same elements, dense in row-major order and in the machine's byte order: the array
    itself where only the stride of an axis of one element is unlike.

    NumPy scalars pass for arrays without dims; their address is not that of an element.
    """
    if array.shape != bound.port.shape or array.dtype.newbyteorder("=") != bound.dtype:
        name = bound.port.name or "an argument"
        raise ArgumentError(
            f"{name} must be {bound.dtype}{list(bound.port.shape)}, "
            f"but is {array.dtype}{list(array.shape)}"
        )
    if array.flags.c_contiguous and array.dtype.isnative and isinstance(array, np.ndarray):
        return array
    return np.array(array, bound.dtype, order="C", copy=True, subok=False)


def _no_memory(name: str, shape: tuple[int, ...], dtype: np.dtype) -> OutOfMemoryError:
    nbytes = dtype.itemsize * int(np.prod(shape, dtype=object))
    return OutOfMemoryError(f"no memory for {name}: {dtype}{list(shape)}, {nbytes / 1e9:.3g} GB")
