"""Selections that a padded read makes by itself.

    where(t >= 1, h[t: t - 1] fill 0, 2)   ->   h[t: t - 1] fill 2

So a recurrence's earlier states are one read where the recurrence starts from a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from summand.ir.index import Form
from summand.ir.nodes import Map, Reindex, Type, Var
from summand.rewrite.simplify.smart import Smart

COMPARED = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def filled(new: Smart, pred: Var, then: Var, other: Var, type_: Type) -> Var | None:
    """where(pred, then, other) as one read, if `pred` holds just where `then` is not padding."""
    made = new.made(then)
    number = new.number(other)
    if number is None or made is None or not isinstance(made.op, Reindex):
        return None
    op = made.op
    if op.mode != "fill" or len(op.index) != 1:
        return None
    ((dim, form),) = op.index
    if not isinstance(form, Form) or len(form.dims) != 1 or 0 in type_.sizes.values():
        return None
    (along,) = form.dims
    place = np.arange(type_.sizes[along])
    inside = _along(form, along, place)
    wanted = (inside >= 0) & (inside < op.arg.type.sizes[dim])
    found = _truth(new, pred, along, place)
    if found is None or not np.array_equal(found, wanted):
        return None
    read = new.reindex(op.arg, {dim: form}, then.type.sizes, "fill", number)
    return new.spread(read, type_.sizes)


def _truth(new: Smart, pred: Var, dim: str, place: np.ndarray) -> np.ndarray | None:
    """A comparison of index forms over one dim, at each of its positions."""
    made = new.made(pred)
    if made is None or not isinstance(made.op, Map) or made.op.fn not in COMPARED:
        return None
    forms = [new.facts.forms.get(a) for a in made.op.args]
    values = []
    for form in forms:
        if form is None or not form.dims <= {dim}:
            return None
        values.append(_along(form, dim, place))
    return np.asarray(COMPARED[made.op.fn](*values))


def _along(form: Form, dim: str, place: np.ndarray) -> np.ndarray:
    """A form's values at all positions at once; `Form.evaluate` takes arrays as well as numbers."""
    at = cast(Mapping[str, int], {dim: place})
    return np.broadcast_to(np.asarray(form.evaluate(at)), place.shape)
