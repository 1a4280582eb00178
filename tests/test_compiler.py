import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from summand import compiler, dtypes
from summand.errors import OutOfMemoryError
from summand.ir import foreign
from summand.ir.builder import Builder
from summand.ir.index import parse
from summand.ir.named import Named
from summand.ir.nodes import SUM, Call, Type
from summand.options import Options
from summand.runtime import cache, pool

ROOT = Path(__file__).parents[1]
ORDERS = (("i", "k"), ("k", "j")), (("i", "j"),)
A = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
B = np.random.default_rng(1).standard_normal((30, 10)).astype(np.float32)


def product(i=20):
    build = Builder()
    a = build.param(Type.of(dtypes.f32, {"i": i, "k": 30}))
    b = build.param(Type.of(dtypes.f32, {"k": 30, "j": 10}))
    return build.finish(build.reduce(SUM, ["k"], build.map("mul", a, b)))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    pool.default()  # whose own code is in the cache of this process, not the test's
    monkeypatch.setenv("SUMMAND_CACHE_DIR", str(tmp_path / "cache"))
    cache._warn_once.cache_clear()
    compiler.forget()
    return tmp_path / "cache"


def run(program=None):
    executable = compiler.compile(program or product(), *ORDERS)
    return executable.run([A, B])[0]


def test_compile_and_run():
    np.testing.assert_allclose(run(), A @ B, rtol=1e-5, atol=1e-5)


def test_orders_of_arguments_and_results():
    executable = compiler.compile(product(), (("k", "i"), ("j", "k")), (("j", "i"),))
    (c,) = executable.run([A.T.copy(), B.T.copy()])
    np.testing.assert_allclose(c, (A @ B).T, rtol=1e-5, atol=1e-5)
    assert executable.visible[0].dims == ("j", "i")


def test_compiled_once_for_each_program():
    first = compiler.compile(product(), *ORDERS)
    assert compiler.compile(product(), *ORDERS) is first
    assert compiler.compile(product(), ORDERS[0], (("j", "i"),)) is not first
    assert compiler.compile(product(), *ORDERS, Options(fuse=False)) is not first


def test_the_next_process_finds_it(folder):
    run()
    (entry,) = cache.default().entries()
    compiler.forget()
    built = []
    original, compiler.build = compiler.build, lambda *a: built.append(a)
    try:
        np.testing.assert_allclose(run(), A @ B, rtol=1e-5, atol=1e-5)
    finally:
        compiler.build = original
    assert not built
    assert cache.default().entries()[0].path == entry.path


def test_damaged_entries_are_built_again():
    wanted = run()
    (entry,) = cache.default().entries()
    whole = entry.path.read_bytes()
    rng = np.random.default_rng(2)
    cuts = [whole[:n] for n in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    flips = []
    for at in rng.integers(0, len(whole), 20):
        flips.append(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
    for data in [*cuts, *flips, b"\0" * len(whole), whole + b"x"]:
        entry.path.write_bytes(data)
        compiler.forget()
        np.testing.assert_array_equal(run(), wanted)
        assert entry.path.read_bytes() == whole


def test_sealed_entry_of_something_else():
    """An entry that is whole but holds no program of ours is dropped, too."""
    wanted = run()
    (entry,) = cache.default().entries()
    key = entry.path.name.removesuffix(cache.SUFFIX)
    cache.default().save(key, b"no program")
    compiler.forget()
    np.testing.assert_array_equal(run(), wanted)


def test_no_folder_can_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUMMAND_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        np.testing.assert_allclose(run(), A @ B, rtol=1e-5, atol=1e-5)
        compiler.forget()
        run()
    assert len(seen) == 1 and "SUMMAND_CACHE_DIR" in str(seen[0].message)


def test_threads_compile_at_once():
    results = []
    threads = [threading.Thread(target=lambda: results.append(run())) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 4
    for r in results:
        np.testing.assert_array_equal(r, results[0])


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from tests.test_compiler import run
print(run().sum())
"""


def python(script, **env):
    return subprocess.Popen(
        [sys.executable, "-c", script.format(root=str(ROOT))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )


def test_two_processes_compile_at_once():
    running = [python(SCRIPT) for _ in range(2)]
    ended = [p.communicate(timeout=120) for p in running]
    assert all(p.returncode == 0 for p in running), ended
    assert ended[0][0] == ended[1][0] and ended[0][0]
    assert len(cache.default().entries()) == 2  # the program, and the code of the thread pool


def test_dump():
    process = python(SCRIPT, SUMMAND_DUMP="fused,log")
    _, err = process.communicate(timeout=120)
    assert "---- fused" in err and "---- log" in err and "---- llvm" not in err
    assert "(unchanged)" in err


@pytest.mark.parametrize("stage", compiler.STAGES)
def test_inspect(stage):
    text = compiler.inspect(product(), *ORDERS, stage)
    assert text.strip()
    if stage not in ("log", "assembly"):
        assert text == compiler.inspect(product(), *ORDERS, stage)


def test_output_is_deterministic():
    """Another process, with another hash seed, generates the same bytes."""
    script = """
import sys
sys.path.insert(0, {root!r})
from tests.test_compiler import ORDERS, product
from summand import compiler
request = compiler.request(product(), *ORDERS)
print(compiler.cache.digest(compiler.to_bytes(compiler.build(request, compiler.Log())).hex()))
"""
    running = [python(script, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    ended = [p.communicate(timeout=120) for p in running]
    assert all(p.returncode == 0 for p in running), ended
    assert ended[0][0] == ended[1][0]


def test_too_large_for_memory():
    build = Builder()
    a = build.param(Type.of(dtypes.f32, {"i": 1 << 22}))
    b = build.param(Type.of(dtypes.f32, {"j": 1 << 22}))
    program = build.finish([build.map("add", a, b)])
    with pytest.raises(OutOfMemoryError, match="i=4194304"):
        compiler.compile(program, (("i",), ("j",)), (("i", "j"),))


def test_foreign_function():
    name = "test_compiler.transpose_and_double"

    def double(args):
        (x,) = args
        return [Named(x.array * 2, x.order)]

    foreign.register(foreign.Foreign(name, double, lambda types: (types[0],)))
    build = Builder()
    a = build.param(Type.of(dtypes.f32, {"i": 20, "k": 30}))
    (b,) = build.emit(Call(name, (build.map("exp", a),)), [a.type])
    program = build.finish([build.map("add", b, a), b])
    executable = compiler.compile(program, (("i", "k"),), (("k", "i"), ("i", "k")))
    c, d = executable.run([A])
    np.testing.assert_allclose(d, 2 * np.exp(A), rtol=1e-5)
    np.testing.assert_allclose(c, (2 * np.exp(A) + A).T, rtol=1e-5, atol=1e-6)


def test_reasons_are_given():
    assert all(p.reason and p.name for p in compiler.PASSES)


def test_results_that_fit_only_one_by_one():
    half = pool.machine.physical_memory() * 6 // 10 // 4
    build = Builder()
    x = build.param(Type(dtypes.f32))
    results = [build.expand(build.map(f, x), {"i": half}) for f in ("exp", "sin")]
    program = build.finish(results)
    with pytest.raises(OutOfMemoryError, match=r"it needs .*\n.*\n.*result float32{i="):
        compiler.compile(program, ((),), (("i",), ("i",)))


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_interrupts_while_compiling():
    script = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit none
sys.path.insert(0, {root!r})
from tests.test_compiler import A, B, ORDERS, product
from summand import compiler
from summand.runtime import cache
interrupted = 0
for delay in (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.08):
    cache.default().clear()
    compiler.forget()
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        for k in range(100):
            compiler.compile(product(20 + k), *ORDERS)
        time.sleep(1)
    except KeyboardInterrupt:
        interrupted += 1
    names = os.listdir(cache.default().folder) if cache.default().folder.exists() else []
    assert all(n.endswith(cache.SUFFIX) for n in names), names
    (c,) = compiler.compile(product(), *ORDERS).run([A, B])
    assert abs(c - A @ B).max() < 1e-4
print(interrupted)
"""
    process = python(script)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert int(out) >= 5  # Python itself ignores an interrupt that falls into a finalizer


def test_code_grows_with_the_program_not_with_its_paths():
    """Each step reads the one before it at two places: 2^k paths, which are not all followed."""

    def lines(steps):
        b = Builder()
        u = b.param(Type.of(dtypes.f32, {"y": 7}))
        for _ in range(steps):
            u = b.map("add", b.map("tanh", b.reindex(u, {"y": parse("(y + 1) % 7")}, {"y": 7})), u)
        program = b.finish([u])
        return len(compiler.inspect(program, (("y",),), (("y",),), "loops").splitlines())

    assert lines(24) < 3 * lines(12)
