"""The loop IR: kernels of tile loops around nests, the same for every device.

A `Kernel` is a grid of independent tasks; each task runs a tree of `Loop`s and `Nest`s. A `Nest` is
one map-reduce over dims of its own: straight-line scalar code (single assignment) in which
reductions are values, and stores. Whatever a nest reads and writes is addressed by one linear form
over dims, plus terms that are values (gathers). Order, layout and memory are all explicit here.

    kernel softmax(x: f32[1048576], y: f32[1048576]) scratch(m: f32[4], e: f32[4096], s: f32[4])
      grid I=256
        nest i=4 j=1024
          0: load x[4096*I + 1024*i + j]
          1: fold max {j} 0
          store m[i] = 1

A nest without a `Schedule` means its plain loops; a schedule never changes what is computed, only
the order and the registers. A dim of an access is bound by the grid, by a `Loop`, a `Let` or the
nest itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from summand.dtypes import DType
from summand.ir.index import Form

Scalar = bool | int | float
Ref = int  # position of a value in its nest's code


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of `size` elements. Global buffers are the kernel's parameters, in order.

    `scratch` belongs to the thread that runs the task and holds nothing when a task begins.
    `space`: elements before and after the buffer that may be read (never used) without a fault.
    """

    name: str
    dtype: DType
    size: int
    memory: Literal["global", "scratch"] = "global"
    space: int = 0


@dataclass(frozen=True, slots=True)
class Guard:
    """Holds where 0 <= form + Σ value·factor < size."""

    form: Form
    size: int
    dynamic: tuple[tuple[Ref, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Address:
    """Element offset: an affine `form` over dims plus Σ value·stride for computed (gathered) terms.

    In range wherever all `guards` hold; where one does not, the element must not be touched.
    """

    form: Form
    dynamic: tuple[tuple[Ref, int], ...] = ()
    guards: tuple[Guard, ...] = ()


# ---- code of a nest. Every instruction defines one value, named by its position in the list.


@dataclass(frozen=True, slots=True)
class Const:
    """A scalar constant."""

    value: Scalar
    dtype: DType


@dataclass(frozen=True, slots=True)
class Position:
    """The value of a form over dims, as an integer of type `dtype`."""

    form: Form
    dtype: DType


@dataclass(frozen=True, slots=True)
class Load:
    """An element of a buffer; `fill` where a guard of the address fails."""

    buffer: str
    at: Address
    dtype: DType
    fill: Scalar = 0


@dataclass(frozen=True, slots=True)
class Apply:
    """A scalar op of `ir/prims.py` ("convert" to `dtype` included)."""

    fn: str
    args: tuple[Ref, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Combine:
    """How a fold combines: the scalar op `fn` for one component, or code for several.

    `code` has 2*arity leading `Arg`s (left then right) and `results` name the new components.
    """

    fn: str | None
    identity: tuple[Scalar, ...]
    code: tuple[Instr, ...] = ()
    results: tuple[Ref, ...] = ()
    commutative: bool = True


@dataclass(frozen=True, slots=True)
class Arg:
    """Parameter number `index` of a `Combine`'s code."""

    index: int
    dtype: DType


@dataclass(frozen=True, slots=True)
class Fold:
    """Fold `args` (one per component) over `dims` of the nest. Its value is the first component;
    the others are `Part`s. `lo` <= dim < `hi` may restrict a dim: see `Nest.bounds`."""

    combine: Combine
    dims: tuple[str, ...]
    args: tuple[Ref, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Part:
    """Component `index` of the fold `of`."""

    of: Ref
    index: int
    dtype: DType


@dataclass(frozen=True, slots=True)
class Carry:
    """A state carried along the sequential dim `dim` in registers: its value before this position.

    `init` (which does not read `dim`) at the first position, afterwards the value of `next` at the
    position before; `next` may be a later instruction.
    """

    dim: str
    init: Ref
    next: Ref
    dtype: DType


@dataclass(frozen=True, slots=True)
class Last:
    """The value of a carry's `next` after the last position of its dim."""

    carry: Ref
    dtype: DType


Instr = Const | Position | Load | Apply | Fold | Part | Carry | Last | Arg


@dataclass(frozen=True, slots=True)
class Store:
    """buffer[at] = value, or combine(buffer[at], value) where `combine` names a scalar op.

    Runs for every point of the dims that the address and the value depend on (reduced ones
    included: such a store runs inside the reduction). Where a guard fails, nothing is stored.
    A combining store, or one to a buffer that the nest loads, runs for every point of the ordered
    dims as well; it may meet one element several times: the points run in the order of the dims.
    """

    buffer: str
    at: Address
    value: Ref
    combine: str | None = None


# ---- schedule of a nest


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` consecutive steps of a dim."""

    dim: str
    count: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a nest becomes vector code; pieces are listed outer first.

    lanes: the pieces whose product is one vector ((co,4),(j,4) is 4 of co × 4 of j); empty: scalar.
    tile: pieces of not-reduced dims held in registers together, counted in units of the lanes.
    unroll: pieces unrolled inside the innermost loop (of reduced dims, or of any dim in a map).
    loops: every dim that is still looped, outer first; reduced dims last. Steps follow from pieces.
    end_lanes: the lanes after the reduction, where they differ (the result is transposed, merged).
    copies: how many sets of accumulators take turns (to hide latency).
    streaming: stores bypass the cache. prefetch: elements ahead, per buffer, in the innermost loop;
    0: what is read after a reduction is asked for before it.
    """

    lanes: tuple[Piece, ...] = ()
    tile: tuple[Piece, ...] = ()
    unroll: tuple[Piece, ...] = ()
    loops: tuple[str, ...] = ()
    end_lanes: tuple[Piece, ...] = ()
    copies: int = 1
    streaming: bool = False
    prefetch: tuple[tuple[str, int], ...] = ()


# ---- statements


@dataclass(frozen=True, slots=True)
class Bound:
    """max(lo …, 0) <= dim < min(hi …, extent): restricts a reduced (or looped) dim by forms over
    dims that are bound further out."""

    dim: str
    lo: tuple[Form, ...] = ()
    hi: tuple[Form, ...] = ()


@dataclass(frozen=True, slots=True)
class Nest:
    """Code over the box of `dims` (name, extent). `ordered` dims run in order (carries, combining
    stores); `bounds` restrict reduced dims."""

    dims: tuple[tuple[str, int], ...]
    code: tuple[Instr, ...]
    stores: tuple[Store, ...]
    bounds: tuple[Bound, ...] = ()
    ordered: tuple[str, ...] = ()
    schedule: Schedule | None = None

    @property
    def extents(self) -> dict[str, int]:
        """The nest's own dims and their extents."""
        return dict(self.dims)


@dataclass(frozen=True, slots=True)
class Loop:
    """Run `body` for dim = 0 … extent-1, in order."""

    dim: str
    extent: int
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Let:
    """Within `body`, `dim` is the value of clip(form, lo, hi): the origin of a tile or window."""

    dim: str
    form: Form
    lo: int
    hi: int
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class When:
    """Run `body` where all guards hold (they read outer dims only)."""

    guards: tuple[Guard, ...]
    body: tuple[Stmt, ...]


Stmt = Nest | Loop | Let | When


@dataclass(frozen=True, slots=True)
class Kernel:
    """A grid of tasks, run in any order and at once; `params` are the global buffers in order."""

    name: str
    params: tuple[Buffer, ...]
    scratch: tuple[Buffer, ...]
    grid: tuple[tuple[str, int], ...]
    body: tuple[Stmt, ...]
    note: str = field(
        default="", compare=False
    )  # for explain: which equations this kernel computes


# ---- what the kernels together do


@dataclass(frozen=True, slots=True)
class Launch:
    """Run kernel number `kernel` of the module; its parameters are bound to program buffers."""

    kernel: int
    buffers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """Run `then` if the bool scalar in `flag` holds, else `other`."""

    flag: str
    then: tuple[Step, ...]
    other: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Run `test`; while the bool scalar in `flag` then holds, run `body` and `test` again."""

    test: tuple[Step, ...]
    flag: str
    body: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Rounds:
    """Run `body` so many times. The outermost dim of its kernels' grids has that extent: a launch
    runs the tasks of one position of it, those of the round."""

    count: int
    body: tuple[Launch, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy a whole buffer (loop-carried states of `Repeat`, results that are parameters)."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """Run the foreign function `name` on whole buffers, dense in the order of their layouts."""

    name: str
    args: tuple[tuple[str, Layout], ...]
    outs: tuple[tuple[str, Layout], ...]


Step = Launch | Branch | Repeat | Rounds | Copy | Foreign


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program buffer lives: parameter or result number, or bytes into the arena."""

    name: str
    dtype: DType
    size: int
    kind: Literal["param", "result", "arena", "constant"]
    number: int = 0  # of the parameter or result; byte offset in the arena
    data: bytes = b""  # of a constant
    dims: tuple[tuple[str, int], ...] = field(default=(), compare=False)  # for explain: the layout


@dataclass(frozen=True, slots=True)
class Layout:
    """The order in memory of a parameter's or result's dims: outermost first, dense."""

    dims: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Check:
    """After the run, every element of result `number` (i64: least, greatest index seen) must lie in
    0 <= v < size, else IndexRangeError(message with {value} filled in)."""

    number: int
    size: int
    message: str


@dataclass(frozen=True, slots=True)
class Module:
    """A lowered program: kernels, the steps that run them, and where each buffer lives."""

    kernels: tuple[Kernel, ...]
    steps: tuple[Step, ...]
    places: tuple[Place, ...]
    params: tuple[Layout, ...]
    results: tuple[Layout, ...]
    arena: int = 0  # bytes
    checks: tuple[Check, ...] = ()
