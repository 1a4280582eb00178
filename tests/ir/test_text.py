"""The text of programs: readable, complete, and read back as it was."""

import math

import numpy as np
import pytest

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import (
    SUM,
    Call,
    Constant,
    Custom,
    Eqn,
    Group,
    Interleave,
    Monoid,
    Program,
    Type,
    Var,
)
from summand.ir.text import parse, text


def returns(program):
    assert parse(text(program)) == program
    return text(program)


def test_a_program():
    b = Builder()
    x, w = b.param(Type.of(dt.f32, {"i": 4, "k": 3})), b.param(Type.of(dt.f32, {"j": 2, "k": 3}))
    (y,) = b.reduce(SUM, ["k"], b.map("mul", x, w))
    z = b.reindex(y, {"i": Form.of("x") * 2 - 1, "j": Form.of("x") // 2}, {"x": 3}, "fill", -0.0)
    assert returns(b.finish([z])) == (
        "program (%0: f32{i=4,k=3}, %1: f32{j=2,k=3}) {\n"
        "  %2: f32{i=4,j=2,k=3} = mul %0 %1\n"
        "  %3: f32{i=4,j=2} = reduce sum {k} %2\n"
        "  %4: f32{x=3} = reindex %3 {i: 2*x - 1, j: x//2} fill -0.0\n"
        "  return %4\n"
        "}\n"
    )


VALUES = [True, False, 0, -7, 2**63, 0.1, -0.0, 1e-300, 1e22, math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("value", [*VALUES, 1 + 2j, complex(-0.0, math.inf), complex(1e30, -2.5)])
def test_scalars(value):
    program = Program((), (Eqn((Var(0, Type(dt.f64)),), Constant(value)),), ())
    found = parse(text(program)).eqns[0].op.value
    assert type(found) is type(value)
    assert repr(found) == repr(value)


def test_numpy_scalars_are_written_as_python_ones():
    program = Program((), (Eqn((Var(0, Type(dt.f32)),), Constant(np.float32(0.5))),), ())
    assert "constant 0.5\n" in text(program)


@pytest.mark.parametrize(
    ("dtype", "values", "shown"),
    [
        (dt.i32, [1, -2], "table (i) [1, -2]"),
        (dt.bool_, [True, False], "table (i) [True, False]"),
        (dt.f32, [1.0], "table (i) 0000803f"),
        (dt.i8, [], "table (i) []"),
        (dt.f32, [], "table (i) empty"),
    ],
)
def test_tables(dtype, values, shown):
    b = Builder()
    out = b.table(np.array(values), ("i",), dtype)
    assert shown in returns(b.finish([out]))


def test_equations_with_names_and_programs():
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": 4}))
    inner = Builder()
    v = inner.param(x.type)
    same = inner.finish([v])
    custom = b.emit(Custom(same, same, same, (x,)), [x.type])
    call = b.emit(Call('a "quoted" \\ name', (x,)), [x.type])
    index = b.convert(x, dt.i32)
    group = b.emit(Group(index, 3, "a"), [index.type, Type.of(dt.i32, {"a": 4})])
    mixed = b.emit(Interleave((x, x), (("i", 2),)), [Type.of(dt.f32, {"i": 8})])
    returns(b.finish([*custom, *call, *group, *mixed]))


def test_monoids_are_written_out_unless_they_are_the_named_ones():
    b = Builder()
    x = b.param(Type.of(dt.f32, {"i": 4}))
    other = Monoid("sum", (0.5,))
    outs = [*b.reduce(SUM, ["i"], x), *b.reduce(other, ["i"], x)]
    lines = returns(b.finish(outs)).splitlines()
    assert lines[1].endswith("reduce sum {i} %0")
    assert lines[2].endswith('reduce monoid "sum" [0.5] commutative named {i} %0')


@pytest.mark.parametrize(
    "source",
    ["program () {", "program () { return %0 }", "program () { %0: f32{} = what return %0 }", "x"],
)
def test_other_text_is_refused(source):
    with pytest.raises(ValueError, match="expected"):
        parse(source)
