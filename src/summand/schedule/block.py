"""Block a reduction: partial sums of a task wait in scratch while the next block is read.

    nest m n k=4096                     sum[…] = 0
      out[m, n] = f(fold add {k} …)     loop k_o=4
                                   ->     nest m n k=1024   sum[m, n] += fold add {k} …
                                        nest m n            out[m, n] = f(sum[m, n])

For reductions so long that a panel of an operand overflows the cache. It costs a pass over the
task's results for each block. The sums have a place for each point of the tile loops, so tiles that
overlap (`Let`) are summed apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from summand.errors import InternalError
from summand.ir.index import Form
from summand.loops.nodes import Address, Buffer, Const, Fold, Load, Loop, Nest, Ref, Store
from summand.schedule.accesses import Facts
from summand.schedule.code import CodeCopy
from summand.schedule.moves import Chain, substitute


def blockable_folds(facts: Facts) -> tuple[Ref, ...]:
    """The folds whose partial results can wait in memory; none where some cannot."""
    looped = tuple(
        r
        for r, i in enumerate(facts.nest.code)
        if isinstance(i, Fold) and not frozenset(i.dims) <= facts.nested
    )
    if facts.ordered or not {b.dim for b in facts.nest.bounds} <= facts.reduced:
        return ()
    if any((s.dims | facts.deps[s.ref]) & facts.reduced for s in facts.stores):
        return ()
    return looped if all(_may_wait(facts, r) for r in looped) else ()


def _may_wait(facts: Facts, ref: Ref) -> bool:
    """Whether a fold may be continued from its partial result, over all reduced dims alike."""
    fold = facts.nest.code[ref]
    assert isinstance(fold, Fold)
    plain = fold.combine.fn is not None and fold.combine.commutative
    whole = frozenset(fold.dims) == facts.reduced - facts.nested
    return plain and whole and not facts.deps[ref] & facts.reduced


Blocks = tuple[tuple[str, int], ...]


def blocks_of(dims: Sequence[tuple[str, int]], wanted: int) -> Blocks:
    """Into how many blocks reduced dims are cut, outer first: the least divisors that make at least
    `wanted` in all, dims outside of the last one step by step; none where no divisor is near."""
    found: list[tuple[str, int]] = []
    for dim, extent in dims:
        if extent < wanted:
            found += [(dim, extent)] if extent > 1 else []
            wanted = -(-wanted // extent)
            continue
        near = range(wanted, min(extent, 2 * wanted) + 1)
        count = next((n for n in near if extent % n == 0), 1)
        return (*found, (dim, count)) if count > 1 else tuple(found)
    return ()


@dataclass(frozen=True, slots=True)
class _Sums:
    """Where the partial results of a fold wait."""

    ref: Ref
    fold: Fold
    buffer: Buffer
    form: Form


def block_reduction(
    chain: Chain, facts: Facts, refs: Sequence[Ref], blocks: Blocks, inner: Sequence[str]
) -> Chain:
    """Cut dims of some folds into so many blocks each; the dims `inner` are innermost in sums."""
    extents = chain.nest.extents
    levels: list[Loop] = []
    sizes: dict[str, int] = {}
    values: dict[str, Form] = {}
    for dim, count in blocks:
        if extents[dim] % count:
            raise InternalError(f"schedule: cannot cut {dim}={extents[dim]} into {count} blocks")
        sizes[dim] = extents[dim] // count
        levels.append(Loop(chain.fresh(f"{dim}_o"), count, ()))
        values[dim] = Form.of(levels[-1].dim) * sizes[dim] + dim
    held: list[_Sums] = []
    for ref in refs:
        held.append(_sums(chain, facts, ref, inner, len(chain.kernel.scratch) + len(held)))
    scratch = (*chain.kernel.scratch, *(s.buffer for s in held))
    kernel = replace(chain.kernel, scratch=scratch)
    main = _summing(chain.nest, held)
    main = replace(main, dims=tuple((d, sizes.get(d, n)) for d, n in main.dims))
    main = substitute(main, values)
    last = Chain(kernel, chain.levels, _finishing(chain.nest, held, facts))
    return replace(
        chain,
        kernel=kernel,
        nest=main,
        outer=tuple(levels),
        start=tuple(_starting(s) for s in held),
        finish=last.kernel_of().body,
    )


def _sums(chain: Chain, facts: Facts, ref: Ref, inner: Sequence[str], number: int) -> _Sums:
    """A buffer with a place for each point of the tile loops and of the dims that a fold keeps."""
    fold = facts.nest.code[ref]
    assert isinstance(fold, Fold)
    extents = chain.nest.extents
    own = [d for d, _ in chain.nest.dims if d in facts.deps[ref]]
    kept = [d for d in own if d not in inner]
    loops = [(v.dim, v.extent) for v in chain.levels if isinstance(v, Loop)]
    order = loops + [(d, extents[d]) for d in (*kept, *(d for d in inner if d in own))]
    form, total = Form(), 1
    for d, n in reversed(order):
        form, total = form + Form.of(d) * total, total * n
    return _Sums(ref, fold, Buffer(f"sums{number}", fold.dtype, total, "scratch"), form)


def _starting(sums: _Sums) -> Nest:
    zero = Const(sums.fold.combine.identity[0], sums.fold.dtype)
    store = Store(sums.buffer.name, Address(Form.of("z")), 0)
    return Nest((("z", sums.buffer.size),), (zero,), (store,))


def _summing(nest: Nest, held: Sequence[_Sums]) -> Nest:
    copy = CodeCopy(nest.code)
    stores = tuple(
        Store(s.buffer.name, Address(s.form), copy.value(s.ref), s.fold.combine.fn) for s in held
    )
    return Nest(nest.dims, tuple(copy.code), stores, nest.bounds)


def _finishing(nest: Nest, held: Sequence[_Sums], facts: Facts) -> Nest:
    copy = CodeCopy(nest.code)
    for s in held:
        copy.known[s.ref] = copy.add(Load(s.buffer.name, Address(s.form), s.fold.dtype))
    stores = tuple(
        replace(s, at=copy.address(s.at), value=copy.value(s.value)) for s in nest.stores
    )
    dims = tuple((d, n) for d, n in nest.dims if d not in facts.reduced)
    return Nest(dims, tuple(copy.code), stores)


def blocks_wanted(bytes_: float, cache: int) -> int:
    """Into how many blocks a reduction that reads so much for one panel is cut."""
    return max(1, math.ceil(bytes_ / (cache * 0.4))) if bytes_ > cache * 0.6 else 1
