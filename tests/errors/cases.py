"""Wrong programs, one for each error message; `test_messages.py` compares what they say."""

import numpy as np

import summand as sm


def floats(*shape):
    return np.zeros(shape, np.float32)


def two_sizes_for_one_dim():
    i, j, k = sm.dims("i j k")
    x = sm.array(floats(128, 64), i, k)
    w = sm.array(floats(32, 10), k, j)
    sm.sum[k](x * w)


def two_sizes_elementwise():
    i, k = sm.dims("i k")
    x = sm.array(floats(3, 4), i, k)
    bias = sm.array(floats(5), k)
    y = x + bias
    return y.numpy(i, k)


def two_sizes_by_a_rename():
    i, k = sm.dims("i k")
    x = sm.array(floats(7), i)
    w = sm.array(floats(5), k)
    sm.sum[k](x[i:k] * w)


def two_sizes_with_the_dims_own():
    w = sm.Dim("w", 2)
    sm.array(floats(3), w)


def unknown_dim_reduced():
    i, j, k = sm.dims("i j k")
    x = sm.array(floats(3, 4), i, k)
    sm.sum[j](x)


def unknown_dim_indexed():
    i, j = sm.dims("i j")
    x = sm.array(floats(3), i)
    x[j:0]


def spelled_alike():
    i, k = sm.dims("i k")
    x = sm.array(floats(3, 4), i, k)
    k = sm.Dim("k")
    sm.sum[k](x)


def spelled_alike_by_one_line():
    k, other = (sm.Dim("k") for _ in range(2))
    x = sm.array(floats(4), k)
    sm.sum[other](x)


def ambiguous_window():
    x, w = sm.dims("x w")
    image = sm.array(floats(8), x)
    sm.max[w](image[x : 2 * x + w])


def ambiguous_positions():
    q, kv = sm.dims("q kv")
    mask = q >= kv
    return mask.numpy(q, kv)


def affine_read_out_of_range():
    t = sm.Dim("t")
    x = sm.array(floats(8), t)
    return x - x[t : t - 1]


def affine_read_past_the_end():
    x, k = sm.dims("x k")
    image = sm.array(floats(8), x)
    kernel = sm.array(floats(3), k)
    other = sm.array(floats(8), x)
    return sm.sum[k](image[x : x + k] * kernel * other)


def window_larger_than_its_array():
    x, k = sm.dims("x k")
    image = sm.array(floats(3), x)
    kernel = sm.array(floats(5), k)
    return sm.sum[k](image[x : x + k] * kernel)


def constant_index_out_of_range():
    k = sm.Dim("k")
    x = sm.array(floats(4), k)
    return x[k:4]


def gathered_index_out_of_range():
    k, p = sm.dims("k p")
    x = sm.array(floats(4), k)
    rows = sm.array(np.array([0, 7, 1]), p)
    return x[k:rows].numpy(p)


def gather_by_floats():
    k, p = sm.dims("k p")
    x = sm.array(floats(4), k)
    rows = sm.array(floats(2), p)
    return x[k:rows]


def index_without_its_dim():
    i, k = sm.dims("i k")
    x = sm.array(floats(3, 4), i, k)
    return x[0]


def index_by_an_ndarray():
    k = sm.Dim("k")
    x = sm.array(floats(4), k)
    return x[k : np.array([0, 1])]


def recurrence_reads_the_present():
    t = sm.Dim("t")
    x = sm.array(floats(4), t)
    return sm.recur(lambda h: h[t:t] + x, over=t, init=0)


def recurrence_reads_both_ways():
    t = sm.Dim("t")
    x = sm.array(floats(4), t)
    return sm.recur(lambda h: h[t : t - 1] + h[t : t + 1] + x, over=t, init=0)


def recurrence_reads_nothing():
    t = sm.Dim("t")
    x = sm.array(floats(4), t)
    return sm.recur(lambda h: x, over=t, init=0)


def recurrence_uses_its_state_whole():
    t = sm.Dim("t")
    x = sm.array(floats(4), t)
    return sm.recur(lambda h: h + x, over=t, init=0)


def recurrence_folds_its_own_dim():
    t = sm.Dim("t")
    x = sm.array(floats(4), t)
    return sm.recur(lambda h: sm.sum[t](h[t : t - 1]) + x, over=t, init=0)


def recurrence_of_unknown_length():
    t = sm.Dim("t")
    return sm.recur(lambda h: h[t : t - 1] + 1, over=t, init=0)


def recurrence_from_its_own_dim():
    t = sm.Dim("t")
    x = sm.array(floats(4), t)
    return sm.recur(lambda h: h[t : t - 1] + x, over=t, init=x)


def truth_of_a_traced_array():
    k = sm.Dim("k")

    def f(x):
        if sm.sum[k](x) > 0:
            return x
        return -x

    return sm.jit(f)(sm.array(floats(4), k))


def number_of_a_traced_array():
    k = sm.Dim("k")
    return sm.grad(lambda x: float(sm.sum[k](x)))(sm.array(floats(4), k))


def truth_of_many():
    k = sm.Dim("k")
    return bool(sm.array(floats(4), k) > 0)


def not_an_array():
    return sm.exp("three")


def an_ndarray_without_names():
    k = sm.Dim("k")
    return sm.array(floats(4), k) + np.ones(4)


def too_few_names():
    i = sm.Dim("i")
    return sm.array(floats(4, 5), i)


def no_rule_for_the_types():
    k = sm.Dim("k")
    x = sm.array(np.ones(4, np.complex64), k)
    return x < 1


def bools_do_not_subtract():
    k = sm.Dim("k")
    x = sm.array(np.ones(4, bool), k)
    return x - x


def integer_does_not_fit():
    k = sm.Dim("k")
    x = sm.array(np.ones(4, np.uint8), k)
    return x + 300


def max_over_nothing():
    i, k = sm.dims("i k")
    x = sm.array(floats(3, 0), i, k)
    return sm.max[k](x)


def reduction_without_dims():
    k = sm.Dim("k")
    return sm.sum(sm.array(floats(4), k))


def numpy_needs_an_order():
    i, k = sm.dims("i k")
    return sm.array(floats(3, 4), i, k).numpy()


def numpy_lacks_a_dim():
    i, k = sm.dims("i k")
    return sm.array(floats(3, 4), i, k).numpy(i)


def iteration():
    k = sm.Dim("k")
    return list(sm.array(floats(4), k))


def length():
    k = sm.Dim("k")
    return len(sm.array(floats(4), k))


def scatter_without_a_size():
    p, bin_ = sm.dims("p bin")
    x = sm.array(floats(4), p)
    where = sm.array(np.array([0, 1, 1, 0]), p)
    return sm.sum[p](x, at={bin_: where}).numpy(bin_)


def scatter_out_of_range():
    p, bin_ = sm.Dim("p"), sm.Dim("bin", 2)
    x = sm.array(floats(4), p)
    where = sm.array(np.array([0, 1, 2, 0]), p)
    return sm.sum[p](x, at={bin_: where}).numpy(bin_)


def gradient_of_an_array():
    k = sm.Dim("k")
    return sm.grad(lambda x: x * x)(sm.array(floats(4), k))


def gradient_by_an_integer():
    k = sm.Dim("k")
    return sm.grad(lambda x: sm.sum[k](x))(sm.array(np.arange(4), k))


def branches_of_two_structures():
    k = sm.Dim("k")
    x = sm.array(floats(4), k)
    return sm.cond(sm.sum[k](x) > 0, lambda: (x, x), lambda: x)


def condition_with_dims():
    k = sm.Dim("k")
    x = sm.array(floats(4), k)
    return sm.cond(x > 0, lambda: x, lambda: -x)


def too_many_best():
    k, best = sm.Dim("k"), sm.Dim("best", 9)
    return sm.top_k(sm.array(floats(4), k), k, best)


def sort_of_a_long_dim():
    k = sm.Dim("k")
    return sm.argsort(sm.zeros({k: 2**31}, sm.i8), k)


def jacobian_of_one_dim():
    i = sm.Dim("i")
    return sm.jacobian(lambda x: x * x)(sm.array(floats(3), i))


def a_name_with_a_blank():
    return sm.Dim("my dim")


def combine_of_another_type():
    k = sm.Dim("k")
    longest = sm.Monoid(lambda a, b: a * 0.5 + b, 0)
    return longest[k](sm.array(np.arange(3), k))


def a_function_is_wanted():
    t = sm.Dim("t")
    return sm.recur(3, over=t, init=0)


def a_dim_is_wanted():
    k = sm.Dim("k")
    return sm.sort(sm.array(floats(4), k), "k")


def a_shape_is_wanted():
    return sm.zeros(3)


def a_ragged_list():
    i, k = sm.dims("i k")
    return sm.array([[1, 2], [3]], i, k)


def a_size_that_is_not_whole():
    k = sm.Dim("k")
    return sm.zeros({k: 2.5})


def a_seed_of_text():
    return sm.random.key("seed")


def an_identity_of_text():
    return sm.Monoid(lambda a, b: a + b, "zero")


def argnums_by_name():
    k = sm.Dim("k")
    return sm.grad(lambda x: sm.sum[k](x), "x")(sm.array(floats(4), k))


def integer_beyond_floats():
    k = sm.Dim("k")
    return sm.array(floats(4), k) * 10**400


def jit_of_an_ndarray():
    return sm.jit(lambda x: x + 1)(np.ones(3))


def a_cotangent_of_another_size():
    k = sm.Dim("k")
    x = sm.array(floats(4), k)
    _, back = sm.vjp(lambda x: x * x, x)
    return back(sm.array(floats(3), k))
