"""A persistent pool of threads that run generated code, without a C extension.

    pool = default()
    pool.run(call)         # one native call runs a whole program of launches (see `pool_code`)

Workers are daemon Python threads, each inside a native loop that ctypes entered without the
interpreter's lock. They spin for a moment after each launch, then sleep. The pool starts its
threads when it is first used, again after a fork in the child, and stops them at exit.
Python's signal handlers run when the native call returns; a program that loops returns every few
milliseconds for that (`BACK` in `pool_code`), so Ctrl-C ends an endless loop, too.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import platform
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence

from summand.errors import InternalError
from summand.options import Target
from summand.runtime import cache, jit, machine, pool_code

# A worker's wait before it sleeps: the gap between two calls from Python, whose own code has been
# pushed out of the caches by what ran before. Waking a sleeper costs up to 100 us on a virtual CPU.
SPIN_SECONDS = 1e-3
BREATH_SECONDS = 5e-3  # a looping program returns to Python about this often
CALIBRATION_SECONDS = 0.02
_CALIBRATION_TURNS = 2000

FINISHED = -1  # what `run` returns at the end of a program

Words = ctypes.Array[ctypes.c_int64]


class Call:
    """The state of one running program: its code, buffers, scratch. Not shared between threads."""

    __slots__ = ("address", "args", "code", "host", "slots", "words")

    def __init__(
        self, code: Words, slots: int, args: int, host: Callable[[int], None] | None = None
    ) -> None:
        self.code = code
        self.host = host or _no_host
        self.slots: Words = (ctypes.c_int64 * max(slots, 1))()
        self.args: Words = (ctypes.c_int64 * max(args, 1))()
        self.words: Words = (ctypes.c_int64 * pool_code.CALL_WORDS)()
        self.address = ctypes.addressof(self.words)
        self.words[pool_code.CALL["code"]] = ctypes.addressof(code)
        self.words[pool_code.CALL["slots"]] = ctypes.addressof(self.slots)
        self.words[pool_code.CALL["args"]] = ctypes.addressof(self.args)


def _no_host(number: int) -> None:
    raise InternalError(f"pool: the program asks for function {number}, but has none")


class Pool:
    """`threads` threads, the caller's included."""

    def __init__(
        self, threads: int, target: Target | None = None, futex: bool | None = None
    ) -> None:
        family = platform.machine().lower()
        linux = sys.platform.startswith("linux") and family in pool_code.FUTEX_CALL
        self.threads = threads
        self.futex = linux if futex is None else futex
        self._code = _native(target or machine.target(), family, self.futex)
        self._lock = threading.Lock()
        self._park = threading.Condition()
        self._wake = ctypes.CFUNCTYPE(None)(self._wake_all)
        self._members: list[threading.Thread] = []
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        """A fresh control block; the threads of an old one (before a fork) are gone."""
        self._memory = (ctypes.c_int64 * (pool_code.POOL_WORDS + pool_code.LINE))()
        start = ctypes.addressof(self._memory)
        skipped = -start % (8 * pool_code.LINE) // 8
        self.address = start + 8 * skipped
        self.words = (ctypes.c_int64 * pool_code.POOL_WORDS).from_buffer(self._memory, 8 * skipped)
        wake = ctypes.cast(self._wake, ctypes.c_void_p).value
        self.words[pool_code.POOL["wake"]] = wake or 0
        self.words[pool_code.POOL["yield"]] = _yield_address()
        self._ready = self.threads == 1

    def run(self, call: Call) -> None:
        """Run a program to its end. Threads may do so at once, each with a call of its own."""
        if _ENDING.is_set():
            _park_at_end()
        elif not self._ready:
            self._start()
        words = call.words
        words[pool_code.PC] = 0
        words[pool_code.BUDGET] = budget = 1
        words[pool_code.ROUND] = 0
        run = self._code.run
        began = 0.0
        while (at := run(self.address, call.address)) != FINISHED:
            if at < FINISHED:  # at a host word, whose place is -2 - at
                place = -2 - at
                call.host(call.code[place + 1])
                words[pool_code.PC] = place + pool_code.WORDS[pool_code.HOST]
                continue
            now = time.monotonic()
            budget = max(1, budget // 2) if now - began > BREATH_SECONDS else budget * 2
            words[pool_code.PC] = at
            words[pool_code.BUDGET] = budget
            began = now

    def entry(self) -> tuple[int, int]:
        """Where machine code finds `run`, and the control block that it takes; threads started."""
        if not self._ready:
            self._start()
        return self._code.library.address("run"), self.address

    def _start(self) -> None:
        """Start the threads, unless somebody is at it: this call then runs without them.

        That may be the same thread, interrupted by a signal whose handler calls; it must not wait.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if not self._ready:
                self._start_members()
        finally:
            self._lock.release()

    def _start_members(self) -> None:
        turns = pool_code.PATIENCE * SPIN_SECONDS / self._code.pause
        self.words[pool_code.POOL["spin"]] = int(turns)
        for number in range(1, self.threads):
            name = f"summand-{number}"
            thread = threading.Thread(target=self._serve, args=(number,), name=name, daemon=True)
            if number > len(self._members):
                self._members.append(thread)
            thread = self._members[number - 1]
            if thread.ident is None:  # else Ctrl-C ended an earlier start after this one
                thread.start()
        self.words[pool_code.POOL["workers"]] = self.threads - 1
        self._ready = True

    def _serve(self, number: int) -> None:
        """A worker's life. With futexes the native loop returns only when the pool stops."""
        address, words, work = self.address, self.words, self._code.worker
        seen = work(address, number, 0)
        while seen >= 0:
            with self._park:
                while words[pool_code.POOL["seq"]] == seen:
                    self._park.wait()
            seen = work(address, number, 1)

    def _wake_all(self) -> None:
        with self._park:
            self._park.notify_all()

    def seconds_of_a_tick(self) -> float:
        """What one tick of `Executable.run_timed` is, measured."""
        start, began = self._code.clock(), time.perf_counter()
        time.sleep(CALIBRATION_SECONDS)
        ticks, seconds = self._code.clock() - start, time.perf_counter() - began
        return float(seconds / max(ticks, 1))

    def stop(self) -> None:
        """End the threads. The pool may be used again afterwards: it starts new ones."""
        with self._lock:
            members, self._members = self._members, []
            if members:
                self._code.stop(self.address)
            for thread in members:
                thread.join(1.0)
            self._reset()

    def after_fork(self) -> None:
        """In a child process: no thread but the caller's came along."""
        self._lock = threading.Lock()
        self._park = threading.Condition()
        self._members = []
        self._reset()


class _Native:
    """The pool's functions for Python. Their code is never unloaded: workers are in it."""

    def __init__(self, target: Target, family: str, futex: bool) -> None:
        text = pool_code.pool_text(family, futex)
        names = ("run", "worker", "stop", "calibrate", "clock")
        self.library = load_native("pool", text, target, names)
        address, word = ctypes.c_void_p, ctypes.c_int64
        at = self.library.address
        self.run = ctypes.CFUNCTYPE(word, address, address)(at("run"))
        self.worker = ctypes.CFUNCTYPE(word, address, word, word)(at("worker"))
        self.stop = ctypes.CFUNCTYPE(None, address)(at("stop"))
        self.clock = ctypes.CFUNCTYPE(word)(at("clock"))
        self.pause = _seconds_of_a_pause(ctypes.CFUNCTYPE(None, word)(at("calibrate")))


def load_native(what: str, text: str, target: Target, names: Sequence[str]) -> jit.Library:
    """Machine code of the runtime's own, from the cache on disk if an earlier process left it."""
    store, key = cache.default(), cache.digest(what, jit.version(), repr(target), text)
    found = store.load(key)
    if found is not None:
        try:
            return jit.load([found], names)
        except InternalError:
            store.discard(key)
    data = jit.compile_object(text, target)
    store.save(key, data)
    return jit.load([data], names)


def _seconds_of_a_pause(calibrate: Callable[[int], None]) -> float:
    best = 1.0
    for _ in range(3):
        began = time.perf_counter()
        calibrate(_CALIBRATION_TURNS)
        best = min(best, time.perf_counter() - began)
    return max(best / _CALIBRATION_TURNS, 1e-10)


@functools.cache
def _native(target: Target, family: str, futex: bool) -> _Native:
    return _Native(target, family, futex)


@functools.cache
def _yield_address() -> int:
    """Where the C library's `sched_yield` is; 0 where there is none."""
    if os.name != "posix":
        return 0
    function = getattr(ctypes.CDLL(None), "sched_yield", None)
    return (ctypes.cast(function, ctypes.c_void_p).value or 0) if function else 0


@functools.cache
def default() -> Pool:
    """The pool that programs run on: as many threads as the process may use."""
    return Pool(machine.threads())


_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


_ENDING = threading.Event()
LAST_CALLS_SECONDS = 0.05  # for calls of other threads to come to their end


def _stop_all() -> None:
    """End the workers.

    Daemon threads that still call are parked first: Python ends a thread where it next wants to
    run, and in C++ code (optree's) that would abort the process.
    """
    _ENDING.set()
    if threading.active_count() > 1 + sum(len(pool._members) for pool in _POOLS):
        time.sleep(LAST_CALLS_SECONDS)
    for pool in list(_POOLS):
        pool.stop()


def _park_at_end() -> None:
    """Daemon threads wait for their end; others run their programs alone. While Python finalises,
    only its main thread is left, which it may no longer know by its name."""
    if not sys.is_finalizing() and threading.current_thread().daemon:
        threading.Event().wait()


def _after_fork() -> None:
    for pool in list(_POOLS):
        pool.after_fork()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
