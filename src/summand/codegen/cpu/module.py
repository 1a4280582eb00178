"""Loop IR to LLVM text: the entry of CPU code generation.

    Parts(target, take)           texts that together have a function for each kernel added to it
    emit_kernel(kernel, target)   the text of one kernel
    scratch_bytes(kernel)         how much scratch memory its tasks need

The text holds vector code in SSA form; no optimisation passes are to be run on it, only LLVM's code
generator for the target (which supplies the processor's name and features).
"""

from __future__ import annotations

from collections.abc import Callable

from summand.codegen.cpu.kernel import scratch_bytes, write_kernel
from summand.codegen.cpu.text import Unit
from summand.loops.nodes import Kernel
from summand.options import Target

__all__ = ["Parts", "emit_kernel", "scratch_bytes"]

PART = 20_000  # characters from which kernels are an LLVM module of their own: each costs 2 ms


class Parts:
    """LLVM modules of consecutive kernels, and of the nests that are functions of their own; `take`
    gets the text of each when it is finished."""

    def __init__(self, target: Target, take: Callable[[str], None]) -> None:
        self._target = target
        self._take = take
        self._kernels = _unit(target)
        self._nests = _unit(target)

    def add(self, kernel: Kernel) -> None:
        """Write the next kernel."""
        write_kernel(self._kernels, kernel, self._for_a_nest)
        if self._kernels.size + self._nests.size >= PART:
            self.finish()

    def finish(self) -> None:
        """Hand on what has been written."""
        self._hand_on_nests(0)
        if self._kernels.size:
            self._take(self._kernels.text())
            self._kernels = _unit(self._target)

    def _for_a_nest(self) -> Unit:
        self._hand_on_nests(PART)
        return self._nests

    def _hand_on_nests(self, least: int) -> None:
        if self._nests.size > least:
            self._take(self._nests.text())
            self._nests = _unit(self._target)


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
