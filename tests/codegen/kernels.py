"""Run generated kernels on arrays that lie against forbidden pages, and compare with the oracle."""

import ctypes
import mmap

import numpy as np

from summand.codegen.cpu.module import emit_kernel, scratch_bytes
from summand.loops.interp import run_kernel
from summand.loops.nodes import Kernel
from summand.runtime.jit import compile_objects, load
from summand.runtime.machine import target

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None)


class Fenced:
    """Memory for an array that ends (or begins) exactly at a page that may not be touched."""

    def __init__(self, data: np.ndarray, at_end: bool) -> None:
        pages = -(-max(data.nbytes, 1) // PAGE)
        self.map = mmap.mmap(-1, (pages + 2) * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for page in (0, pages + 1):
            place = ctypes.c_void_p(self.address + page * PAGE)
            assert _libc.mprotect(place, ctypes.c_size_t(PAGE), 0) == 0
        start = PAGE + (pages * PAGE - data.nbytes if at_end else 0)
        whole = np.frombuffer(self.map, np.uint8, data.nbytes, start)
        self.array = whole.view(data.dtype)
        self.array[:] = data

    def close(self) -> np.ndarray:
        """What the array holds, after which its memory may go."""
        out = self.array.copy()
        _libc.mprotect(ctypes.c_void_p(self.address), ctypes.c_size_t(len(self.map)), 3)
        return out


def compiled(kernel: Kernel):
    """The native function of a kernel."""
    text = emit_kernel(kernel, target())
    library = load(compile_objects([text], target()), [kernel.name])
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    return kind(library.address(kernel.name)), library


def run_native(kernel: Kernel, buffers, at_end: bool = True):
    """All tasks of a kernel on copies of 1-D buffers; returns the copies."""
    function, library = compiled(kernel)
    held = {b.name: Fenced(buffers[b.name], at_end) for b in kernel.params}
    pointers = [held[b.name].array.ctypes.data for b in kernel.params]
    args = (ctypes.c_void_p * max(len(pointers), 1))(*pointers)
    scratch = Fenced(np.full(max(scratch_bytes(kernel), 64), 0xFF, np.uint8), False)
    tasks = int(np.prod([n for _, n in kernel.grid], dtype=np.int64))
    for task in range(tasks):
        function(ctypes.addressof(args), task, scratch.array.ctypes.data)
    del library
    return {name: f.close() for name, f in held.items()}


def check(kernel: Kernel, buffers, rtol: float = 0, atol: float = 0):
    """The kernel's buffers after a native run equal those that the interpreter leaves."""
    expected = {name: a.copy() for name, a in buffers.items()}
    run_kernel(kernel, expected)
    for at_end in (True, False):
        found = run_native(kernel, buffers, at_end)
        for name, array in expected.items():
            np.testing.assert_allclose(
                found[name].astype("float64"),
                array.astype("float64"),
                rtol=rtol,
                atol=atol,
                err_msg=name,
            )
    return found
