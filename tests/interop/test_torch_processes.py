"""Decorated functions in other processes: DataLoader workers, two processes of DDP, export."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'summand[torch]'")

import summand as sm  # noqa: E402

SCRIPT = Path(__file__).parent / "torch_processes.py"


def run(*command, cwd):
    """Run Python in a fresh interpreter: forks of this one might hold other libraries' locks."""
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(Path(sm.__file__).parents[1])},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=270,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers(start, tmp_path):
    run(SCRIPT, "loader", start, cwd=tmp_path)


def test_two_processes_of_ddp(tmp_path):
    run(SCRIPT, "ddp", tmp_path, cwd=tmp_path)


LOADED = """
import sys, torch, summand.torch
module = torch.export.load(sys.argv[1]).module()
x = torch.linspace(-1, 1, 15).reshape(5, 3).requires_grad_()
out = module(x)
out.sum().backward()
weight = torch.linspace(-1, 1, 12).reshape(3, 4)
torch.testing.assert_close(out, x @ weight)
torch.testing.assert_close(x.grad, weight.sum(1).expand(5, 3).contiguous())
"""


def test_an_exported_program_needs_none_of_the_users_code(tmp_path):
    """It holds Summand's program itself; another process computes it, gradients included."""
    run(SCRIPT, "export", tmp_path / "layer.pt2", cwd=tmp_path)
    run("-c", LOADED, tmp_path / "layer.pt2", cwd=tmp_path)
