"""The tensor IR: a program is parameters, equations in single assignment, and results.

Every value has a dtype and a *set* of dims with sizes; there is no order anywhere in this IR. Dims
are names here, unique within a program (`lang` maps each `Dim` to one). Two dims of one name in one
program are the same dim. Sub-programs (bodies of `recur`, `cond`, `while`, monoids) have variables
of their own; what they read from outside is passed as an argument.

The meaning of every equation is written down once, in `ir/interp.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from summand.dtypes import DType
from summand.errors import Loc
from summand.ir.index import Form

Scalar = bool | int | float | complex


@dataclass(frozen=True, slots=True)
class Type:
    """Element type and sizes of the dims, sorted by name."""

    dtype: DType
    dims: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(dtype: DType, sizes: Mapping[str, int]) -> Type:
        """A type from a mapping of dims to sizes."""
        return Type(dtype, tuple(sorted(sizes.items())))

    @property
    def sizes(self) -> dict[str, int]:
        """Dims to sizes."""
        return dict(self.dims)

    @property
    def names(self) -> frozenset[str]:
        """The dims' names."""
        return frozenset(d for d, _ in self.dims)

    @property
    def count(self) -> int:
        """Number of elements."""
        n = 1
        for _, size in self.dims:
            n *= size
        return n

    @property
    def nbytes(self) -> int:
        """Bytes of a dense array of this type."""
        return self.count * self.dtype.bytes

    def with_dtype(self, dtype: DType) -> Type:
        """The same dims with another element type."""
        return Type(dtype, self.dims)

    def __str__(self) -> str:
        return f"{self.dtype}{{{','.join(f'{d}={n}' for d, n in self.dims)}}}"


@dataclass(frozen=True, slots=True)
class Var:
    """A value: `id` is unique within its program."""

    id: int
    type: Type

    def __hash__(self) -> int:
        # Ids are unique where variables meet in one table; hashing the type each time is slow.
        return self.id

    def __str__(self) -> str:
        return f"%{self.id}"


# ---- monoids


@dataclass(frozen=True, slots=True)
class Monoid:
    """An associative combine with identity, over tuples of `arity` components.

    `combine` is a program of scalars (no dims): 2*arity parameters (left, right), arity results.
    It is None for the named ones, whose scalar op `name` says: sum, prod, max, min, any, all.
    """

    name: str
    identity: tuple[Scalar, ...]
    combine: Program | None = None
    commutative: bool = True
    idempotent: bool = False
    invertible: bool = False

    @property
    def arity(self) -> int:
        """Number of components."""
        return len(self.identity)


SUM = Monoid("sum", (0,), invertible=True)
PROD = Monoid("prod", (1,))
MAX = Monoid(
    "max", (float("-inf"),), idempotent=True
)  # of integers: the least one; see `identity_of`
MIN = Monoid("min", (float("inf"),), idempotent=True)
ANY = Monoid("any", (False,), idempotent=True)
ALL = Monoid("all", (True,), idempotent=True)
NAMED = {m.name: m for m in (SUM, PROD, MAX, MIN, ANY, ALL)}
SCALAR_OP = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}


def identity_of(monoid: Monoid, dtypes: tuple[DType, ...]) -> tuple[Scalar, ...]:
    """The identity in the given types: max of i8 starts at -128, max of f32 at -inf."""
    if monoid.name in ("max", "min") and monoid.combine is None:
        dtype = dtypes[0]
        if dtype.kind == "bool":
            return (monoid.name == "min",)
        if dtype.is_integer:
            info = np.iinfo(dtype.numpy)
            return (int(info.min if monoid.name == "max" else info.max),)
    return monoid.identity


# ---- equations. Each class is the right-hand side of one.

Index = Form | Var  # a form over dims, or an integer value (a gather)
Keep = Literal["all", "last", "none"]
Mode = Literal["raise", "clip", "fill", "trusted"]  # trusted: proven in range, not checked again


@dataclass(frozen=True, slots=True)
class Map:
    """Scalar op `fn` (see `ir/prims.py`) over the union of the arguments' dims."""

    fn: str
    args: tuple[Var, ...]


@dataclass(frozen=True, slots=True)
class Reduce:
    """Fold `dims` away. One argument and one result for each component, all of one shape."""

    monoid: Monoid
    dims: tuple[str, ...]
    args: tuple[Var, ...]


@dataclass(frozen=True, slots=True)
class Reindex:
    """out[…] = arg[… dim: index(…)]; dims without an index stay.

    The new dims are those that the indices read; their sizes are those of the result's type.
    Where an index leaves its dim: mode "fill" gives `fill`, "clip" the nearest element, "raise" an
    error. A form index is "trusted" (proven by whoever built it) or "fill" or "clip".
    """

    arg: Var
    index: tuple[tuple[str, Index], ...]
    mode: Mode = "trusted"
    fill: Scalar = 0


@dataclass(frozen=True, slots=True)
class ReduceAt:
    """out[…, d: index_d(p)] ⊕= arg[p, …] folded over `dims`; the transpose of `Reindex`.

    `index` gives each new dim of the result its place. What falls outside is dropped in mode
    "fill", put at the nearest place in "clip", an error in "raise". Places that nothing reaches
    hold the identity. Folded in the order of `dims` (first is outermost): deterministic.
    """

    monoid: Monoid
    dims: tuple[str, ...]
    args: tuple[Var, ...]
    index: tuple[tuple[str, Index], ...]
    mode: Mode = "trusted"


@dataclass(frozen=True, slots=True)
class Interleave:
    """Values that lie between each other: out[… d: stride·q + r …] = part_r[… d: q …].

    `dims` are (dim, stride) for one or several dims; `parts` has one value for each combination of
    residues r, row-major in the order of `dims` (the last dim's residue runs fastest). All parts
    have the result's dims; along d, part r has ceil((size - r) / stride) elements. Each element of
    the result is written by exactly one part, so a lowering stores every part straight into the
    result's buffer, with stride·step, from the nest that computes it.
    """

    parts: tuple[Var, ...]
    dims: tuple[tuple[str, int], ...]

    def residues(self) -> tuple[tuple[int, ...], ...]:
        """The residues of each part, one for each of `dims`."""
        return tuple(itertools.product(*(range(stride) for _, stride in self.dims)))


@dataclass(frozen=True, slots=True)
class Group:
    """Stable counting sort of `index` (values 0 … size-1) over its one dim.

    Results: order{dim} (positions sorted by index) and offsets{places} with size+1 entries.
    """

    index: Var
    size: int
    places: str


@dataclass(frozen=True, slots=True)
class Iota:
    """The position along a dim: 0, 1, 2, …"""

    dim: str


@dataclass(frozen=True, slots=True)
class Table:
    """The elements of a constant array, with the order of its dims."""

    data: bytes
    order: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """A compile-time constant: one scalar everywhere (the result has no dims), or a table."""

    value: Scalar | Table


@dataclass(frozen=True, slots=True)
class RandomBits:
    """32 random bits for each element: Threefry-2x32 of the key at a counter.

    `key` is u64 with any dims. The counter is the row-major position over `dims` (in that order).
    """

    key: Var
    dims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """One earlier value of a state: state[p - shift], `shift` in the order of `Recur.over`."""

    state: int
    shift: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recur:
    """A recurrence over the dims `over`, positions in lexicographic order, each forward if its flag
    in `forward` says so, else from the end.

    The body runs once for each position p. Its parameters are, in order:
      one value for each of `reads` (the earlier state, or `inits` where p - shift is out of range),
      one for each of `captured` (the slice at p, for each of the `over` dims that it has),
      one i32 scalar for each dim of `over` (the position p itself).
    Its results are the new states, without the `over` dims. The equation's results are the states
    with them. `inits` has one value for each read: the value at p (its `over` dims, where
    it has any, are p's) that is used where p - shift is out of range.
    `keep` says what of each state is read outside: "all", the "last" position only, "none". The
    result of a state that is not kept whole lacks the `over` dims; it is the state at the last p.
    """

    over: tuple[str, ...]
    forward: tuple[bool, ...]
    sizes: tuple[int, ...]
    reads: tuple[Read, ...]
    inits: tuple[Var, ...]
    captured: tuple[Var, ...]
    body: Program
    keep: tuple[Keep, ...] = ()  # per state; () means all are kept


@dataclass(frozen=True, slots=True)
class Cond:
    """`args` through `then` where the bool scalar `pred` holds, else through `other`."""

    pred: Var
    then: Program
    other: Program
    args: tuple[Var, ...]


@dataclass(frozen=True, slots=True)
class While:
    """state = body(captured, state) while test(captured, state). Results: the last state."""

    test: Program
    body: Program
    captured: tuple[Var, ...]
    state: tuple[Var, ...]


@dataclass(frozen=True, slots=True)
class Sort:
    """Ascending stable sort along a dim, NaN last. Results: sorted values, positions (i32)."""

    arg: Var
    dim: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class TopK:
    """The `out` = size of the result's dim greatest along `dim`, in descending order, ties to the
    lower position. Results: values and positions (i32), with dim `out` in place of `dim`."""

    arg: Var
    dim: str
    out: str


@dataclass(frozen=True, slots=True)
class Call:
    """A foreign function registered by name, with a derivative rule of its own."""

    name: str
    args: tuple[Var, ...]


@dataclass(frozen=True, slots=True)
class Custom:
    """A program with a derivative of the user's own (`custom_vjp`), or to recompute (`checkpoint`).

    `primal` maps args to results. `forward` maps args to results and residuals; `backward` maps
    residuals and the results' cotangents to the args' cotangents. Without them (checkpoint), the
    primal is differentiated as it is, and its inner values are recomputed in the backward pass.
    """

    primal: Program
    forward: Program | None
    backward: Program | None
    args: tuple[Var, ...]


Op = (
    Map
    | Reduce
    | Reindex
    | ReduceAt
    | Interleave
    | Group
    | Iota
    | Constant
    | RandomBits
    | Recur
    | Cond
    | While
    | Sort
    | TopK
    | Call
    | Custom
)


@dataclass(frozen=True, slots=True)
class Eqn:
    """outs = op. `loc` is the user's line that wrote it; it has no part in equality."""

    outs: tuple[Var, ...]
    op: Op
    loc: Loc | None = field(default=None, compare=False)

    @property
    def out(self) -> Var:
        """The only result."""
        (out,) = self.outs
        return out


@dataclass(frozen=True, slots=True)
class Program:
    """Parameters, equations in an order in which each reads only what came before, and results."""

    params: tuple[Var, ...]
    eqns: tuple[Eqn, ...]
    results: tuple[Var, ...]


def operands(op: Op) -> tuple[Var, ...]:
    """The outer values that an equation reads (sub-programs read only through these)."""
    match op:
        case Map() | Reduce() | Call() | Custom():
            return op.args
        case Reindex():
            return (op.arg, *(i for _, i in op.index if isinstance(i, Var)))
        case ReduceAt():
            return (*op.args, *(i for _, i in op.index if isinstance(i, Var)))
        case Interleave():
            return op.parts
        case Group():
            return (op.index,)
        case Iota() | Constant():
            return ()
        case RandomBits():
            return (op.key,)
        case Recur():
            return (*op.inits, *op.captured)
        case Cond():
            return (op.pred, *op.args)
        case While():
            return (*op.captured, *op.state)
        case Sort() | TopK():
            return (op.arg,)


def with_operands(op: Op, new: Mapping[Var, Var]) -> Op:
    """The same equation reading other values (those not in `new` stay)."""

    def one(v: Var) -> Var:
        return new.get(v, v)

    def many(vs: tuple[Var, ...]) -> tuple[Var, ...]:
        return tuple(new.get(v, v) for v in vs)

    def indices(index: tuple[tuple[str, Index], ...]) -> tuple[tuple[str, Index], ...]:
        return tuple((d, new.get(i, i) if isinstance(i, Var) else i) for d, i in index)

    match op:
        case Map():
            return Map(op.fn, many(op.args))
        case Reduce():
            return Reduce(op.monoid, op.dims, many(op.args))
        case Reindex():
            return Reindex(one(op.arg), indices(op.index), op.mode, op.fill)
        case ReduceAt():
            return ReduceAt(op.monoid, op.dims, many(op.args), indices(op.index), op.mode)
        case Interleave():
            return Interleave(many(op.parts), op.dims)
        case Group():
            return Group(one(op.index), op.size, op.places)
        case Iota() | Constant():
            return op
        case RandomBits():
            return RandomBits(one(op.key), op.dims)
        case Recur():
            return Recur(
                op.over,
                op.forward,
                op.sizes,
                op.reads,
                many(op.inits),
                many(op.captured),
                op.body,
                op.keep,
            )
        case Cond():
            return Cond(one(op.pred), op.then, op.other, many(op.args))
        case While():
            return While(op.test, op.body, many(op.captured), many(op.state))
        case Sort():
            return Sort(one(op.arg), op.dim, op.descending)
        case TopK():
            return TopK(one(op.arg), op.dim, op.out)
        case Call():
            return Call(op.name, many(op.args))
        case Custom():
            return Custom(op.primal, op.forward, op.backward, many(op.args))
