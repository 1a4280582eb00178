"""What scheduling asks of a nest: who depends on which dim, and with which stride memory is walked.

    0: load P[64*x + 2*k]     deps {x, k}   strides x:64 k:2
    1: load W[4*k + j]        deps {k, j}   strides k:4 j:1
    2: mul 0 1                deps {x, k, j}
    3: fold add {k} 2         deps {x, j}   reduced {k}

One stride for each (operand, dim) decides lanes, tiles and packing. Dims that occur under `//` or
`%`, or through a computed index, have none: they are `loose`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from summand.errors import InternalError
from summand.loops.code import address_dims, refs
from summand.loops.nodes import (
    Address,
    Apply,
    Arg,
    Carry,
    Const,
    Fold,
    Instr,
    Last,
    Load,
    Nest,
    Part,
    Position,
    Ref,
)


@dataclass(frozen=True, slots=True)
class Access:
    """One load or store. `ref` is the load's place in the code, or the stored value."""

    buffer: str
    at: Address
    ref: Ref
    is_store: bool
    strides: dict[str, int]
    loose: frozenset[str]
    guarded: frozenset[str]
    dims: frozenset[str]
    bits: int
    combines: bool = False

    def stride(self, dim: str) -> int:
        """The stride along `dim`; 0 where the access does not move."""
        return self.strides.get(dim, 0)


@dataclass(frozen=True, slots=True)
class Facts:
    """A nest with its dependences. `deps[r]` are the nest's own dims that value r varies along."""

    nest: Nest
    extents: dict[str, int]
    deps: tuple[frozenset[str], ...]
    loads: tuple[Access, ...]
    stores: tuple[Access, ...]
    reduced: frozenset[str]  # dims that some fold folds away
    nested: frozenset[str]  # reduced dims of folds whose result is folded again
    carried: frozenset[str]
    ordered: frozenset[str]  # carried dims, and those that combining stores walk in order

    @property
    def kept(self) -> tuple[str, ...]:
        """Dims that no fold folds away, in the nest's order."""
        return tuple(d for d, _ in self.nest.dims if d not in self.reduced)

    @property
    def tiled(self) -> tuple[str, ...]:
        """Dims whose positions are apart: neither folded nor carried along."""
        return tuple(d for d in self.kept if d not in self.carried)


def _own(instr: Instr, nest: Nest, dims: frozenset[str]) -> frozenset[str]:
    """Dims that an instruction reads itself, not through its operands."""
    match instr:
        case Position():
            return instr.form.dims & dims
        case Load():
            return address_dims(instr.at) & dims
        case Carry():
            return frozenset((instr.dim,))
        case Fold():
            reads: frozenset[str] = frozenset()
            for bound in nest.bounds:
                if bound.dim in instr.dims:
                    for form in (*bound.lo, *bound.hi):
                        reads |= form.dims & dims
            return reads
        case Const() | Apply() | Part() | Last() | Arg():
            return frozenset()
    assert_never(instr)


def dependences(nest: Nest) -> tuple[frozenset[str], ...]:
    """For each value, the nest's own dims that it varies along."""
    dims = frozenset(d for d, _ in nest.dims)
    deps: list[frozenset[str]] = [frozenset()] * len(nest.code)
    changed, rounds = True, 0
    while changed:  # more than twice only where carries feed one another
        changed, rounds = False, rounds + 1
        if rounds > len(nest.code) + 2:
            raise InternalError("schedule: dependences of a nest do not settle")
        for ref, instr in enumerate(nest.code):
            found = _own(instr, nest, dims)
            for arg in refs(instr):
                found |= deps[arg]
            if isinstance(instr, Fold):
                found -= frozenset(instr.dims)
            if isinstance(instr, Last):
                carry = nest.code[instr.carry]
                if isinstance(carry, Carry):
                    found -= {carry.dim}
            if found != deps[ref]:
                deps[ref] = found
                changed = True
        if not any(isinstance(i, Carry) for i in nest.code):
            break
    return tuple(deps)


def _access(
    buffer: str, at: Address, ref: Ref, bits: int, nest: Nest, deps: tuple[frozenset[str], ...]
) -> tuple[dict[str, int], frozenset[str], frozenset[str], frozenset[str]]:
    dims = frozenset(d for d, _ in nest.dims)
    strides: dict[str, int] = {}
    loose: frozenset[str] = frozenset()
    for atom, factor in at.form.terms:
        if isinstance(atom, str):
            if atom in dims:
                strides[atom] = factor
        else:
            loose |= atom.form.dims & dims
    for value, _ in at.dynamic:
        loose |= deps[value]
    guarded: frozenset[str] = frozenset()
    for guard in at.guards:
        guarded |= guard.form.dims & dims
        for value, _ in guard.dynamic:
            guarded |= deps[value]
    return strides, loose, guarded, frozenset(strides) | loose | guarded


def analyse(nest: Nest, bits: Mapping[str, int] | None = None) -> Facts:
    """The facts of a nest; `bits` gives the element width of each buffer (else the value's own)."""
    widths = bits or {}
    deps = dependences(nest)
    loads, stores = [], []
    for ref, instr in enumerate(nest.code):
        if isinstance(instr, Load):
            width = widths.get(instr.buffer, instr.dtype.bits)
            parts = _access(instr.buffer, instr.at, ref, width, nest, deps)
            loads.append(Access(instr.buffer, instr.at, ref, False, *parts, width))
    for store in nest.stores:
        width = widths.get(store.buffer, 32)
        parts = _access(store.buffer, store.at, store.value, width, nest, deps)
        combines = store.combine is not None
        stores.append(Access(store.buffer, store.at, store.value, True, *parts, width, combines))
    folds = [i for i in nest.code if isinstance(i, Fold)]
    reduced = frozenset(d for f in folds for d in f.dims)
    carried = frozenset(i.dim for i in nest.code if isinstance(i, Carry))
    return Facts(
        nest,
        nest.extents,
        deps,
        tuple(loads),
        tuple(stores),
        reduced,
        _nested(nest, deps, reduced),
        carried,
        carried | frozenset(nest.ordered),
    )


def _nested(
    nest: Nest, deps: tuple[frozenset[str], ...], reduced: frozenset[str]
) -> frozenset[str]:
    """Reduced dims of folds whose own result varies along another reduced dim."""
    out: frozenset[str] = frozenset()
    for ref, instr in enumerate(nest.code):
        if isinstance(instr, Fold) and deps[ref] & reduced:
            out |= frozenset(instr.dims)
    return out
