import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from summand.errors import ArgumentError
from summand.runtime import machine
from summand.runtime.executable import Executable
from summand.runtime.pool import Pool
from tests.runtime.programs import elementwise

ROOT = Path(__file__).parents[2]
X = np.arange(64, dtype=np.float32)


@pytest.mark.parametrize("futex", [True, False], ids=["futex", "portable"])
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_every_task_runs_once(threads, futex):
    if futex and not sys.platform.startswith("linux"):
        pytest.skip("needs Linux futexes")
    executable = Executable(elementwise((64,)), Pool(threads, futex=futex))
    for k in range(200):
        (y,) = executable.run([X + k])
        np.testing.assert_array_equal(y, X + k + 1)


@pytest.mark.parametrize("futex", [None, False], ids=["native", "portable"])
def test_sleeping_workers_wake(futex):
    executable = Executable(elementwise((64,)), Pool(3, futex=futex))
    for k in range(60):
        np.testing.assert_array_equal(executable.run([X])[0], X + 1)
        time.sleep(0.002 * (k % 2))


def test_stopped_pool_starts_again():
    pool = Pool(2)
    executable = Executable(elementwise((64,)), pool)
    for _ in range(3):
        np.testing.assert_array_equal(executable.run([X])[0], X + 1)
        pool.stop()


def test_thread_count_from_the_environment(monkeypatch):
    monkeypatch.setenv("SUMMAND_THREADS", "3")
    assert machine.threads() == 3
    for bad in ("0", "-1", "two", "99999"):
        monkeypatch.setenv("SUMMAND_THREADS", bad)
        with pytest.raises(ArgumentError, match="SUMMAND_THREADS"):
            machine.threads()


def script(body, **env):
    """Run Python text in a process of its own; its output."""
    head = """
    import os, signal, sys, threading, time
    import numpy as np
    from tests.runtime.programs import counting, elementwise
    from summand.runtime.executable import Executable
    from summand.runtime.pool import Pool
    x = np.arange(64, dtype=np.float32)
    """
    text = textwrap.dedent(head) + textwrap.dedent(body)
    path = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path, **env},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("pause", [0, 0.05], ids=["spinning", "asleep"])
def test_exit(pause):
    out = script(f"""
    executable = Executable(elementwise((64,)), Pool(4))
    print(executable.run([x])[0].sum())
    time.sleep({pause})
    """)
    assert float(out) == X.sum() + 64


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork():
    out = script("""
    import warnings
    warnings.simplefilter("ignore")  # Python warns of any fork beside threads
    executable = Executable(elementwise((64,)), Pool(4))
    executable.run([x])
    child = os.fork()
    good = (executable.run([x])[0] == x + 1).all()
    if child == 0:
        os._exit(0 if good else 3)
    print(good, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert out.split() == ["True", "0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork_while_another_thread_runs():
    out = script("""
    import warnings
    warnings.simplefilter("ignore")
    executable = Executable(elementwise((64,)), Pool(4))
    stop = []
    def busy():
        while not stop:
            executable.run([x])
    thread = threading.Thread(target=busy)
    thread.start()
    codes = []
    for _ in range(5):
        child = os.fork()
        if child == 0:
            os._exit(0 if (executable.run([x])[0] == x + 1).all() else 3)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.append(1)
    thread.join()
    print(*codes)
    """)
    assert out.split() == ["0"] * 5


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_interrupt_ends_an_endless_loop():
    out = script("""
    executable = Executable(counting(), Pool(2))
    def interrupt():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    try:
        executable.run([np.array(0, "f4"), np.array(np.inf, "f4")])
    except KeyboardInterrupt:
        print("interrupted", time.monotonic() - began < 5)
    print(executable.run([np.array(0, "f4"), np.array(3, "f4")])[0])
    """)
    assert out.split() == ["interrupted", "True", "3.0"]


def test_signal_handler_may_call():
    """A handler that runs a program in the middle of another call must not wait for it."""
    executable = Executable(elementwise((64,)), Pool(2))
    seen = []

    def handler(number, frame):
        seen.append(executable.run([X])[0])

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        until = time.monotonic() + 0.3
        while time.monotonic() < until or not seen:
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
            np.testing.assert_array_equal(executable.run([X])[0], X + 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert seen
    np.testing.assert_array_equal(seen, [X + 1] * len(seen))
