"""Signals, forks, threads and exits: each scene is a program in a process of its own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import summand as sm
from tests.robust.both import floats

i, j, k = sm.dims("i j k")

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and fork")
SETUP = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit none
import numpy as np, summand as sm
i, j, k, t = sm.dims("i j k t")
a = sm.array(np.arange(6.0).reshape(2, 3), i, k)
f = sm.jit(lambda a: sm.sum[k](a * a))
EXPECTED = [5.0, 50.0]

def right():
    return f(a).numpy().tolist() == EXPECTED and (a * 2 + 1).numpy(i, k)[1, 2] == 11.0
"""


def scene(code, folder, **options):
    """Start a process that runs the code after SETUP."""
    env = {**os.environ, "SUMMAND_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", SETUP + textwrap.dedent(code)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def outcome(process, seconds=60):
    """What a process said; it must end by itself, and well."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"the process hangs; it said {out!r} {err[-2000:]!r}") from None
    assert process.returncode == 0, (process.returncode, out, err[-2000:])
    return out


def runs(code, folder):
    return outcome(scene(code, folder)).split()


# ---- Ctrl-C


def interrupt_when_it_says_go(process):
    assert process.stdout.readline().strip() == "go"
    time.sleep(0.4)
    process.send_signal(signal.SIGINT)


ENDLESS = """
def spin(n):
    return sm.while_loop(lambda s: s[0] < n, lambda s: (s[0] * 1.0 + 0.0, s[1] + 1), (0.0, 0))

g = sm.jit(spin)
g.compile(5.0)
right()
print("go", flush=True)
try:
    g(5.0)
except KeyboardInterrupt:
    print("interrupted", right())
"""

COMPILING = """
def large(x):
    for n in range(3000):
        x = sm.tanh(x * (n * 0.001) + a)
    return x

right()
print("go", flush=True)
for attempt in range(2):
    try:
        g = sm.jit(large)
        for round in range(100):
            sm.jit(lambda x: large(x + round))(a)
    except KeyboardInterrupt:
        break
print("interrupted", right())
print(float(sm.sum[i, k](sm.jit(lambda x: sm.tanh(x * 0.5))(a))) > 0)
"""

MANY_CALLS = """
print("go", flush=True)
try:
    while True:
        right()
except KeyboardInterrupt:
    print("interrupted", right())
"""


@posix
def test_ctrl_c_ends_an_endless_loop(tmp_path):
    process = scene(ENDLESS, tmp_path)
    interrupt_when_it_says_go(process)
    assert outcome(process, 20).split() == ["interrupted", "True"]


@posix
def test_ctrl_c_while_it_compiles(tmp_path):
    process = scene(COMPILING, tmp_path)
    interrupt_when_it_says_go(process)
    assert outcome(process).split() == ["interrupted", "True", "True"]
    assert not [f for f in os.listdir(tmp_path) if f.startswith(".new-")]


@posix
def test_ctrl_c_between_calls(tmp_path):
    process = scene(MANY_CALLS, tmp_path)
    interrupt_when_it_says_go(process)
    assert outcome(process, 20).split() == ["interrupted", "True"]


# ---- fork


@posix
def test_a_forked_child_computes(tmp_path):
    out = runs(
        """
        assert right()
        child = os.fork()
        if child == 0:
            ok = right() and float(sm.sum[i, k](sm.exp(a * 0))) == 6.0
            os._exit(0 if ok else 1)
        assert right()
        print(os.waitpid(child, 0)[1], right())
        """,
        tmp_path,
    )
    assert out == ["0", "True"]


@posix
def test_a_child_forked_while_other_threads_compute(tmp_path):
    out = runs(
        """
        stop = threading.Event()
        def busy():
            n = 0
            while not stop.is_set():
                n += 1
                sm.jit(lambda a: a * n + 1)(a)
        threads = [threading.Thread(target=busy) for _ in range(2)]
        for thread in threads: thread.start()
        codes = []
        for round in range(8):
            time.sleep(0.05)
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                ok = right() and sm.jit(lambda a: a - 7)(a).numpy(i, k)[0, 0] == -7
                os._exit(0 if ok else 1)
            codes.append(os.waitpid(child, 0)[1])
        stop.set()
        for thread in threads: thread.join()
        print(codes, right())
        """,
        tmp_path,
    )
    assert "".join(out) == "[0,0,0,0,0,0,0,0]True"


@posix
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path, method):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing
            import numpy as np, summand as sm
            k = sm.Dim("k")
            f = sm.jit(lambda x: sm.sum[k](x * x))

            def work(n):
                return float(f(sm.array(np.full(100, n, np.float32), k)))

            if __name__ == "__main__":
                assert work(1) == 100
                with multiprocessing.get_context("{method}").Pool(2) as pool:
                    found = pool.map(work, range(6))
                assert found == [100.0 * n * n for n in range(6)], found
                print("fine")
            """
        )
    )
    env = {**os.environ, "SUMMAND_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(program)], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout.strip() == "fine", done.stderr[-2000:]


# ---- threads


def test_threads_compile_and_run_at_once():
    def work(n):
        x = floats(np.full((4, 8), n), i, k)
        f = sm.jit(lambda x: sm.sum[k](x * (n % 4) + 1))
        return [f(x).numpy()[0] for _ in range(50)]

    with ThreadPoolExecutor(8) as pool:
        for n, found in enumerate(pool.map(work, range(24))):
            assert found == [8 * (n * (n % 4) + 1)] * 50


def test_threads_call_one_function_with_new_structures():
    f = sm.jit(lambda x: sm.sum[k](x * 2))

    def work(n):
        size = 1 + n % 7
        return float(f(floats(np.ones(size), k))) == 2 * size

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


def test_threads_look_at_one_lazy_array():
    for _ in range(20):
        lazy = sm.exp(floats(np.zeros(1000), k)) + 1
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, x=lazy: float(x.numpy().sum()), range(8)))
        assert found == [2000.0] * 8


def test_an_error_in_one_thread_is_no_others(tmp_path):
    at = {True: floats([0, 1], j).astype("i32"), False: floats([0, 9], j).astype("i32")}
    f = sm.jit(lambda x, index: x[k:index])
    x = floats([1, 2, 3], k)

    def work(n):
        good = n % 2 == 0
        try:
            return f(x, at[good]).numpy().tolist() == [1, 2] and good
        except IndexError:
            return not good

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))


# ---- the end of the interpreter

AT_EXIT = {
    "atexit": "import atexit; atexit.register(lambda: print(right())); right()",
    "atexit before the first use": "import atexit; atexit.register(lambda: print(right()))",
    "atexit with new programs": """
import atexit
atexit.register(lambda: print(right() and sm.jit(lambda a: a + 9)(a).numpy(i, k)[0, 0] == 9))
""",
    "a finaliser after Python's modules are gone (it may fail, not crash)": """
class Last:
    def __init__(self): self.parts = f, a
    def __del__(self): self.parts[0](self.parts[1])
last = Last()
print(right())
""",
    "a daemon thread in the middle": """
def forever():
    while True: right()
for _ in range(3): threading.Thread(target=forever, daemon=True).start()
time.sleep(0.3)
print(True)
""",
    "a thread that outlives main": """
def later():
    time.sleep(0.3)
    print(right())
threading.Thread(target=later).start()
right()
""",
    "sys.exit in the middle": "right(); print(True); sys.exit(0)",
    "results alive": "kept = [f(a).numpy() for _ in range(5)]; lazy = a + 1; print(True)",
}


@pytest.mark.parametrize("name", AT_EXIT)
def test_at_exit(name, tmp_path):
    assert runs(AT_EXIT[name], tmp_path) == ["True"]


def test_an_error_at_the_end_is_reported_as_pythons(tmp_path):
    process = scene("right(); raise ValueError('mine')", tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "ValueError: mine" in err
