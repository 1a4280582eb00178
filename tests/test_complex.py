"""Complex arrays through the whole compiler against NumPy, in any order of dims."""

import numpy as np
import pytest

import summand as sm

i, k, t = sm.dims("i k t")


def data(dtype, *shape):
    rng = np.random.default_rng(3)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_arithmetic_and_layouts(dtype):
    z = data(dtype, 5, 3)
    a = sm.array(z, i, k)
    f = sm.jit(lambda a: (sm.sum[k](a * a), sm.exp(a) / (1 + a), abs(a), a.real, a[i : 4 - i]))
    total, ratio, size, real, turned = f(a)
    assert total.numpy(i).dtype == dtype
    np.testing.assert_allclose(total.numpy(i), (z * z).sum(1), rtol=1e-4)
    np.testing.assert_allclose(ratio.numpy(k, i), (np.exp(z) / (1 + z)).T, rtol=1e-4)
    np.testing.assert_allclose(size.numpy(i, k), np.abs(z), rtol=1e-5)
    np.testing.assert_array_equal(real.numpy(k, i), z.real.T)
    np.testing.assert_array_equal(turned.numpy(i, k), z[::-1])


def test_recurrence():
    z = data(np.complex128, 6)
    a = sm.array(z, t)
    h = sm.recur(lambda h: 0.5j * h[t : t - 1] + a, over=t, init=0j)
    wanted, state = [], 0
    for x in z:
        state = 0.5j * state + x
        wanted.append(state)
    np.testing.assert_allclose(h.numpy(t), wanted, rtol=1e-12)


def test_scalars_and_constants():
    c = sm.array(2 - 1j)
    out = sm.jit(lambda c: (c * 1j, c.conj()))(c)
    assert complex(out[0]) == 1 + 2j
    assert complex(out[1]) == 2 + 1j


def test_interpreter_agrees():
    z = data(np.complex64, 4, 3)
    a = sm.array(z, i, k)

    def f():
        return sm.prod[k](sm.tanh(a) + 1) * sm.sqrt(sm.sum[k](a))

    compiled = f().numpy(i)
    with sm.interpret():
        np.testing.assert_allclose(f().numpy(i), compiled, rtol=1e-4)
