"""Orders of dims in memory: what the user gave stays, the rest serves its nests."""

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import SUM, Type
from summand.options import Options, Target
from summand.rewrite.plan.fuse import fuse
from summand.rewrite.plan.layout import Bodies, Walk, choose_orders
from summand.rewrite.plan.nodes import Access
from tests.lower.cases import attention, routing, softmax, value

TARGET = Target("x86_64", "generic", "")


def orders_of(program, params):
    """Orders of all values, in parameters' orders by position."""
    plan = fuse(program, TARGET, Options())
    fixed = dict(zip(plan.program.params, params, strict=True))
    values = [v for item in plan.items for v in item.roots]
    return choose_orders(plan.items, fixed, values, Bodies.of(plan.program))


def test_parameters_keep_their_order():
    program = softmax(64, 64, "j")
    (x,) = program.params
    assert orders_of(program, [("j", "i")])[x] == ("j", "i")


def test_everything_in_a_softmax_walks_memory_as_its_parameter_does():
    for order in (("i", "j"), ("j", "i")):
        for over in "ij":
            orders = orders_of(softmax(4096, 4096, over), [order])
            assert {o[-1] for o in orders.values() if len(o) == 2} == {order[-1]}


def test_scores_have_queries_innermost():
    bhtd = ("b", "h", "t", "d")
    orders = orders_of(attention(2, 8, 512, 64), [bhtd, bhtd, bhtd, ("h", "m")])
    scores = [o for v, o in orders.items() if v.type.names == {"b", "h", "t", "u"}]
    assert scores
    assert all(o[-1] == "t" for o in scores)


def test_values_over_the_same_dims_agree():
    params = [("n", "I", "i", "k"), ("I", "J", "k", "j"), ("n", "I")]
    orders = orders_of(routing(48, 72, 8), params)
    every = [o for v, o in orders.items() if len(v.type.dims) == 5]
    assert len(set(every)) <= 1
    pairs = [o for v, o in orders.items() if v.type.names == {"n", "I", "J"}]
    assert len(set(pairs)) == 1


def test_windows_slide_along_outer_dims():
    b = Builder()
    x, w = value(b, n=8, x=32, c=32), value(b, k=3, c=32, o=32)
    wide = b.reindex(x, {"x": Form.of("x") + "k"}, {"x": 30, "k": 3})
    y = b.reduce(SUM, ["c", "k"], b.map("mul", wide, w))[0]
    orders = orders_of(b.finish([y]), [("n", "x", "c"), ("k", "c", "o")])
    assert orders[y][-1] == "o"


def test_batches_stay_outside_of_windows():
    for image in (("n", "x", "c"), ("n", "c", "x")):
        b = Builder()
        x, w = value(b, n=8, x=34, c=32), value(b, k=3, c=32, o=32)
        wide = b.reindex(x, {"x": Form.of("x") + "k"}, {"x": 32, "k": 3})
        y = b.reduce(SUM, ["c", "k"], b.map("mul", wide, w))[0]
        z = b.reduce(SUM, ["o"], b.map("mul", b.map("tanh", y), y))[0]
        orders = orders_of(b.finish([y, z]), [image, ("k", "c", "o")])
        assert orders[y] == ("n", "x", "o")


def test_what_many_results_read_of_a_window_is_copied_once():
    """Every place has weights of its own: with the examples as lanes they are read once each, and
    the image is brought into that order once for all windows."""
    b = Builder()
    x, w = value(b, n=32, x=34, c=32), value(b, x=32, o=32, c=32, k=3)
    wide = b.reindex(x, {"x": Form.of("x") + "k"}, {"x": 32, "k": 3})
    y = b.reduce(SUM, ["c", "k"], b.map("mul", wide, w))[0]
    orders = orders_of(b.finish([y]), [("n", "c", "x"), ("x", "o", "c", "k")])
    assert orders[y][-1] == "n"


def test_windows_count_once_and_gathered_rows_every_time():
    b = Builder()
    x, rows = value(b, x=34, c=8), value(b, node=10, c=8)
    sizes = {"x": 32, "k": 3, "c": 8, "edge": 500}
    moved = Access(x, (("x", Form.of("x") + "k"), ("c", Form.of("c"))))
    window = Walk.of(moved, sizes, sizes)
    assert window.elements == 34 * 8
    assert window.slid == {"x", "k"} and window.moving == {"x"}
    gathered = Access(rows, (("node", None), ("c", Form.of("c"))), frozenset({"edge"}))
    assert Walk.of(gathered, sizes, sizes).elements == 500 * 8


def test_what_is_scattered_has_its_rows_innermost():
    """A scatter moves along its rows; along the places it finds no vectors, however many these
    are and whichever way the arrays beside it lie."""
    b = Builder()
    x, y = value(b, p=5000, c=24), value(b, c=24, n=900)
    place = b.param(Type.of(dt.i32, {"p": 5000}))
    (s,) = b.reduce_at(SUM, ["p"], [x], {"n": place}, {"n": 900}, "clip")
    program = b.finish([b.map("mul", b.map("exp", s), y)])
    orders = orders_of(program, [("p", "c"), ("c", "n"), ("p",)])
    assert orders[s] == ("n", "c")
