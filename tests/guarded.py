"""Arrays that end, or begin, at memory that nobody may touch: a stray access faults.

    with Guarded(shape, dtype, side="end") as g:  g.array[...] = 1;  g.array is followed by a hole

Between the hole and the array nothing is left over but what the element's alignment takes.
"""

from __future__ import annotations

import ctypes
import math
import mmap

import numpy as np

PAGE = mmap.PAGESIZE
_NONE, _BOTH = 0, 3  # protections: no access; read and write


class Guarded:
    """One array between two inaccessible pages."""

    def __init__(self, shape, dtype, side="end"):
        self.dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * self.dtype.itemsize
        inner = -(-max(nbytes, 1) // PAGE) * PAGE
        self.memory = mmap.mmap(-1, inner + 2 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.holes = (self.base, self.base + PAGE + inner)
        start = PAGE if side == "start" else PAGE + inner - nbytes
        self.array = np.ndarray(shape, self.dtype, self.memory, start)
        self._protect(_NONE)

    def _protect(self, mode):
        for hole in self.holes:
            failed = ctypes.CDLL(None).mprotect(
                ctypes.c_void_p(hole), ctypes.c_size_t(PAGE), ctypes.c_int(mode)
            )
            assert failed == 0

    def copy_of(self, array):
        """Fill with another array's elements."""
        self.array[...] = array
        return self

    def close(self):
        """Make the holes ordinary memory again, so that it can be freed."""
        self._protect(_BOTH)
