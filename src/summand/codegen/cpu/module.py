"""Loop IR to LLVM text: the entry of CPU code generation.

    emit(module, target)          texts that together have a function for each kernel of the module
    emit_kernel(kernel, target)   the text of one kernel
    scratch_bytes(kernel)         how much scratch memory its tasks need

The text holds vector code in SSA form; no optimisation passes are to be run on it, only LLVM's code
generator for the target (which supplies the processor's name and features).
"""

from __future__ import annotations

from collections.abc import Iterator

from summand.codegen.cpu.kernel import scratch_bytes, write_kernel
from summand.codegen.cpu.text import Unit
from summand.loops.nodes import Kernel, Module
from summand.options import Target

__all__ = ["emit", "emit_kernel", "scratch_bytes"]

PART = 20_000  # characters from which kernels are an LLVM module of their own: each costs 2 ms


def emit(module: Module, target: Target) -> Iterator[str]:
    """Texts of LLVM modules, each of consecutive kernels, as they are finished."""
    unit = _unit(target)
    for kernel in module.kernels:
        write_kernel(unit, kernel)
        if unit.size >= PART:
            yield unit.text()
            unit = _unit(target)
    if unit.size:
        yield unit.text()


def emit_kernel(kernel: Kernel, target: Target) -> str:
    """The text of an LLVM module with one kernel."""
    unit = _unit(target)
    write_kernel(unit, kernel)
    return unit.text()


def _unit(target: Target) -> Unit:
    return Unit(target.features, _attributes(target), target.triple)


def _attributes(target: Target) -> str:
    """Attributes of all functions. Without a preference LLVM splits 512-bit vectors."""
    if target.vector_bytes < 64:
        return "nounwind"
    return 'nounwind "prefer-vector-width"="512" "min-legal-vector-width"="512"'
