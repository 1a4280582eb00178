"""Carries: states in registers, in lanes, unrolled, in memory; stores that combine in order."""

from summand.dtypes import f32, i32, i64
from summand.ir.index import Form, parse
from summand.loops.nodes import Address, Apply, Bound, Carry, Const, Last, Load, Nest, Store
from tests.codegen.kernels import at, buffer, check_nest, schedule, total


def test_scan():
    code = (
        Load("h", at("d"), f32),
        Load("x", at("21*t+d"), f32),
        Load("a", at("d"), f32),
        Carry("t", 0, 5, f32),
        Apply("mul", (3, 2), f32),
        Apply("add", (4, 1), f32),
        Last(3, f32),
    )
    stores = (Store("y", at("21*t+d"), 5), Store("l", at("d"), 6), Store("p", at("21*t+d"), 3))
    nest = Nest((("d", 21), ("t", 13)), code, stores, ordered=("t",))
    params = (
        buffer("h", 21),
        buffer("x", 13 * 21),
        buffer("a", 21),
        buffer("y", 13 * 21),
        buffer("l", 21),
        buffer("p", 13 * 21),
    )
    schedules = (
        None,
        schedule("d16", "", "", "d t"),
        schedule("d8", "d2", "t4", "d t"),
        schedule("d16", "d2", "t13", ""),
        schedule("d4", "", "t3", "d t"),
    )
    check_nest(nest, params, schedules, 1e-3)


def state_space(d, n, t) -> Nest:
    code = (
        Const(0.5, f32),
        Load("x", at(f"{d}*t+d"), f32),
        Load("a", at(f"{n}*d+n"), f32),
        Load("c", at(f"{n}*t+n"), f32),
        Carry("t", 0, 6, f32),
        Apply("mul", (4, 2), f32),
        Apply("add", (5, 1), f32),
        Apply("mul", (6, 3), f32),
        total("n", 7),
        Last(4, f32),
    )
    stores = (Store("y", at(f"{d}*t+d"), 8), Store("l", at(f"{n}*d+n"), 9))
    return Nest((("d", d), ("n", n), ("t", t)), code, stores, ordered=("t",))


def test_a_fold_over_a_dim_of_the_state():
    d, n, t = 19, 4, 11
    params = (
        buffer("x", t * d),
        buffer("a", d * n),
        buffer("c", t * n),
        buffer("y", t * d),
        buffer("l", d * n),
    )
    schedules = (
        None,  # the state varies along a loop inside its own: it lies in memory
        schedule("d16", "n4", "", "d t"),
        schedule("d8", "n4", "t2", "d t"),
        schedule("n4", "d2", "", "d t"),
    )
    check_nest(state_space(d, n, t), params, schedules, 1e-3)


def test_states_that_read_each_other():
    code = (
        Const(1, i32),
        Const(0, i32),
        Carry("t", 0, 4, i32),
        Carry("t", 1, 2, i32),
        Apply("add", (2, 3), i32),
        Last(2, i32),
        Last(3, i32),
    )
    stores = (Store("y", at("t"), 4), Store("l", at("0"), 5), Store("m", at("0"), 6))
    nest = Nest((("t", 17),), code, stores, ordered=("t",))
    params = (buffer("y", 17, i32), buffer("l", 1, i32), buffer("m", 1, i32))
    schedules = (None, schedule("", "", "t4", "t"), schedule("", "", "t17", ""))
    check_nest(nest, params, schedules, 0)


def test_no_position_at_all_leaves_the_first_state():
    code = (
        Load("x", at("i"), f32),
        Carry("t", 0, 2, f32),
        Apply("add", (1, 0), f32),
        Last(1, f32),
    )
    nest = Nest((("i", 20), ("t", 0)), code, (Store("y", at("i"), 3),), ordered=("t",))
    schedules = (None, schedule("i16", "", "", "i t"))
    check_nest(nest, (buffer("x", 20), buffer("y", 20)), schedules)


def test_bounds_of_a_carry():
    code = (
        Load("x", at("13*i+t"), f32),
        Const(0.0, f32),
        Carry("t", 1, 3, f32),
        Apply("add", (2, 0), f32),
        Last(2, f32),
    )
    bounds = (Bound("t", (parse("i-7"),), (parse("i+2"),)),)
    nest = Nest((("i", 20), ("t", 13)), code, (Store("y", at("i"), 4),), bounds, ("t",))
    schedules = (None, schedule("i8", "", "", "i t"), schedule("i4", "i2", "t2", "i t"))
    check_nest(nest, (buffer("x", 260), buffer("y", 20)), schedules)


def test_histogram():
    code = (Load("ix", at("p"), i32), Load("w", at("p"), f32))
    store = Store("h", Address(Form.of(0), ((0, 1),)), 1, "add")
    nest = Nest((("p", 77),), code, (store,), ordered=("p",))
    params = (buffer("ix", 77, i32), buffer("w", 77), buffer("h", 100))
    schedules = (None, schedule("p16", "", "", "p"), schedule("p8", "p2", "", "p"))
    check_nest(nest, params, schedules, 1e-4)


def test_rows_added_at_computed_places():
    code = (Load("ix", at("p"), i64), Load("w", at("21*p+q"), f32))
    store = Store("h", at("q", ((0, 21),), (("p-2", 30),)), 1, "add")
    nest = Nest((("p", 33), ("q", 21)), code, (store,), ordered=("p",))
    params = (buffer("ix", 33, i64), buffer("w", 33 * 21), buffer("h", 2100))
    schedules = (
        None,
        schedule("q16", "", "", "p q"),
        schedule("q8", "p2", "", "p q"),
        schedule("q16", "q2", "", "p"),
        schedule("p4 q4", "", "", "p q"),
    )
    check_nest(nest, params, schedules, 1e-4)


def test_later_positions_read_what_earlier_ones_store():
    code = (
        Load("x", at("9*t+i"), f32),
        Load("x", at("9*t+i+9"), f32),
        Apply("add", (0, 1), f32),
    )
    nest = Nest((("t", 20), ("i", 9)), code, (Store("x", at("9*t+i+9"), 2),), ordered=("t",))
    check_nest(nest, (buffer("x", 9 * 21),), (None, schedule("i8", "", "", "t i")))
