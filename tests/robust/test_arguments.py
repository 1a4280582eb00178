"""Arguments of the wrong kind, functions that raise, values that leave their trace."""

import threading

import numpy as np
import pytest

import summand as sm
from summand.errors import (
    ArgumentError,
    DerivativeError,
    DimError,
    DTypeError,
    InternalError,
    RecurrenceError,
    TraceError,
)
from tests.robust.both import floats

i, j, k, t = sm.dims("i j k t")


def a():
    return floats([1.0, 2.0], k)


def steps():
    return floats([1.0, 2.0], t)


REFUSED = {
    "jit of an ndarray": (lambda: sm.jit(lambda x: x + 1)(np.ones(3)), ArgumentError),
    "jit of a list of ndarrays": (lambda: sm.jit(lambda x: x)([np.ones(3)]), ArgumentError),
    "jit of a set": (lambda: sm.jit(lambda x: x)({1}), ArgumentError),
    "jit of no function": (lambda: sm.jit(3), ArgumentError),
    "sm.array of text": (lambda: sm.array("abc"), DTypeError),
    "sm.array of None": (lambda: sm.array(None), DTypeError),
    "sm.array of objects": (lambda: sm.array(np.array([None, 1]), k), DTypeError),
    "sm.array of dates": (lambda: sm.array(np.zeros(3, "M8[s]"), k), DTypeError),
    "sm.array of longdouble": (lambda: sm.array(np.ones(3, np.longdouble), k), DTypeError),
    "sm.array of a masked array": (
        lambda: sm.array(np.ma.masked_array([1.0, 2.0], [0, 1]), k),
        ArgumentError,
    ),
    "sm.array of a ragged list": (lambda: sm.array([[1, 2], [3]], i, j), ArgumentError),
    "sm.array with text for dims": (lambda: sm.array(np.ones(3), "k"), ArgumentError),
    "sm.array with one dim twice": (lambda: sm.array(np.ones((3, 3)), i, i), DimError),
    "an unknown dtype": (lambda: a().astype("float33"), ArgumentError),
    "a sum over text": (lambda: sm.sum["k"](a()), ArgumentError),
    "a sum of a list": (lambda: sm.sum[k]([1, 2]), ArgumentError),
    "a sort over text": (lambda: sm.sort(a(), "k"), ArgumentError),
    "a top_k into text": (lambda: sm.top_k(a(), k, "best"), ArgumentError),
    "numpy of text": (lambda: a().numpy("k"), ArgumentError),
    "an index by text": (lambda: a()["k"], ArgumentError),
    "an index by a float": (lambda: a()[k:1.5], ArgumentError),
    "an index by None": (lambda: a()[k:None], ArgumentError),
    "an index by bools": (lambda: a()[k : a() > 1], DTypeError),
    "an index with a step": (lambda: a()[k:1:2], ArgumentError),
    "an index twice": (lambda: a()[k:0, k:1], DimError),
    "an unknown mode": (lambda: a().at("wrap"), ArgumentError),
    "a fill of text": (lambda: a().fill("a"), ArgumentError),
    "a fill that does not fit": (lambda: sm.array(np.ones(2, np.uint8), k).fill(300), DTypeError),
    "a fill of NaN into integers": (lambda: sm.array(np.ones(2, int), k).fill(sm.nan), DTypeError),
    "where of an ndarray": (lambda: sm.where(np.ones(2), a(), 2), ArgumentError),
    "an ndarray on the left": (lambda: np.ones(2) + a(), ArgumentError),
    "an integer beyond i32": (lambda: sm.array(np.ones(2, np.int32), k) + 2**40, DTypeError),
    "an integer beyond floats": (lambda: a() * 10**400, DTypeError),
    "zeros of a number": (lambda: sm.zeros(3), ArgumentError),
    "zeros of half an element": (lambda: sm.zeros({k: 2.5}), ArgumentError),
    "zeros of less than none": (lambda: sm.zeros({k: -1}), DimError),
    "a dim of less than none": (lambda: sm.Dim("k", -1), ArgumentError),
    "a random key of text": (lambda: sm.random.key("a"), ArgumentError),
    "random numbers of text": (lambda: sm.random.normal("key", {k: 3}), ArgumentError),
    "random numbers of no shape": (
        lambda: sm.random.normal(sm.random.key(0), None),
        ArgumentError,
    ),
    "cond of no functions": (lambda: sm.cond(sm.sum[k](a()) > 0, 1, 2), ArgumentError),
    "cond of text": (
        lambda: sm.cond(sm.sum[k](a()) > 0, lambda: "a", lambda: "b"),
        ArgumentError,
    ),
    "cond by dims": (lambda: sm.cond(a() > 0, lambda: 1.0, lambda: 2.0), DimError),
    "a loop of no function": (lambda: sm.while_loop(1, lambda s: s, 0), ArgumentError),
    "a loop over text": (lambda: sm.while_loop(lambda s: s, lambda s: s, "a"), ArgumentError),
    "a recurrence of no function": (lambda: sm.recur(3, over=t, init=0), ArgumentError),
    "a recurrence over text": (lambda: sm.recur(lambda h: h, over="t", init=0), RecurrenceError),
    "a recurrence that returns None": (
        lambda: sm.recur(lambda h: None, over=t, init=0),
        RecurrenceError,
    ),
    "a recurrence of half its state": (
        lambda: sm.recur(lambda h: h[0][t : t - 1] + steps(), over=t, init=(0, 1)),
        RecurrenceError,
    ),
    "grad of an ndarray": (lambda: sm.grad(lambda x: x)(np.ones(3)), ArgumentError),
    "grad of no function": (lambda: sm.grad(3)(a()), ArgumentError),
    "grad by text": (lambda: sm.grad(lambda x: x, "x")(a()), ArgumentError),
    "grad by what is not there": (lambda: sm.grad(lambda x: x, 3)(a()), ArgumentError),
    "grad of None": (lambda: sm.grad(lambda x: None)(a()), DerivativeError),
    "grad of a pair": (lambda: sm.grad(lambda x: (x, x))(a()), DerivativeError),
    "vmap over text": (lambda: sm.vmap(lambda x: x, over="k")(a()), ArgumentError),
    "vmap over another dim": (lambda: sm.vmap(lambda x: x, over=i)(a()), DimError),
    "a cotangent of another size": (
        lambda: sm.vjp(lambda x: x * x, a())[1](floats([1, 2, 3], k)),
        DimError,
    ),
    "a cotangent of another form": (
        lambda: sm.vjp(lambda x: x * x, a())[1]((a(),)),
        ArgumentError,
    ),
    "tangents of another form": (
        lambda: sm.jvp(lambda x, y: x * y, (a(), a()), (a(),)),
        ArgumentError,
    ),
    "a monoid of no function": (lambda: sm.Monoid(3, 0), ArgumentError),
    "a monoid from text": (lambda: sm.Monoid(lambda u, v: u + v, "a"), ArgumentError),
    "a monoid of one of two": (lambda: sm.Monoid(lambda u, v: u, (0, 0))[k](a()), ArgumentError),
    "an unknown stage": (lambda: sm.jit(lambda x: x + 1).inspect("nope", a()), ArgumentError),
    "an order of complex numbers": (
        lambda: sm.argmax[k](sm.array(np.ones(3, complex), k)),
        DTypeError,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_line_and_without_a_crash(name):
    wrong, error = REFUSED[name]
    with pytest.raises(error) as caught:
        sm.evaluate(wrong())
    text = str(caught.value)
    assert not isinstance(caught.value, InternalError)
    assert len(text) > 20
    assert "test_arguments.py:" in text or name == "an unknown stage"


def test_constants_and_none_pass_through():
    f = sm.jit(lambda x, mode, opt: (x, mode, opt))
    x, mode, opt = f(a(), "text", None)
    assert (mode, opt) == ("text", None)
    np.testing.assert_array_equal(x.numpy(), [1, 2])


# ---- functions of the user's that raise


class Mine(Exception):
    pass


def fail(*args):
    raise Mine("from inside")


RAISING = {
    "jit": lambda: sm.jit(fail)(a()),
    "grad": lambda: sm.grad(fail)(a()),
    "jvp": lambda: sm.jvp(fail, (a(),), (a(),)),
    "vmap": lambda: sm.vmap(fail, k)(a()),
    "recur": lambda: sm.recur(fail, over=t, init=0),
    "init of recur": lambda: sm.recur(lambda h: h[t : t - 1] + steps(), over=t, init=fail),
    "cond": lambda: sm.cond(sm.sum[k](a()) > 0, fail, fail),
    "body of a loop": lambda: sm.while_loop(lambda s: s < 3, fail, 0),
    "test of a loop": lambda: sm.while_loop(fail, lambda s: s, 0),
    "monoid": lambda: sm.Monoid(fail, 0)[k](a()),
    "checkpoint": lambda: sm.checkpoint(fail)(a()),
    "jit of grad of recur": lambda: sm.jit(sm.grad(lambda x: sm.recur(fail, over=t, init=x)))(a()),
}


@pytest.mark.parametrize("name", RAISING)
def test_an_exception_inside_leaves_everything_usable(name):
    with pytest.raises(Mine, match="from inside"):
        RAISING[name]()
    assert float(sm.sum[k](a())) == 3  # not a trace any more: numbers can be looked at
    f = sm.jit(lambda x: sm.sum[k](x * x))
    assert float(f(a())) == 5
    assert f.inspect("traced").count("program") == 1


def test_a_compiled_function_that_failed_may_be_called_again():
    calls = []

    @sm.jit
    def f(x):
        calls.append(x)
        if len(calls) == 1:
            raise Mine
        return x + 1

    with pytest.raises(Mine):
        f(a())
    np.testing.assert_array_equal(f(a()).numpy(), [2, 3])


def test_endless_recursion_is_pythons_own_error():
    @sm.jit
    def f(x):
        return f(x + 1)

    with pytest.raises(RecursionError):
        f(a())
    assert float(sm.sum[k](a())) == 3


def test_recursion_by_a_constant_ends():
    @sm.jit
    def power(x, n):
        return x if n == 1 else x * power(x, n - 1)

    np.testing.assert_array_equal(power(a(), 5).numpy(), [1, 32])


# ---- values that leave their trace


def leaked():
    box = []
    sm.jit(lambda x: box.append(x) or x)(a())
    return box[0]


LOOKS = {
    "bool": lambda x: bool(x > 0),
    "float": float,
    "int": int,
    "numpy": lambda x: x.numpy(),
    "asarray": np.asarray,
    "iteration": list,
    "length": len,
    "evaluate": sm.evaluate,
    "if": lambda x: 1 if x > 0 else 2,
    "and": lambda x: x > 0 and x < 1,
    "in": lambda x: 3 in [x],
    "format": lambda x: f"{x:.3f}",
}


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("where", ["jit", "grad", "vmap", "while", "leaked"])
def test_looking_at_a_traced_array(name, where):
    def look(x):
        LOOKS[name](x)
        return x

    traces = {
        "jit": lambda: sm.jit(lambda x: look(sm.sum[k](x)))(a()),
        "grad": lambda: sm.grad(lambda x: look(sm.sum[k](x)))(a()),
        "vmap": lambda: sm.vmap(look, k)(a()),
        "while": lambda: sm.while_loop(lambda s: s < 3, lambda s: look(s) + 1, 0.0),
        "leaked": lambda: look(sm.sum[k](leaked())),
    }

    with pytest.raises(TraceError):
        traces[where]()


def test_printing_a_traced_array_says_so():
    seen = []
    sm.jit(lambda x: seen.append(f"{x}") or x)(a())
    assert seen == ["Array f32{k=2}, traced"]


def test_a_leaked_value_in_another_function():
    x = leaked()
    with pytest.raises(TraceError, match="traced"):
        sm.jit(lambda y: x + y)(a())


def test_tracing_in_one_thread_does_not_concern_another():
    inside, done = threading.Event(), threading.Event()
    seen = []

    def other():
        inside.wait(10)
        seen.append(float(sm.sum[k](a())))
        done.set()

    def slow(x):
        inside.set()
        assert done.wait(10)
        return x * 2

    thread = threading.Thread(target=other)
    thread.start()
    np.testing.assert_array_equal(sm.jit(slow)(a()).numpy(), [2, 4])
    thread.join()
    assert seen == [3.0]
