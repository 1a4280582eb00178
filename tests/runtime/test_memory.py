import gc

import numpy as np
import pytest

from summand.runtime import memory
from summand.runtime.memory import ALIGN, HUGE, Allocator, size_class

F4 = np.dtype(np.float32)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (100, 100), (300, 300), (1000, 1000)])
def test_arrays_are_aligned_and_writable(shape):
    array, address = Allocator(1 << 30).array(shape, F4)
    assert array.shape == shape and array.dtype == F4 and array.flags.c_contiguous
    assert address % ALIGN == 0 and address == memory.address_of(array)
    assert address == array.__array_interface__["data"][0]
    array[...] = 3
    assert (array == 3).all()


def test_a_dead_array_gives_its_block_back():
    store = Allocator(1 << 30)
    array, address = store.array((1 << 20,), F4)
    view = array[10:20]
    del array
    gc.collect()
    assert store.kept_bytes() == 0  # the view still needs it
    del view
    gc.collect()
    assert store.kept_bytes() == 4 << 20
    again, same = store.array((1 << 20,), F4)
    assert same == address and store.kept_bytes() == 0 and again.size == 1 << 20


def test_two_live_arrays_never_share():
    store = Allocator(1 << 30)
    arrays = [store.array((1 << 16,), F4)[0] for _ in range(8)]
    for k, a in enumerate(arrays):
        a[:] = k
    assert [a[0] for a in arrays] == list(range(8)) and [a[-1] for a in arrays] == list(range(8))


def test_the_store_is_bounded():
    store = Allocator(3 * HUGE)
    arrays = [store.array((HUGE // 4,), F4)[0] for _ in range(5)]
    other = store.array((HUGE // 2,), F4)[0]
    del arrays
    assert store.kept_bytes() == 3 * HUGE
    del other  # the oldest ones make room for it
    assert store.kept_bytes() <= 3 * HUGE and store.kept[2 * HUGE]
    store.clear()
    assert store.kept_bytes() == 0


@pytest.mark.parametrize("nbytes", [1, 4095, 4097, 100_000, HUGE, HUGE + 1, 123_456_789])
def test_size_class_wastes_little(nbytes):
    size = size_class(nbytes)
    assert nbytes <= size <= max(nbytes + nbytes // 7, nbytes + 4096)
    assert size_class(size) == size


def test_too_much_memory():
    with pytest.raises(MemoryError):
        Allocator(1 << 30).take(1 << 60)
