"""Compile one op over an array: out[i] = op(args[i]…), `lanes` at a time, through LLVM alone."""

import ctypes
import functools

import llvmlite.binding as llvm
import numpy as np

from summand.codegen.cpu.ops import convert, emit_fold_op, emit_op
from summand.codegen.cpu.text import Function, Unit, Value, memory_type, register_type, vector
from summand.dtypes import DType, bf16, bool_, f16


@functools.cache
def host():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    options = {"opt": 2, "jit": True, "reloc": "pic", "codemodel": "small"}
    return target, llvm.get_host_cpu_name(), features, options


BASELINE = "+sse4.2,+avx,+avx2,+fma"


def _machine(features: str):
    target, cpu, _, options = host()
    cpu = cpu if "+avx512f" in features else "x86-64" if "x86" in target.triple else cpu
    return target.create_target_machine(cpu=cpu, features=features, **options)


def _load(fn, pointer, index, dtype: DType, lanes: int) -> Value:
    assert dtype not in (f16, bf16)
    element = memory_type(dtype)
    at = fn.at(pointer, index, element)
    raw = fn.op(f"load {vector(element, lanes)}, ptr {at}, align 1", vector(element, lanes), dtype)
    if dtype is not bool_:
        return raw
    return Value(fn.cast("trunc", raw, vector("i1", lanes)).name, vector("i1", lanes), bool_)


def _store(fn, pointer, index, value: Value, dtype: DType, lanes: int) -> None:
    element = memory_type(dtype)
    assert value.type == register_type(dtype, lanes), (value, dtype)
    if dtype is bool_:
        value = fn.cast("zext", value, vector("i8", lanes))
    if dtype in (f16, bf16):
        value = fn.cast("bitcast", value, vector("i32", lanes))
        element = "i32"
    fn.do(f"store {value.type} {value}, ptr {fn.at(pointer, index, element)}, align 1")


@functools.cache
def compiled(name: str, sources, result: DType, lanes: int, features: str | None = None, nan=True):
    """A native function (pointers of args and out, count) and what keeps it alive."""
    features = host()[2] if features is None else features
    unit = Unit(features)
    params = ", ".join([*(f"ptr %a{k}" for k in range(len(sources))), "ptr %out", "i64 %n"])
    fn = Function(unit, "run", params)
    pointers = [Value(f"%a{k}", "ptr") for k in range(len(sources))]

    def body(index, _):
        args = [_load(fn, p, index, t, lanes) for p, t in zip(pointers, sources)]
        if name.startswith("fold_"):
            out = emit_fold_op(fn, name[5:], *args, result, lanes, nan)
        elif name == "convert":
            out = convert(fn, args[0], sources[0], result, lanes)
        else:
            out = emit_op(fn, name, args, result, lanes)
        _store(fn, Value("%out", "ptr"), index, out, result, lanes)
        return []

    fn.loop(0, Value("%n", "i64"), lanes, [], body)
    fn.finish()
    module = llvm.parse_assembly(unit.text())
    module.triple = llvm.get_process_triple()
    module.verify()
    machine = _machine(features)
    assembly = machine.emit_assembly(module)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    address = engine.get_function_address("run")
    kinds = [ctypes.c_void_p] * (len(sources) + 1) + [ctypes.c_int64]
    return ctypes.CFUNCTYPE(None, *kinds)(address), (engine, module), assembly


def run(name, args, sources, result, lanes, features=None, nan=True) -> np.ndarray:
    """The op over arrays, padded to whole vectors."""
    call = compiled(name, tuple(sources), result, lanes, features, nan)[0]
    n = args[0].size
    padded = -n % lanes + n
    held = []
    for array, dtype in zip(args, sources):
        wide = np.ones(padded, dtype.numpy)
        wide[:n] = array
        held.append(wide)
    out = np.zeros(padded, "float32" if result in (f16, bf16) else result.numpy)
    call(*(h.ctypes.data for h in held), out.ctypes.data, padded)
    return out[:n]
