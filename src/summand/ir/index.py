"""Index forms: affine and quasi-affine functions of dims, the heart of the compiler.

A `Form` is  const + Σ coefficient · atom,  where an atom is a dim (its position, 0 … size-1), or
`form // n` or `form % n` with a positive constant n (floor division, as in Python).
Extent inference, proofs that a read is in range, fusing a reindex into its reader, window adjoints,
vectorisation and recurrence legality are all questions to this module.

Text: `2*x + kx - 1`, `(x + 3)//2`, `x % 4`; `parse(str(form)) == form`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Quasi:
    """`form // by` or `form % by`, by >= 1."""

    op: Literal["//", "%"]
    form: Form
    by: int

    def __str__(self) -> str:
        inner = str(self.form)
        simple = re.fullmatch(r"[\w.#$']+", inner)
        return f"{inner if simple else f'({inner})'}{self.op}{self.by}"


Atom = str | Quasi


def _atom_key(atom: Atom) -> tuple[int, str]:
    return (0, atom) if isinstance(atom, str) else (1, str(atom))


@dataclass(frozen=True, slots=True)
class Form:
    """const + Σ coefficient · atom; terms are sorted and have no zero coefficient."""

    terms: tuple[tuple[Atom, int], ...] = ()
    const: int = 0

    @staticmethod
    def of(value: Form | str | int) -> Form:
        """A form from a dim's name, an integer, or a form itself."""
        if isinstance(value, Form):
            return value
        if isinstance(value, str):
            return Form(((value, 1),), 0)
        return Form((), int(value))

    @staticmethod
    def make(terms: Iterable[tuple[Atom, int]], const: int = 0) -> Form:
        """Sum of terms: equal atoms are merged and zero coefficients dropped."""
        total: dict[Atom, int] = {}
        for atom, coefficient in terms:
            total[atom] = total.get(atom, 0) + coefficient
        kept = [(a, c) for a, c in total.items() if c]
        return Form(tuple(sorted(kept, key=lambda t: _atom_key(t[0]))), const)

    # ---- arithmetic
    def __add__(self, other: Form | str | int) -> Form:
        other = Form.of(other)
        return Form.make(self.terms + other.terms, self.const + other.const)

    def __sub__(self, other: Form | str | int) -> Form:
        return self + Form.of(other) * -1

    def __neg__(self) -> Form:
        return self * -1

    def __mul__(self, by: int) -> Form:
        return Form.make(((a, c * by) for a, c in self.terms), self.const * by)

    def __floordiv__(self, by: int) -> Form:
        """Floor division; whole multiples of `by` leave the quotient exactly."""
        if by <= 0:
            raise ValueError("an index form is divided by a positive constant only")
        if by == 1:
            return self
        whole = [(a, c // by) for a, c in self.terms if c % by == 0]
        rest = Form.make(((a, c) for a, c in self.terms if c % by), self.const % by)
        out = Form.make(whole, self.const // by)
        if not rest.terms:
            return out
        return out + Form.make([(Quasi("//", rest, by), 1)])

    def __mod__(self, by: int) -> Form:
        """Remainder in 0 … by-1, as in Python; whole multiples of `by` vanish."""
        if by <= 0:
            raise ValueError("an index form is reduced modulo a positive constant only")
        rest = Form.make(((a, c % by) for a, c in self.terms), self.const % by)
        if not rest.terms:
            return Form.of(rest.const % by)
        return Form.make([(Quasi("%", rest, by), 1)])

    # ---- questions
    @property
    def dims(self) -> frozenset[str]:
        """All dims that the form reads."""
        found: set[str] = set()
        for atom, _ in self.terms:
            found |= {atom} if isinstance(atom, str) else atom.form.dims
        return frozenset(found)

    @property
    def is_affine(self) -> bool:
        """True where no `//` or `%` occurs."""
        return all(isinstance(a, str) for a, _ in self.terms)

    @property
    def is_const(self) -> bool:
        """True where the form reads no dim."""
        return not self.terms

    def as_dim(self) -> str | None:
        """The dim's name where the form is one dim and nothing else."""
        if self.const == 0 and len(self.terms) == 1 and self.terms[0][1] == 1:
            atom = self.terms[0][0]
            return atom if isinstance(atom, str) else None
        return None

    def coefficient(self, dim: str) -> int:
        """The coefficient of a bare dim (its occurrences under // and % not counted)."""
        return next((c for a, c in self.terms if a == dim), 0)

    def evaluate(self, at: Mapping[str, int]) -> int:
        """The form's value at a point. Works for NumPy arrays of positions as well."""
        total = self.const
        for atom, c in self.terms:
            if isinstance(atom, str):
                total = total + c * at[atom]
            elif atom.op == "//":
                total = total + c * (atom.form.evaluate(at) // atom.by)
            else:
                total = total + c * (atom.form.evaluate(at) % atom.by)
        return total

    def range(self, sizes: Mapping[str, int]) -> tuple[int, int]:
        """Least and greatest value over the box 0 <= dim < size; exact for affine forms.

        An interval that may be wider than the truth for quasi-affine ones. No dim may have size 0.
        """
        return self.interval({d: (0, sizes[d] - 1) for d in self.dims})

    def interval(self, ranges: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
        """The same where each dim lies between a least and a greatest value."""
        lo = hi = self.const
        for atom, c in self.terms:
            if isinstance(atom, str):
                a, b = ranges[atom]
            else:
                a, b = atom.form.interval(ranges)
                if atom.op == "//":
                    a, b = a // atom.by, b // atom.by
                elif a // atom.by == b // atom.by:
                    a, b = a % atom.by, b % atom.by
                else:
                    a, b = 0, atom.by - 1
            lo += min(c * a, c * b)
            hi += max(c * a, c * b)
        return lo, hi

    def substitute(self, values: Mapping[str, Form]) -> Form:
        """Put a form in place of each named dim (simultaneously)."""
        if not self.dims & values.keys():
            return self
        out = Form((), self.const)
        for atom, c in self.terms:
            if isinstance(atom, str):
                out = out + (values[atom] * c if atom in values else Form(((atom, c),)))
            else:
                inner = atom.form.substitute(values)
                out = out + (inner // atom.by if atom.op == "//" else inner % atom.by) * c
        return out

    def rename(self, names: Mapping[str, str]) -> Form:
        """Give dims other names (simultaneously)."""
        return self.substitute({a: Form.of(b) for a, b in names.items()})

    def simplify(self, sizes: Mapping[str, int]) -> Form:
        """Drop `//` and `%` that the dims' sizes make trivial."""
        out = Form((), self.const)
        for atom, c in self.terms:
            if isinstance(atom, str):
                out = out + Form(((atom, c),))
                continue
            inner = atom.form.simplify(sizes)
            term = inner // atom.by if atom.op == "//" else inner % atom.by
            if inner.dims <= sizes.keys() and all(sizes[d] > 0 for d in inner.dims):
                inner = inner if atom.op == "//" else inner.near(atom.by)
                lo, hi = inner.range(sizes)
                if lo // atom.by == hi // atom.by:
                    quotient = lo // atom.by
                    term = Form.of(quotient) if atom.op == "//" else inner - quotient * atom.by
            out = out + term * c
        return out

    def near(self, by: int) -> Form:
        """A form that is the same modulo `by`, with coefficients of least magnitude."""
        terms = ((a, c % by - by if 2 * (c % by) > by else c % by) for a, c in self.terms)
        return Form.make(terms, self.const)

    def solve(self, dim: str) -> tuple[int, Form] | None:
        """Write  self = c·dim + rest  with `dim` not in rest; None where that is impossible."""
        c = self.coefficient(dim)
        rest = Form.make((t for t in self.terms if t[0] != dim), self.const)
        return (c, rest) if c and dim not in rest.dims else None

    def __str__(self) -> str:
        parts: list[str] = []
        for atom, c in self.terms:
            text = str(atom) if abs(c) == 1 else f"{abs(c)}*{atom}"
            sign = "-" if c < 0 else "+"
            parts.append(f" {sign} {text}" if parts else ("-" if c < 0 else "") + text)
        if self.const or not parts:
            if parts:
                parts.append(f" {'-' if self.const < 0 else '+'} {abs(self.const)}")
            else:
                parts.append(str(self.const))
        return "".join(parts)


_TOKEN = re.compile(r"\s*(//|[%*()+\-]|\d+|[^\W\d][\w.#$']*)")


def parse(text: str) -> Form:
    """Read a form back from its text."""
    tokens, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if not match:
            raise ValueError(f"not an index form: {text!r}")
        tokens.append(match.group(1))
        at = match.end()
    form, rest = _sum(tokens)
    if rest:
        raise ValueError(f"not an index form: {text!r}")
    return form


def _sum(tokens: list[str]) -> tuple[Form, list[str]]:
    form, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        sign = 1 if tokens[0] == "+" else -1
        term, tokens = _product(tokens[1:])
        form = form + term * sign
    return form, tokens


def _product(tokens: list[str]) -> tuple[Form, list[str]]:
    form, tokens = _unit(tokens)
    while tokens and tokens[0] in ("*", "//", "%"):
        op = tokens[0]
        right, tokens = _unit(tokens[1:])
        if op == "*" and form.is_const:
            form = right * form.const
        elif not right.is_const:
            raise ValueError("an index form is scaled and divided by constants only")
        elif op == "*":
            form = form * right.const
        else:
            form = form // right.const if op == "//" else form % right.const
    return form, tokens


def _unit(tokens: list[str]) -> tuple[Form, list[str]]:
    if not tokens:
        raise ValueError("an index form ends too early")
    head, rest = tokens[0], tokens[1:]
    if head == "-":
        form, rest = _unit(rest)
        return -form, rest
    if head == "(":
        form, rest = _sum(rest)
        if not rest or rest[0] != ")":
            raise ValueError("an index form lacks a closing parenthesis")
        return form, rest[1:]
    return (Form.of(int(head)) if head.isdigit() else Form.of(head)), rest
