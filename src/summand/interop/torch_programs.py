"""Kernels as PyTorch's dispatcher passes them: named by text, run on tensors in any strides.

    op = Operation(kernel, 2)               its first two parameters are tensors, the rest numbers
    op.run([a, b], [0.5])                   tensors; nothing is copied
    op.gradient((0,), (0,))                 the operation behind backward; which tensors it reads
    find(op.text), find(op.digest)          the operation again: text works in every process

Dense tensors in another order of axes are arrays with their dims in that order. All others (rows
with gaps, expanded axes) are read out of one flat array by an affine index, which costs no more
than any other address. Either way a layout that is new compiles once.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from weakref import WeakValueDictionary

import numpy as np
import torch

from summand import compiler, dtypes
from summand.errors import ArgumentError
from summand.interop.kernel import Kernel, Order
from summand.ir.builder import Builder
from summand.ir.nodes import Program, Var
from summand.ir.strided import Flat, lying, read_in_place
from summand.ir.text import parse
from summand.ir.text import text as program_text
from summand.runtime.executable import Executable

TORCH = {
    dtypes.bool_: torch.bool,
    dtypes.u8: torch.uint8,
    dtypes.u32: torch.uint32,
    dtypes.u64: torch.uint64,
    dtypes.i8: torch.int8,
    dtypes.i16: torch.int16,
    dtypes.i32: torch.int32,
    dtypes.i64: torch.int64,
    dtypes.f16: torch.float16,
    dtypes.bf16: torch.bfloat16,
    dtypes.f32: torch.float32,
    dtypes.f64: torch.float64,
    dtypes.complex64: torch.complex64,
    dtypes.complex128: torch.complex128,
}
SUMMAND = {theirs: ours for ours, theirs in TORCH.items()}

Strides = tuple[int, ...]
Layout = tuple[Strides | None, ...]  # for each tensor; None is row-major


@dataclass(frozen=True, eq=False)
class Operation:
    """A kernel whose first `tensors` parameters are tensors; the others are Python floats."""

    kernel: Kernel
    tensors: int
    _made: dict[object, object] = field(default_factory=dict, repr=False)

    # ---- names

    @cached_property
    def text(self) -> str:
        """All there is to the operation, for graphs that outlive the process."""
        k = self.kernel
        head = json.dumps([k.name, self.tensors, k.params, k.results])
        text = f"{head}\n{program_text(k.program)}"
        _remember(text, self)
        return text

    @cached_property
    def digest(self) -> str:
        """A short name, for as long as somebody holds the operation."""
        found = "#" + hashlib.blake2b(self.text.encode(), digest_size=12).hexdigest()
        _known.setdefault(found, self)
        return found

    def spelled_like(self, name: str) -> str:
        """The name of the same kind as another operation's."""
        return self.digest if name.startswith("#") else self.text

    # ---- what it takes and gives

    @cached_property
    def takes(self) -> tuple[tuple[torch.dtype, tuple[int, ...], Strides], ...]:
        """Element type, shape and row-major strides of each tensor."""
        found = []
        for type_ in self.kernel.param_types[: self.tensors]:
            found.append((TORCH[type_.dtype], type_.shape, _row_major(type_.shape)))
        return tuple(found)

    @cached_property
    def gives(self) -> tuple[tuple[torch.dtype, tuple[int, ...]], ...]:
        """Element type and shape of each result."""
        return tuple((TORCH[t.dtype], t.shape) for t in self.kernel.result_types)

    # ---- what follows from it

    def gradient(
        self, wrt: tuple[int, ...], seeds: tuple[int, ...]
    ) -> tuple[Operation, tuple[int, ...]]:
        """The cotangents of the tensors `wrt`, and the positions of the tensors that it reads.

        It takes those tensors, the cotangents of the results `seeds`, and the numbers.
        """
        found = self._made.get((wrt, seeds))
        if found is None:
            found = self._made[wrt, seeds] = self._gradient(wrt, seeds)
        return found  # type: ignore[return-value]

    def _gradient(
        self, wrt: tuple[int, ...], seeds: tuple[int, ...]
    ) -> tuple[Operation, tuple[int, ...]]:
        k = self.kernel
        some = Program(k.program.params, k.program.eqns, tuple(k.program.results[n] for n in seeds))
        partial = Kernel(some, k.params, tuple(k.results[n] for n in seeds), k.name)
        pulled = partial.vjp(wrt)
        own, total = len(k.params), len(pulled.params)
        pulled = _conjugated(pulled, own)
        reads = tuple(n for n in range(self.tensors) if n in pulled.read)
        positions = (*reads, *range(own, total), *range(self.tensors, own))
        return Operation(pulled.taking(positions), len(reads) + total - own), reads

    def tangent(self, wrt: tuple[int, ...]) -> Operation:
        """The tangents of the float results; takes the tensors, tangents of `wrt`, the numbers."""
        found = self._made.get(("tangent", wrt))
        if not isinstance(found, Operation):
            pushed = self.kernel.jvp(wrt)
            own, total = len(self.kernel.params), len(pushed.params)
            positions = (*range(self.tensors), *range(own, total), *range(self.tensors, own))
            found = Operation(pushed.taking(positions), self.tensors + total - own)
            self._made["tangent", wrt] = found
        return found

    def batched(self, axes: Sequence[int | None], size: int) -> Operation:
        """The operation for each position of a new axis, which some tensors have at `axes`."""
        numbers = len(self.kernel.params) - self.tensors
        key = ("batched", tuple(axes), size)
        found = self._made.get(key)
        if not isinstance(found, Operation):
            kernel = self.kernel.batched((*axes, *([None] * numbers)), size)
            found = self._made[key] = Operation(kernel, self.tensors)
        return found

    # ---- running

    def run(self, tensors: Sequence[torch.Tensor], numbers: Sequence[float]) -> list[torch.Tensor]:
        """Run on tensors of the CPU. Raises ArgumentError for others than the operation takes."""
        addresses = []
        strides: list[Strides | None] = []
        plain = True
        self._check_counts(tensors, numbers)
        for tensor, (dtype, shape, dense) in zip(tensors, self.takes):
            if tensor.dtype is not dtype or tensor.shape != shape:
                raise self._unlike(tensor, dtype, shape)
            addresses.append(tensor.data_ptr())
            own = tensor.stride()
            dense_itself = own == dense or tensor.is_contiguous()
            strides.append(None if dense_itself else own)
            plain = plain and dense_itself
        if numbers:
            held = np.array(numbers, np.float64)
            start = held.ctypes.data
            addresses.extend(range(start, start + held.nbytes, held.itemsize))
        executable = self.executable(None if plain else tuple(strides))
        made = []
        for array, (dtype, _) in zip(executable.run_at(addresses), self.gives):
            tensor = torch.from_numpy(array)
            made.append(tensor if tensor.dtype is dtype else tensor.view(dtype))
        return made

    def check(self, tensors: Sequence[torch.Tensor], numbers: Sequence[float]) -> None:
        """Raise ArgumentError for others than the operation takes."""
        self._check_counts(tensors, numbers)
        for tensor, (dtype, shape, _) in zip(tensors, self.takes):
            if tensor.dtype is not dtype or tensor.shape != shape:
                raise self._unlike(tensor, dtype, shape)

    def _check_counts(self, tensors: Sequence[torch.Tensor], numbers: Sequence[float]) -> None:
        wanted = (self.tensors, len(self.kernel.params) - self.tensors)
        if (len(tensors), len(numbers)) != wanted:
            raise ArgumentError(
                f"{self.kernel.name} was made for {wanted[0]} tensors and {wanted[1]} numbers, "
                f"but was given {len(tensors)} and {len(numbers)}"
            )

    def executable(self, layout: Layout | None = None) -> Executable:
        """The compiled program for tensors in these strides."""
        found = self._made.get(layout)
        if not isinstance(found, Executable):
            k = self.kernel
            if layout is None:
                found = k.executable()
            else:
                shapes = [shape for _, shape, _ in self.takes]
                program, orders = _laid_out(k.program, k.params, shapes, layout)
                found = compiler.compile(program, orders, k.results)
            self._made[layout] = found
        return found

    def _unlike(
        self, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]
    ) -> ArgumentError:
        return ArgumentError(
            f"{self.kernel.name} was made for a tensor {dtype}{list(shape)}, "
            f"but was given {tensor.dtype}{list(tensor.shape)}"
        )


def _conjugated(kernel: Kernel, first: int) -> Kernel:
    """A kernel of cotangents as PyTorch defines them: conjugates of Summand's, where complex.

    Its parameters are cotangents from `first` on.
    """
    program = kernel.program
    if not any(v.type.dtype.is_complex for v in (*program.params[first:], *program.results)):
        return kernel
    b = Builder()
    given = [b.param(p.type) for p in program.params]

    def conj(v: Var) -> Var:
        return b.map("conj", v) if v.type.dtype.is_complex else v

    values = [*given[:first], *map(conj, given[first:])]
    results = [conj(r) for r in b.inline(program, values)]
    return Kernel(b.finish(results), kernel.params, kernel.results, kernel.name)


# ---- finding operations by name

_KEPT = 512
_known: WeakValueDictionary[str, Operation] = WeakValueDictionary()  # by digest
_parsed: OrderedDict[str, Operation] = OrderedDict()  # by text; the oldest go


def find(name: str) -> Operation:
    """The operation of a text or digest. Raises ArgumentError for a digest that is not known."""
    found = _known.get(name) if name.startswith("#") else _parsed.get(name)
    if found is not None:
        return found
    if name.startswith("#"):
        raise ArgumentError(
            f"no operation {name} is held in this process\n"
            "Call the decorated function; graphs for other processes come from torch.export."
        )
    head, _, body = name.partition("\n")
    try:
        title, tensors, params, results = json.loads(head)
    except ValueError as fault:
        raise ArgumentError(f"this text names no operation of Summand: {head[:60]!r}") from fault
    orders = [tuple(tuple(o) for o in side) for side in (params, results)]
    made = Operation(Kernel(parse(body), orders[0], orders[1], title), tensors)
    _remember(name, made)
    return made


def _remember(text: str, operation: Operation) -> None:
    _parsed.setdefault(text, operation)
    while len(_parsed) > _KEPT:
        _parsed.popitem(last=False)


# ---- strides


def _row_major(shape: Sequence[int]) -> Strides:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _laid_out(
    program: Program, params: Sequence[Order], shapes: Sequence[tuple[int, ...]], layout: Layout
) -> tuple[Program, tuple[Order, ...]]:
    """The program with its parameters as they lie in memory, and the orders of their dims."""
    orders: list[Order] = []
    found: list[Flat | None] = []
    for number, order in enumerate(params):
        strides = layout[number] if number < len(layout) else None
        axes, lies = (None, None) if strides is None else lying(shapes[number], strides)
        dense = axes is not None and lies is None
        orders.append(tuple(order[a] for a in axes or ()) if dense else order)
        found.append(lies)
    return read_in_place(program, orders, found)
