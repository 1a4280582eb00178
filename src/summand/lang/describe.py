"""How values and dims are shown in messages: `x: f32{i=128, k=64}   model.py:12`.

Two dims spelled alike are told apart by the line that made them: `k@model.py:3`, `k@model.py:9`,
and where that is one line, by the run of it: `k@In[4]:1 (run 1)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from summand.dtypes import DType
from summand.errors import Loc, layout
from summand.ir.index import Form
from summand.ir.nodes import Constant, Map, Reduce, Reindex, Table
from summand.lang import keys
from summand.lang.graph import Node, Sized

Row = tuple[str, Loc | None]
RERUN = "A line that is run twice (a notebook's cell, a function's body) makes new dims each time."

_LONG = 90  # characters of a source line that a message shows
_ASSIGNED = re.compile(r"([^\W\d]\w*)\s*(?::[^=]+)?=[^=]")


class Names:
    """What to call each of the dims that occur in one message."""

    def __init__(self, dims: Iterable[str]) -> None:
        self.rerun = False
        self._shown: dict[str, str] = {}
        alike: dict[str, list[str]] = {}
        for key in sorted(set(dims), key=keys.by_name):
            alike.setdefault(keys.info(key).name, []).append(key)
        for name, group in alike.items():
            for key in group:
                self._shown[key] = name if len(group) == 1 else self._placed(key, group)

    def _placed(self, key: str, group: Sequence[str]) -> str:
        found = keys.info(key)
        same_line = [k for k in group if keys.info(k).loc == found.loc]
        text = f"{found.name}@{found.loc}" if found.loc else found.name
        if len(same_line) == 1:
            return text
        self.rerun = True
        return f"{text} (run {same_line.index(key) + 1})"

    def __getitem__(self, key: str) -> str:
        return self._shown.get(key) or keys.info(key).name

    def list(self, dims: Iterable[str]) -> str:
        """Dims with commas; `no dims` where there are none."""
        return ", ".join(self[d] for d in dims) or "no dims"

    def type(self, dtype: DType, sizes: Iterable[tuple[str, int | None]]) -> str:
        """`f32{i=128, k=64}`; `?` for a size that is not known yet."""
        inner = ", ".join(f"{self[d]}={'?' if n is None else n}" for d, n in sizes)
        return f"{dtype.name}{{{inner}}}"

    def form(self, form: Form) -> str:
        """An index form as the user wrote it, or near."""
        return str(form.rename({d: _token(d) for d in form.dims})) if form.dims else str(form)

    def advice(self, text: str) -> str:
        """`text`, with a word on lines that ran twice where that is what happened."""
        return f"{text}\n{RERUN}" if self.rerun else text


def _token(key: str) -> str:
    return keys.info(key).name


def ordered(sizes: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Dims in the order in which they were made: `dims("n k")` lists n first."""
    return sorted(sizes, key=lambda item: keys.info(item[0]).serial)


def sizes_in_order(value: Sized) -> list[tuple[str, int]]:
    """Dims and sizes as messages list them: as the user did when he made the array."""
    sizes = value.type.sizes
    return [(d, sizes[d]) for d in value.node.order] or ordered(value.type.dims)


def name_of(value: Sized, at: Loc | None) -> str:
    """What the user calls a value: the name it was assigned to, else the source text that made it.

    A value made on the line `at` that is being reported has no name yet: it is shown by its op.
    """
    node = value.node
    if node.label:
        return node.label
    if node.loc is None or node.loc == at:
        return _op_name(node, at)
    assigned = _ASSIGNED.match(node.loc.text)
    if assigned:
        return assigned.group(1)
    return _text(node.loc) or _op_name(node, at)


def _op_name(node: Node, at: Loc | None) -> str:
    op = node.op
    match op:
        case None:
            return "array"
        case Map(fn="convert"):
            return name_of(node.args[0], at)
        case Map():
            return f"{op.fn}(…)"
        case Constant():
            return str(op.value) if not isinstance(op.value, Table) else "table"
        case Reindex():
            names = Names([*node.args[0].dims, *node.types[0].names])
            places = (
                f"{names[d]}: {names.form(i) if isinstance(i, Form) else '…'}" for d, i in op.index
            )
            return f"{name_of(node.args[0], at)}[{', '.join(places)}]"
        case Reduce():
            return f"{op.monoid.name}(…)"
        case _:
            return f"{type(op).__name__.lower()}(…)"


def row(value: Sized, names: Names, at: Loc | None) -> Row:
    """One operand's line in a message."""
    shown = names.type(value.dtype, sizes_in_order(value))
    return (f"{name_of(value, at)}: {shown}", value.loc)


def source_row(loc: Loc | None) -> list[Row]:
    """The user's own line."""
    return [(_text(loc) or "(no source text)", loc)] if loc else []


def _text(loc: Loc) -> str:
    """The line's text, as far as it is needed to find it."""
    text = loc.text.removeprefix("return ")
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def message(what: str, rows: Sequence[Row], advice: str) -> str:
    """Lay a message out, each row once."""
    return layout(what, list(dict.fromkeys(rows)), advice)
