"""Kernels that do not touch one another's results run as one launch.

    kernel a  grid x=8              kernel a  grid task=15
      nest … out[2*x]                 when 0 <= task < 8:   let x = task    nest … out[2*x]
    kernel b  grid x=7        ->      when 0 <= task-8 < 7: let x = task-8  nest … out[2*x + 1]
      nest … out[2*x + 1]

The parts of an interleaved value are such kernels: one launch waits for its last task once, and not
for each part. Scratch of the same name is shared, since a task runs one body only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from summand.ir.index import Form
from summand.loops.nodes import Buffer, Guard, Kernel, Let, Load, Nest, Stmt, Store, When
from summand.schedule.moves import nests_of

MOST_STEPS = 2000  # of the search for a common place

Term = tuple[int, int, int]  # a stride, and the least and greatest multiple of it


def independent(parts: Sequence[Kernel]) -> bool:
    """Whether kernels (not scheduled yet) may run at once: none reads or writes what another
    writes."""
    if any(not isinstance(s, Nest) for k in parts for s in k.body):
        return False
    nests = [nests_of(k.body) for k in parts]
    for q, ones in enumerate(nests):
        for others in nests[q + 1 :]:
            if not all(_apart(a, b) for a in ones for b in others):
                return False
    return True


def _apart(a: Nest, b: Nest) -> bool:
    for one, other in ((a, b), (b, a)):
        stored = {s.buffer for s in one.stores}
        if any(isinstance(i, Load) and i.buffer in stored for i in other.code):
            return False
    pairs = [(s, t) for s in a.stores for t in b.stores if s.buffer == t.buffer]
    return not any(_may_meet(a, s, b, t) for s, t in pairs)


def _may_meet(a: Nest, s: Store, b: Nest, t: Store) -> bool:
    """Whether two stores may have a place in common."""
    if s.at.dynamic or t.at.dynamic or not (s.at.form.is_affine and t.at.form.is_affine):
        return True
    ranges: dict[int, tuple[int, int]] = {}
    for nest, form, sign in ((a, s.at.form, 1), (b, t.at.form, -1)):
        for dim, factor in form.terms:
            extent = nest.extents.get(dim) if isinstance(dim, str) else None
            if extent is None:
                return True
            lo, hi = ranges.get(abs(factor), (0, 0))
            more = extent - 1
            up = (factor > 0) == (sign > 0)
            ranges[abs(factor)] = (lo, hi + more) if up else (lo - more, hi)
    terms = [(c, lo, hi) for c, (lo, hi) in sorted(ranges.items(), reverse=True)]
    return _reaches(terms, t.at.form.const - s.at.form.const, [MOST_STEPS])


def _reaches(terms: Sequence[Term], distance: int, left: list[int]) -> bool:
    """Whether multiples of the strides within their ranges add up to a distance."""
    left[0] -= 1
    if not terms:
        return distance == 0
    if left[0] < 0:
        return True
    (stride, lo, hi), rest = terms[0], terms[1:]
    below, above = (sum(c * r[k] for c, *r in rest) for k in (0, 1))
    first = max(lo, -((above - distance) // stride))
    last = min(hi, (distance - below) // stride)
    return any(_reaches(rest, distance - stride * k, left) for k in range(first, last + 1))


def in_phases(parts: Sequence[Sequence[Kernel]]) -> tuple[Kernel, ...] | None:
    """Independent lists of kernels as one: last ones side by side, those before them, and so on."""
    phases: list[Kernel] = []
    for back in range(1, max(len(p) for p in parts) + 1):
        phase = [p[-back] for p in parts if len(p) >= back]
        merged = side_by_side(phase) if len(phase) > 1 else phase[0]
        if merged is None:
            return None
        phases.append(merged)
    return tuple(reversed(phases))


def side_by_side(kernels: Sequence[Kernel]) -> Kernel | None:
    """One kernel with the tasks of all; None where scratch of one name differs in type."""
    scratch: dict[str, Buffer] = {}
    for buffer in (b for k in kernels for b in k.scratch):
        known = scratch.setdefault(buffer.name, buffer)
        if known.dtype != buffer.dtype:
            return None
        size, space = max(known.size, buffer.size), max(known.space, buffer.space)
        scratch[buffer.name] = replace(known, size=size, space=space)
    used = {d for k in kernels for d, _ in k.grid}
    dim = "task"
    while dim in used:
        dim += "_"
    body: list[Stmt] = []
    total = 0
    for kernel in kernels:
        tasks = math.prod(n for _, n in kernel.grid)
        inner, below = kernel.body, 1
        mine = Form.of(dim) - total
        for name, extent in reversed(kernel.grid):
            at = mine // below if below * extent == tasks else mine // below % extent
            inner, below = (Let(name, at, 0, extent - 1, inner),), below * extent
        body.append(When((Guard(mine, tasks),), inner))
        total += tasks
    params = tuple(dict.fromkeys(b for k in kernels for b in k.params))
    first = kernels[0]
    return Kernel(
        first.name, params, tuple(scratch.values()), ((dim, total),), tuple(body), first.note
    )
