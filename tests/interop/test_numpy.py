"""Arrays of NumPy and of whoever speaks DLPack, in and out: no copies, nothing written."""

import numpy as np
import pytest

import summand as sm
from summand.errors import ArgumentError

i, k, j = sm.dims("i k j")
RNG = np.random.default_rng(0)
WIDE = RNG.normal(size=(6, 8))
RECORDS = np.zeros((4, 5), [("a", "i1"), ("b", "f8")])
RECORDS["b"] = RNG.normal(size=(4, 5))

LAYOUTS = {
    "row-major": WIDE,
    "Fortran": np.asfortranarray(WIDE),
    "transposed": WIDE.T,
    "reversed": WIDE[::-1],
    "both reversed": WIDE[::-1, ::-1],
    "gaps": WIDE[::2, 1::3],
    "reversed gaps": WIDE[::-2, ::-3].T,
    "repeated": np.broadcast_to(WIDE[0], (5, 8)),
    "one column": WIDE[:, 3:4],
    "one element": WIDE[2:3, 3:4],
    "empty": WIDE[:0],
    "field of records": RECORDS["b"],
    "big-endian": WIDE.astype(">f8"),
}


def frozen(x):
    x = x.view()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("copy", [None, False, True])
@pytest.mark.parametrize("writeable", [True, False])
def test_any_layout_in(name, copy, writeable):
    x = LAYOUTS[name] if writeable else frozen(LAYOUTS[name])
    before = x.copy()
    a = sm.array(x, i, k, copy=copy)
    lazy = (2 * a + sm.sum[k](a)).numpy(i, k)
    np.testing.assert_allclose(lazy, 2 * before + before.sum(1)[:, None])
    compiled = (
        sm.jit(
            lambda a: sm.max[i](
                a * a,
            )
        )
        if len(x)
        else sm.jit(lambda a: sm.sum[i](a))
    )
    wanted = (before * before).max(0) if len(x) else before.sum(0)
    for _ in range(2):
        np.testing.assert_allclose(compiled(a).numpy(), wanted)
    np.testing.assert_array_equal(a.numpy(k, i), before.T)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    "name", [n for n in LAYOUTS if n not in ("field of records", "big-endian")]
)
def test_aliased_memory_is_handed_to_the_program_itself(name, monkeypatch):
    from summand.runtime import executable

    x = LAYOUTS[name]
    conform = executable._conform

    def uncopied(array, bound):
        found = conform(array, bound)
        assert np.shares_memory(found, array) or not array.size, "an array was copied"
        return found

    monkeypatch.setattr(executable, "_conform", uncopied)
    a = sm.array(x, i, k, copy=False)
    np.testing.assert_allclose(sm.sum[k](a).numpy(), x.sum(1))
    np.testing.assert_allclose(sm.jit(lambda a: sm.sum[i](a))(a).numpy(), x.sum(0))
    assert x.size == 0 or np.shares_memory(a.numpy(i, k), x)


def test_one_function_for_arrays_in_other_strides():
    double = sm.jit(lambda a: a + a)
    for x in (WIDE, WIDE[::-1], WIDE, WIDE[:, ::-1], WIDE[::-1]):
        np.testing.assert_array_equal(double(sm.array(x, i, k, copy=False)).numpy(i, k), 2 * x)


def test_captured_arrays_in_other_strides():
    table = sm.array(WIDE[:, ::-2], i, k, copy=False)
    f = sm.jit(lambda a: sm.sum[i](a * table))
    np.testing.assert_allclose(f(sm.array(WIDE[:, 0], i)).numpy(), WIDE[:, 0] @ WIDE[:, ::-2])


def test_complex_numbers_in_other_strides():
    z = (WIDE + 2j * WIDE)[::-2, ::3]
    a = sm.array(z, i, k, copy=False)
    np.testing.assert_allclose(sm.sum[k](a * a).numpy(), (z * z).sum(1))


def test_what_nobody_can_write_is_not_copied():
    x = np.arange(4.0)
    assert not np.shares_memory(sm.array(x, k).numpy(), x)
    assert not np.shares_memory(sm.array(frozen(x), k).numpy(), x)  # x itself may be written
    x.flags.writeable = False
    assert np.shares_memory(sm.array(x, k).numpy(), x)
    assert np.shares_memory(sm.array(x[::-1], k).numpy(), x)
    data = np.frombuffer(bytes(32), np.float64)
    assert np.shares_memory(sm.array(data, k).numpy(), data)
    assert not np.shares_memory(sm.array(x, k, copy=True).numpy(), x)


def test_a_later_change_is_not_seen():
    x = np.arange(4.0)
    a = sm.array(x, k) + 1
    x[:] = 0
    np.testing.assert_array_equal(a.numpy(), [1, 2, 3, 4])


def test_out_without_a_copy():
    a = sm.sum[j](sm.array(RNG.normal(size=(3, 4, 5)), i, k, j))
    first = a.numpy(i, k)
    assert not first.flags.writeable
    assert np.shares_memory(first, a.numpy(k, i))
    assert np.shares_memory(np.asarray(a[i:0]), a[i:0].numpy()) or a[i:0].numpy().size
    column = sm.sum[k](a)
    assert np.shares_memory(np.asarray(column), column.numpy())
    assert np.array(column, copy=True).flags.writeable
    np.testing.assert_allclose(column + 0, np.asarray(column))


def test_dlpack_both_ways():
    a = sm.sum[j](sm.array(RNG.normal(size=(3, 4, 5)), i, k, j))
    out = np.from_dlpack(a.dlpack(k, i))
    assert out.shape == (4, 3) and np.shares_memory(out, a.numpy(i, k))
    back = sm.from_dlpack(out, k, i)
    assert np.shares_memory(back.numpy(i, k), out)
    np.testing.assert_array_equal(sm.sum[i](back).numpy(), out.sum(1))
    again = sm.from_dlpack(sm.sum[k](a), i)
    np.testing.assert_allclose(again.numpy(), a.numpy(i, k).sum(1))


def test_read_only_memory_over_dlpack():
    x = np.arange(4.0)
    x.flags.writeable = False
    a = sm.array(x, k)
    kept = a.dlpack(k)
    shared = np.from_dlpack(kept)
    assert np.shares_memory(shared, x) and not shared.flags.writeable

    class Old:
        """A consumer from before read-only memory was known."""

        def __dlpack__(self, **options):
            return kept.__dlpack__()

        def __dlpack_device__(self):
            return kept.__dlpack_device__()

    assert not np.shares_memory(np.from_dlpack(Old()), x)


class Elsewhere:
    def __dlpack__(self, **options):
        raise BufferError("it is on another device")

    def __dlpack_device__(self):
        return (2, 0)


def test_errors():
    with pytest.raises(ArgumentError, match="from_dlpack was given list, which does not speak"):
        sm.from_dlpack([1.0], k)
    with pytest.raises(ArgumentError, match="from_dlpack cannot share this Elsewhere: "):
        sm.from_dlpack(Elsewhere(), k)
    with pytest.raises(ArgumentError, match=r"an array of shape \(3,\) needs 1 dims, given: i, k"):
        sm.from_dlpack(np.ones(3), i, k)
