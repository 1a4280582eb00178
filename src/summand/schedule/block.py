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
from dataclasses import replace

from summand.errors import InternalError
from summand.ir.index import Form
from summand.loops.nodes import Address, Buffer, Const, Fold, Load, Loop, Nest, Ref, Store
from summand.schedule.accesses import Facts
from summand.schedule.code import CodeCopy
from summand.schedule.moves import Chain, substitute


def blockable_fold(facts: Facts) -> Ref | None:
    """The fold whose partial results can wait in memory, or None where there is not just one."""
    looped = [
        r
        for r, i in enumerate(facts.nest.code)
        if isinstance(i, Fold) and not frozenset(i.dims) <= facts.nested
    ]
    if len(looped) != 1 or facts.ordered or facts.nest.bounds:
        return None
    fold = facts.nest.code[looped[0]]
    assert isinstance(fold, Fold)
    if (
        fold.combine.fn is None
        or not fold.combine.commutative
        or facts.deps[looped[0]] & facts.reduced
    ):
        return None
    if any((s.dims | facts.deps[s.ref]) & facts.reduced for s in facts.stores):
        return None
    return looped[0]


def block_count(extent: int, wanted: int) -> int:
    """The least divisor of `extent` that is at least `wanted`; 1 where none is near."""
    for count in range(wanted, min(extent, 2 * wanted) + 1):
        if extent % count == 0:
            return count
    return 1


def block_reduction(
    chain: Chain, facts: Facts, fold_ref: Ref, dim: str, count: int, inner: Sequence[str]
) -> Chain:
    """Cut the folded `dim` into `count` blocks; the dims `inner` are innermost in the sums."""
    fold = facts.nest.code[fold_ref]
    extents = chain.nest.extents
    if not isinstance(fold, Fold) or fold.combine.fn is None or extents[dim] % count:
        raise InternalError(f"schedule: cannot cut {dim}={extents[dim]} into {count} blocks")
    outer = chain.fresh(f"{dim}_o")
    size = extents[dim] // count
    kept = [d for d, _ in chain.nest.dims if d in facts.deps[fold_ref] and d not in inner]
    loops = [(v.dim, v.extent) for v in chain.levels if isinstance(v, Loop)]
    order = loops + [(d, extents[d]) for d in (*kept, *inner)]
    form, total = Form(), 1
    for d, n in reversed(order):
        form, total = form + Form.of(d) * total, total * n
    sums = Buffer(f"sums{len(chain.kernel.scratch)}", fold.dtype, total, "scratch")
    kernel = replace(chain.kernel, scratch=(*chain.kernel.scratch, sums))
    main = _summing(chain.nest, fold_ref, sums, form)
    main = replace(main, dims=tuple((d, size if d == dim else n) for d, n in main.dims))
    main = substitute(main, {dim: Form.of(outer) * size + dim})
    last = Chain(kernel, chain.levels, _finishing(chain.nest, fold_ref, sums, form, facts))
    zero = Nest(
        (("z", total),),
        (Const(fold.combine.identity[0], fold.dtype),),
        (Store(sums.name, Address(Form.of("z")), 0),),
    )
    return replace(
        chain,
        kernel=kernel,
        nest=main,
        outer=(Loop(outer, count, ()),),
        start=(zero,),
        finish=last.kernel_of().body,
    )


def _summing(nest: Nest, fold_ref: Ref, sums: Buffer, form: Form) -> Nest:
    copy = CodeCopy(nest.code)
    value = copy.value(fold_ref)
    fold = nest.code[fold_ref]
    assert isinstance(fold, Fold)
    stores = (Store(sums.name, Address(form), value, fold.combine.fn),)
    return Nest(nest.dims, tuple(copy.code), stores)


def _finishing(nest: Nest, fold_ref: Ref, sums: Buffer, form: Form, facts: Facts) -> Nest:
    copy = CodeCopy(nest.code)
    copy.known[fold_ref] = copy.add(Load(sums.name, Address(form), sums.dtype))
    stores = tuple(
        replace(s, at=copy.address(s.at), value=copy.value(s.value)) for s in nest.stores
    )
    dims = tuple((d, n) for d, n in nest.dims if d not in facts.reduced)
    return Nest(dims, tuple(copy.code), stores)


def blocks_wanted(bytes_: float, cache: int) -> int:
    """Into how many blocks a reduction that reads so much for one panel is cut."""
    return max(1, math.ceil(bytes_ / (cache * 0.4))) if bytes_ > cache * 0.6 else 1
