"""Decorated functions in other processes: DataLoader workers, two processes of DDP, export."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'summand[torch]'")

import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

import summand as sm  # noqa: E402
import summand.torch as smt  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::DeprecationWarning")
n, k, j = sm.dims("n k j")


@smt.function(x=(n, k), out=(n,))
def row_sums(x):
    return sm.sum[k](sm.exp(x))


@smt.function(x=(n, k), w=(k, j), out=(n, j))
def linear(x, w):
    return sm.sum[k](x * w)


class Rows(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, number):
        return row_sums(torch.full((2, 3), float(number)))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers(start):
    row_sums(torch.zeros(2, 3))  # so that the threads of the parent are running
    loader = DataLoader(
        Rows(), batch_size=2, num_workers=1, multiprocessing_context=start, timeout=120
    )
    got = torch.cat(list(loader))
    expected = torch.arange(4.0).exp()[:, None].expand(4, 2) * 3
    torch.testing.assert_close(got, expected)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))

    def forward(self, x):
        return linear(x, self.weight)


def batch(rank):
    return torch.linspace(-1, rank + 1, 15).reshape(5, 3)


def train(rank, folder, results):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(Layer())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (model(batch(rank)) ** 2).sum().backward()
        optimizer.step()
    results[rank] = model.module.weight.detach().tolist()
    dist.destroy_process_group()


def test_two_processes_of_ddp(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.start_processes(train, (str(tmp_path), results), nprocs=2, start_method="spawn")
        first, second = results[0], results[1]
    assert first == second
    weight = Layer().weight
    for _ in range(3):
        losses = [((batch(r) @ weight) ** 2).sum() for r in range(2)]
        (gradient,) = torch.autograd.grad(sum(losses) / 2, weight)
        weight = (weight - 0.1 * gradient).detach().requires_grad_()
    torch.testing.assert_close(torch.tensor(first), weight.detach())


LOADED = """
import sys, torch, summand.torch
module = torch.export.load(sys.argv[1]).module()
x = torch.linspace(-1, 1, 15).reshape(5, 3).requires_grad_()
out = module(x)
out.sum().backward()
torch.save((out.detach(), x.grad), sys.argv[2])
"""


def test_an_exported_program_needs_none_of_the_users_code(tmp_path):
    """It holds Summand's program itself; another process computes it, gradients included."""
    x = torch.linspace(-1, 1, 15).reshape(5, 3).requires_grad_()
    module = Layer()
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "layer.pt2")
    command = [sys.executable, "-c", LOADED, tmp_path / "layer.pt2", tmp_path / "out.pt"]
    root = Path(sm.__file__).parents[1]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    out, gradient = torch.load(tmp_path / "out.pt")
    torch.testing.assert_close(out, module(x).detach())
    torch.testing.assert_close(gradient, module.weight.sum(1).detach().expand(5, 3).contiguous())
