"""Loop IR to the text of one LLVM module: the entry of CPU code generation.

    emit(module, target)          text with one function for each kernel of the module
    emit_kernel(kernel, target)   the same for one kernel
    scratch_bytes(kernel)         how much scratch memory its tasks need

The text holds vector code in SSA form; no optimisation passes are to be run on it, only LLVM's code
generator for the target (which supplies the processor's name and features).
"""

from __future__ import annotations

from collections.abc import Sequence

from summand.codegen.cpu.kernel import scratch_bytes, write_kernel
from summand.codegen.cpu.text import Unit
from summand.loops.nodes import Kernel, Module
from summand.options import Target

__all__ = ["emit", "emit_kernel", "scratch_bytes"]


def emit(module: Module, target: Target) -> str:
    """The text of an LLVM module with a function for each kernel."""
    return _emit(module.kernels, target)


def emit_kernel(kernel: Kernel, target: Target) -> str:
    """The text of an LLVM module with one kernel."""
    return _emit((kernel,), target)


def _emit(kernels: Sequence[Kernel], target: Target) -> str:
    unit = Unit(target.features, _attributes(target), target.triple)
    for kernel in kernels:
        write_kernel(unit, kernel)
    return unit.text()


def _attributes(target: Target) -> str:
    """Attributes of all functions. Without a preference LLVM splits 512-bit vectors."""
    if target.vector_bytes < 64:
        return "nounwind"
    return 'nounwind "prefer-vector-width"="512" "min-legal-vector-width"="512"'
