"""Functions of functions: grad, value_and_grad, vjp, jvp, jacobian, hessian, vmap.

    sm.grad(loss)(w, x)         d loss / d w, with w's dims

A transform traces its function into a Program, hands it to `ad`, and puts the program that comes
back into the lazy graph. So the result is an ordinary expression, and transforms nest in any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from summand import ad
from summand.errors import ArgumentError, DerivativeError, DimError, InternalError, Loc
from summand.ir.index import Form
from summand.ir.nodes import Program, Type
from summand.lang import keys
from summand.lang.array import Dim, dim_key, is_array, operand, wrap
from summand.lang.batch import replay_with
from summand.lang.describe import Names, message, ordered, row, source_row
from summand.lang.elementwise import convert, elementwise, expand, iota
from summand.lang.graph import Sized, constant, placeholder, placeholder_for
from summand.lang.location import here
from summand.lang.pytree import (
    Structure,
    flatten,
    leaves_of,
    shown,
    unflatten,
    unflatten_call,
    unflatten_tuple,
)
from summand.lang.reindex import reindex
from summand.lang.signature import argument_names, check_function
from summand.lang.trace import extract, tracing
from summand.lang.unsized import Value, force

Tree = object
Argnums = int | Sequence[int]


@dataclass(frozen=True, slots=True)
class Linear:
    """A traced function: its program, the values of its parameters, the form of what it returned.

    The first `count` parameters are the leaves that it is differentiated by.
    """

    program: Program
    values: tuple[Sized, ...]
    count: int
    tree: Structure
    aux: Tree

    @property
    def wrt(self) -> tuple[int, ...]:
        """The positions of those leaves."""
        return tuple(range(self.count))


def _positions(argnums: Argnums) -> tuple[int, ...]:
    found = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not all(isinstance(n, int) for n in found):
        what = f"argnums are positions of arguments, not {argnums!r}"
        raise ArgumentError(message(what, source_row(here()), "Write argnums=0 or argnums=(0, 2)."))
    return found


def linearise(
    function: Callable[..., Tree],
    args: Sequence[Tree],
    kwargs: Mapping[str, Tree],
    argnums: Sequence[int],
    has_aux: bool,
    name: str,
) -> tuple[Linear, Structure]:
    """Trace a function of the leaves of `args[argnums]`."""
    loc = here()
    check_function(function, name)
    for number in argnums:
        if not -len(args) <= number < len(args):
            what = f"{name} by argument {number}, but {len(args)} are given"
            raise ArgumentError(message(what, source_row(loc), "Pass it by position."))
    chosen = tuple(args[n] for n in argnums)
    leaves, tree = flatten(chosen)
    labels = _labels(function, args, argnums)
    values = [_differentiable(leaf, name, loc) for leaf in leaves]
    inputs = [placeholder_for(v, label) for v, label in zip(values, labels, strict=True)]
    packed = unflatten_tuple(tree, [wrap(i) for i in inputs])
    given = list(args)
    for number, tracked in zip(argnums, packed, strict=True):
        given[number] = tracked
    with tracing():
        out = function(*given, **kwargs)
    aux: Tree = None
    if has_aux:
        if not isinstance(out, tuple) or len(out) != 2:
            what = f"{name} with has_aux=True needs a function that returns (result, aux)"
            raise ArgumentError(message(what, source_row(loc), "Return a pair."))
        out, aux = out
    outs, out_tree = flatten(out)
    sized = [force(operand(o), name, loc) for o in outs]
    main = extract(sized, inputs)
    linear = Linear(
        main.program,
        (*values, *main.captured),
        len(inputs),
        out_tree,
        _released(aux, inputs, values) if has_aux else None,
    )
    return linear, tree


def _labels(
    function: Callable[..., Tree], args: Sequence[Tree], argnums: Sequence[int]
) -> list[str]:
    """The names of the leaves of the chosen arguments."""
    labels: list[str] = []
    for number in argnums:
        leaves = leaves_of(args[number])
        marked: list[Tree] = [None] * len(args)
        marked[number] = args[number]
        _, whole = flatten((tuple(marked), {}))
        labels += argument_names(function, whole, len(leaves))
    return labels


def _released(aux: Tree, inputs: Sequence[Sized], values: Sequence[Sized]) -> Tree:
    """Auxiliary results in terms of the real arguments in place of the placeholders."""
    leaves, tree = flatten(aux, none_is_leaf=True)
    arrays = [leaf for leaf in leaves if is_array(leaf)]
    sized = [a.sized("aux") for a in arrays]
    extracted = extract(sized, inputs)
    outs = replay_with(extracted.program, (*values, *extracted.captured))
    real = iter(wrap(o) for o in outs)
    return unflatten(
        tree,
        [next(real) if is_array(x) else x for x in leaves],
    )


def _differentiable(leaf: object, name: str, loc: Loc | None) -> Sized:
    value = force(operand(leaf), name, loc)
    if isinstance(leaf, (bool, int)) or not value.dtype.is_inexact:
        names = Names(value.dims)
        what = f"{name} by an argument of type {value.dtype.name}"
        advice = "Derivatives are by floats: convert it, .astype(sm.f32), or choose other argnums."
        raise DerivativeError(message(what, [row(value, names, loc), *source_row(loc)], advice))
    return value


# ---- reverse


def value_and_grad(
    function: Callable[..., Tree], argnums: Argnums = 0, *, has_aux: bool = False
) -> Callable[..., tuple[Tree, Tree]]:
    """A function that gives (value, gradient); with has_aux, ((value, aux), gradient).

    function: returns one float without dims. The gradient has the form of the arguments `argnums`
    (a tuple of them where argnums is a sequence), each leaf the dims and type of its argument.
    Raises DerivativeError where the result has dims or is not a float.
    """
    chosen = _positions(argnums)

    @functools.wraps(function, updated=())
    def differentiated(*args: Tree, **kwargs: Tree) -> tuple[Tree, Tree]:
        linear, tree = linearise(function, args, kwargs, chosen, has_aux, "grad")
        _check_scalar(linear)
        program = ad.vjp(linear.program, linear.wrt)
        seed = constant(1, linear.program.results[0].type.dtype)
        value, *grads = replay_with(program, (*linear.values, seed))
        packed = unflatten_tuple(tree, [wrap(g) for g in grads])
        gradient = packed[0] if isinstance(argnums, int) else packed
        result = unflatten(linear.tree, [wrap(value)])
        return ((result, linear.aux) if has_aux else result), gradient

    return differentiated


def _check_scalar(linear: Linear) -> None:
    results = linear.program.results
    loc = here()
    if len(results) != 1:
        what = f"grad needs a function of one result, this has {len(results)}"
        raise DerivativeError(message(what, source_row(loc), "Return the loss; others by has_aux."))
    type_ = results[0].type
    if type_.dims:
        names = Names(type_.names)
        shown = names.type(type_.dtype, ordered(type_.dims))
        listed = names.list(d for d, _ in ordered(type_.dims))
        what = f"grad needs a result without dims, this is {shown}"
        advice = f"Sum it: sm.sum[{listed}](...); for each {listed} use sm.vmap or sm.vjp."
        raise DerivativeError(message(what, source_row(loc), advice))
    if not type_.dtype.is_float:
        what = f"grad needs a real float result, this is {type_.dtype.name}"
        raise DerivativeError(message(what, source_row(loc), "Convert it, or take .real or abs()."))


def grad(
    function: Callable[..., Tree], argnums: Argnums = 0, *, has_aux: bool = False
) -> Callable[..., Tree]:
    """A function that gives the gradient; with has_aux, (gradient, aux). See `value_and_grad`."""
    both = value_and_grad(function, argnums, has_aux=has_aux)

    @functools.wraps(function, updated=())
    def differentiated(*args: Tree, **kwargs: Tree) -> Tree:
        value, gradient = both(*args, **kwargs)
        if has_aux:
            assert isinstance(value, tuple)
            return gradient, value[1]
        return gradient

    return differentiated


def vjp(function: Callable[..., Tree], *primals: Tree, has_aux: bool = False) -> tuple[Tree, ...]:
    """(result, pull): pull maps a cotangent like the result to a tuple of the primals' cotangents.

    With has_aux, (result, pull, aux). A cotangent with further dims gives one pull for each.
    """
    linear, tree = linearise(function, primals, {}, range(len(primals)), has_aux, "vjp")
    program = ad.vjp(linear.program, linear.wrt)
    results = replay_with(linear.program, linear.values)

    def pull(cotangents: Tree) -> Tree:
        given, given_tree = flatten(cotangents)
        if given_tree != linear.tree:
            what = f"a cotangent has the form {shown(given_tree)}, the result {shown(linear.tree)}"
            raise ArgumentError(message(what, source_row(here()), "Pass one like the result."))
        pairs = zip(given, linear.program.results, strict=True)
        seeds = [_like(c, r.type, "cotangent") for c, r in pairs if r.type.dtype.is_inexact]
        outs = replay_with(program, (*linear.values, *seeds))[len(results) :]
        return unflatten(tree, [wrap(o) for o in outs])

    out = unflatten(linear.tree, [wrap(r) for r in results])
    return (out, pull, linear.aux) if has_aux else (out, pull)


def _like(x: object, type_: Type, what: str) -> Sized:
    """A tangent or cotangent with (at least) the dims and with the dtype of its value."""
    value = force(operand(x), what, here())
    value = force(convert(value, type_.dtype, weak=False), what, here())
    for dim, size in value.type.dims:
        if type_.sizes.get(dim, size) != size:
            names = Names([*value.dims, *type_.names])
            shown = names.type(type_.dtype, ordered(type_.dims))
            header = f"a {what} differs in {names[dim]} from its value {shown}"
            rows = [row(value, names, here()), *source_row(here())]
            raise DimError(message(header, rows, f"Pass a {what} of the value's dims and sizes."))
    return expand(value, type_.sizes)


# ---- forward


def jvp(
    function: Callable[..., Tree], primals: Sequence[Tree], tangents: Sequence[Tree]
) -> tuple[Tree, Tree]:
    """(result, tangent of the result) for tangents like the primals (tuples of arguments).

    Tangents with further dims give the result's tangent those dims.
    """
    linear, tree = linearise(function, tuple(primals), {}, range(len(primals)), False, "jvp")
    given, given_tree = flatten(tuple(tangents))
    if given_tree != tree:
        what = f"tangents have the form {shown(given_tree)}, the primals {shown(tree)}"
        raise ArgumentError(message(what, source_row(here()), "Pass tangents like the primals."))
    params = linear.program.params
    seeds = [_like(t, params[i].type, "tangent") for i, t in enumerate(given)]
    results, pushed = _push(linear, seeds)
    out = unflatten(linear.tree, [wrap(r) for r in results])
    return out, unflatten(linear.tree, [wrap(t) for t in pushed])


def _push(linear: Linear, seeds: Sequence[Sized]) -> tuple[list[Sized], list[Sized]]:
    """Results and their tangents; that of an integer result is zero."""
    program = ad.jvp(linear.program, linear.wrt)
    outs = replay_with(program, (*linear.values, *seeds))
    count = len(linear.program.results)
    results, rest = list(outs[:count]), iter(outs[count:])
    tangents = [
        next(rest) if r.dtype.is_inexact else expand(constant(0, r.dtype), r.type.sizes)
        for r in results
    ]
    return results, tangents


def jacobian(
    function: Callable[..., Tree],
    argnums: int = 0,
    *,
    rename: Mapping[Dim, Dim] | None = None,
) -> Callable[..., Tree]:
    """A function that gives every derivative of every result by the argument `argnums`.

    A leaf has the result's dims and the argument's. Where both have a dim, `rename` says what the
    argument's is to be called in the result: jacobian(f, rename={i: i2}). An argument that is a
    pytree gives, for each leaf of the result, a pytree like the argument.
    """
    names = {a.key: b.key for a, b in (rename or {}).items()}

    @functools.wraps(function, updated=())
    def differentiated(*args: Tree, **kwargs: Tree) -> Tree:
        linear, tree = linearise(function, args, kwargs, (argnums,), False, "jacobian")
        types = [p.type for p in linear.program.params[: linear.count]]
        columns: list[list[Sized]] = []
        for number, type_ in enumerate(types):
            _check_apart(linear, [names.get(d, d) for d in type_.names])
            apart = {d: keys.new_key(keys.info(d).name, None) for d, _ in type_.dims}
            seeds = [_unit(t, apart) if i == number else _zero(t) for i, t in enumerate(types)]
            back = {new: Form.of(names.get(d, d)) for d, new in apart.items()}
            columns.append([_column(t, apart, back) for t in _push(linear, seeds)[1]])
        rows = []
        for number in range(len(linear.program.results)):
            parts = [wrap(c[number]) for c in columns]
            rows.append(unflatten_tuple(tree, parts)[0])
        return unflatten(linear.tree, rows)

    return differentiated


def _column(tangent: Sized, apart: Mapping[str, str], back: Mapping[str, Form]) -> Sized:
    """A tangent with all of the dims `apart`, under the names that the user wants."""
    missing = [new for new in apart.values() if new not in tangent.dims]
    if missing:
        raise InternalError(f"jacobian: a tangent lacks {missing}")
    return force(reindex(tangent, back), "jacobian", None)


def _check_apart(linear: Linear, targets: Iterable[str]) -> None:
    for result in linear.program.results:
        for new in targets:
            if new in result.type.names:
                name = keys.info(new).name
                what = f"jacobian: both the result and the argument have the dim {name}"
                advice = f"Name the argument's: rename={{{name}: {name}2}}."
                raise DimError(message(what, source_row(here()), advice))


def _unit(type_: Type, apart: Mapping[str, str]) -> Sized:
    """1 where the argument's position equals that of the dims `apart`, else 0."""
    out: Value = constant(1, type_.dtype)
    zero = constant(0, type_.dtype)
    for dim, size in type_.dims:
        equal = elementwise("eq", iota(dim, size), iota(apart[dim], size))
        out = elementwise("where", equal, out, zero)
    return force(out, "jacobian", None)


def _zero(type_: Type) -> Sized:
    return expand(constant(0, type_.dtype), type_.sizes)


def hessian(
    function: Callable[..., Tree],
    argnums: int = 0,
    *,
    rename: Mapping[Dim, Dim] | None = None,
) -> Callable[..., Tree]:
    """A function that gives all second derivatives of one float: dims i and, renamed, i2.

    `rename` has a second dim for each dim of the argument: hessian(f, rename={i: i2}).
    """
    return jacobian(grad(function, argnums), argnums, rename=rename)


# ---- mapping


def vmap(function: Callable[..., Tree], over: Dim) -> Callable[..., Tree]:
    """The function for each position of a dim that it does not see.

    Functions of arrays take further dims anyhow; this hides one, for a function that asks for all
    dims of its arguments, or whose result must have none: vmap(grad(loss), n)(w, x).
    """

    check_function(function, "vmap")
    dim_key(over, "vmap")

    @functools.wraps(function, updated=())
    def mapped(*args: Tree, **kwargs: Tree) -> Tree:
        leaves, tree = flatten((args, kwargs), none_is_leaf=True)
        arrays = [x.sized("vmap") for x in leaves if is_array(x)]
        if all(over.key not in a.dims for a in arrays):
            what = f"vmap over {over.name}, but no argument has that dim"
            rows = [row(a, Names([*a.dims, over.key]), here()) for a in arrays]
            raise DimError(message(what, [*rows, *source_row(here())], ""))
        inputs = [placeholder(_without(a.type, over.key), "", a.weak, a.loc) for a in arrays]
        hidden = iter(wrap(i) for i in inputs)
        given = [next(hidden) if is_array(x) else x for x in leaves]
        inner_args, inner_kwargs = unflatten_call(tree, given)
        with tracing():
            out = function(*inner_args, **inner_kwargs)
        outs, out_tree = flatten(out, none_is_leaf=True)
        sized = [x.sized("vmap") for x in outs if is_array(x)]
        extracted = extract(sized, inputs)
        real = iter(replay_with(extracted.program, (*arrays, *extracted.captured)))
        results = [wrap(next(real)) if is_array(x) else x for x in outs]
        return unflatten(out_tree, results)

    return mapped


def _without(type_: Type, dim: str) -> Type:
    return Type(type_.dtype, tuple(x for x in type_.dims if x[0] != dim))
