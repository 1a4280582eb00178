"""Folds: several in one nest, nested, of tuples, without commutativity; values that read them."""

from summand.dtypes import bool_, f32, i32
from summand.ir.index import Form
from summand.loops.nodes import Apply, Arg, Combine, Const, Fold, Load, Nest, Part, Position, Store
from tests.codegen.kernels import at, buffer, check_nest, greatest, schedule, total

I, J = 7, 45
BOX = (("i", I), ("j", J))
X = Load("x", at(f"{J}*i+j"), f32)


def test_softmax_in_one_nest():
    code = (
        X,
        greatest("j", 0),
        Apply("sub", (0, 1), f32),
        Apply("exp", (2,), f32),
        total("j", 3),
        Apply("div", (3, 4), f32),
    )
    stores = (Store("y", at(f"{J}*i+j"), 5), Store("m", at("i"), 1), Store("s", at("i"), 4))
    params = (buffer("x", I * J), buffer("y", I * J), buffer("m", I), buffer("s", I))
    check_nest(
        Nest(BOX, code, stores),
        params,
        (
            None,
            schedule("j16", "i2", "", "i j"),
            schedule("j8", "i4", "j2", "i j", copies=2),
            schedule("i8", "", "j4", "i j"),
            schedule("j16", "", "", "j i"),
            schedule("j4", "i3 j2", "", "i j"),
        ),
    )


def test_sums_over_rows_and_columns_and_folds_of_both():
    code = (X, total("j", 0), total("i", 0), total("i", 1), greatest("j", 2))
    stores = (
        Store("r", at("i"), 1),
        Store("c", at("j"), 2),
        Store("t", at("0"), 3),
        Store("u", at("0"), 4),
    )
    params = (buffer("x", I * J), buffer("r", I), buffer("c", J), buffer("t", 1), buffer("u", 1))
    schedules = (None, schedule("j16", "i2", "", "i j"), schedule("j16", "i7", "", "j"))
    check_nest(Nest(BOX, code, stores), params, schedules, 1e-4)


def arg_of_greatest() -> Combine:
    """(value, position) with the greater value, at a tie the lower position."""
    code = (
        Arg(0, f32),
        Arg(1, i32),
        Arg(2, f32),
        Arg(3, i32),
        Apply("gt", (2, 0), bool_),
        Apply("eq", (2, 0), bool_),
        Apply("lt", (3, 1), bool_),
        Apply("and", (5, 6), bool_),
        Apply("or", (4, 7), bool_),
        Apply("where", (8, 2, 0), f32),
        Apply("where", (8, 3, 1), i32),
    )
    return Combine(None, (float("-inf"), 2**31 - 1), code, (9, 10))


def test_position_of_the_greatest():
    fold = Fold(arg_of_greatest(), ("j",), (0, 1), f32)
    code = (X, Position(Form.of("j"), i32), fold, Part(2, 1, i32))
    stores = (Store("m", at("i"), 2), Store("a", at("i"), 3))
    check_nest(
        Nest(BOX, code, stores),
        (buffer("x", I * J), buffer("m", I), buffer("a", I, i32)),
        (
            None,
            schedule("j16", "i2", "", "i j"),
            schedule("i8", "", "j2", "i j", copies=2),
            schedule("j16", "i16", "", "j", "i16"),
            schedule("j8", "i8", "", "i j", "i8"),
            schedule("i4 j4", "", "", "i j"),
        ),
        0,
    )


def test_composition_of_affine_maps_keeps_its_order():
    code = (
        Arg(0, f32),
        Arg(1, f32),
        Arg(2, f32),
        Arg(3, f32),
        Apply("mul", (0, 2), f32),
        Apply("mul", (1, 2), f32),
        Apply("add", (5, 3), f32),
    )
    compose = Combine(None, (1.0, 0.0), code, (4, 6), commutative=False)
    nest = Nest(
        BOX,
        (X, Load("z", at(f"{J}*i+j"), f32), Fold(compose, ("j",), (0, 1), f32), Part(2, 1, f32)),
        (Store("m", at("i"), 2), Store("a", at("i"), 3)),
    )
    params = (buffer("x", I * J), buffer("z", I * J), buffer("m", I), buffer("a", I))
    schedules = (None, schedule("i8", "", "j4", "i j"), schedule("j8", "", "", "i j"))
    check_nest(nest, params, schedules, 1e-3)


def test_any_all_product_and_least():
    code = (
        X,
        Const(0.0, f32),
        Apply("gt", (0, 1), bool_),
        Fold(Combine("or", (False,)), ("j",), (2,), bool_),
        Fold(Combine("and", (True,)), ("j",), (2,), bool_),
        Fold(Combine("mul", (1.0,)), ("j",), (0,), f32),
        Fold(Combine("min", (float("inf"),)), ("i",), (0,), f32),
    )
    stores = (
        Store("o", at("i"), 3),
        Store("a", at("i"), 4),
        Store("p", at("i"), 5),
        Store("l", at("j"), 6),
    )
    params = (
        buffer("x", I * J),
        buffer("o", I, bool_),
        buffer("a", I, bool_),
        buffer("p", I),
        buffer("l", J),
    )
    schedules = (None, schedule("j16", "i2", "", "i j"), schedule("j8", "i7", "j2", "j"))
    check_nest(Nest(BOX, code, stores), params, schedules)


def test_a_constant_folded_counts_the_points():
    code = (Const(1, i32), total("i j", 0, i32))
    nest = Nest(BOX, code, (Store("y", at("0"), 1),))
    schedules = (
        None,
        schedule("i16", "", "", "i j"),
        schedule("j4", "", "", "i j"),
        schedule("i4", "i2 j2", "", "i j", copies=2),
    )
    check_nest(nest, (buffer("y", 1, i32),), schedules, 0)


def test_empty_dims():
    schedules = (None, schedule("i16", "", "j2", "i j"))
    nest = Nest((("i", 20), ("j", 0)), (Load("x", at("i"), f32), total("j", 0)), ())
    nest = Nest(nest.dims, nest.code, (Store("y", at("i"), 1),))
    check_nest(nest, (buffer("x", 20), buffer("y", 20)), schedules)
    code = (Load("x", at("5*i+j"), f32),)
    nest = Nest((("i", 0), ("j", 5)), code, (Store("y", at("5*i+j"), 0),))
    check_nest(nest, (buffer("x", 0), buffer("y", 0)), schedules)


def test_accumulators_take_turns_in_steps_that_they_do_not_divide():
    nest = Nest((("i", 5), ("j", J)), (X, total("j", 0)), (Store("out", at("i"), 1),))
    params = (buffer("x", 5 * J), buffer("out", 5))
    for unroll in ("j3", "j5", "j2"):
        check_nest(nest, params, [schedule("", "i2", unroll, "i j", copies=2)])
        check_nest(nest, params, [schedule("j4", "", unroll, "i j", copies=4)])
