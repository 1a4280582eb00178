"""jit: when it traces, what it takes and gives, captured values, evaluation, threads."""

import threading

import numpy as np
import pytest

import summand
import summand as sm
from summand.errors import ArgumentError, TraceError

i, k = sm.dims("i k")


def of(*values, dtype="f32"):
    return sm.array(list(values), i, dtype=dtype)


def counted(function):
    calls = []

    def traced(*args, **kwargs):
        calls.append(1)
        return function(*args, **kwargs)

    return sm.jit(traced), calls


def test_one_trace_for_each_structure():
    f, calls = counted(lambda x, y=1: x * 2)
    f(of(1.0, 2.0))
    f(of(3.0, 4.0))
    assert len(calls) == 1
    f(of(1.0, 2.0, 3.0))
    assert len(calls) == 2
    f(of(1.0, 2.0, dtype="f64"))
    assert len(calls) == 3
    f(of(1.0, 2.0), y=2)
    assert len(calls) == 4
    f(sm.array([1.0, 2.0], k))
    assert len(calls) == 5
    f(of(5.0, 6.0))
    assert len(calls) == 5


def test_floats_are_traced_and_integers_are_constants():
    f, calls = counted(lambda x, rate, power: x * rate**power)
    for rate in (0.1, 0.2, 0.3):
        found = f(of(1.0, 2.0, dtype="f64"), rate, 2).numpy()
        np.testing.assert_array_equal(found, np.array([1.0, 2.0]) * (rate * rate))
    assert len(calls) == 1
    assert f(of(1.0), 0.5, 2).dtype is sm.f32
    f(of(1.0), 0.5, 3)
    assert len(calls) == 3


def test_numpys_numbers_are_traced_with_their_types():
    f, calls = counted(lambda x, rate: x * rate)
    for rate in (np.float32(0.5), np.float32(0.25), np.array(0.5, np.float32)):
        assert f(of(1.0, dtype="f16"), rate).dtype is sm.f32
    assert len(calls) == 1
    f(of(1.0), np.complex64(1j))
    f(of(1.0), np.complex64(2j))
    assert len(calls) == 2
    assert float(f(of(1.0), np.int64(3))[i:0]) == 3.0


def test_constants_of_many_kinds():
    f, calls = counted(lambda x, mode, over, flag: sm.sum[over](x) if mode == "sum" and flag else x)
    assert float(f(of(1.0, 2.0), "sum", i, True)) == 3.0
    assert f(of(1.0, 2.0), "sum", i, False).dims == (i,)
    assert f(of(1.0, 2.0), "no", i, True).dims == (i,)
    f(of(1.0, 2.0), "sum", i, True)
    assert len(calls) == 3
    assert f(of(1.0, 2.0), "sum", i, 1) is not None
    assert len(calls) == 4


def test_pytrees_in_and_out():
    @sm.jit
    def f(tree, *rest, last):
        return {"sum": tree["a"] + tree["b"][1], "none": None, "text": "x", "rest": rest}, last

    out, last = f({"a": of(1.0), "b": [None, of(2.0)]}, of(5.0), 7, last=of(9.0))
    assert float(out["sum"][i:0]) == 3.0
    assert out["none"] is None
    assert out["text"] == "x"
    assert float(out["rest"][0][i:0]) == 5.0
    assert out["rest"][1] == 7
    assert float(last[i:0]) == 9.0


def test_arguments_and_captured_values_pass_through():
    constant = of(4.0)
    f = sm.jit(lambda x: (x, constant, x, x + constant))
    x = of(1.0)
    a, b, c, d = f(x)
    assert a is x
    assert c is x
    assert b is constant
    assert float(d[i:0]) == 5.0
    y = of(2.0)
    assert f(y)[0] is y


def test_captured_expressions_are_computed_once():
    lazy = sm.exp(of(1.0, 2.0))
    f = sm.jit(lambda x: x * lazy)
    np.testing.assert_allclose(f(of(1.0, 1.0)).numpy(), np.exp([1.0, 2.0]), rtol=1e-6)
    assert lazy.value.buffer is not None
    assert "exp" not in f.inspect("traced")


def test_lazy_arguments_are_evaluated():
    x = of(1.0, 2.0) * 2
    np.testing.assert_allclose(sm.jit(lambda a: a + 1)(x).numpy(), [3, 5])
    assert x.value.buffer is not None


def test_methods():
    class Model:
        def __init__(self, scale):
            self.scale = scale

        @sm.jit
        def __call__(self, x):
            return x * self.scale

    one, two = Model(2.0), Model(of(3.0))
    assert float(one(of(1.0))[i:0]) == 2.0
    assert float(two(of(1.0))[i:0]) == 3.0


def test_functions_made_anew_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(summand.api, "KEEP", 3)
    f = sm.jit(lambda x, g: g(x))
    for number in range(6):
        found = f(of(1.0), lambda x, number=number: x + number)
        assert float(found[i:0]) == 1.0 + number
    assert len(f._entries) == 3


def test_no_arguments():
    np.testing.assert_array_equal(sm.jit(lambda: sm.ones({i: 3}) * 2)().numpy(), [2, 2, 2])
    assert sm.jit(lambda: 5)() == 5


def test_jit_as_a_decorator_keeps_the_name():
    @sm.jit
    def my_function(x):
        """What it does."""
        return x

    assert my_function.__name__ == "my_function"
    assert my_function.__doc__ == "What it does."


def test_memory_order_does_not_matter():
    f = sm.jit(lambda a: sm.sum[k](a * 2))
    a = np.arange(6.0).reshape(2, 3)
    for array in (sm.array(a, i, k), sm.array(a.T, k, i), sm.array(a[:, ::-1], i, k)):
        np.testing.assert_allclose(f(array).numpy(), 2 * array.numpy(i, k).sum(1))


def test_refused():
    f = sm.jit(lambda x, y=None: x)
    with pytest.raises(ArgumentError, match="has no named dims"):
        f(np.ones(3))
    with pytest.raises(ArgumentError, match="neither an array nor hashable"):
        f(of(1.0), bytearray(b"x"))
    with pytest.raises(TraceError, match=r"numpy\(\) of a traced array"):
        sm.jit(lambda x: x.numpy())(of(1.0))
    with pytest.raises(TraceError, match="x: traced here"):
        sm.jit(lambda x: 1 if x[i:0] > 0 else 2)(of(1.0))
    with pytest.raises(ArgumentError, match="nothing has been compiled"):
        sm.jit(lambda x: x).inspect()


def test_escaped_arrays():
    kept = []
    sm.jit(lambda x: kept.append(x * 2) or x)(of(1.0))
    with pytest.raises(TraceError, match="escaped from the function"):
        kept[0].numpy()
    with pytest.raises(TraceError):
        sm.jit(lambda x: x + kept[0])(of(1.0))


def test_a_failed_trace_leaves_nothing_behind():
    f = sm.jit(lambda x, bad: x.numpy() if bad else x + 1)
    with pytest.raises(TraceError):
        f(of(1.0), True)
    assert float(f(of(1.0), False)[i:0]) == 2.0
    assert float(of(1.0)[i:0]) == 1.0


def test_the_programs_text_does_not_depend_on_identities():
    def text():
        a, b = sm.dims("a b")
        c = sm.Dim("a")
        f = sm.jit(lambda x: sm.sum[b](x * 2 + a - b)[a:c])
        f(sm.array(np.ones((2, 3), np.float32), a, b))
        return f.inspect("traced")

    first = text()
    for _ in range(20):
        sm.Dim("noise")
    assert text() == first


def test_threads_trace_apart():
    f = sm.jit(lambda x: sm.sum[i](x * 2))
    found = {}

    def work(number):
        found[number] = float(f(sm.array(np.full(number + 1, 1.0), i)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: 2.0 * (n + 1) for n in range(6)}


def test_interpret_is_the_same_program():
    def f(x):
        return sm.sum[i](sm.exp(x))

    x = of(0.5, 1.5, dtype="f64")
    with sm.interpret():
        inside = float(sm.jit(f)(x))
    assert inside == pytest.approx(float(np.exp([0.5, 1.5]).sum()))


def test_peak_bytes_are_known_before_a_run():
    i, j = sm.dims("i j")
    x = sm.array(np.ones((300, 200), np.float32), i, j)
    elementwise = sm.jit(lambda a: sm.exp(a) + 1.0)
    assert elementwise.peak_bytes(x) == 0
    twice = sm.jit(lambda a: sm.sum[i](sm.sort(a, j)))
    assert twice.peak_bytes(x) >= 4 * 300 * 200
