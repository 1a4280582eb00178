"""What `test_torch_processes.py` runs, each in an interpreter of its own.

python torch_processes.py loader fork    a DataLoader with a worker
python torch_processes.py ddp FOLDER     two processes of DDP, which meet in a file
python torch_processes.py export FILE    export a module; `load FILE` runs it without this code
"""

import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DataLoader, Dataset

import summand as sm
import summand.torch as smt

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


def load(start):
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


def train(rank, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    weight = trained(rank)
    dist.destroy_process_group()
    check(weight)


def trained(rank):
    """The weight after three steps. The model ends before the process group does: it would end
    the group's threads with the interpreter's lock held, for which one of them may wait."""
    model = torch.nn.parallel.DistributedDataParallel(Layer())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (model(batch(rank)) ** 2).sum().backward()
        optimizer.step()
    return model.module.weight.detach()


def check(got):
    """Both ranks have what one process computes with both batches."""
    weight = Layer().weight
    for _ in range(3):
        losses = [((batch(r) @ weight) ** 2).sum() for r in range(2)]
        (gradient,) = torch.autograd.grad(sum(losses) / 2, weight)
        weight = (weight - 0.1 * gradient).detach().requires_grad_()
    torch.testing.assert_close(got, weight.detach())


def export(path):
    x = batch(0)
    torch.export.save(torch.export.export(Layer(), (x,)), path)


def main(what, argument):
    match what:
        case "loader":
            load(argument)
        case "ddp":
            mp.start_processes(train, (argument,), nprocs=2, start_method="spawn")
        case "export":
            export(argument)


if __name__ == "__main__":
    main(*sys.argv[1:])
