"""What the compiler may assume of the machine, and the switches of one compilation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A processor: all that scheduling and code generation ask (`runtime/machine.py` detects it).

    Costs are in cycles of one core; bandwidth in bytes per cycle of one core.
    """

    triple: str
    cpu: str
    features: str
    vector_bytes: int = 64  # 64 AVX-512, 32 AVX2, 16 NEON
    registers: int = 32  # vector registers
    l1: int = 32 << 10
    l2: int = 1 << 20
    l3: int = 32 << 20
    threads: int = 2
    fma_per_cycle: float = 2.0  # vector FMAs issued each cycle
    fma_latency: int = 4
    dram_bytes_per_cycle: float = 6.0

    @property
    def takes_halves(self) -> bool:
        """Whether vectors of half the width are computed two at a time: they waste nothing."""
        return self.vector_bytes == 64 and self.fma_per_cycle == 1.0

    def lanes(self, bits: int) -> int:
        """Elements of a full vector register."""
        return self.vector_bytes * 8 // bits


@dataclass(frozen=True, slots=True)
class Options:
    """Switches of one compilation; all take part in the cache key."""

    verify: bool = False  # verify both IRs after every pass (always on in tests)
    fuse: bool = True
    remat: bool = True
    dump: tuple[str, ...] = ()  # stages whose text is kept for `inspect`
