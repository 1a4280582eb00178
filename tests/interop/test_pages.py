"""The how-to pages: their code runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDS = {"numpy": (), "jax": ("jax",)}


def needed(*modules):
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is needed")


@pytest.mark.parametrize("page", NEEDS)
def test_a_page(page):
    needed(*NEEDS[page])
    text = (ROOT / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    names = {"__name__": page}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/{page}.md block {number}", "exec"), names)


def test_kernel_regression():
    """Both kernels give the same losses, and the sums are no matrix."""
    needed("jax", "optax", "sklearn")
    path = ROOT / "examples" / "jax_kernel_regression.py"
    command = [sys.executable, str(path), "--compare", "--points", "700", "--steps", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    losses = re.findall(r"loss (\S+) -> (\S+)", done.stdout)
    assert len(losses) == 2
    for ours, theirs in zip(*losses, strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=2e-4)
