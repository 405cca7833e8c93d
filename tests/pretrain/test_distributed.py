"""Two gloo processes with half the batch each give the values and gradients of one process with batch-norm groups."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.pretrain.helpers import LEVEL, PYRAMID, tiny_batch, tiny_densecl, tiny_moco

LEVELS = {
    "moco": {},
    "densecl": {},
    "windows-image": {"c4": LEVEL},
    "windows-window": {"c4": LEVEL | {"reduction": "window", "anchor": "overlap"}},
    "dense": {"c4": LEVEL | {"negatives": "dense", "reduction": "window"}},
    "dense-group": {"c4": LEVEL | {"negatives": "dense-group", "reduction": "window"}},
    "fpn": PYRAMID,
    "fpn-release": {
        "p4": PYRAMID["p4"] | {"negatives": "dense", "reduction": "group", "border": "open"},
        "p3": PYRAMID["p3"] | {"negatives": "dense-group", "reduction": "group", "border": "open"},
    },
}


def step(name, batch):
    """Losses and accuracies, gradients, queue and running statistics of one step in double precision."""
    model = (tiny_densecl() if name == "densecl" else tiny_moco(LEVELS[name])).double()
    torch.manual_seed(7)
    results = model(**batch)
    losses = {name: value for name, value in results.items() if name.startswith("loss")}
    sum(losses.values()).backward()
    return {
        "logged": torch.stack([v.detach().double() for v in results.values()]),
        "gradients": [p.grad for p in model.encoder_q.parameters()],
        "queue": model.queue,
        "statistics": [b for name, b in model.encoder_q.named_buffers() if "running" in name],
    }


def half(rank, port, folder):
    """What one of two processes does: a step per kind of level, the mean over processes written by the first."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    part = slice(4 * rank, 4 * rank + 4)
    for name, levels in LEVELS.items():
        result = step(name, tiny_batch(levels, part=part))
        for tensor in (result["logged"], *result["gradients"]):
            dist.all_reduce(tensor)
            tensor /= 2  # as DistributedDataParallel does
        if rank == 0:
            torch.save(result, folder / f"{name}.pth")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(half, args=(port, folder), nprocs=2)
    return folder


@pytest.mark.parametrize("name", LEVELS)
def test_two_processes_equal_one(name, two_processes):
    double = torch.load(two_processes / f"{name}.pth")
    single = step(name, tiny_batch(LEVELS[name]))
    assert len(single["logged"]) == 2 + (3 * len(LEVELS[name]) or 2 * (name == "densecl"))
    torch.testing.assert_close(double["logged"], single["logged"], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(double["gradients"], single["gradients"], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(double["queue"], single["queue"], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(double["statistics"], single["statistics"], rtol=1e-7, atol=1e-9)
