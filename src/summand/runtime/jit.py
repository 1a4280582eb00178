"""LLVM text to machine code in memory.

    compile_objects([text, …], target)  ->  [object file as bytes, …]   (at once, in threads)
    load(objects, ["k0", …])            ->  Library with the address of each function

No optimisation passes run on the text: it is written the way it should be, and LLVM's middle-end
undoes register tiles (measured: 0.97 of peak becomes 0.65). Only the code generator runs.

Loop strength reduction is switched off for the whole process, once: it took half of the code
generator's time and made nothing faster, and LLVM has no finer switch. Another user of llvmlite in
the process (numba) sees it, too; its own optimiser has run by then, so it loses little.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ctypes import string_at
from dataclasses import dataclass
from typing import Protocol, cast

import llvmlite
import llvmlite.binding as llvm
from llvmlite.binding import ffi

from summand.errors import InternalError
from summand.options import Target

LEVEL = 1  # of the code generator; 2 and 3 made no kernel faster and take 10% longer


class Addresses(Protocol):
    """What keeps loaded code alive, and where its functions are."""

    def __getitem__(self, name: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Library:
    """Loaded machine code. Its addresses hold for as long as this object lives."""

    tracker: Addresses

    def address(self, name: str) -> int:
        """Where an exported function begins."""
        return self.tracker[name]


def compile_object(text: str, target: Target) -> bytes:
    """An object file of one module of LLVM text."""
    return _generate(text, target, as_object=True)


class Objects:
    """Object files in the making: each begins as soon as its text is added, in a thread.

    with Objects(target) as objects:
        objects.add(text); objects.add(another)
    objects.files()
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._made: list[Future[bytes]] = []
        self._threads = ThreadPoolExecutor(target.threads, "summand-codegen")
        _options()  # process-wide: set before any thread starts

    def add(self, text: str) -> None:
        """Begin the object file of a module."""
        try:
            made = self._threads.submit(compile_object, text, self._target)
        except RuntimeError:  # at its exit the interpreter starts no more threads
            made = Future()
            made.set_result(compile_object(text, self._target))
        self._made.append(made)

    def forget(self) -> None:
        """Leave out what was added so far."""
        for made in self._made:
            made.cancel()
        self._made.clear()

    def files(self) -> list[bytes]:
        """All object files, in the order in which they were added."""
        return [made.result() for made in self._made]

    def __enter__(self) -> Objects:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=any(error))


def compile_objects(texts: Iterable[str], target: Target) -> list[bytes]:
    """Object files of several modules; each thread has an LLVM context of its own."""
    with Objects(target) as objects:
        for text in texts:
            objects.add(text)
        return objects.files()


def assembly(text: str, target: Target) -> str:
    """The assembly code of a module of LLVM text, for people to read."""
    return _generate(text, target, as_object=False).decode()


def _generate(text: str, target: Target, as_object: bool) -> bytes:
    """Machine code of a module of LLVM text, by a target machine that no other thread has."""
    module = _parse(text)
    try:
        machine = _idle(target).pop()
    except IndexError:
        machine = _machine(target)
    try:
        return _emit(machine, module, as_object)
    finally:
        module.close()
        _idle(target).append(machine)


def version() -> str:
    """All that object files depend on besides text and target, for keys of caches."""
    return f"llvmlite {llvmlite.__version__}, LLVM {llvm_version()}, level {LEVEL}"


def llvm_version() -> str:
    """LLVM's version, as in 20.1.8."""
    return ".".join(str(n) for n in llvm.llvm_version_info)


def load(objects: Sequence[bytes], names: Sequence[str]) -> Library:
    """Put object files into memory and find their functions."""
    builder = llvm.JITLibraryBuilder()
    for data in objects:
        builder.add_object_img(data)
    for name in names:
        builder.export_symbol(name)
    builder.add_current_process()

    def link() -> Library:
        return Library(builder.link(_linker(), f"summand{next(_serial)}"))

    try:
        return _undisturbed(link)
    except RuntimeError as error:
        raise InternalError(f"jit: cannot load machine code: {error}") from error


def _undisturbed(call: Callable[[], Library]) -> Library:
    """Call in a thread where no signal's handler runs: an interrupt between two lines of llvmlite's
    `OutputString.close` frees a string twice."""
    made: Future[Library] = Future()

    def run() -> None:
        try:
            with _GATE:
                made.set_result(call())
        except BaseException as error:
            made.set_exception(error)

    if threading.current_thread() is not threading.main_thread():
        return call()
    try:
        threading.Thread(target=run, name="summand-link").start()
    except RuntimeError:  # at its exit the interpreter starts no more threads
        return call()
    return made.result()


_serial = itertools.count()


@functools.cache
def _options() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    llvm.set_option("summand", "-disable-lsr")


@functools.cache
def _idle(target: Target) -> list[llvm.TargetMachine]:
    """Target machines that no thread is using: LLVM's are not to be shared, and each new one reads
    the description of the processor anew, which takes longer than the code of a small kernel."""
    return []


def _machine(target: Target) -> llvm.TargetMachine:
    _options()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=LEVEL,
        jit=True,
        codemodel="jitdefault",
    )


@functools.cache
def _linker() -> llvm.LLJIT:
    _options()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        opt=LEVEL, jit=True, codemodel="jitdefault"
    )
    return llvm.create_lljit_compiler(machine, suppress_errors=True)


# ---- without llvmlite's lock
#
# llvmlite takes one lock around each call into LLVM, so threads would take turns. LLVM itself
# allows calls at once on different contexts, and only the two long ones below are made directly.
#
# A fork must not happen while another thread is inside LLVM: the child would inherit its locks,
# locked for good. So a fork waits for such calls to end, and no new one begins meanwhile.


class _Gate:
    """Counts the calls that are inside; while it is shut nobody comes in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._changed:
            while self._shut:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def shut(self) -> None:
        """Wait until nobody is inside, and let nobody in."""
        with self._changed:
            while self._shut:
                self._changed.wait()
            self._shut = True
            while self._inside:
                self._changed.wait()

    def open(self) -> None:
        """Let callers in again."""
        with self._changed:
            self._shut = False
            self._changed.notify_all()


_GATE = _Gate()


def _before_fork() -> None:
    _GATE.shut()
    ffi.lib._lock.__enter__()


def _after_fork_in_parent() -> None:
    ffi.lib._lock.__exit__(None, None, None)
    _GATE.open()


def _after_fork_in_child() -> None:
    global _GATE
    ffi.lib._lock.__exit__(None, None, None)
    _GATE = _Gate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


def _unlocked(name: str) -> Callable[..., object]:
    """llvmlite's own binding of an LLVM function, without its lock where that can be had."""
    locked = getattr(ffi.lib, name)
    return cast(Callable[..., object], getattr(locked, "_cfn", locked))


def _parse(text: str) -> llvm.ModuleRef:
    _options()
    context = llvm.create_context()
    parse = _unlocked("LLVMPY_ParseAssembly")
    with ffi.OutputString() as error:
        with _GATE:
            parsed = parse(context, text.encode(), error)
        module = llvm.ModuleRef(parsed, context)
        if error:
            message = str(error)
            module.close()
            raise InternalError(f"jit: LLVM does not accept the generated code: {message}")
    return module


def _emit(machine: llvm.TargetMachine, module: llvm.ModuleRef, as_object: bool) -> bytes:
    emit = _unlocked("LLVMPY_TargetMachineEmitToMemory")
    with ffi.OutputString() as error:
        with _GATE:
            buffer = emit(machine, module, int(as_object), error)
        if not buffer:
            raise InternalError(f"jit: LLVM cannot generate machine code: {error}")
    try:
        start = ffi.lib.LLVMPY_GetBufferStart(buffer)
        return string_at(start, ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)
