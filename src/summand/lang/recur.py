"""`sm.recur(step, over, init)`: a recurrence over one or several dims.

    h = sm.recur(lambda h: a * h[t: t - 1] + x, over=t, init=h0)

`step` is run on a state that can only be read at shifted places; it is written for whole arrays and
traced as such. Then the equations that depend on the state become the body, at one position
(`lang/slices.py`); everything else is computed outside, for all positions at once, and passed in as
a slice. Dims, sizes and type of the state follow from init and step, by repeating the trace until
they stay (twice is usual).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from summand.dtypes import DType
from summand.errors import DimError, Loc, RecurrenceError
from summand.ir.index import Form
from summand.ir.nodes import Read, Type, Var
from summand.ir.nodes import Recur as RecurOp
from summand.lang import keys
from summand.lang.array import Array, Dim, form_of, operand, wrap
from summand.lang.describe import Names, message, row, source_row
from summand.lang.elementwise import common, convert, expand, form_value
from summand.lang.extents import Known, ambiguous
from summand.lang.graph import Sized, emit, placeholder, serial_now
from summand.lang.location import here
from summand.lang.pytree import Structure, flatten, leaves_of, shown, unflatten
from summand.lang.signature import check_function
from summand.lang.slices import body_at
from summand.lang.trace import stepping
from summand.lang.unsized import Sizes, Unsized, Value, force, sizes_of

Tree = object  # a pytree of arrays
ROUNDS = 8  # dims and types of a state grow monotonically, so few rounds reach the fixed point


@dataclass(frozen=True, slots=True)
class StateType:
    """What is known of one state: element type and the dims that are not of `over`."""

    dtype: DType
    weak: bool
    sizes: tuple[tuple[str, int], ...]


class ReadLog:
    """The reads of one trace: a placeholder for each state and shift.

    A placeholder has no dims of `over`: it is the state at one position. In the step an array that
    has them stands for its value at that position, so the two meet as they should.
    """

    def __init__(self, over: tuple[str, ...], states: Sequence[StateType], loc: Loc | None) -> None:
        self.over = over
        self.states = states
        self.loc = loc
        self.start = serial_now()
        self.made: dict[Read, Sized] = {}

    def read(self, read: Read) -> Sized:
        """The placeholder of a read."""
        found = self.made.get(read)
        if found is None:
            state = self.states[read.state]
            type_ = Type(state.dtype, state.sizes)
            found = self.made[read] = placeholder(type_, "state", state.weak)
        return found


class State:
    """One state inside `step`: read it at earlier positions, `h[t: t - 1]`."""

    __slots__ = ("_log", "_number")
    __array_ufunc__ = None

    def __init__(self, log: ReadLog, number: int) -> None:
        self._log = log
        self._number = number

    def __getitem__(self, key: object) -> Array:
        """The state where each dim of `over` is shifted; other dims re-index as in an array."""
        items = key if isinstance(key, tuple) else (key,)
        shifts = dict.fromkeys(self._log.over, 0)
        others = []
        for item in items:
            is_shift = isinstance(item, slice) and isinstance(item.start, Dim)
            if is_shift and item.start.key in shifts:
                shifts[item.start.key] = _shift(item.start, item.stop)
            else:
                others.append(item)
        read = Read(self._number, tuple(shifts[d] for d in self._log.over))
        out = wrap(self._log.read(read))
        return out[tuple(others)] if others else out

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self._log.states[self._number].dtype


def _shift(dim: Dim, index: object) -> int:
    """How far back a read goes: 1 for `h[t: t - 1]`."""
    form = form_of(index)
    back = None if form is None else Form.of(dim.key) - form
    if back is None or not back.is_const:
        what = f"a state is read at a fixed distance, not at {index!r}"
        advice = f"Read h[{dim.name}: {dim.name} - 1], or another constant shift."
        raise RecurrenceError(message(what, source_row(here()), advice))
    return back.const


def recur(step: Callable[..., Tree], *, over: Dim | Sequence[Dim], init: Tree) -> Tree:
    """States at every position of `over`, each computed from earlier ones by `step`.

    step: maps the state, a pytree like `init`, to its new values; it reads `h[t: t - 1]`.
    over: one dim, or several for a recurrence over all of them, the first outermost.
    init: what a read out of range gives: an array or number, a function of the position(s), or a
    pytree of these. Returns the pytree with the `over` dims.
    Raises RecurrenceError where a read is not strictly earlier.
    """
    loc = here()
    check_function(step, "recur")
    dims = _over(over, loc)
    leaves, tree = _init_leaves(init, dims)
    states = [_guess(leaf, dims, loc) for leaf in leaves]
    sizes: dict[str, int] = {}
    for _ in range(ROUNDS):
        log = ReadLog(dims, states, loc)
        outs = _run(step, log, tree)
        _check_reads(log, loc)
        sizes = _over_sizes(dims, outs, sizes, loc)
        forced = [force(o, "recur", loc) for o in _sized_over(outs, dims, sizes)]
        found = [_grown(s, o, dims) for s, o in zip(states, forced, strict=True)]
        if found == states:
            return unflatten(tree, _built(log, leaves, forced, dims, sizes, loc))
        states = found
    what = "the dims of a state keep growing: each step adds new ones"
    raise RecurrenceError(message(what, source_row(loc), "Use the same dims in every step."))


def _over(over: Dim | Sequence[Dim], loc: Loc | None) -> tuple[str, ...]:
    listed = (over,) if isinstance(over, Dim) else tuple(over)
    if not listed or not all(isinstance(d, Dim) for d in listed) or len(set(listed)) < len(listed):
        what = "over= names the dim of a recurrence, or several different ones"
        raise RecurrenceError(message(what, source_row(loc), "Write over=t or over=(i, j)."))
    return tuple(d.key for d in listed)


Init = Callable[..., object] | Value


def _init_leaves(init: Tree, over: tuple[str, ...]) -> tuple[list[Init], Structure]:
    """The leaves of init; one function of the position may give the whole tree."""
    leaves, tree = flatten(init)
    if not (callable(init) and tree.is_leaf()):
        return [leaf if callable(leaf) else operand(leaf) for leaf in leaves], tree
    positions = [wrap(form_value(Form.of(d))) for d in over]
    shape = flatten(init(*positions))[1]

    def part(number: int) -> Callable[..., object]:
        return lambda *at: leaves_of(init(*at))[number]

    return [part(i) for i in range(shape.num_leaves)], shape


def _guess(leaf: Init, over: tuple[str, ...], loc: Loc | None) -> StateType:
    if isinstance(leaf, (Sized, Unsized)):
        sized = force(leaf, "recur init", loc)
        stray = [d for d in sized.dims if d in over]
        if stray:
            names = Names(sized.dims)
            what = f"init has the dim {names[stray[0]]}, over which the recurrence runs"
            advice = "Give init as a function of the position out of range: init=lambda t: ..."
            raise DimError(message(what, [row(sized, names, loc), *source_row(loc)], advice))
        return StateType(sized.dtype, sized.weak, sized.type.dims)
    value = operand(leaf(*(wrap(form_value(Form.of(d))) for d in over)))
    known = {k.dim: k.size for k in value.known} if isinstance(value, Unsized) else {}
    known.update(value.type.sizes if isinstance(value, Sized) else {})
    dims = tuple(sorted((d, n) for d, n in known.items() if d not in over))
    return StateType(value.dtype, value.weak, dims)


def _run(step: Callable[..., Tree], log: ReadLog, tree: Structure) -> list[Value]:
    """One trace of the step."""
    proxies = [State(log, i) for i in range(len(log.states))]
    with stepping(log.over):
        out = step(unflatten(tree, proxies))
    leaves, found = flatten(out)
    if found != tree:
        what = f"step returns {shown(found)}, but the state is {shown(tree)}"
        advice = "Return new values for the whole state, in the form of init."
        raise RecurrenceError(message(what, source_row(log.loc), advice))
    return [operand(leaf) for leaf in leaves]


def _check_reads(log: ReadLog, loc: Loc | None) -> None:
    """Reads are strictly earlier in one order of positions."""
    if not log.made:
        what = "the step of a recurrence reads no earlier state"
        raise RecurrenceError(message(what, source_row(loc), "Read h[t: t - 1], or drop sm.recur."))
    ahead: dict[str, tuple[bool, Loc | None]] = {}
    for read, value in log.made.items():
        where = value.loc
        first = next(((d, s) for d, s in zip(log.over, read.shift, strict=True) if s), None)
        names = Names(log.over)
        if first is None:
            what = "a state is read at the position that is being computed"
            advice = f"Read an earlier one: h[{names[log.over[0]]}: {names[log.over[0]]} - 1]."
            raise RecurrenceError(message(what, source_row(where), advice))
        dim, shift = first
        forward, other = ahead.setdefault(dim, (shift > 0, where))
        if forward != (shift > 0):
            what = f"reads along {names[dim]} go both ways, so neither order of positions works"
            rows = [*source_row(other), *source_row(where)]
            advice = "Read only earlier positions, or only later ones (a reverse recurrence)."
            raise RecurrenceError(message(what, rows, advice))


def _forward(log: ReadLog) -> tuple[bool, ...]:
    flags = dict.fromkeys(log.over, True)
    for read in log.made:
        dim, shift = next((d, s) for d, s in zip(log.over, read.shift, strict=True) if s)
        flags[dim] = shift > 0
    return tuple(flags[d] for d in log.over)


def _over_sizes(
    over: tuple[str, ...], outs: Sequence[Value], sizes: Sizes, loc: Loc | None
) -> dict[str, int]:
    """Sizes of the `over` dims: what the step's arrays say, or the dims' own."""
    found = dict(sizes)
    for out in outs:
        for dim, size in sizes_of(out, "recur", loc).items():
            if dim in over:
                found.setdefault(dim, size)
    for dim in over:
        own = keys.info(dim).size
        if own is not None:
            found.setdefault(dim, own)
    missing = [d for d in over if d not in found]
    if missing:
        raise ambiguous(missing, (), "recur", loc)
    return found


def _sized_over(outs: Sequence[Value], over: tuple[str, ...], sizes: Sizes) -> list[Value]:
    """Results that know the sizes of the `over` dims."""
    facts = tuple(Known(d, sizes[d], None) for d in over)
    return [
        replace(o, known=(*o.known, *(f for f in facts if f.dim in o.dims)))
        if isinstance(o, Unsized)
        else o
        for o in outs
    ]


def _grown(state: StateType, out: Sized, over: tuple[str, ...]) -> StateType:
    """The state's type after a step: the union of dims, the type at which both meet."""
    sizes = {**dict(state.sizes), **{d: n for d, n in out.type.dims if d not in over}}
    now = placeholder(Type(state.dtype), weak=state.weak)
    dtype, weak = common((now, out))
    return StateType(dtype, weak, tuple(sorted(sizes.items())))


def _built(
    log: ReadLog,
    leaves: Sequence[Init],
    outs: Sequence[Sized],
    over: tuple[str, ...],
    sizes: Sizes,
    loc: Loc | None,
) -> list[Array]:
    """The node, from the trace whose types are final."""
    results = [expand(_typed(o, s), dict(s.sizes)) for o, s in zip(outs, log.states, strict=True)]
    reads = tuple(log.made)
    inits = [_init_at(leaves[r.state], r, log, sizes, loc) for r in reads]
    body, captured = body_at(results, tuple(log.made.values()), over, log.start, loc)

    def op(*args: Var) -> RecurOp:
        return RecurOp(
            over,
            _forward(log),
            tuple(sizes[d] for d in over),
            reads,
            args[: len(inits)],
            args[len(inits) :],
            body,
        )

    at = {d: sizes[d] for d in over}
    types = [Type.of(s.dtype, {**dict(s.sizes), **at}) for s in log.states]
    states = emit(op, (*inits, *captured), types, loc)
    return [wrap(s) for s in states]


def _typed(value: Sized, state: StateType) -> Sized:
    return force(convert(value, state.dtype, weak=False), "recur", None)


def _init_at(leaf: Init, read: Read, log: ReadLog, sizes: Sizes, loc: Loc | None) -> Sized:
    """What a read gives where it is out of range, at each position of the reader."""
    state = log.states[read.state]
    if isinstance(leaf, (Sized, Unsized)):
        value = leaf
    else:
        places = [Form.of(d) - s for d, s in zip(log.over, read.shift, strict=True)]
        value = operand(leaf(*(wrap(form_value(p)) for p in places)))
    if isinstance(value, Unsized):
        facts = tuple(Known(d, sizes[d], None) for d in log.over if d in value.dims)
        value = replace(value, known=(*value.known, *facts))
    sized = _typed(force(value, "recur init", loc), state)
    _check_init(sized, state, log.over, loc)
    return expand(sized, dict(state.sizes))


def _check_init(value: Sized, state: StateType, over: tuple[str, ...], loc: Loc | None) -> None:
    known = dict(state.sizes)
    for dim, size in value.type.dims:
        if dim not in over and known.get(dim) != size:
            names = Names(value.dims)
            what = f"init and step differ in {names[dim]}: {size} and {known.get(dim)}"
            raise DimError(message(what, [row(value, names, loc), *source_row(loc)], ""))
