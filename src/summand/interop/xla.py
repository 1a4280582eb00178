"""Compiled programs as custom calls of XLA on the CPU, through its typed FFI.

    target(kernel)    the name under which XLA knows the kernel; registered when first asked for

A call from XLA goes straight into machine code (`xla_code.py`): no Python, no lock of the
interpreter, no copy. The name holds the digest of all that the kernel was compiled from, so XLA's
own cache on disk never runs another one.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jax

from summand.errors import ArgumentError, MissingExtra
from summand.interop import xla_code
from summand.interop.kernel import Kernel
from summand.runtime import jit, machine
from summand.runtime.executable import Executable
from summand.runtime.pool import Words, load_native

_ALIGN = 64
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Registered:
    """What XLA may call from now on: it is never taken back, so all of this stays."""

    executable: Executable
    words: tuple[Words, ...]
    texts: tuple[ctypes.Array[ctypes.c_char], ...]
    handler: jit.Library
    function: Callable[[int], int]


@dataclass(slots=True)
class _Registry:
    """Every program that XLA knows, by name; `idle` is the workspace that they share."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    known: dict[str, Registered] = field(default_factory=dict)
    idle: Words = field(default_factory=ctypes.c_int64 * 1)
    invoke: jit.Library | None = None


_REGISTRY = _Registry()


def target(kernel: Kernel) -> str:
    """The name of a kernel's custom call, which XLA knows afterwards. Compiles the kernel."""
    name = f"summand_{kernel.request().key()}"
    with _REGISTRY.lock:
        if name not in _REGISTRY.known:
            _REGISTRY.known[name] = registered = _register(kernel)
            capsule = jax.ffi.pycapsule(registered.function)
            jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    return name


def _register(kernel: Kernel) -> Registered:
    executable = kernel.executable()
    if executable.artifact.hosts:
        what = f"{kernel.name} calls the Python function {executable.artifact.hosts[0].name}"
        raise ArgumentError(f"{what}, which XLA cannot\nCall it outside of jax.")
    plan, more, texts = _plan(executable)
    if _REGISTRY.invoke is None:
        linux = sys.platform.startswith("linux")
        text = xla_code.invoke_text(linux, _minor_version())
        _REGISTRY.invoke = load_native("xla", text, machine.target(), ("invoke",))
    invoke = _REGISTRY.invoke.address("invoke")
    text = xla_code.handler_text(invoke, ctypes.addressof(plan))
    handler = jit.load([jit.compile_object(text, machine.target())], ("handler",))
    function = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(handler.address("handler"))
    return Registered(executable, (plan, *more), texts, handler, function)


def _minor_version() -> int:
    """The minor version of the FFI, from the header that comes with XLA."""
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    found = dict(re.findall(r"#define XLA_FFI_API_(MAJOR|MINOR) (\d+)", header.read_text()))
    if found.get("MAJOR") != str(xla_code.MAJOR):
        what = f"this jaxlib has version {found.get('MAJOR')} of XLA's FFI, not {xla_code.MAJOR}"
        raise MissingExtra(f'{what}\nInstall one that Summand knows: pip install "summand[jax]".')
    return int(found["MINOR"])


def _plan(
    executable: Executable,
) -> tuple[Words, tuple[Words, ...], tuple[ctypes.Array[ctypes.c_char], ...]]:
    """The words that `invoke` reads, and what they point to."""
    artifact = executable.artifact
    native = executable.native()
    hidden = [artifact.results[c.number] for c in artifact.checks]
    hidden = list({p.slot: p for p in hidden}.values())
    template = _words(*native.slots)
    regions = [(r.slot, r.offset) for r in artifact.regions]
    args = _up(xla_code.HEAD + 8 * artifact.slots, _ALIGN)
    checked = _up(args + 8 * artifact.args, _ALIGN)
    arena = _up(checked + _ALIGN * len(hidden), _PAGE)
    scratch = arena + native.arena
    for slot, offset in regions:
        template[slot] = arena + offset
    for number, port in enumerate(hidden):
        template[port.slot] = checked + _ALIGN * number
    moved = _words(*(slot for slot, _ in regions), *(p.slot for p in hidden))
    params = _words(*(p.slot for p in artifact.params))
    results = _words(*(p.slot for p in executable.visible))
    texts = tuple(_format(c.message) for c in artifact.checks)
    checks = _words(
        *(
            word
            for c, text in zip(artifact.checks, texts, strict=True)
            for word in (artifact.results[c.number].slot, 1, c.size, ctypes.addressof(text))
        )
    )
    values = {
        "run": native.run,
        "pool": native.pool,
        "code": native.code,
        "slot_count": artifact.slots,
        "slots": ctypes.addressof(template),
        "region_count": len(regions) + len(hidden),
        "regions": ctypes.addressof(moved),
        "param_count": len(artifact.params),
        "params": ctypes.addressof(params),
        "result_count": len(executable.visible),
        "results": ctypes.addressof(results),
        "args": args,
        "scratch": scratch,
        "stride": native.stride,
        "bytes": scratch + native.stride * executable.pool.threads,
        "idle": ctypes.addressof(_REGISTRY.idle),
        "check_count": len(artifact.checks),
        "checks": ctypes.addressof(checks),
    }
    plan = _words(*(values[name] for name in xla_code.PLAN))
    return plan, (template, moved, params, results, checks), texts


def _words(*values: int) -> Words:
    return (ctypes.c_int64 * max(len(values), 1))(*values)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


def _format(message: str) -> ctypes.Array[ctypes.c_char]:
    """A message with {value} as C's printf wants it."""
    return ctypes.create_string_buffer(
        message.replace("%", "%%").replace("{value}", "%lld").encode()
    )
