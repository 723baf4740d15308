"""One process or many: the environment that torchrun sets decides it, and nothing else."""

import os
import signal
import threading
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
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield World(device, dist.get_rank(), size)
    dist.destroy_process_group()  # not after an error: it would wait for processes that may be gone


GO_ON, SAVE, STOP = range(3)
"""What the processes agree on after an update."""


class Agreement:
    """SIGTERM and SIGUSR1 ask a run to save and stop; all processes do so after the same update.

    The vote of one update is counted in the background and known after the next, so no update waits for it.
    """

    def __init__(self, world: World) -> None:
        self.asked = False
        self.group: Any = dist.new_group(backend="gloo") if world.size > 1 else None
        self.votes = torch.zeros(1, dtype=torch.int32)
        self.counting: Any = None

    def after_update(self, save: bool) -> int:
        """GO_ON, SAVE or STOP, the same for every process; `save` says that this one wants a checkpoint."""
        vote = STOP if self.asked else SAVE if save else GO_ON
        if self.group is None:
            return vote
        agreed = GO_ON
        if self.counting is not None:
            self.counting.wait()
            agreed = int(self.votes)
        self.votes = torch.tensor([vote], dtype=torch.int32)
        self.counting = dist.all_reduce(self.votes, dist.ReduceOp.MAX, self.group, async_op=True)
        return agreed

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While this lasts, a signal sets `asked` instead of ending the process.

        Python handles signals in the main thread only, so in another one this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(*_: object) -> None:
            self.asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGUSR1)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
    """The forward pass of a batch norm, with sums over all processes in training.

    timm's BatchNormAct2d has dropout and an activation inside; they follow here too.
    """

    def forward(self: Any, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)  # pyright: ignore
        axes, shape = [0, *range(2, input.ndim)], (1, -1, *[1] * (input.ndim - 2))
        count = input.new_tensor([input.numel() / input.shape[1]])
        *sums, count = _Sum.apply(torch.cat([input.sum(axes), count])).split([input.shape[1], 1])
        mean = sums[0] / count
        centred = input - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        output = centred * scale.view(shape) + self.bias.view(shape)
        return self.act(self.drop(output)) if hasattr(self, "act") else output
