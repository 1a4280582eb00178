"""Programs as equations, written with the builder: the kernels that fusion is about."""

from summand import dtypes as dt
from summand.ir.builder import Builder
from summand.ir.index import Form
from summand.ir.nodes import MAX, SUM, Read, Recur, Type


def value(b, dtype=dt.f32, /, **sizes):
    return b.param(Type.of(dtype, sizes))


def number(b, x):
    return b.constant(x, dt.f32)


def softmax_of(b, x, dim):
    e = b.map("exp", b.map("sub", x, b.reduce(MAX, [dim], x)[0]))
    return b.map("div", e, b.reduce(SUM, [dim], e)[0])


def softmax(i, j, over):
    b = Builder()
    return b.finish([softmax_of(b, value(b, i=i, j=j), over)])


def layer_norm(i, j):
    b = Builder()
    x, gain, bias = value(b, i=i, j=j), value(b, j=j), value(b, j=j)
    mean = b.map("mul", b.reduce(SUM, ["j"], x)[0], number(b, 1 / j))
    centred = b.map("sub", x, mean)
    square = b.reduce(SUM, ["j"], b.map("mul", centred, centred))[0]
    variance = b.map("add", b.map("mul", square, number(b, 1 / j)), number(b, 1e-5))
    scaled = b.map("mul", b.map("mul", centred, b.map("rsqrt", variance)), gain)
    return b.finish([b.map("add", scaled, bias)])


def attention(batch, heads, length, width):
    b = Builder()
    q, k, v = (value(b, b=batch, h=heads, t=length, d=width) for _ in range(3))
    bias = value(b, h=heads, m=2 * length - 1)
    k, v = b.rename(k, {"t": "u"}), b.rename(v, {"t": "u"})
    score = b.reduce(SUM, ["d"], b.map("mul", q, k))[0]
    score = b.map("mul", number(b, 30.0), b.map("tanh", b.map("mul", score, number(b, 0.004))))
    place = Form.of("t") - Form.of("u") + length - 1
    near = b.reindex(bias, {"m": place}, {"t": length, "u": length})
    weight = softmax_of(b, b.map("add", score, near), "u")
    return b.finish([b.reduce(SUM, ["u"], b.map("mul", weight, v))[0]])


def routing(n, inputs, out, d=4, rounds=3):
    b = Builder()
    pose, w = value(b, n=n, I=inputs, i=d, k=d), value(b, I=inputs, J=out, k=d, j=d)
    a = value(b, n=n, I=inputs)
    votes = b.reduce(SUM, ["k"], b.map("mul", pose, w))[0]
    r = b.expand(b.map("mul", a, number(b, 1 / out)), {"J": out})
    mean = None
    for _ in range(rounds):
        total = b.map("add", b.reduce(SUM, ["I"], r)[0], number(b, 1e-3))
        mean = b.map("div", b.reduce(SUM, ["I"], b.map("mul", r, votes))[0], total)
        off = b.map("sub", votes, mean)
        far = b.reduce(SUM, ["i", "j"], b.map("mul", off, off))[0]
        r = b.map("mul", softmax_of(b, b.map("neg", far), "J"), a)
    return b.finish([mean])


def two_layers(i, k, h, o):
    b = Builder()
    x, w1, w2 = value(b, i=i, k=k), value(b, k=k, h=h), value(b, h=h, o=o)
    hidden = b.map("max", b.reduce(SUM, ["k"], b.map("mul", x, w1))[0], number(b, 0.0))
    return b.finish(b.reduce(SUM, ["h"], b.map("mul", hidden, w2)))


def scan(batch, d, s, t, forward=True, keep="all", summed=True):
    inner = Builder()
    h, a, u = value(inner, b=batch, d=d, s=s), value(inner, b=batch, d=d, s=s), value(inner)
    inner.param(Type(dt.i32))
    body = inner.finish([inner.map("add", inner.map("mul", a, h), u)])
    b = Builder()
    decay = b.map("exp", b.map("mul", value(b, d=d, s=s), value(b, b=batch, d=d, t=t)))
    start, drive = value(b, b=batch, d=d, s=s), value(b, t=t)
    sizes = dict(b=batch, d=d, s=s, **({"t": t} if keep == "all" else {}))
    shift = (1,) if forward else (-1,)
    op = Recur(("t",), (forward,), (t,), (Read(0, shift),), (start,), (decay, drive), body, (keep,))
    outs = b.emit(op, [Type.of(dt.f32, sizes)])
    if not summed:
        return b.finish(outs)
    return b.finish(b.reduce(SUM, ["s"], b.map("mul", outs[0], value(b, b=batch, s=s))))


def recurrent(batch, n, t, forward=True, keep="all", shift=1):
    inner = Builder()
    h, w, u = value(inner, b=batch, n=n), value(inner, n=n, m=n), value(inner, b=batch, n=n)
    inner.param(Type(dt.i32))
    mixed = inner.rename(inner.reduce(SUM, ["n"], inner.map("mul", h, w))[0], {"m": "n"})
    body = inner.finish([inner.map("tanh", inner.map("add", mixed, u))])
    b = Builder()
    w, u = value(b, n=n, m=n), value(b, t=t, b=batch, n=n)
    start = value(b, b=batch, n=n, **({"t": t} if shift > 1 else {}))
    reads = (Read(0, (shift if forward else -shift,)),)
    sizes = dict(b=batch, n=n, **({"t": t} if keep == "all" else {}))
    op = Recur(("t",), (forward,), (t,), reads, (start,), (w, u), body, (keep,))
    return b.finish(b.emit(op, [Type.of(dt.f32, sizes)]))


def edit_distance(batch, i, j, keep="all"):
    inner = Builder()
    up, left, both, cost = (value(inner, b=batch) for _ in range(4))
    inner.param(Type(dt.i32))
    inner.param(Type(dt.i32))
    near = inner.map("min", inner.map("min", up, left), inner.map("add", both, cost))
    body = inner.finish([near])
    b = Builder()
    cost = value(b, b=batch, i=i, j=j)
    start = b.convert(b.map("max", b.iota("i", i), b.iota("j", j)), dt.f32)
    reads = (Read(0, (1, 0)), Read(0, (0, 1)), Read(0, (1, 1)))
    sizes = dict(b=batch, **({"i": i, "j": j} if keep == "all" else {}))
    op = Recur(("i", "j"), (True, True), (i, j), reads, (start,) * 3, (cost,), body, (keep,))
    return b.finish(b.emit(op, [Type.of(dt.f32, sizes)]))
