"""Without an optional package, importing its module says what to install."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import summand

WITHOUT = """
import sys
sys.modules[{package!r}] = None  # as if it were not installed
try:
    import summand.{package}
except ImportError as error:
    print(type(error).__name__)
    print(error)
"""


@pytest.mark.parametrize(("package", "called"), [("torch", "PyTorch")])
def test_what_is_missing_is_named(package, called):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(package=package)],
        env={**os.environ, "PYTHONPATH": str(Path(summand.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == (
        "MissingExtra\n"
        f"summand.{package} needs {called}, which is not installed\n"
        f"Install it: pip install 'summand[{package}]'\n"
    )
