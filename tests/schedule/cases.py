"""Kernels as lowering hands them to scheduling: one nest, all dims, an empty grid."""

from __future__ import annotations

import random

from summand.dtypes import f32, i32
from summand.ir.index import Form, parse
from summand.loops.nodes import (
    Address,
    Apply,
    Buffer,
    Combine,
    Const,
    Fold,
    Guard,
    Kernel,
    Load,
    Nest,
    Store,
)
from summand.options import Target

TARGET = Target("x86_64-unknown-linux-gnu", "znver4", "", fma_per_cycle=1.0)
NARROW = Target("x86_64-unknown-linux-gnu", "znver3", "", 32, registers=16, l2=512 << 10)
IDENTITY = {"add": 0.0, "max": float("-inf"), "min": float("inf")}


def load(buffer, form, guards=(), fill=0.0):
    """A load at a form given as text; guards are (text, size)."""
    conditions = tuple(Guard(parse(f), n) for f, n in guards)
    return Load(buffer, Address(parse(form), (), conditions), f32, fill)


def contraction(name, dims, out, a, b, reduced, product="mul", fold="add"):
    """out = fold over `reduced` of product(a, b); operands are (form, size, guards...)."""
    fill = 0.0 if fold == "add" else IDENTITY[fold]
    code = (
        load("a", a[0], a[2:], fill),
        load("b", b[0], b[2:], fill),
        Apply(product, (0, 1), f32),
        Fold(Combine(fold, (IDENTITY[fold],)), tuple(reduced), (2,), f32),
    )
    stores = (Store("out", Address(parse(out[0])), 3),)
    params = (Buffer("a", f32, a[1]), Buffer("b", f32, b[1]), Buffer("out", f32, out[1]))
    return Kernel(name, params, (), (), (Nest(tuple(dims.items()), code, stores),))


def matmul(m, n, k, fold="add"):
    """C[m, n] = fold over k of A[m, k] * B[k, n] (or + under max)."""
    a, b = (f"{k}*m + k", m * k), (f"{n}*k + n", k * n)
    product = "mul" if fold == "add" else "add"
    dims = {"m": m, "n": n, "k": k}
    return contraction("matmul", dims, (f"{n}*m + n", m * n), a, b, ("k",), product, fold)


def chosen_matrices(blocks, experts, rows, m, k):
    """out[c, r, n] = Σ_k x[c, r, k] · w[choice[c], n, k], the choice clipped into range."""
    fold = Fold(Combine("add", (0.0,)), ("k",), (7,), f32)
    code = (
        Load("choice", Address(parse("c")), i32),
        Const(0, i32),
        Const(experts - 1, i32),
        Apply("max", (0, 1), i32),
        Apply("min", (3, 2), i32),
        Load("w", Address(parse(f"{k}*n + k"), ((4, m * k),)), f32),
        load("x", f"{rows * k}*c + {k}*r + k"),
        Apply("mul", (6, 5), f32),
        fold,
    )
    out = Store("out", Address(parse(f"{rows * m}*c + {m}*r + n")), 8)
    sizes = {"choice": blocks, "x": blocks * rows * k, "w": experts * m * k}
    params = [Buffer(n, i32 if n == "choice" else f32, s) for n, s in sizes.items()]
    params.append(Buffer("out", f32, blocks * rows * m))
    dims = (("c", blocks), ("r", rows), ("n", m), ("k", k))
    return Kernel("chosen", tuple(params), (), (), (Nest(dims, code, (out,)),))


def added_products(blocks, experts, rows, m, n):
    """out[choice[c], m, n] += Σ_r x[c, r, m] · y[c, r, n], the choice clipped into range."""
    code = (
        Load("choice", Address(parse("c")), i32),
        Const(0, i32),
        Const(experts - 1, i32),
        Apply("max", (0, 1), i32),
        Apply("min", (3, 2), i32),
        load("x", f"{rows * m}*c + {m}*r + m"),
        load("y", f"{rows * n}*c + {n}*r + n"),
        Apply("mul", (5, 6), f32),
        Fold(Combine("add", (0.0,)), ("r",), (7,), f32),
    )
    out = Store("out", Address(parse(f"{n}*m + n"), ((4, m * n),)), 8, "add")
    sizes = {"x": blocks * rows * m, "y": blocks * rows * n, "out": experts * m * n}
    params = (Buffer("choice", i32, blocks), *(Buffer(k, f32, v) for k, v in sizes.items()))
    dims = (("m", m), ("n", n), ("c", blocks), ("r", rows))
    nest = Nest(dims, code, (out,), (), ("c",))
    return Kernel("added", params, (), (), (nest,))


POSES = ("115200*n + 15360*x + 7680*a + 1024*y + 512*b + 16*c + 4*i + k", 16 * 225 * 512)
FILTER = ("49152*a + 16384*b + 512*c + 16*o + 4*k + j", 9 * 16384)
VOTES = ("25088*n + 3584*x + 512*y + 16*o + 4*i + j", 16 * 49 * 512)
CAPSULE = {"n": 16, "x": 7, "y": 7, "o": 32, "i": 4, "j": 4, "a": 3, "b": 3, "c": 32, "k": 4}


def capsules():
    """Convolutional capsules, stride 2, all arrays in their natural order."""
    return contraction("capsules", CAPSULE, VOTES, POSES, FILTER, "abck")


def capsules_filter_gradient():
    """The gradient by the filter."""
    return contraction("capsules_dw", CAPSULE, FILTER, POSES, VOTES, "nxyi")


def capsules_pose_gradient(ra, rb):
    """One residue class of the gradient by the poses."""
    dims = {"n": 16, "x": 8 - ra, "y": 8 - rb, "c": 32, "i": 4, "k": 4}
    dims |= {"t": 2 - ra, "s": 2 - rb, "o": 32, "j": 4}
    out = f"115200*n + 15360*x + 1024*y + 16*c + 4*i + k + {7680 * ra + 512 * rb}"
    votes = "25088*n + 3584*x - 3584*t + 512*y - 512*s + 16*o + 4*i + j"
    weights = f"98304*t + 32768*s + 512*c + 16*o + 4*k + j + {49152 * ra + 16384 * rb}"
    return contraction(
        f"capsules_dp{ra}{rb}",
        dims,
        (out, POSES[1]),
        (votes, VOTES[1], ("x - t", 7), ("y - s", 7)),
        (weights, FILTER[1]),
        "tsoj",
    )


def convolution(batch=4, size=56, channels=64):
    """3x3, channels last, padded by fill(0)."""
    row, image = size * channels, size * size * channels
    dims = {"n": batch, "x": size, "y": size, "o": channels, "a": 3, "b": 3, "c": channels}
    out = (f"{image}*n + {row}*x + {channels}*y + o", batch * image)
    at = f"{image}*n + {row}*x + {row}*a + {channels}*y + {channels}*b + c - {row + channels}"
    image_guards = (("x + a - 1", size), ("y + b - 1", size))
    square = channels * channels
    weights = (f"{3 * square}*a + {square}*b + {channels}*c + o", 9 * square)
    return contraction("conv", dims, out, (at, batch * image, *image_guards), weights, "abc")


def small_products(count):
    """`count` products of 4x4 matrices."""
    dims = {"b": count, "i": 4, "j": 4, "k": 4}
    out = ("16*b + 4*i + j", 16 * count)
    a, b = ("16*b + 4*i + k", 16 * count), ("16*b + 4*k + j", 16 * count)
    return contraction("small_products", dims, out, a, b, "k")


def elementwise(dims, out, inputs, fn="add"):
    """out = fn(x, y) over all dims; forms as text."""
    code = (load("a", inputs[0]), load("b", inputs[1]), Apply(fn, (0, 1), f32))
    sizes = [parse(f).range(dims)[1] + 1 for f in (*inputs, out)]
    params = tuple(Buffer(n, f32, s) for n, s in zip(("a", "b", "out"), sizes, strict=True))
    nest = Nest(tuple(dims.items()), code, (Store("out", Address(parse(out)), 2),))
    return Kernel("elementwise", params, (), (), (nest,))


def transposition(rows, columns):
    """out[j, i] = a[i, j]."""
    code = (load("a", f"{columns}*i + j"),)
    nest = Nest(
        (("i", rows), ("j", columns)), code, (Store("out", Address(parse(f"{rows}*j + i")), 0),)
    )
    n = rows * columns
    return Kernel("transpose", (Buffer("a", f32, n), Buffer("out", f32, n)), (), (), (nest,))


def reduction(dims, form, out, reduced, fold="add"):
    """out = fold over `reduced` of a."""
    size, results = parse(form).range(dims)[1] + 1, parse(out).range(dims)[1] + 1
    code = (load("a", form), Fold(Combine(fold, (IDENTITY[fold],)), tuple(reduced), (0,), f32))
    nest = Nest(tuple(dims.items()), code, (Store("out", Address(parse(out)), 1),))
    params = (Buffer("a", f32, size), Buffer("out", f32, results))
    return Kernel("reduction", params, (), (), (nest,))


def random_contraction(seed):
    """Any dims, extents (primes and 1 among them), orders in memory, monoid."""
    r = random.Random(seed)
    names = "abcdefg"[: r.randint(2, 6)]
    extents = {d: r.choice([1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 33]) for d in names}
    while _points(extents) > 60_000:
        extents[r.choice(names)] = r.choice([1, 2, 3])
    reduced = [d for d in names if r.random() < 0.4]
    first, second = (_operand(r, names, extents) for _ in range(2))
    unread = {d for d in reduced if d not in first[2] and d not in second[2]}
    extents = {d: n for d, n in extents.items() if d not in unread}
    reduced = [d for d in reduced if d not in unread]
    out = _layout(r, [d for d in extents if d not in reduced], extents)
    product, fold = r.choice(["mul", "add"]), r.choice(["add", "max"])
    return contraction("random", extents, out, first[:2], second[:2], reduced, product, fold)


def _points(extents):
    n = 1
    for e in extents.values():
        n *= e
    return n


def _operand(r, names, extents):
    dims = [d for d in names if r.random() < 0.7]
    return (*_layout(r, dims, extents), dims)


def _layout(r, dims, extents):
    order = r.sample(dims, len(dims))
    form, size = Form(), 1
    for d in reversed(order):
        form = form + Form.of(d) * size
        size *= extents[d]
    return str(form), size


def weighted_sums(rows, columns):
    """A bias gradient and a scale gradient: two sums over the same rows."""
    form, size = f"{columns}*i + j", rows * columns
    code = (
        load("g", form),
        load("x", form),
        Apply("mul", (0, 1), f32),
        Fold(Combine("add", (0.0,)), ("i",), (2,), f32),
        Fold(Combine("add", (0.0,)), ("i",), (0,), f32),
    )
    stores = (Store("scale", Address(parse("j")), 3), Store("bias", Address(parse("j")), 4))
    params = (
        Buffer("g", f32, size),
        Buffer("x", f32, size),
        Buffer("scale", f32, columns),
        Buffer("bias", f32, columns),
    )
    nest = Nest((("j", columns), ("i", rows)), code, stores)
    return Kernel("weighted_sums", params, (), (), (nest,))
