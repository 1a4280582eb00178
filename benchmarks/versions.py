"""What was measured, and on what: the machine and the packages of a benchmark's record."""

from __future__ import annotations

import platform
from importlib import metadata

from summand.runtime import machine


def versions() -> dict[str, str]:
    """The processor, the threads, and the version of everything that takes part."""
    found = {
        "python": platform.python_version(),
        "processor": machine.processor_name(),
        "threads": str(machine.threads()),
    }
    for name in ("summand", "numpy", "llvmlite", "torch", "jax"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
