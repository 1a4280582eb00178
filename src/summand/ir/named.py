"""An array whose axes have names: what goes into and comes out of the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """`array` in storage (uint16 for bf16); `order` names its axes, outermost first."""

    array: np.ndarray
    order: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Dims to sizes."""
        return dict(zip(self.order, self.array.shape, strict=True))

    def transposed(self, order: Sequence[str]) -> Named:
        """The same values with the axes in this order (a permutation of `order`)."""
        if tuple(order) == self.order:
            return self
        axes = [self.order.index(d) for d in order]
        return Named(self.array.transpose(axes), tuple(order))

    def aligned(self, order: Sequence[str]) -> np.ndarray:
        """The array with the axes `order`, a superset of its dims; size 1 where it lacks one."""
        present = [d for d in order if d in self.order]
        array = self.transposed(present).array
        if len(present) == len(order):
            return array
        return array[tuple(slice(None) if d in self.order else None for d in order)]

    def at(self, position: dict[str, int]) -> Named:
        """The slice at a position; dims that the array lacks are ignored."""
        index = tuple(position.get(d, slice(None)) for d in self.order)
        return Named(
            np.asarray(self.array[index]), tuple(d for d in self.order if d not in position)
        )
