"""A kernel under construction: what its stages share while they are lowered.

Buffers get names of the kernel's own (`a0`, `a1`, … and `s0`, … for scratch), so that kernels that
compute the same thing are equal and are emitted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from summand.dtypes import DType
from summand.errors import InternalError
from summand.ir.index import Form
from summand.ir.nodes import Eqn, Var
from summand.loops.nodes import Address, Bound, Buffer, Guard, Kernel, Nest, Ref, Stmt, Store
from summand.rewrite.plan.nodes import Graph
from summand.schedule.coordinates import Coord, Storage
from summand.schedule.expressions import Code


@dataclass(frozen=True, slots=True)
class Memory:
    """A buffer of the program: its element type and size, and bytes where it is a constant."""

    dtype: DType
    size: int
    data: bytes = b""


@dataclass(slots=True)
class Task:
    """What the nests of one kernel share.

    `storage` maps stored values to memory, named as in the program. `outer` has the
    extents of the dims bound outside of the nests, `at` the positions along tiled dims, `inner`
    their extents within a tile, `origin` where the tile lies, and `first` the first position that
    it has of its own: a tile that was moved back repeats some of the one before. `blocks` has where
    the blocks of dims begin that tasks fold in parts. Where the statements become kernels of their
    own, `between` makes the buffers that they would else have as scratch.
    """

    graph: Graph
    storage: dict[Var, Storage]
    memory: Mapping[str, Memory]
    outer: dict[str, int] = field(default_factory=dict)
    at: dict[str, Coord] = field(default_factory=dict)
    inner: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, Form] = field(default_factory=dict)
    origin: dict[str, Form] = field(default_factory=dict)
    first: dict[str, Form] = field(default_factory=dict)
    tile: dict[str, int] = field(default_factory=dict)
    made: frozenset[Var] = frozenset()  # what the kernel computes
    combines: dict[Var, str] = field(default_factory=dict)  # how tiles add to a value
    positions: dict[str, Coord] = field(default_factory=dict)
    earlier: dict[Var, Storage] = field(default_factory=dict)  # what a body's `reads` read
    begun: set[Var] = field(default_factory=set)  # of these, the ones that find their start there
    rank: dict[str, int] = field(default_factory=dict)  # dims in a loop's scratch, outermost first
    globals: dict[str, Buffer] = field(default_factory=dict)
    scratch: dict[str, Buffer] = field(default_factory=dict)
    between: Callable[[DType, int], str] | None = None
    moved: dict[str, str] = field(default_factory=dict)  # names of such buffers

    def local(self, name: str) -> str:
        """The kernel's name of a buffer."""
        if name in self.scratch:
            return self.scratch[name].name
        found = self.globals.get(name)
        if found is None:
            memory = self.memory[self.moved.get(name, name)]
            found = Buffer(f"a{len(self.globals)}", memory.dtype, memory.size)
            self.globals[name] = found
        return found.name

    def add_scratch(self, name: str, dtype: DType, size: int) -> None:
        """Make a buffer that lives within a task."""
        if self.between is not None:
            self.moved[name] = self.between(dtype, max(size, 1))
            return
        if name in self.scratch:
            raise InternalError(f"lower: two buffers of a task are both called {name}")
        local = f"s{len(self.scratch)}"
        self.scratch[name] = Buffer(local, dtype, max(size, 1), "scratch")

    def apart(self, storage: Storage) -> Storage:
        """The same memory as another parameter of the kernel, where that is launched for one step:
        what a step reads of the one before is not what it writes."""
        if self.between is None:
            return storage
        name = f"{storage.buffer} before"
        self.moved[name] = self.moved.get(storage.buffer, storage.buffer)
        return replace(storage, buffer=name)

    def within(self, storage: Storage) -> Storage:
        """Scratch that holds one tile: positions along tiled dims count from the tile's origin."""
        base = storage.base
        for dim, stride in storage.strides:
            if dim in self.at:
                origin = (
                    self.at[dim].form - Form.of(dim) if self.inner[dim] > 1 else self.at[dim].form
                )
                base = base - origin * stride
        return replace(storage, base=base)

    def without(self, dims: Iterable[str]) -> Task:
        """The same task where some tiled dims are not bound: their names mean dims of full size."""
        away = frozenset(dims)
        return replace(
            self,
            at={d: c for d, c in self.at.items() if d not in away},
            inner={d: n for d, n in self.inner.items() if d not in away},
        )

    def own(self, var: Var) -> tuple[Guard, ...]:
        """That a value's position is the tile's own, and not one of those that it repeats."""
        return tuple(
            Guard(self.at[d].form - self.first[d], self.tile[d])
            for d, _ in var.type.dims
            if d in self.at and self.origin[d] != self.first[d]
        )

    def kernel(self, name: str, grid: tuple[tuple[str, int], ...], body: Iterable[Stmt]) -> Kernel:
        """The finished kernel."""
        params = tuple(self.globals.values())
        return Kernel(name, params, tuple(self.scratch.values()), grid, tuple(body))

    def kernel_buffers(self) -> tuple[str, ...]:
        """The program's names of the kernel's parameters, in their order."""
        return tuple(self.globals)


@dataclass(slots=True)
class NestBuilder:
    """One nest: its dims, its code and its stores."""

    task: Task
    dims: dict[str, int]  # the nest's dims and extents, outer first
    code: Code
    stores: list[Store] = field(default_factory=list)
    ordered: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()
    _reduced: dict[tuple[str, int], str] = field(default_factory=dict)

    @staticmethod
    def over(
        task: Task,
        dims: Mapping[str, int],
        inline: Iterable[Var] = (),
        carried: Mapping[Eqn, str] | None = None,
        splits: Mapping[str, tuple[tuple[str, int], ...]] | None = None,
    ) -> NestBuilder:
        """A nest over dims (full sizes; tiled ones shrink to their tile). What is in `inline` is
        computed here, not read from its memory."""
        code = Code(dict(task.outer), dict(task.positions), graph=task.graph, storage=task.storage)
        code.computed = frozenset(inline)
        code.local = task.local
        code.earlier = task.earlier
        code.begun = task.begun
        code.carried = dict(carried or {})
        code.splits = dict(splits or {})
        code.blocks = task.blocks
        own = {d: task.inner.get(d, n) for d, n in dims.items()}
        builder = NestBuilder(task, {}, code)
        for dim, extent in own.items():
            if extent > 1:
                builder.add(dim, extent)
        code.bind = builder.bind
        return builder

    def add(self, dim: str, extent: int) -> None:
        """Add a dim (its pieces, where it was split)."""
        self.code.sizes[dim] = extent
        for piece, size in self.code.splits.get(dim, ((dim, extent),)):
            self.dims[piece] = size
            self.code.sizes[piece] = size

    def bind(self, dim: str, size: int) -> str:
        """The nest's dim for a reduced one; reductions over one dim share it."""
        name = self._reduced.get((dim, size))
        if name is None:
            name = dim
            while name in self.code.sizes:
                name += "'"
            self._reduced[(dim, size)] = name
            self.add(name, size)
        return name

    def name_of(self, dim: str, size: int) -> str:
        """The nest's dim that a reduced one was bound to."""
        return self._reduced[(dim, size)]

    def reuse(self, dim: str, size: int, name: str) -> None:
        """Let reductions over `dim` run over the dim `name` that the nest has already."""
        self._reduced[(dim, size)] = name
        known = self.task.at.get(dim) or self.code.positions.get(dim)
        if known is not None:
            self.code.places[name] = known

    def point(self, sizes: Iterable[tuple[str, int]]) -> dict[str, Coord]:
        """Where this nest evaluates: tiled dims count from their origins."""
        point: dict[str, Coord] = {}
        for dim, size in sizes:
            found = self.task.at.get(dim) or self.code.positions.get(dim)
            if found is not None:
                point[dim] = found
            elif dim in self.dims or dim in self.code.splits:
                point[dim] = self.code.coordinate(dim)
            elif size == 1:
                point[dim] = Coord(Form())
            else:
                raise InternalError(f"lower: a nest lacks the dim {dim}")
        return point

    def store(
        self,
        to: Storage,
        at: Mapping[str, Coord],
        ref: Ref,
        fn: str | None = None,
        guards: tuple[Guard, ...] = (),
    ) -> None:
        """Store a value, narrowed to what the memory holds, where the guards hold."""
        self.store_at(to, self.code.address(to, at, guards), ref, fn)

    def store_at(self, to: Storage, address: Address, ref: Ref, fn: str | None = None) -> None:
        """Store a value at an address."""
        ref = self.code.convert(ref, to.dtype)
        self.stores.append(Store(self.task.local(to.buffer), address, ref, fn))

    def finish(self) -> Nest:
        """The nest."""
        return Nest(
            tuple(self.dims.items()),
            tuple(self.code.code),
            tuple(self.stores),
            self.bounds,
            self.ordered,
        )


def splits_of(
    wanted: set[tuple[str, int]], dims: Mapping[str, int]
) -> dict[str, tuple[tuple[str, int], ...]]:
    """How to split dims so that each wanted divisor falls between two pieces (outer first)."""
    divisors: dict[str, list[int]] = {}
    for dim, by in sorted(wanted):
        if dim in dims and 1 < by < dims[dim]:
            divisors.setdefault(dim, []).append(by)
    splits = {}
    for dim, found in divisors.items():
        cuts = [1]
        for by in sorted(set(found)):
            if by % cuts[-1] == 0 and dims[dim] % by == 0:
                cuts.append(by)
        cuts.append(dims[dim])
        sizes = [b // a for a, b in pairwise(cuts)]
        splits[dim] = tuple((f"{dim}.{k}", n) for k, n in enumerate(reversed(sizes)) if n > 1)
    return splits
