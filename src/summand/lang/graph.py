"""The lazy graph: nodes are equations not yet run, values are their results.

    y = sm.exp(x)   ->   Node(Map("exp", (%0,)), args=(x,), types=(f32{k},))

A node's op is an equation of the tensor IR in which the node's `reads` stand for its arguments
and dims are keys (`lang/keys.py`). A node without an op is data, or a placeholder of a trace. An
evaluated value keeps its buffer, and forgets how it was made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from summand.dtypes import DType
from summand.errors import Loc
from summand.ir.nodes import Constant, Eqn, Op, Scalar, Type, Var, operands
from summand.lang.location import here

_serials = itertools.count()


class Buffer:
    """Numbers in memory: `order` names the array's axes, outermost first.

    `tag` is a small number that stands for type and order, where `jit` has seen the buffer.
    """

    __slots__ = ("array", "order", "tag")

    def __init__(self, array: np.ndarray, order: tuple[str, ...], tag: int = -1) -> None:
        self.array = array
        self.order = order
        self.tag = tag


class Node:
    """One equation of the graph. `serial` grows with time: a node is younger than its arguments."""

    __slots__ = ("args", "buffers", "label", "loc", "op", "order", "reads", "serial", "types")

    def __init__(
        self,
        op: Op | None,
        args: tuple[Sized, ...],
        types: tuple[Type, ...],
        loc: Loc | None,
        label: str = "",
        order: tuple[str, ...] = (),
        reads: tuple[Var, ...] = (),
    ) -> None:
        self.op = op
        self.reads = reads  # the variables by which the op calls its arguments
        self.args = args
        self.types = types
        self.loc = loc
        self.label = label  # the name messages use, where it is not read off the source line
        self.order = order  # the dims as the user listed them, for messages; () where he did not
        self.serial = next(_serials)
        self.buffers: list[Buffer | None] = [None] * len(types)


@dataclass(frozen=True, slots=True)
class Sized:
    """One result of a node. `weak`: made of Python numbers only, so it takes the type it meets."""

    node: Node
    out: int = 0
    weak: bool = False

    @property
    def type(self) -> Type:
        """Element type and sizes of the dims."""
        return self.node.types[self.out]

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.node.types[self.out].dtype

    @property
    def dims(self) -> tuple[str, ...]:
        """The dims' keys."""
        return tuple(d for d, _ in self.node.types[self.out].dims)

    @property
    def loc(self) -> Loc | None:
        """The line that made it."""
        return self.node.loc

    @property
    def buffer(self) -> Buffer | None:
        """The numbers, where they are known."""
        return self.node.buffers[self.out]


def serial_now() -> int:
    """A number greater than every present node's serial and less than every later one's."""
    return next(_serials)


def emit(
    build: Callable[..., Op],
    args: Sequence[Sized],
    types: Sequence[Type],
    loc: Loc | None = None,
    weak: bool = False,
) -> tuple[Sized, ...]:
    """A new node; `build` is given one variable for each argument."""
    variables = tuple(Var(i, a.type) for i, a in enumerate(args))
    node = Node(build(*variables), tuple(args), tuple(types), loc or here(), reads=variables)
    return tuple(Sized(node, i, weak) for i in range(len(types)))


def repeat(eqn: Eqn, values: Mapping[int, Sized]) -> tuple[Sized, ...]:
    """An equation of a program as a node; `values` has what its variables are, by their ids."""
    reads = tuple(dict.fromkeys(operands(eqn.op)))
    args = tuple(values[v.id] for v in reads)
    types = tuple(o.type for o in eqn.outs)
    node = Node(eqn.op, args, types, eqn.loc or here(), reads=reads)
    return tuple(Sized(node, i) for i in range(len(types)))


def constant(value: Scalar, dtype: DType, weak: bool = False) -> Sized:
    """A number without dims."""
    return emit(lambda: Constant(value), (), (Type(dtype),), weak=weak)[0]


def placeholder(type_: Type, label: str = "", weak: bool = False, loc: Loc | None = None) -> Sized:
    """A value to be known later: a parameter of a trace."""
    return Sized(Node(None, (), (type_,), loc or here(), label), 0, weak)


def placeholder_for(value: Sized, label: str = "") -> Sized:
    """A placeholder that is typed and shown like a value."""
    node = Node(None, (), (value.type,), value.loc or here(), label, value.node.order)
    return Sized(node, 0, value.weak)


def leaf(array: np.ndarray, order: Sequence[str], dtype: DType, loc: Loc | None = None) -> Sized:
    """Data."""
    type_ = Type.of(dtype, dict(zip(order, array.shape, strict=True)))
    given = tuple(order)
    array, order = _as_it_lies(array, given)
    node = Node(None, (), (type_,), loc or here(), order=tuple(given))
    node.buffers[0] = Buffer(array, order)
    return Sized(node)


def result_leaf(
    array: np.ndarray,
    order: tuple[str, ...],
    type_: Type,
    weak: bool,
    loc: Loc | None,
    tag: int = -1,
) -> Sized:
    """Data that a program computed; nothing about it is inferred again."""
    node = Node(None, (), (type_,), loc)
    node.buffers[0] = Buffer(array, order, tag)
    return Sized(node, 0, weak)


def _as_it_lies(array: np.ndarray, order: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The same array with its axes in the order of memory, so that no copy is needed to read it."""
    if array.flags.c_contiguous or any(s <= 0 for s in array.strides):
        return array, order
    axes = sorted(range(array.ndim), key=lambda a: -array.strides[a])
    return array.transpose(axes), tuple(order[a] for a in axes)


def constant_value(value: Sized) -> Scalar | None:
    """The number where the value is a scalar constant, else None."""
    op = value.node.op
    if isinstance(op, Constant) and isinstance(op.value, (bool, int, float, complex)):
        return op.value
    return None
