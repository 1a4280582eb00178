"""What this process runs on: the processor as a `Target`, threads, memory and folders.

    target()  ->  Target(cpu="znver4", vector_bytes=64, threads=2, l2=1048576, …)

Everything is read once. `SUMMAND_THREADS` overrides the number of threads, `SUMMAND_CACHE_DIR` the
cache folder. Costs that cannot be read from the system come from a table by processor family, not
from a measurement: a target is a part of every cache key and must not change from run to run.
"""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import llvmlite.binding as llvm
import platformdirs

from summand.errors import ArgumentError
from summand.options import Target

CACHE_FILES = Path("/sys/devices/system/cpu/cpu0/cache")

# Vector FMAs of full width that one core issues each cycle, by the beginning of LLVM's name for it.
# Those that are not listed have two pipes, as nearly all since Haswell and Cortex-A76.
_FMA_PER_CYCLE = {
    "znver4": 1.0,  # 512-bit operations take both 256-bit pipes
    "neoverse-v1": 4.0,
    "neoverse-v2": 4.0,
    "apple-": 4.0,
    "cortex-a5": 1.0,
    "cortex-a72": 1.0,
    "icelake-client": 1.0,
    "tigerlake": 1.0,
    "rocketlake": 1.0,
}


@functools.cache
def target() -> Target:
    """The processor of this machine; `threads` is what the process may use."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    triple = llvm.get_process_triple()
    cpu = llvm.get_host_cpu_name()
    features = llvm.get_host_cpu_features()
    x86 = triple.startswith(("x86_64", "amd64"))
    wide = x86 and all(features.get(f, False) for f in ("avx512f", "avx512vl", "avx512bw"))
    vector = 64 if wide else 32 if x86 and features.get("avx2", False) else 16
    sizes = cache_sizes()
    return Target(
        triple=triple,
        cpu=cpu,
        features=features.flatten(),
        vector_bytes=vector,
        registers=32 if wide or not x86 else 16,
        l1=sizes.get(1, 32 << 10),
        l2=sizes.get(2, 512 << 10),
        l3=sizes.get(3, 8 << 20),
        threads=threads(),
        fma_per_cycle=next((v for k, v in _FMA_PER_CYCLE.items() if cpu.startswith(k)), 2.0),
    )


def threads() -> int:
    """How many threads a program runs on: `SUMMAND_THREADS`, or the processors we may use."""
    text = os.environ.get("SUMMAND_THREADS", "")
    if not text:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise ArgumentError(f"SUMMAND_THREADS is {text!r}; it must be a number from 1 to 1024.")
    return int(text)


def cache_sizes() -> dict[int, int]:
    """Bytes of the data cache of each level, as Linux tells them; empty where it does not."""
    sizes: dict[int, int] = {}
    for folder in sorted(CACHE_FILES.glob("index*")):
        try:
            kind = (folder / "type").read_text().strip()
            level = int((folder / "level").read_text())
            text = (folder / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and text[:-1].isdecimal():
            sizes[level] = int(text[:-1]) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0)
    return sizes


def memory_bytes() -> int:
    """Bytes of memory that are free now, or used for caches only, within the control group."""
    return _within_group(_meminfo().get("MemAvailable", 1 << 62))


@functools.cache
def physical_memory() -> int:
    """Bytes of memory that this process can have at most."""
    return _within_group(_meminfo().get("MemTotal", 1 << 62))


def _within_group(available: int) -> int:
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            available = min(available, int(text))
    return available


def _meminfo() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0]) << 10
    return found


def cache_folder() -> Path:
    """Where compiled programs are kept: `SUMMAND_CACHE_DIR`, or the user's cache folder."""
    text = os.environ.get("SUMMAND_CACHE_DIR", "")
    return Path(text) if text else Path(platformdirs.user_cache_dir("summand"))


def processor_name() -> str:
    """The processor's name as its maker spells it, for people to read."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()
