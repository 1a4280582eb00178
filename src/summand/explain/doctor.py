"""What Summand found on this machine: processor, ceilings, cache, packages."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

import numpy as np

from summand.runtime import cache, jit, machine, measure

OPTIONAL = (
    "scipy",
    "scikit-learn",
    "matplotlib",
    "ml_dtypes",
    "torch",
    "jax",
    "triton",
)

Row = tuple[str, str]


def findings(measured: bool = True) -> Iterator[Row]:
    """Rows of name and value; with `measured`, the peak and bandwidth of all threads, too."""
    target = machine.target()
    yield "processor", machine.processor_name()
    yield "generates code for", f"{target.cpu} ({target.triple})"
    yield "vector width", f"{8 * target.vector_bytes} bits, {target.registers} registers"
    yield "caches", " / ".join(size_text(n) for n in (target.l1, target.l2, target.l3))
    yield "threads", f"{target.threads}"
    yield "memory", f"{size_text(machine.memory_bytes())} available"
    if measured:
        yield "FMA peak (f32)", f"{measure.fma_peak():.0f} GFLOP/s"
        one = measure.fma_peak(1)
        yield "FMA peak, one thread", f"{one:.0f} GFLOP/s"
        yield "copy bandwidth", f"{measure.copy_bandwidth():.1f} GB/s (read + written)"
    yield "cache", cache_text()
    yield "Python", platform.python_version()
    yield "NumPy", np.__version__
    yield "llvmlite", f"{metadata.version('llvmlite')} (LLVM {jit.llvm_version()})"
    for name in OPTIONAL:
        yield name, version_of(name) or "not installed"


def cache_text() -> str:
    """The cache folder, how many programs it holds, and their size."""
    store = cache.default()
    entries = store.entries()
    size = size_text(sum(e.size for e in entries))
    return f"{store.folder} ({len(entries)} programs, {size})"


def version_of(package: str) -> str:
    """The installed version of a package; empty where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def size_text(nbytes: int) -> str:
    """Bytes in the unit that reads best, powers of two."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.4g} {unit}"
