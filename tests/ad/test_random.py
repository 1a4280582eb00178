"""Forward and reverse mode agree on random programs, and passes keep the derivatives."""

from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from summand.ad import jvp, vjp
from summand.dtypes import f64
from summand.errors import DerivativeError
from summand.ir.interp import run
from summand.ir.nodes import Eqn, Program, Reduce, ReduceAt, Var, with_operands
from summand.ir.verify import verify
from summand.rewrite.places.window_adjoint import window_adjoint
from summand.rewrite.rebuild import inside
from tests.ad.gradcheck import dot, inexact, random_like
from tests.programs import arguments, programs
from tests.rewrite.agreement import assert_same_results


def in_double(program):
    """The same program with every float as f64, so that rounding plays no part."""

    def wide(var):
        return Var(var.id, var.type.with_dtype(f64)) if var.type.dtype.is_float else var

    eqns = []
    for eqn in program.eqns:
        op = inside(eqn.op, in_double)
        if isinstance(op, Reduce | ReduceAt) and op.monoid.combine is not None:
            op = replace(op, monoid=replace(op.monoid, combine=in_double(op.monoid.combine)))
        reads = {v: wide(v) for e in (eqn,) for v in (*program.params, *defined(program))}
        eqns.append(Eqn(tuple(wide(o) for o in eqn.outs), with_operands(op, reads), eqn.loc))
    return Program(
        tuple(wide(p) for p in program.params), tuple(eqns), tuple(wide(r) for r in program.results)
    )


def defined(program):
    return [o for e in program.eqns for o in e.outs]


@given(programs(), st.integers(0, 9))
@settings(max_examples=100, deadline=None, database=None)
def test_both_modes_agree(program, seed):
    program = in_double(program)
    verify(program)
    wrt = tuple(n for n, p in enumerate(program.params) if p.type.dtype.is_inexact)
    keep = inexact(program)
    assume(wrt and keep)
    try:
        reverse = vjp(program, wrt)
    except DerivativeError:
        return
    forward = jvp(program, wrt)
    verify(reverse)
    verify(forward)
    args = arguments(program, seed)
    rng = np.random.default_rng(seed)
    v = [random_like(program.params[i], rng) for i in wrt]
    u = [random_like(program.results[n], rng) for n in keep]
    with np.errstate(all="ignore"):
        pushed = run(forward, [*args, *v])[len(program.results) :]
        pulled = run(reverse, [*args, *u])[len(program.results) :]
        left, right = dot(u, pushed), dot(v, pulled)
        size = sum(np.abs(x.array * y.array).sum() for x, y in zip(u, pushed, strict=True))
        size += sum(np.abs(x.array * y.array).sum() for x, y in zip(v, pulled, strict=True))
    assume(np.isfinite(size))
    assert abs(left - right) <= 1e-9 * (1 + size)
    assert_same_results(reverse, window_adjoint(reverse))
