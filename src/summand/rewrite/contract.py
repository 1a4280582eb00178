"""Choose the order of products under sums: pull factors out, contract pairwise where that pays.

    %4 = sum{k} (%0{i,k} · %1{k,j} / %2{i})      ->   %4 = (sum{k} (%0 · %1)) / %2
    %5 = sum{k,j} (%0{i,k} · %1{k,j} · %3{j})    ->   %4 = sum{j} (%1 · %3); %5 = sum{k} (%0 · %4)
    %5 = sum{j} (%3{j} · sum{k} (%0 · %1))       ->   the same
    %6 = sum{j,k} (%0{i,j,k} · %1{j,r} · %2{k,r})
    %7 = sum{i,j} (%0 · %1 · %3{i,r})            ->   %4 = sum{j} (%0 · %1)
                                                      %6 = sum{k} (%4 · %2); %7 = sum{i} (%4 · %3)

The order is opt_einsum's. Products are reassociated, so results change in the last bits. 16-bit
floats are left alone, since their intermediate results would be rounded. What has several readers
is a factor as it is, but for an outer product: nobody would store that. Leaves unused equations
behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import opt_einsum

from summand.ir.nodes import SUM, Eqn, Map, Program, Reduce, Var, operands
from summand.rewrite.rebuild import Rebuild, inside

GAIN = 2.0  # how many times fewer multiplications another order must take
GROWTH = 4  # how much larger than operands and result an intermediate value may be

Dims = frozenset[str]
Pair = tuple[frozenset[Var], Dims]  # two factors, and the dims that only they have


def contract(program: Program) -> Program:
    """The program with its sums of products in a better order."""
    return _Contraction(program).run()


@dataclass(slots=True)
class _Product:
    """sum{over} Π factors, times Π outer, divided by Π under (which lack the dims of `over`)."""

    over: dict[str, None]
    names: set[str]  # every dim that some factor may have
    factors: list[Var] = field(default_factory=list)
    outer: list[Var] = field(default_factory=list)
    under: list[Var] = field(default_factory=list)
    flops: float = 0.0  # multiplications as the program is written
    work: float = 0.0  # elements of the products that the program forms
    merged: int = 0  # sums that were taken into this one


class _Contraction:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.new = Rebuild(program)
        self.made = {o: e for e in program.eqns for o in e.outs}
        self.uses: dict[Var, int] = {}
        for eqn in program.eqns:
            for var in operands(eqn.op):
                self.uses[var] = self.uses.get(var, 0) + 1
        for var in program.results:
            self.uses[var] = self.uses.get(var, 0) + 2
        self.shared = self._shared()

    def run(self) -> Program:
        """Rewrite every sum; copy everything else."""
        for eqn in self.program.eqns:
            if not self._sum(eqn):
                self.new.copy(eqn, inside(eqn.op, contract))
        return self.new.done(self.program)

    def _sum(self, eqn: Eqn) -> bool:
        """Emit a sum in a better order; False where it is best as it is."""
        if not isinstance(eqn.op, Reduce) or not _is_sum(eqn.op):
            return False
        (arg,) = eqn.op.args
        if arg.type.dtype.bits < 32 or arg.type.count == 0 or not self._is_product(arg):
            return False
        for flatten in (True, False):
            found = self._product(eqn.op, flatten)
            if flatten and not found.merged:
                continue
            path = _path(found, eqn.out)
            if path is None and not flatten:
                pair = self.shared.get(eqn.out)
                path = _grouping(found) if pair is None else _beginning(found, pair)
            if path is not None or (not flatten and (found.outer or found.under)):
                self.new.loc = eqn.loc
                self.new.bind(eqn.outs, [self._emit(found, path or [])])
                self.new.loc = None
                return True
        return False

    # ---- what several sums contract

    def _shared(self) -> dict[Var, Pair]:
        """With which pair of factors a sum begins, where another sum can begin with it, too, and
        that is most of their work: what takes most first."""
        products: dict[Var, _Product] = {}
        for eqn in self.program.eqns:
            if isinstance(eqn.op, Reduce) and _is_sum(eqn.op) and self._is_product(eqn.op.args[0]):
                found = self._product(eqn.op, False)
                if len(found.factors) == 3 and _path(found, eqn.out) is None:
                    products[eqn.out] = found
        readers: dict[Pair, list[Var]] = {}
        for out, found in products.items():
            for pair in _heavy_pairs(found, out):
                readers.setdefault(pair, []).append(out)
        chosen: dict[Var, Pair] = {}
        for pair in sorted(readers, key=_work_first):
            left = [out for out in readers[pair] if out not in chosen]
            if len(left) > 1:
                chosen |= dict.fromkeys(left, pair)
        return chosen

    # ---- what is multiplied

    def _product(self, op: Reduce, flatten: bool) -> _Product:
        """A sum's factors; with those of the sums that it reads, where `flatten` says so."""
        (arg,) = op.args
        found = _Product(dict.fromkeys(op.dims), set(arg.type.names))
        found.flops = float(arg.type.count)
        self._collect(arg, found, flatten)
        return found

    def _is_product(self, var: Var) -> bool:
        eqn = self.made.get(var)
        return eqn is not None and isinstance(eqn.op, Map) and eqn.op.fn in ("mul", "div")

    def _collect(self, var: Var, found: _Product, flatten: bool) -> None:
        """Take a value apart into factors."""
        eqn = self.made.get(var)
        alone = self.uses.get(var, 0) == 1
        if eqn is not None and isinstance(eqn.op, Map) and (alone or _is_outer(var, eqn.op)):
            if eqn.op.fn == "mul":
                found.work += var.type.count
                for a in eqn.op.args:
                    self._collect(a, found, flatten)
                return
            if eqn.op.fn == "div" and not eqn.op.args[1].type.names & found.over.keys():
                self._collect(eqn.op.args[0], found, flatten)
                found.under.append(eqn.op.args[1])
                return
        if eqn is not None and alone and flatten and self._merge(eqn, found):
            return
        if var.type.names & found.over.keys():
            found.factors.append(var)
        else:
            found.outer.append(var)

    def _merge(self, eqn: Eqn, found: _Product) -> bool:
        """Take an inner sum's factors into this one."""
        if not isinstance(eqn.op, Reduce) or not _is_sum(eqn.op):
            return False
        (arg,) = eqn.op.args
        if (
            set(eqn.op.dims) & found.names
            or not self._is_product(arg)
            or self.uses.get(arg, 0) != 1
        ):
            return False
        found.over.update(dict.fromkeys(eqn.op.dims))
        found.names |= arg.type.names
        found.flops += arg.type.count
        found.merged += 1
        self._collect(arg, found, True)
        return True

    # ---- the new equations

    def _emit(self, found: _Product, path: Sequence[tuple[int, ...]]) -> Var:
        """Contract the factors in the order of `path`, then apply those outside.

        A dim is summed as soon as no other factor has it; where all have it, in the end.
        """
        parts = [self.new.of(v) for v in found.factors]
        over = dict(found.over)
        for picked in path:
            group = [parts[k] for k in picked]
            parts = [p for k, p in enumerate(parts) if k not in picked]
            needed = {d for p in parts for d in p.type.names}
            parts.append(self._contract(group, [d for d in over if d not in needed]))
            for d in [d for d in over if d not in needed]:
                del over[d]
        total = parts[0] if len(parts) == 1 and not over else self._contract(parts, list(over))
        for v in found.outer:
            total = self.new.map("mul", total, self.new.of(v))
        for v in found.under:
            total = self.new.map("div", total, self.new.of(v))
        return total

    def _contract(self, group: Sequence[Var], over: Sequence[str]) -> Var:
        total = group[0]
        for v in group[1:]:
            total = self.new.map("mul", total, v)
        return self.new.reduce(SUM, over, total)[0] if over else total


def _is_outer(var: Var, op: Map) -> bool:
    """Whether a product is several times larger than its factors together."""
    return op.fn == "mul" and var.type.count > GROWTH * sum(a.type.count for a in op.args)


def _is_sum(op: Reduce) -> bool:
    return op.monoid == SUM and len(op.args) == 1


def _path(found: _Product, out: Var) -> list[tuple[int, ...]] | None:
    """The pairwise order of contraction, where it beats the program's own by far."""
    if len(found.factors) < 3:
        return None
    sizes = _sizes(found.factors)
    if any(d not in sizes for d in found.over):
        return None
    symbols = {d: opt_einsum.get_symbol(k) for k, d in enumerate(sorted(sizes))}
    terms = ["".join(symbols[d] for d, _ in v.type.dims) for v in found.factors]
    kept = "".join(symbols[d] for d in sorted(sizes) if d not in found.over)
    shapes = [tuple(n for _, n in v.type.dims) for v in found.factors]
    path, _ = opt_einsum.contract_path(
        ",".join(terms) + "->" + kept, *shapes, shapes=True, optimize="auto"
    )
    flops, largest = _cost(found, path, sizes)
    held = max(max(v.type.count for v in found.factors), out.type.count)
    if flops * GAIN > found.flops or largest > GROWTH * held:
        return None
    return [tuple(p) for p in path]


def _heavy_pairs(found: _Product, out: Var) -> list[Pair]:
    """Pairs of three factors that take nearly all of the work and leave little of it to do."""
    pairs: list[Pair] = []
    for third in found.factors:
        both = frozenset(v for v in found.factors if v is not third)
        names = frozenset().union(*(v.type.names for v in both))
        dims = names & found.over.keys() - third.type.names
        pair = both, dims
        if len(both) < 2 or not dims or _work_of(pair) * 2 < found.flops:
            continue
        sizes = _sizes(found.factors)
        flops, largest = _cost(found, _beginning(found, pair), sizes)
        held = max(max(v.type.count for v in found.factors), out.type.count)
        if flops < 1.25 * found.flops and largest <= GROWTH * held:
            pairs.append(pair)
    return pairs


def _work_of(pair: Pair) -> float:
    """Multiplications of a pair."""
    return _volume(frozenset().union(*(v.type.names for v in pair[0])), _sizes(pair[0]))


def _work_first(pair: Pair) -> tuple[float, list[int]]:
    return -_work_of(pair), sorted(v.id for v in pair[0])


def _beginning(found: _Product, pair: Pair) -> list[tuple[int, ...]]:
    """The order of three factors that begins with two of them."""
    first = tuple(k for k, v in enumerate(found.factors) if v in pair[0])
    return [first, (0, 1)]


def _grouping(found: _Product) -> list[tuple[int, ...]] | None:
    """The order that multiplies factors of few dims first, where the program's own does not.

    (K{u,d} · s{t,u}) · r{t,u} evaluates two products at each t, u, d; K · (s · r) only one.
    """
    if len(found.factors) < 3:
        return None
    sizes = _sizes(found.factors)
    parts: list[Dims] = [v.type.names for v in found.factors]
    path: list[tuple[int, ...]] = []
    work = 0.0
    while len(parts) > 1:
        pairs = [(a, b) for b in range(len(parts)) for a in range(b)]
        a, b = min(pairs, key=lambda p: (_volume(parts[p[0]] | parts[p[1]], sizes), p))
        both = parts[a] | parts[b]
        work += _volume(both, sizes)
        parts = [*(p for k, p in enumerate(parts) if k not in (a, b)), both]
        path.append((a, b))
    return path if work < 0.75 * found.work else None


def _cost(
    found: _Product, path: Sequence[tuple[int, ...]], sizes: Mapping[str, int]
) -> tuple[float, int]:
    """Multiplications along a path, and the size of its largest intermediate value."""
    parts: list[Dims] = [v.type.names for v in found.factors]
    flops, largest = 0.0, 0
    kept = frozenset(sizes) - found.over.keys()
    for picked in path:
        group = frozenset().union(*(parts[k] for k in picked))
        parts = [p for k, p in enumerate(parts) if k not in picked]
        needed = kept.union(*parts)
        result = group & needed
        flops += _volume(group, sizes)
        if parts:
            largest = max(largest, int(_volume(result, sizes)))
        parts.append(result)
    return flops, largest


def _sizes(factors: Iterable[Var]) -> dict[str, int]:
    return {d: n for v in factors for d, n in v.type.dims}


def _volume(dims: Dims, sizes: Mapping[str, int]) -> float:
    total = 1.0
    for d in dims:
        total *= sizes[d]
    return total
