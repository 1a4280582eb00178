"""Programs of every kind, each with tensors that it is differentiated at (f64, fixed numbers)."""

import torch

import summand as sm
import summand.torch as smt

n, i, j, k, t, u, d, h, s, w = sm.dims("n i j k t u d h s w")
x, y, kx, ky, ci, co = sm.dims("x y kx ky ci co")
PROGRAMS = {}


def program(*inputs, **dims):
    """Register a function; `inputs` are shapes of tensors to differentiate by, or tensors as is."""

    def register(function):
        PROGRAMS[function.__name__] = (smt.function(**dims)(function), inputs)
        return function

    return register


def inputs_of(name, seed=0, dtype=torch.float64):
    """Tensors for a program: fresh ones that need gradients for the shapes, the others as given."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for given in PROGRAMS[name][1]:
        if isinstance(given, tuple):
            fresh = torch.randn(given, generator=generator, dtype=dtype)
            out.append(fresh.requires_grad_())
        elif callable(given):
            out.append(given(generator).requires_grad_())
        else:
            out.append(given)
    return out


def positive(*shape):
    return lambda g: torch.rand(shape, generator=g, dtype=torch.float64) + 0.5


def spread(*shape):
    """Numbers at least 0.1 apart, in random order: what is greatest stays so nearby."""

    def make(g):
        count = int(torch.Size(shape).numel())
        return (torch.randperm(count, generator=g).to(torch.float64) * 0.1 - 1).reshape(shape)

    return make


# ---- contractions and elementwise


@program((3, 4), (4, 5), a=(i, k), b=(k, j), out=(i, j))
def matmul(a, b):
    return sm.sum[k](a * b)


@program((2, 3, 4), (4, 5), (3,), a=(n, i, k), b=(k, j), c=(i,), out=(j, n))
def three_operands(a, b, c):
    return sm.sum[i, k](a * b * c)


@program((3, 2), (2,), a=(i, k), b=(k,), out=(k, i))
def elementwise(a, b):
    return sm.gelu(a) * sm.sin(b) + sm.tanh(a * b)


@program(positive(5), a=(k,), out=())
def powers(a):
    return sm.sum[k](a**1.5 + sm.sqrt(a) * sm.log(a))


@program((3, 5), (5,), (5,), a=(n, k), g=(k,), b=(k,), out=(n, k))
def layer_norm(a, g, b):
    z = a - sm.mean[k](a)
    return z * sm.rsqrt(sm.mean[k](z * z) + 1e-5) * g + b


@program((3, 5), a=(n, k), out=(n, k))
def softmax(a):
    e = sm.exp(a - sm.max[k](a))
    return e / sm.sum[k](e)


@program(
    (2, 4, 3),
    (2, 4, 3),
    (2, 4, 3),
    (2,),
    Q=(h, t, d),
    K=(h, t, d),
    V=(h, t, d),
    m=(h,),
    out=(h, t, d),
)
def attention(Q, K, V, m):
    z = sm.sum[d](Q * K[t:u])
    z = sm.where(t >= u, z - m * (t - u), -sm.inf)
    e = sm.exp(z - sm.max[u](z))
    return sm.sum[u](e / sm.sum[u](e) * V[t:u])


@program((2, 3), (3, 4), a=(i, k), b=(k, j), out=(i, j))
def complex_product(a, b):
    z = sm.complex(a, -a) * sm.complex(b, b * b)
    return sm.sum[k](z.real + z.imag)


# ---- windows


@program(
    (1, 5, 5, 2, 2, 2),
    (3, 3, 2, 2, 2, 2),
    P=(n, x, y, ci, i, k),
    W=(kx, ky, ci, co, k, j),
    out=(n, x, y, co, i, j),
)
def capsules(P, W):
    return sm.sum[kx, ky, ci, k](P[x : 2 * x + kx, y : 2 * y + ky] * W)


@program((2, 7, 2), (3, 2, 3), a=(n, x, ci), f=(kx, ci, co), out=(n, x, co))
def padded_convolution(a, f):
    return sm.sum[kx, ci](a.fill(0)[x : x + kx - 1] * f)


@program(spread(2, 8), a=(n, x), out=(n, x))
def max_pool(a):
    v = sm.Dim("v", 2)
    return sm.max[v](a[x : 2 * x + v])


@program((2, 6), a=(n, x), out=(n, x))
def reverse_and_shift(a):
    return a[x : 5 - x] * a.fill(1)[x : x - 1]


# ---- gathers and scatters


@program((5, 3), torch.tensor([4, 0, 4, 2]), table=(i, d), index=(t,), out=(t, d))
def embedding(table, index):
    return table[i:index]


@program((6, 2), torch.tensor([1, 0, 1, 3, 3, 3]), values=(n, d), index=(n,), out=(s, d))
def segment_sum(values, index):
    s4 = sm.Dim("s4", 4)
    return sm.sum[n](values, at={s4: index})[s4:s]


@program(
    spread(6),
    torch.tensor([1, 0, 1, 2, 2, 2], dtype=torch.int32),
    values=(n,),
    index=(n,),
    out=(s,),
)
def segment_max(values, index):
    s3 = sm.Dim("s3", 3)
    return sm.max[n](values, at={s3: index})[s3:s]


# ---- monoids and selection


@program(spread(3, 4), spread(4, 2), a=(i, k), b=(k, j), out=(i, j))
def max_plus(a, b):
    return sm.max[k](a + b * 1.37)


@program((2, 4), a=(n, k), out=(n,))
def product(a):
    return sm.prod[k](a)


@program((3, 4), a=(n, k), out=(n,))
def log_sum_exp(a):
    return sm.logsumexp[k](a)


@program((4, 2), (4, 2), a=(t, n), b=(t, n), out=(n,))
def affine_monoid(a, b):
    affine = sm.Monoid(lambda p, q: (q[0] * p[0], q[0] * p[1] + q[1]), (1.0, 0.0))
    return affine[t]((a, b))[1]


@program(spread(2, 6), a=(n, k), out=(n, k))
def sorted_values(a):
    return sm.sort(a, k) * (k + 1)


# ---- recurrences


@program((5, 2), (5, 2), (2,), a=(t, s), b=(t, s), h0=(s,), out=(t, s))
def state_space(a, b, h0):
    return sm.recur(lambda z: a * z[t : t - 1] + b, over=t, init=h0)


@program((4, 2, 3), (3, 3), (3, 3), a=(t, n, d), W=(d, h), U=(h, d), out=(n, h))
def recurrent_net(a, W, U):
    g = sm.Dim("g")
    drive = sm.sum[d](a * W)
    z = sm.recur(
        lambda z: sm.tanh(drive + sm.sum[g](z[t : t - 1, h:g] * U[h:g, d:h])),
        over=t,
        init=sm.zeros({n: 2, h: 3}, dtype="f64"),
    )
    return z[t:3]


@program((3, 4), c=(i, j), out=(i, j))
def edit_distance(c):
    def soft(p, q):
        return -sm.logaddexp(-p, -q)

    return sm.recur(
        lambda D: soft(soft(D[i : i - 1], D[j : j - 1]) + 1, D[i : i - 1, j : j - 1] + c),
        over=(i, j),
        init=lambda p, q: 1.0 * sm.maximum(p, q) + 1,
    )


# ---- several results, structures, other types


@program((3, 4), a=(n, k), out=((n,), (n, k)))
def mean_and_centred(a):
    m = sm.mean[k](a)
    return m, a - m


@program(spread(3, 4), a=(n, k), out=((n,), (n,)))
def max_and_place(a):
    return sm.max[k](a), sm.argmax[k](a)


@program((3, 4), torch.tensor([True, False, True, True]), a=(n, k), mask=(k,), out=(n,))
def masked_mean(a, mask):
    return sm.sum[k](sm.where(mask, a * a, 0)) / sm.sum[k](mask.astype("f64"))


@program((3,), a=(n,), out={"square": (n,), "total": ()})
def named_results(a):
    return {"square": a * a, "total": sm.sum[n](sm.exp(a))}
