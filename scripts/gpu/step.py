"""One training step of a recipe, made of the same parts as in zoo.training.loop.fit, with marks between them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from zoo.data import Data
from zoo.data.images import Images
from zoo.data.order import seed_all
from zoo.data.volumes import Volumes
from zoo.processes import World
from zoo.training.job import make_job, memory_layout
from zoo.training.loop import make_optimizer
from zoo.training.recipe import Recipe
from zoo.training.starting_model import create_model, training_spec

PARTS = ("data", "network", "optimizer")
"""What lies between the marks: drawing, cropping, normalising; forward, loss and backward; update."""
Compiler = Callable[[nn.Module], Any]


def drawn_data(count: int, classes: int, size: tuple[int, ...]) -> Data:
    """Images of (H, W) or volumes of (D, H, W): noise with a colour a class, which a network learns within a few steps.

    Zeros would run faster than real data.
    """
    draw = np.random.default_rng(0)
    labels = draw.integers(0, classes, count)
    colours = draw.integers(0, 128, (classes, *(1 for _ in size), 3))
    pixels = (draw.integers(0, 128, (count, *size, 3)) + colours[labels]).astype(np.uint8)
    if len(size) == 3:
        images = Volumes(list(pixels), labels.tolist())
    else:
        images = Images([Image.fromarray(image) for image in pixels], labels.tolist())
    return Data(images, images.take(range(min(count, 100))), None, tuple(map(str, range(classes))), "drawn")


class Steps:
    """The steps of a training from its first one on; each call makes one and returns its loss, still on the device."""

    def __init__(self, recipe: Recipe, data: Data, device: torch.device, compiler: Compiler = lambda model: model):
        seed_all("start", recipe.seed)
        self.recipe = replace(recipe, compile=False)
        self.model = create_model(self.recipe, data.classes)
        self.model.to(device, memory_format=memory_layout(self.recipe, training_spec(self.recipe, self.model)))
        for module in self.model.modules():  # timm's residual branches end in zeros, which would hide what is in them
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.weight.any():
                nn.init.uniform_(module.weight, 0.2, 0.4)
        self.job = make_job(self.recipe, data, self.model, World(device))
        self.network = compiler(self.model)
        self.optimizer = make_optimizer(self.model, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * group["lr_scale"]
        self.batches, self.step = self._endless(), 0

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = 0
        while True:
            yield from self.job.batches.epoch(epoch)
            epoch += 1

    def __call__(self, mark: Callable[[], None] = lambda: None) -> Tensor:
        """Make a step; `mark` is called at its begin, between its parts and at its end."""
        mark()
        seed_all("step", self.recipe.seed, self.step, 0)
        images, targets = self.job.prepare(*next(self.batches), self.step, 0)
        mark()
        with self.job.autocast():
            loss = self.job.objective(self.network(images), targets, images)
        loss.backward()
        mark()
        self.update()
        mark()
        return loss.detach()

    def gradients(self) -> tuple[dict[str, Tensor], Tensor]:
        """Make a step, and return the gradients (in fp32, on the CPU) that it was made by, and the loss."""
        kept: dict[str, Tensor] = {}
        update = self.update

        def keep() -> None:
            kept.update({name: p.grad.float().cpu() for name, p in self.model.named_parameters() if p.grad is not None})
            update()

        self.update = keep
        loss = self()
        self.update = update
        return kept, loss

    def update(self) -> None:
        """The optimizer's part."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
