"""One process or many: the environment that torchrun sets decides it, and nothing else."""

import hashlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
"""Signals that ask a run to save and stop; Windows has no SIGUSR1."""
UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID" in os.environ
"""Whether processes are started again that end before their work is done."""
GRACE = 60.0
"""Seconds that a process has for saving once torchrun is gone."""


@dataclass(frozen=True)
class World:
    """What a process knows of the run that it is part of: its device, its rank, and how many processes there are."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and talks to the user."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor's sum over all processes, in each of them."""
        if self.size > 1:
            dist.all_reduce(tensor := tensor.clone())
        return tensor

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over all processes, and running statistics taken from the leading one."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, [self.device.index] if self.device.type == "cuda" else None)

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the leading process's buffers to all others, so that all evaluate the same network."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started, if it did; each takes the accelerator of its local rank."""
    if UNDER_TORCHRUN:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    rank = int(os.environ["RANK"])
    store = meet(rank, size)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    yield World(device, rank, size)
    dist.destroy_process_group()  # not after an error: it would wait for processes that may be gone


def _end_with(parent: int) -> None:
    """Stop by SIGTERM once `parent` is gone, and in any way a while later: nobody would start the others again."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def meet(rank: int, size: int) -> dist.Store:
    """A store that the processes of this start have in common, and none of a start before.

    torchrun's own store lives on when processes are started again, and its count of the starts may differ from machine
    to machine. What the dead have left there leads the living to wait for them. So each process lays down a name that
    is new, and all take the names of all for the name of their store: only the living can agree on that.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = dist.TCPStore(address, port, size, serves, multi_tenant=True)
    store.set(f"zoo/{rank}", uuid.uuid4().hex)
    seen: set[str] = set()
    while True:
        names = b"".join(store.get(f"zoo/{other}") for other in range(size))
        start = hashlib.sha256(names).hexdigest()
        if start not in seen:
            seen.add(start)
            store.add(start, 1)
        if store.add(start, 0) == size:
            return dist.PrefixStore(start, store)
        time.sleep(0.05)


def synchronise_batch_norms(model: nn.Module, world: World) -> nn.Module:
    """The same model, whose batch norms take the statistics of the batch over all processes.

    On a GPU they become torch's SyncBatchNorm, elsewhere `norm_over_processes` of their own class.
    """
    if world.size == 1:
        return model
    if world.device.type == "cuda":
        return convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = norm_over_processes(type(module))
    return model


@cache
def norm_over_processes(norm: type) -> type:
    """A subclass of the batch norm `norm` with statistics over all processes, on any device.

    torch's SyncBatchNorm works on accelerators only.
    """
    return type(f"Sync{norm.__name__}", (_OverProcesses, norm), {})


class _Sum(torch.autograd.Function):
    """A tensor's sum over all processes. The gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor := tensor.clone())
        return tensor

    backward = forward  # pyright: ignore


class _OverProcesses:
    """The forward pass of a batch norm, with sums over all processes in training, in fp32 as torch's own sums.

    timm's BatchNormAct2d has dropout and an activation inside; they follow here too.
    """

    def forward(self: Any, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)  # pyright: ignore
        x = input.float()
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        count = x.new_tensor([x.numel() / x.shape[1]])
        *sums, count = _Sum.apply(torch.cat([x.sum(axes), count])).split([x.shape[1], 1])
        mean = sums[0] / count
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._follow(mean, variance * count / (count - 1).clamp(min=1))
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            output = centred * (self.weight * scale).view(shape) + self.bias.view(shape)
        else:
            output = centred * scale.view(shape)
        output = output.to(input.dtype)
        return self.act(self.drop(output)) if hasattr(self, "act") else output

    @torch.no_grad()
    def _follow(self: Any, mean: Tensor, variance: Tensor) -> None:
        """Take the running statistics along; without a momentum they are the mean over all batches."""
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)
