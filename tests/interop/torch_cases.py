"""Wrong uses of summand.torch, one for each message; `test_torch_errors.py` compares the texts."""

import torch

import summand as sm
import summand.torch as smt

n, k, j, i, t = sm.dims("n k j i t")
x = torch.linspace(-1, 1, 12).reshape(4, 3)
w = torch.linspace(-1, 1, 15).reshape(3, 5)


@smt.function(x=(n, k), w=(k, j), out=(n, j))
def linear(x, w):
    return sm.sum[k](x * w)


@smt.function(table=(i, k), rows=(t,), out=(t, k))
def embedding(table, rows):
    return table[i:rows]


def returning(result, out=(n, k)):
    return smt.function(x=(n, k), out=out)(lambda x: result(x))


def too_few_axes():
    linear(x[0], w)


def two_sizes_for_one_dim():
    linear(x, w[:2])


def a_type_that_there_is_not():
    linear(x, torch.zeros(3, 5, dtype=torch.float8_e4m3fn))


def a_type_that_a_rule_refuses():
    f = smt.function(x=(n,), out=(n,))(lambda x: x - x)
    f(torch.tensor([True, False]))


def a_meta_tensor():
    linear(x.to("meta"), w)


def a_sparse_tensor():
    linear(x.to_sparse(), w)


def a_tensor_of_compressed_rows():
    linear(x.to_sparse_csr(), w)


def a_nested_tensor():
    linear(torch.nested.nested_tensor([x, x[:2]]), w)


def other_dims_returned():
    returning(lambda x: sm.sum[k](x))(x)


def too_few_results():
    returning(lambda x: x + 1, out=((n, k), (n,)))(x)


def a_tensor_returned():
    returning(lambda x: torch.ones(4, 3))(x)


def nothing_returned():
    returning(lambda x: None)(x)


def a_tensor_inside():
    returning(lambda x: x * x_outside)(x)


x_outside = x


def a_tensor_without_dims():
    f = smt.function(x=(n, k), out=(n, k))(lambda x, w: x * w)
    f(x, w)


def an_ndarray():
    linear(x.numpy(), w)


def an_argument_too_few():
    linear(x)


def an_argument_that_there_is_not():
    smt.function(z=(n, k), out=(n, k))(lambda x: x)


def dims_in_a_string():
    smt.function(x="n k", out=(n, k))(lambda x: x)


def a_constant_without_hash():
    f = smt.function(x=(n, k), out=(n, k))(lambda x, names: x)
    f(x, {"a", "b"})


def no_tensor_at_all():
    smt.function(out=(n,))(lambda size: sm.ones({n: size}))(3)


def a_closure_outside():
    smt.array(x, n, k)


def a_closure_with_too_few_dims():
    returning(lambda x: x * smt.array(w, k))(x)


def a_gather_out_of_range():
    embedding(torch.zeros(5, 2), torch.tensor([1, 7]))


def a_tensor_changed_before_backward():
    a = x.clone().requires_grad_()
    b = a * 1
    out = linear(b, w.clone().requires_grad_())
    b.add_(1)
    out.sum().backward()


def a_gradient_by_integers():
    rows = torch.tensor([1, 2])
    torch.autograd.grad(embedding(torch.zeros(5, 2, requires_grad=True), rows).sum(), rows)


def a_functional_gradient_by_integers():
    torch.func.grad(lambda rows: embedding(torch.zeros(5, 2), rows).sum())(torch.tensor([1, 2]))


def a_gradient_of_an_integer_result():
    places = returning(lambda x: sm.argmax[k](x), out=(n,))
    places(x.clone().requires_grad_()).sum().backward()


def no_reverse_derivative():
    def doubled(x):
        return sm.while_loop(lambda s: sm.any[n](s < 10), lambda s: s * 2, x)

    f = smt.function(x=(n,), out=(n,))(doubled)
    f(torch.ones(3, requires_grad=True)).sum().backward()


def an_unknown_digest():
    torch.ops.summand.run("#0", [x], [])


def a_text_that_is_no_program():
    torch.ops.summand.run("sum", [x], [])


def a_program_for_other_sizes():
    from summand.interop.torch_function import calls_of

    linear(x, w)
    entry = next(iter(calls_of(linear).entries.values()))
    torch.ops.summand.run(entry.text, [w, w], [])
