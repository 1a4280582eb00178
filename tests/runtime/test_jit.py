import ctypes
import threading

import pytest

from summand.errors import InternalError
from summand.options import Target
from summand.runtime import jit, machine, measure, pool_code

ADD = "define i64 @add(i64 %a) {\n  %b = add i64 %a, 1\n  ret i64 %b\n}\n"


def function(library, name):
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.address(name))


def test_compile_and_load():
    data = jit.compile_object(ADD, machine.target())
    assert function(jit.load([data], ["add"]), "add")(41) == 42
    assert jit.compile_object(ADD, machine.target()) == data  # deterministic


def test_several_modules_at_once():
    texts = [ADD.replace("@add", f"@add{k}").replace(", 1", f", {k}") for k in range(8)]
    objects = jit.compile_objects(texts, machine.target())
    library = jit.load(objects, [f"add{k}" for k in range(8)])
    assert [function(library, f"add{k}")(100) for k in range(8)] == [100 + k for k in range(8)]


def test_two_libraries_with_the_same_names():
    one, two = (
        jit.load([jit.compile_object(ADD.replace(", 1", f", {k}"), machine.target())], ["add"])
        for k in (1, 2)
    )
    assert (function(one, "add")(0), function(two, "add")(0)) == (1, 2)


def test_code_is_linked_where_no_interrupt_comes(monkeypatch):
    """An interrupt inside of llvmlite's link would free a string twice."""
    threads, linker = [], jit._linker

    def noted():
        threads.append(threading.current_thread())
        return linker()

    monkeypatch.setattr(jit, "_linker", noted)
    jit.load([jit.compile_object(ADD, machine.target())], ["add"])
    assert threads
    assert threading.main_thread() not in threads


def test_assembly():
    assert "add" in jit.assembly(ADD, machine.target())


@pytest.mark.parametrize("text", ["define foo", ADD.replace("ret i64 %b", "ret i64 %c")])
def test_text_that_llvm_refuses(text):
    with pytest.raises(InternalError, match="LLVM does not accept"):
        jit.compile_object(text, machine.target())


def test_object_that_is_none():
    with pytest.raises(InternalError, match="cannot load"):
        jit.load([b"no object file"], ["add"])


def test_other_processors():
    """Code for other machines is generated, though it cannot run here."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    arm = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", vector_bytes=16)
    assert "x0" in jit.assembly(ADD, arm)
    for futex in (True, False):
        assert "isb" in jit.assembly(pool_code.pool_text("aarch64", futex), arm)
    assert "fmla" in jit.assembly(measure.peak_text(4), arm)


def test_target_describes_this_machine():
    target = machine.target()
    assert target.vector_bytes in (16, 32, 64)
    assert 16 << 10 <= target.l1 <= target.l2 <= target.l3
    assert 1 <= target.threads <= 1024
    assert machine.memory_bytes() > 1 << 20
    assert machine.processor_name()


def test_measurements():
    assert 1 < measure.fma_peak(seconds=0.01) < 100_000
    assert 1 < measure.fma_peak(1, seconds=0.01) < 10_000
    assert 0.1 < measure.copy_bandwidth(repeats=3) < 5_000
