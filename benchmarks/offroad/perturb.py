"""The same rows at nearby sizes and other storage orders, so that nothing is tuned to the listed.

n=16 x=15 c=32   ->   n=1 x=17 c=31, each input's axes permuted in memory
"""

from __future__ import annotations

import numpy as np

from .case import Case, make
from .row import Row, Sizes

LARGE = 1 << 14  # from which size on not all nearby primes are listed


def perturbed(row: Row, sizes: Sizes, seed: int) -> Case:
    """A row near `sizes`."""
    rng = np.random.default_rng(seed)
    near = {name: near_size(row, name, size, rng) for name, size in sizes.items()}
    return make(row, near, orders=seed, seed=seed)


def near_size(row: Row, name: str, size: int, rng: np.random.Generator) -> int:
    """A size near this one, a prime where there is one."""
    if name in row.fixed:
        return size
    if name in row.batch and rng.random() < 0.5:
        return 1
    if size < 8:
        return max(1, size + int(rng.integers(-1, 2)))
    low, high = int(size * 0.85), int(size * 1.15)
    if size > LARGE:  # the next prime after some place in this range
        value = int(rng.integers(low, high)) | 1
        while value == size or not _is_prime(value):
            value += 2
        return value
    others = [v for v in range(low | 1, high + 1, 2) if v != size]
    primes = [v for v in others if _is_prime(v)]
    return int(rng.choice(primes or others))


def _is_prime(value: int) -> bool:
    return all(value % d for d in range(2, int(value**0.5) + 1))
