"""Split a reduction over tasks: partial results, and a kernel that folds them.

    nest i=64 r=10^6                     nest i r_p=32 r=31232   part[r_p, i] = fold add {r} …
      out[i] = f(fold add {r} …)    ->   nest i r=576            part[32, i] = fold add {r} …
                                         nest i r_p=33           out[i] = f(fold add {r_p} part)

For large reductions with few results, which would otherwise run on one core. The number of parts
follows from shapes alone, and parts are folded in order, so any monoid will do and results do not
depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from summand.ir.index import Form
from summand.loops.code import refs
from summand.loops.nodes import (
    Address,
    Buffer,
    Fold,
    Instr,
    Kernel,
    Load,
    Nest,
    Part,
    Ref,
    Store,
)
from summand.schedule.accesses import Facts
from summand.schedule.code import CodeCopy
from summand.schedule.moves import substitute
from summand.schedule.pack import LINE

ALIGNED = 64  # a part's positions are a multiple of this where it has several times as many


@dataclass(frozen=True, slots=True)
class Partials:
    """Kernels, none of them scheduled yet, in the order in which they run."""

    kernels: tuple[Kernel, ...]
    temporaries: tuple[Buffer, ...]
    part: str  # the dim that counts the parts


@dataclass(frozen=True, slots=True)
class Cut:
    """`parts` pieces of `size` positions of a reduced dim, and `rest` positions after them."""

    dim: str
    parts: int
    size: int
    rest: int


def find_cut(facts: Facts, wanted: int) -> Cut | None:
    """A reduced dim to cut into about `wanted` parts, or None where the nest does not allow it."""
    folds = [i for i in facts.nest.code if isinstance(i, Fold)]
    outer = [f for f in folds if not frozenset(f.dims) <= facts.nested]
    bounded = {b.dim for b in facts.nest.bounds}
    if facts.ordered or not bounded <= facts.reduced or not outer or wanted < 2:
        return None
    dims = outer[0].dims
    if any(f.dims != dims for f in outer) or frozenset(dims) & facts.nested:
        return None
    if any((s.dims | facts.deps[s.ref]) & facts.reduced for s in facts.stores):
        return None
    commutes = all(f.combine.commutative for f in outer)
    found = [_cut(d, facts.extents[d], wanted) for d in (dims if commutes else dims[:1])]
    cuts = [c for c in found if c is not None]
    most = max((c.parts for c in cuts), default=0)
    enough = [c for c in cuts if 2 * c.parts > most]
    return max(enough, key=lambda c: (_run(facts, c), c.parts), default=None)


def _run(facts: Facts, cut: Cut) -> int:
    """Bytes, up to a line, that a part reads side by side of each operand: it should be no less."""
    steps = (abs(a.stride(cut.dim)) * a.bits // 8 for a in facts.loads)
    return min((min(LINE, s * cut.size) for s in steps if s), default=LINE)


def _cut(dim: str, extent: int, wanted: int) -> Cut | None:
    parts = min(wanted, extent)
    size = extent // parts
    if size >= 4 * ALIGNED:
        size -= size % ALIGNED
    elif extent % parts:
        divisors = [p for p in range(2, parts + 1) if extent % p == 0 and p * 2 > parts]
        size = extent // divisors[-1] if divisors else -(-extent // parts)
        parts = extent // size  # less than one of them is left
    return Cut(dim, parts, size, extent - parts * size) if parts > 1 else None


def split_reduction(kernel: Kernel, facts: Facts, cut: Cut) -> Partials:
    """The kernels for one cut."""
    nest = facts.nest
    folds = [r for r, i in enumerate(nest.code) if isinstance(i, Fold) and cut.dim in i.dims]
    part = f"{cut.dim}_p"
    while part in facts.extents:
        part += "p"
    total = cut.parts + (1 if cut.rest else 0)
    buffers: dict[tuple[Ref, int], tuple[Buffer, Form]] = {}
    for ref in folds:
        fold = nest.code[ref]
        assert isinstance(fold, Fold)
        kept = [(d, n) for d, n in nest.dims if d in facts.deps[ref]]
        form, size = Form(), 1
        for d, n in reversed(kept):
            form, size = form + Form.of(d) * size, size * n
        for q in range(len(fold.args)):
            name = f"{kernel.name}_part{len(buffers)}"
            dtype = nest.code[fold.args[q]].dtype
            buffers[ref, q] = (Buffer(name, dtype, size * total), form + Form.of(part) * size)
    start = Form.of(part) * cut.size + cut.dim
    main = _part_nest(facts, folds, buffers, (part, cut.parts), (cut.dim, cut.size), start)
    kernels = [_kernel(kernel, "parts", main, buffers)]
    if cut.rest:
        offset = Form.of(cut.dim) + cut.parts * cut.size
        rest = _part_nest(facts, folds, buffers, None, (cut.dim, cut.rest), offset)
        last = {part: Form.of(cut.parts)}
        kernels.append(_kernel(kernel, "rest", _at_part(rest, last), buffers))
    folded = _folding_nest(facts, folds, buffers, (part, total))
    kernels.append(_kernel(kernel, kernel.name, folded, buffers))
    return Partials(tuple(kernels), tuple(b for b, _ in buffers.values()), part)


def _at_part(nest: Nest, values: Mapping[str, Form]) -> Nest:
    stores = tuple(
        replace(s, at=Address(s.at.form.substitute(values), s.at.dynamic)) for s in nest.stores
    )
    return replace(nest, stores=stores)


def _part_nest(
    facts: Facts,
    folds: Sequence[Ref],
    buffers: Mapping[tuple[Ref, int], tuple[Buffer, Form]],
    part: tuple[str, int] | None,
    cut: tuple[str, int],
    start: Form,
) -> Nest:
    """Fold one piece of the cut dim and store every component."""
    copy = CodeCopy(facts.nest.code)
    wanted: list[tuple[Ref, Form, str]] = []
    for ref in folds:
        new = copy.value(ref)
        for q in range(_arity(facts.nest.code[ref])):
            buffer, form = buffers[ref, q]
            value = new if q == 0 else copy.add(Part(new, q, buffer.dtype))
            wanted.append((value, form, buffer.name))
    needed = frozenset().union(*(facts.deps[a] for r in folds for a in refs(copy.source[r])))
    dims = tuple((d, n) for d, n in facts.nest.dims if d in needed or d in facts.nested)
    dims = tuple((d, cut[1] if d == cut[0] else n) for d, n in dims)
    nest = Nest(((part,) if part else ()) + dims, tuple(copy.code), (), facts.nest.bounds)
    nest = substitute(nest, {cut[0]: start})
    stores = tuple(Store(name, Address(form), value) for value, form, name in wanted)
    return replace(nest, stores=stores)


def _folding_nest(
    facts: Facts,
    folds: Sequence[Ref],
    buffers: Mapping[tuple[Ref, int], tuple[Buffer, Form]],
    part: tuple[str, int],
) -> Nest:
    """Fold the parts, then do all that followed the reduction."""
    copy = CodeCopy(facts.nest.code)
    for ref in folds:
        fold = facts.nest.code[ref]
        assert isinstance(fold, Fold)
        args = []
        for q in range(len(fold.args)):
            buffer, form = buffers[ref, q]
            args.append(copy.add(Load(buffer.name, Address(form), buffer.dtype)))
        copy.known[ref] = copy.add(Fold(fold.combine, (part[0],), tuple(args), fold.dtype))
    stores = []
    for store in facts.nest.stores:
        at = copy.address(store.at)
        stores.append(replace(store, at=at, value=copy.value(store.value)))
    kept = tuple((d, n) for d, n in facts.nest.dims if d not in facts.reduced)
    return Nest((*kept, part), tuple(copy.code), tuple(stores))


def _arity(instr: Instr) -> int:
    return len(instr.args) if isinstance(instr, Fold) else 1


def _kernel(
    kernel: Kernel,
    name: str,
    nest: Nest,
    buffers: Mapping[tuple[Ref, int], tuple[Buffer, Form]],
) -> Kernel:
    """A kernel of one nest; its parameters are what the nest touches, in the original order."""
    touched = {i.buffer for i in nest.code if isinstance(i, Load)} | {s.buffer for s in nest.stores}
    known = (*kernel.params, *(b for b, _ in buffers.values()))
    params = tuple(b for b in known if b.name in touched)
    full = name if name == kernel.name else f"{kernel.name}_{name}"
    return Kernel(full, params, (), (), (nest,), kernel.note)
