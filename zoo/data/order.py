"""Which image comes when, and what is random about it: a function of seed, epoch and index, and of nothing else.

No generator has a history that workers, processes or an interruption could change. That is why a run that was resumed,
or ran on another number of processes, sees the same images in the same order with the same augmentation.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch


def seed_of(*of: object) -> int:
    """A seed below 2^32 for whatever `of` names, such as (seed, epoch, index)."""
    return int.from_bytes(hashlib.blake2b(repr(of).encode(), digest_size=4).digest(), "big")


def seed_all(*of: object) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, the accelerator's too, for whatever `of` names."""
    seed = seed_of(*of)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    accelerator = torch.get_device_module()  # torch.cuda, torch.mps, torch.xpu ..., or torch.cpu, which has no more
    if hasattr(accelerator, "manual_seed") and getattr(accelerator, "is_initialized", lambda: True)():
        accelerator.manual_seed(seed)


def generator(device: torch.device | str, *of: object) -> torch.Generator:
    """A generator of its own, seeded for whatever `of` names."""
    return torch.Generator(device).manual_seed(seed_of(*of))


@dataclass(frozen=True)
class Share:
    """How one process cuts its share out of an epoch."""

    images: int
    """In the training part."""
    batch_size: int
    """Images an update, over all processes."""
    accumulate: int = 1
    """Parts of an update that go through the network one after the other."""
    rank: int = 0
    world: int = 1
    seed: int = 0
    labels: tuple[int, ...] = ()
    """Class of each image, for epochs in which every class comes equally often; without, each image comes once."""

    @property
    def updates(self) -> int:
        """Updates an epoch; images that fill none are left out, others each epoch."""
        return self.images // self.batch_size

    def order(self, epoch: int) -> torch.Tensor:
        """As many images as there are (images,): a permutation, or a draw that is even over the classes."""
        draw = generator("cpu", "order", self.seed, epoch)
        if self.labels:
            return even_order(torch.tensor(self.labels), draw)
        return torch.randperm(self.images, generator=draw)

    def parts(self) -> list[slice]:
        """Where in an update this process's micro-batches lie; those of all processes together are one process's."""
        size = self.batch_size // (self.world * self.accumulate)
        firsts = [(k * self.world + self.rank) * size for k in range(self.accumulate)]
        return [slice(first, first + size) for first in firsts]


def even_order(labels: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Images (N,) in which every class of `labels` (N,) comes equally often, but for one where N is no multiple.

    All images of a class come once before one comes again, so of a large class some are left out, others each epoch.
    """
    members = [each for each in labels.argsort(stable=True).split(labels.bincount().tolist()) if len(each)]
    times, left = divmod(len(labels), len(members))
    once_more = set(torch.randperm(len(members), generator=draw)[:left].tolist())
    drawn = []
    for number, images in enumerate(members):
        wanted = times + (number in once_more)
        rounds = [images[torch.randperm(len(images), generator=draw)] for _ in range(-(-wanted // len(images)))]
        drawn += [torch.cat(rounds)[:wanted]] if rounds else []
    return torch.cat(drawn)[torch.randperm(len(labels), generator=draw)]


class Batches:
    """A batch sampler: lists of (epoch, index), one a micro-batch, from the update `start` of the epoch on."""

    def __init__(self, share: Share) -> None:
        self.share, self.epoch, self.start = share, 0, 0

    def __len__(self) -> int:
        return (self.share.updates - self.start) * self.share.accumulate

    def __iter__(self) -> Iterator[Sequence[tuple[int, int]]]:
        order, size = self.share.order(self.epoch).tolist(), self.share.batch_size
        for update in range(self.start, self.share.updates):
            images = order[update * size : (update + 1) * size]
            for part in self.share.parts():
                yield [(self.epoch, index) for index in images[part]]
