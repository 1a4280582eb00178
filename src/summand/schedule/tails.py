"""The last tile of a dim as a nest of its own, where tiles may not overlap.

    grid d_o=10                               grid d_o=10
      nest d=14 …, bound d to 137 - 14*d_o  ->  when 0 <= d_o < 9:      nest d=14 …
                                                when 0 <= d_o - 9 < 1:  nest d=11 …

A bound on a dim that is in registers is a condition on each of its points, in every tile; only the
last tile needs one, and knows its size beforehand.
"""

from __future__ import annotations

from dataclasses import replace

from summand.ir.index import Form
from summand.loops.nodes import Bound, Guard, Kernel, Nest, Stmt, When
from summand.schedule.moves import folded_dims

MOST = 2  # dims that are cut; each doubles the code


def cut_tails(kernel: Kernel) -> Kernel:
    """The kernel with the last tiles of its tasks apart from the whole ones."""
    return replace(kernel, body=_apart(kernel.body, dict(kernel.grid), MOST))


def _apart(body: tuple[Stmt, ...], grid: dict[str, int], most: int) -> tuple[Stmt, ...]:
    out: list[Stmt] = []
    for stmt in body:
        if not isinstance(stmt, Nest):
            out.append(replace(stmt, body=_apart(stmt.body, grid, most)))
            continue
        bound = next((b for b in stmt.bounds if _is_tail(b, stmt, grid)), None) if most else None
        if bound is None:
            out.append(stmt)
            continue
        for guard, nest in _in_two(stmt, bound):
            out.append(When((guard,), _apart((nest,), grid, most - 1)))
    return tuple(out)


def _is_tail(bound: Bound, nest: Nest, grid: dict[str, int]) -> bool:
    """Whether a bound cuts off a dim of a nest in the last task along one dim of the grid."""
    if bound.lo or len(bound.hi) != 1 or bound.dim in folded_dims(nest):
        return False
    (form,) = bound.hi
    size = nest.extents[bound.dim]
    dims = tuple(form.dims)
    if len(dims) != 1 or dims[0] not in grid or form.coefficient(dims[0]) != -size:
        return False
    return form.is_affine and grid[dims[0]] == form.const // size + 1


def _in_two(nest: Nest, bound: Bound) -> list[tuple[Guard, Nest]]:
    """The nest of a whole tile and that of the last one, each with the tasks that run it."""
    (form,) = bound.hi
    (dim,) = form.dims
    size = nest.extents[bound.dim]
    number, rest = divmod(form.const, size)
    free = replace(nest, bounds=tuple(b for b in nest.bounds if b != bound))
    last = replace(free, dims=tuple((d, rest if d == bound.dim else n) for d, n in nest.dims))
    at = Form.of(dim)
    return [(Guard(at, number), free), (Guard(at - number, 1), last)]
