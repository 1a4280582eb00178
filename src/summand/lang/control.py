"""`sm.cond`, `sm.while_loop`: control that depends on numbers.

    sm.cond(n > 0, lambda x: x / n, lambda x: x, x)
    sm.while_loop(lambda s: s[1] < 10, lambda s: (s[0] * 2, s[1] + 1), (x, 0))

Both branches and the body of a loop are traced into sub-programs; what they read from outside is
passed in. Only one branch runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from summand.dtypes import bool_
from summand.errors import ArgumentError, DimError, Loc
from summand.ir.nodes import Cond, Program, Var, While
from summand.lang.array import Array, operand, wrap
from summand.lang.describe import Names, message, sizes_in_order, source_row
from summand.lang.elementwise import common, convert, expand, truth
from summand.lang.graph import Sized, emit, placeholder, serial_now
from summand.lang.location import here
from summand.lang.pytree import flatten, shown, unflatten
from summand.lang.signature import check_function
from summand.lang.trace import Extracted, extract, stepped_over, tracing, with_captured
from summand.lang.unsized import force, force_together

Tree = object
ROUNDS = 8


def cond(
    pred: Array | bool, then: Callable[..., Tree], other: Callable[..., Tree], *args: Tree
) -> Tree:
    """`then(*args)` where the scalar `pred` holds, else `other(*args)`; only that one runs
    (in the step of a recurrence both do, and one is chosen).

    Both must return pytrees of one structure; dims and types that differ are made equal.
    Raises DimError where pred has dims: choose by element with `sm.where`.
    """
    loc = here()
    check_function(then, "cond")
    check_function(other, "cond")
    predicate = _scalar_pred(pred, "cond", loc)
    start = serial_now()
    with tracing():
        outs = [flatten(f(*args)) for f in (then, other)]
    (leaves, tree), (others, other_tree) = outs
    if tree != other_tree:
        what = f"the branches of cond return {shown(tree)} and {shown(other_tree)}"
        raise ArgumentError(message(what, source_row(loc), "Return one structure from both."))
    sized = force_together([operand(x) for x in (*leaves, *others)], "cond", loc)
    halves = zip(sized[: len(leaves)], sized[len(leaves) :], strict=True)
    pairs = [_unified(pair, predicate, loc) for pair in halves]
    sides = [extract([p[i] for p in pairs], (), since=start) for i in range(2)]
    captured, programs = _shared(sides, 0)
    types = [p[0].type for p in pairs]

    def op(test: Var, *values: Var) -> Cond:
        return Cond(test, programs[0], programs[1], values)

    results = emit(op, (predicate, *captured), types, loc)
    return unflatten(tree, [wrap(r) for r in results])


def while_loop(test: Callable[[Tree], Array], body: Callable[[Tree], Tree], init: Tree) -> Tree:
    """state = body(state) while test(state) holds, from `init`; returns the last state.

    The state is a pytree; its dims and types are those that body keeps.
    """
    loc = here()
    check_function(test, "while_loop")
    check_function(body, "while_loop")
    leaves, tree = flatten(init)
    state = force_together([operand(leaf) for leaf in leaves], "while_loop", loc)
    for _ in range(ROUNDS):
        start = serial_now()
        inner = [placeholder(s.type, "state", s.weak, loc) for s in state]
        packed = unflatten(tree, [wrap(i) for i in inner])
        with tracing():
            new, new_tree = flatten(body(packed))
            again = _scalar_pred(test(packed), "while_loop", loc)
        if new_tree != tree:
            what = (
                f"the body of while_loop returns {shown(new_tree)}, but the state is {shown(tree)}"
            )
            raise ArgumentError(message(what, source_row(loc), "Return a state like init."))
        sized = force_together([operand(n) for n in new], "while_loop", loc)
        pairs = [_unified(pair, again, loc) for pair in zip(state, sized, strict=True)]
        same = (p[0].type == s.type for p, s in zip(pairs, state, strict=True))
        if all(same):
            outs = [p[1] for p in pairs]
            parts = [extract(r, inner, since=start) for r in ([again], outs)]
            return unflatten(tree, _loop(state, parts, loc))
        state = [p[0] for p in pairs]
    what = "the dims of the state of while_loop keep growing"
    raise ArgumentError(message(what, source_row(loc), "Keep the same dims in every round."))


def _loop(state: Sequence[Sized], parts: Sequence[Extracted], loc: Loc | None) -> list[Array]:
    captured, programs = _shared(parts, len(state))

    def op(*values: Var) -> While:
        outer = len(captured)
        return While(programs[0], programs[1], values[:outer], values[outer:])

    results = emit(op, (*captured, *state), [s.type for s in state], loc)
    return [wrap(r) for r in results]


def _shared(parts: Sequence[Extracted], inputs: int) -> tuple[tuple[Sized, ...], list[Program]]:
    """One list of captured values for several programs, whose parameters are these, then inputs."""
    captured = tuple(dict.fromkeys(c for e in parts for c in e.captured))
    programs = []
    for extracted in parts:
        program = with_captured(extracted, captured, inputs)
        params = (*program.params[inputs:], *program.params[:inputs])
        programs.append(Program(params, program.eqns, program.results))
    return captured, programs


def _scalar_pred(pred: object, name: str, loc: Loc | None) -> Sized:
    value = force(truth(operand(pred)), name, loc)
    if any(d not in stepped_over() for d in value.dims):
        names = Names(value.dims)
        shown = names.type(bool_, sizes_in_order(value))
        what = f"the condition of {name} has dims: {shown}"
        advice = "To choose by element use sm.where; to ask of all, sm.all[...]."
        raise DimError(message(what, source_row(loc), advice))
    return Sized(value.node, value.out)


def _unified(pair: tuple[Sized, Sized], decided: Sized, loc: Loc | None) -> tuple[Sized, Sized]:
    """Two values with one type and one set of dims; those of what decides between them too."""
    dtype, weak = common(pair)
    sizes = decided.type.sizes
    for value in pair:
        for dim, size in value.type.dims:
            if sizes.setdefault(dim, size) != size:
                names = Names(value.dims)
                what = f"{names[dim]} has sizes {sizes[dim]} and {size} in the two branches"
                raise DimError(message(what, source_row(loc), "Return one size from both."))
    a, b = (expand(force(convert(v, dtype, weak), "", loc), sizes) for v in pair)
    return Sized(a.node, a.out, weak), Sized(b.node, b.out, weak)
