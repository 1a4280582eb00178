import threading
from dataclasses import replace

import numpy as np
import pytest

from summand.errors import ArgumentError, IndexRangeError, InternalError, OutOfMemoryError
from summand.runtime import memory
from summand.runtime.artifact import Artifact, Host, Port, RangeCheck, Region, from_bytes, to_bytes
from summand.runtime.executable import Executable
from summand.runtime.pool import Pool
from summand.runtime.pool_code import COPY, END, HOST
from tests.runtime.programs import counting, elementwise

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_run():
    (y,) = Executable(elementwise()).run([X])
    np.testing.assert_array_equal(y, X + 1)
    assert y.flags.owndata or y.base is not None
    (z,) = Executable(elementwise((64, 64))).run([np.zeros((64, 64), np.float32)])
    assert memory.address_of(z) % memory.ALIGN == 0


@pytest.mark.parametrize(
    "x",
    [
        X[::-1, ::-1],
        np.asfortranarray(X),
        np.repeat(X, 2, axis=1)[:, ::2],
        X.astype(">f4"),
        np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(3, 4),
        np.broadcast_to(X[0], (3, 4)),
    ],
    ids=["negative strides", "Fortran", "strided", "byte order", "misaligned", "broadcast"],
)
def test_inputs_of_every_layout(x):
    before = x.copy()
    (y,) = Executable(elementwise()).run([x])
    np.testing.assert_array_equal(y, before.astype(np.float32) + 1)
    np.testing.assert_array_equal(x, before)


def test_read_only_input():
    x = X.copy()
    x.flags.writeable = False
    np.testing.assert_array_equal(Executable(elementwise()).run([x])[0], X + 1)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (1, 5, 1)])
def test_shapes(shape):
    x = np.full(shape, 2, np.float32)
    (y,) = Executable(elementwise(shape)).run([x])
    assert y.shape == shape
    np.testing.assert_array_equal(y, x + 1)


def test_results_are_fresh():
    executable = Executable(elementwise())
    (a,) = executable.run([X])
    (b,) = executable.run([X + 1])
    np.testing.assert_array_equal(a, X + 1)
    np.testing.assert_array_equal(b, X + 2)


@pytest.mark.parametrize("x", [X.astype(np.float64), X[:2], X.reshape(12)])
def test_wrong_type_or_shape(x):
    with pytest.raises(ArgumentError, match=r"x must be float32\[3, 4\]"):
        Executable(elementwise()).run([x])


def test_wrong_number_of_arrays():
    with pytest.raises(ArgumentError, match="1 arrays are wanted, 2 were given"):
        Executable(elementwise()).run([X, X])


def test_loop():
    count, flag = Executable(counting()).run([np.float32(0)[()].reshape(()), np.array(5.5, "f4")])
    assert count == 6 and not flag


def test_loop_that_does_not_start():
    count, flag = Executable(counting()).run([np.array(7, "f4"), np.array(5.5, "f4")])
    assert count == 7 and not flag


def test_long_loop_returns_to_python_and_goes_on():
    count, _ = Executable(counting()).run([np.array(0, "f4"), np.array(1e6, "f4")])
    assert count == 1e6


def test_range_check():
    check = RangeCheck(1, 5, "index {value} is not in 0 <= i < 5")
    artifact = Artifact(
        (),
        (),
        (COPY, 0, 1, 24, COPY, 0, 2, 24, END),
        (),
        3,
        0,
        (Port(0, "int64", (3,)),),
        (Port(1, "int64", (3,)), Port(2, "int64", (3,))),
        checks=(check,),
    )
    executable = Executable(artifact)
    (y,) = executable.run([np.array([0, 4, 2])])
    np.testing.assert_array_equal(y, [0, 4, 2])
    for bad in (5, -1, -(2**62)):
        with pytest.raises(IndexRangeError, match=f"index {bad} is not in"):
            executable.run([np.array([0, bad, 2])])
        assert len(executable.run([np.array([0, 1, 2])])) == 1


def test_many_threads_call_at_once():
    executable = Executable(elementwise((64,)), Pool(4))
    wrong = []

    def call(seed):
        x = np.full(64, seed, np.float32)
        for k in range(300):
            (y,) = executable.run([x + k])
            if not (y == seed + k + 1).all():
                wrong.append((seed, k))

    threads = [threading.Thread(target=call, args=(s,)) for s in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_results_that_do_not_fit():
    huge = Artifact(
        (),
        (),
        (END,),
        (),
        1,
        0,
        (),
        (Port(0, "float32", (1 << 30, 1 << 26), ("i", "j"), "scores"),),
    )
    with pytest.raises(OutOfMemoryError, match=r"float32{i=1073741824,j=67108864}: 2.88e[+]08 GB"):
        Executable(huge).run([])
    with pytest.raises(MemoryError):
        Executable(huge).run([])


def test_timed_run_counts_each_launch():
    results, ticks = Executable(counting()).run_timed([np.array(0, "f4"), np.array(50, "f4")])
    assert results[0] == 50
    assert [count for count, _ in ticks] == [51, 50]
    assert all(t > 0 for _, t in ticks)


@pytest.mark.parametrize("artifact", [elementwise(), counting()])
def test_artifact_round_trip(artifact):
    assert from_bytes(to_bytes(artifact)) == artifact


@pytest.mark.parametrize("damage", [b"", b"x", b"{}\n", b"[1]\nab", b'{"objects": [3]}\nabc'])
def test_bytes_that_are_no_artifact(damage):
    with pytest.raises(ValueError):
        from_bytes(damage)


def test_truncated_artifact():
    data = to_bytes(elementwise())
    for cut in (1, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError):
            from_bytes(data[:cut])


def test_foreign_function():
    x = Port(0, "float64", (2, 3), ("i", "j"))
    y = Port(1, "float64", (3, 2), ("j", "i"))
    artifact = Artifact(
        (), (), (HOST, 0, COPY, 1, 2, 48, END), (), 3, 0, (x,), (Port(2, "float64", (3, 2)),),
        hosts=(Host("double", (x,), (y,)),),
    )  # fmt: skip

    def double(args):
        ((array, dims),) = args
        assert dims == ("i", "j")
        return [(array * 2, dims)]

    class Inner(Exception):
        pass

    def fail(args):
        raise Inner

    slots = replace(artifact, regions=(Region(1, 0, 48),), arena=64)
    a = np.arange(6.0).reshape(2, 3)
    (out,) = Executable(slots, find={"double": double}.__getitem__).run([a])
    np.testing.assert_array_equal(out, 2 * a.T)
    failing = Executable(slots, find=lambda name: fail)
    with pytest.raises(Inner):
        failing.run([a])
    with pytest.raises(InternalError, match="double"):
        Executable(slots).run([a])
    assert from_bytes(to_bytes(slots)) == slots


def test_results_into_given_arrays():
    executable = Executable(elementwise())
    y = np.zeros((3, 4), np.float32)
    (same,) = executable.run([X], into=[y])
    assert same is y
    np.testing.assert_array_equal(y, X + 1)
    read_only = y.copy()
    read_only.flags.writeable = False
    for bad in (y.T, y.astype("f8"), np.asfortranarray(y), read_only, y[:2], np.float32(1)):
        with pytest.raises(ArgumentError, match="an array for a result"):
            executable.run([X], into=[bad])
    with pytest.raises(ArgumentError, match="1 results, but 0 arrays"):
        executable.run([X], into=[])
