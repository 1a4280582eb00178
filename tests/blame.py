"""Which stage of the pipeline changed a program's results: the rewrites, lowering, or machine code.

print(blame(program, params, results, options))
"""

from __future__ import annotations

import warnings

import numpy as np

from summand import compiler
from summand.errors import InternalError
from summand.ir.interp import run
from summand.ir.text import text
from summand.loops.interp import run_module
from summand.runtime.executable import Executable
from tests.programs import arguments
from tests.rewrite.agreement import assert_close, narrowest


def blame(program, params, results, options):
    """The program's text, and the first stage after which its results are wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _blame(program, params, results, options)
    return f"{text(program)}{params} {results} {options}\n{found}"


def _blame(program, params, results, options):
    args = arguments(program)
    wanted = [a.transposed(o).array for a, o in zip(run(program, args), results)]
    types = list(zip([v.type.dtype for v in program.results], narrowest(program), strict=True))
    target = compiler.machine.target()
    request = compiler.Request(program, params, results, options, target)
    for step in compiler.PASSES:
        program = step.run(program)
        found = [a.transposed(o).array for a, o in zip(run(program, args), results)]
        if wrong := _differs(wanted, found, types):
            return f"wrong after {step.name}: {wrong}\n{text(program)}"
    program, checks = compiler.check(request, program, compiler.Log())
    log = compiler.Log(wanted=frozenset({"fused", "loops"}))
    module = compiler.schedule(request, compiler.plan(request, program, log), checks, log)
    inputs = [
        np.ascontiguousarray(a.transposed(o).array).reshape([a.sizes[d] for d in o])
        for a, o in zip(args, params)
    ]
    shown = f"{text(program)}\n{log.texts['fused']}\n{log.texts['loops']}"
    try:
        found = run_module(module, inputs)
    except InternalError as error:
        return f"the loops are refused: {error}\n{shown}"
    if wrong := _differs(wanted, found, types):
        return f"wrong after lowering: {wrong}\n{shown}"
    executable = Executable(compiler.build(request, compiler.Log()))
    if wrong := _differs(wanted, executable.run(inputs), types):
        return f"wrong in machine code: {wrong}\n{shown}"
    return "all stages agree"


def _differs(wanted, found, types):
    for number, (a, b, (dtype, coarse)) in enumerate(zip(wanted, found, types)):
        try:
            assert_close(a, b, dtype, computed_in=coarse)
        except AssertionError as error:
            return f"result {number}: {error}"
    return ""
