"""Memory for results, arenas and scratch: huge pages, used again when an array dies.

    array, address = default().array((4096, 4096), np.dtype("f4"))   # 64-byte aligned, not zeroed
    del array                                                         # its block waits for the next

The first touch of fresh pages costs up to five times what a kernel costs, so blocks are kept and
used again. Kept memory is bounded; the oldest size is let go first. No locks: everything is single
list operations, since an array may die (and give its block back) at any point of any thread.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
from dataclasses import dataclass, field

import numpy as np

from summand.runtime import machine

ALIGN = 64  # bytes; a cache line and the widest vector
HUGE = 2 << 20  # bytes of a huge page
SMALL = 64 << 10  # below this NumPy's own allocator is as good

HEADER = (
    object.__basicsize__
)  # an ndarray's first field after the object header is its data pointer
_BYTE = np.dtype(np.uint8)


class Block(ctypes.Array[ctypes.c_char]):
    """A piece of memory with an owner; goes back to its allocator when the last user is gone."""

    _length_ = 0
    _type_ = ctypes.c_char
    address: int
    size: int
    source: mmap.mmap
    offset: int
    home: Allocator

    def __del__(self) -> None:
        home = getattr(self, "home", None)
        if home is not None:
            home.put_back(self.size, self.source, self.offset, self.address)


@dataclass(frozen=True, slots=True)
class Allocator:
    """A bounded store of blocks, by size. `limit` is in bytes."""

    limit: int
    kept: dict[int, list[tuple[mmap.mmap, int, int]]] = field(default_factory=dict)

    def take(self, nbytes: int) -> Block:
        """A block of at least `nbytes` bytes, used before or fresh. Raises MemoryError."""
        size = size_class(nbytes)
        try:
            source, offset, address = self.kept[size].pop()
        except (KeyError, IndexError):
            source, offset, address = _map(size)
        block = _block_type(size).from_buffer(source, offset)
        block.address, block.size, block.source, block.offset = address, size, source, offset
        block.home = self
        return block

    def put_back(self, size: int, source: mmap.mmap, offset: int, address: int) -> None:
        """Keep a block that nobody uses any more, unless the store is full."""
        if size > self.limit:
            return
        excess = self.kept_bytes() + size - self.limit
        for old in list(self.kept):
            while excess > 0 and self.kept[old]:
                self.kept[old].pop()
                excess -= old
        self.kept.setdefault(size, []).append((source, offset, address))

    def kept_bytes(self) -> int:
        """Bytes that wait for their next use."""
        return sum(size * len(blocks) for size, blocks in list(self.kept.items()))

    def clear(self) -> None:
        """Give everything that waits back to the system."""
        self.kept.clear()

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, int]:
        """A fresh array in row-major order, its contents undefined, and its address."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes >= SMALL:
            block = self.take(nbytes)
            return np.ndarray(shape, dtype, memoryview(block)), block.address
        raw = np.empty(nbytes + ALIGN, _BYTE)
        start = address_of(raw)
        offset = -start % ALIGN
        return np.ndarray(shape, dtype, raw, offset), start + offset


def size_class(nbytes: int) -> int:
    """The size of block that serves a request: at most an eighth more, whole pages."""
    step = max(mmap.PAGESIZE, 1 << max(0, nbytes.bit_length() - 4))
    return -(-max(nbytes, 1) // step) * step


@functools.cache
def default() -> Allocator:
    """The process's allocator: keeps at most a quarter of the machine's free memory."""
    return Allocator(machine.memory_bytes() // 4)


def address_of(array: np.ndarray) -> int:
    """Where an array's first element is. NumPy's own ways take a microsecond each."""
    return ctypes.c_size_t.from_address(id(array) + HEADER).value


@functools.cache
def _block_type(size: int) -> type[Block]:
    return type("Block", (Block,), {"_length_": size, "_type_": ctypes.c_char})


def _map(size: int) -> tuple[mmap.mmap, int, int]:
    """Fresh zeroed memory from the system: source, offset and address. Large: on huge pages."""
    huge = size >= HUGE
    length = size + HUGE if huge else size
    try:
        source = _mmap(length)
    except (OSError, ValueError, OverflowError) as error:
        raise MemoryError(f"the system has no {size} bytes of memory: {error}") from error
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            source.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            huge = False  # a kernel without huge pages: ordinary ones serve
    base = ctypes.addressof(ctypes.c_char.from_buffer(source))
    offset = -base % HUGE if length > size else 0
    return source, offset, base + offset


def _mmap(length: int) -> mmap.mmap:
    if hasattr(mmap, "MAP_PRIVATE"):
        # Python maps shared by default, and shared memory gets no huge pages.
        return mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, length)
