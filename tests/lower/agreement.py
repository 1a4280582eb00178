"""Lower a program and compare the loop IR's run with the tensor IR's."""

import numpy as np

from summand import compiler
from summand import dtypes as dt
from summand.compiler import PASSES
from summand.ir.interp import run
from summand.ir.named import Named
from summand.loops.interp import run_module
from summand.options import Options, Target
from summand.rewrite.checks import insert_checks
from summand.schedule.lower import lower
from tests.programs import arguments
from tests.rewrite.agreement import assert_close, narrowest

TARGET = Target("x86_64", "generic", "")


def rewritten(program):
    """The program as lowering gets it."""
    for step in PASSES:
        program = step.run(program)
    return insert_checks(program)[0]


def order_of(var, reverse=False):
    order = tuple(d for d, _ in var.type.dims)
    return order[::-1] if reverse else order


def assert_lowers(program, args, *, scheduled=False, fuse=True, reverse=False, target=TARGET):
    """Lower a program, run it on the interpreter of loops, compare with the tensor IR's."""
    params = [order_of(p, reverse) for p in program.params]
    results = [order_of(r) for r in program.results]
    module = lower(program, params, results, target, Options(fuse=fuse), scheduled)
    arrays = [
        Named(a.array, a.order).transposed(o).array for a, o in zip(args, params, strict=True)
    ]
    found = run_module(module, [np.ascontiguousarray(a) for a in arrays])
    wanted, through = run(program, args), narrowest(program)
    for var, a, b, coarse in zip(program.results, wanted, found, through, strict=True):
        assert_close(a.transposed(order_of(var)).array, b, var.type.dtype, computed_in=coarse)
    return module


def assert_compiles(program, args=None):
    """Compile a program, run it on arrays, compare with the interpreter."""
    args = arguments(program) if args is None else args
    params = [order_of(p) for p in program.params]
    executable = compiler.compile(program, params, [order_of(r) for r in program.results])
    arrays = [np.ascontiguousarray(a.transposed(o).array) for a, o in zip(args, params)]
    found = executable.run(arrays)
    for var, wanted, got in zip(program.results, run(program, args), found, strict=True):
        assert_close(wanted.transposed(order_of(var)).array, got, var.type.dtype)


def named(array, *order):
    return Named(np.asarray(array), order)


F32 = dt.f32
