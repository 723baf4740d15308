"""Does a file compute what the network does: at a batch and a size other than those that were traced, and on data."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.attention.kernels import kernels
from zoo.errors import in_a_line
from zoo.export.errors import ExportError
from zoo.export.graph import TRACED, traced_size
from zoo.inference import Score, Trained, evaluate, matched_batches
from zoo.inference.exported import ExportedNetwork

TOLERANCE = 1e-4
"""Of the largest logit: what another order of additions may make of it in fp32."""
BATCH = 3
FURTHER = (33, 50, 19)
"""What is added to the sides of the size that was traced; where the network takes no such size, LARGER is."""
LARGER = (32, 64, 16)


@dataclass(frozen=True)
class Difference:
    """A file held against its network."""

    shape: tuple[int, ...]
    """Of the inputs."""
    largest: float
    """Difference between two logits."""
    logit: float
    """The largest logit of the network."""

    @property
    def share(self) -> float:
        """Of the largest logit."""
        return self.largest / max(self.logit, 1e-12)

    def text(self, traced: tuple[int, ...]) -> str:
        """In words."""
        here, there = (" x ".join(map(str, shape)) for shape in (self.shape, traced))
        return (
            f"run at {here}, traced at {there}: largest difference {self.largest:.1e}, largest logit {self.logit:.3g}"
        )


@torch.no_grad()
def compare(trained: Trained, exported: ExportedNetwork, fixed: bool) -> Difference:
    """The network and the file on random pixels. Raises ExportError where they differ or the file cannot run."""
    x, logits = _reference(trained, fixed)
    try:
        found = exported(x)
    except Exception as error:
        raise ExportError(f"what was exported cannot run: {in_a_line(error)}; nothing was written") from error
    apart = (found - logits).abs().max().item() if found.shape == logits.shape else float("inf")
    difference = Difference(tuple(x.shape), apart, logits.abs().max().item())
    if not difference.share <= TOLERANCE:
        traced = (TRACED, trained.spec.channels, *traced_size(trained, fixed))
        raise ExportError(f"what was exported computes something else: {difference.text(traced)}; nothing was written")
    return difference


def _reference(trained: Trained, fixed: bool) -> tuple[Tensor, Tensor]:
    """Inputs of another size that the network takes, and its logits."""
    size, draw = traced_size(trained, fixed), torch.Generator().manual_seed(0)
    sizes = (
        [size] if fixed else [tuple(map(sum, zip(size, more[: len(size)], strict=True))) for more in (FURTHER, LARGER)]
    )
    mean, std = (torch.tensor(trained.config[key]).view(1, -1, *[1] * len(size)) for key in ("mean", "std"))
    for last, sides in ((each is sizes[-1], each) for each in sizes):
        pixels = torch.randint(0, 256, (BATCH, trained.spec.channels, *sides), generator=draw)
        x = (pixels / 255 - mean) / std
        try:
            with kernels("off"):
                return x, trained.network(x)
        except Exception:  # what a network raises for a size that it does not take, is its own affair
            if last:
                raise
    raise AssertionError("there is one size at least")


@dataclass(frozen=True)
class OnData:
    """Network and file on the same labelled data."""

    before: Score
    after: Score
    changed: int
    """Answers that became others."""

    @property
    def lost(self) -> float:
        """Percent of top-1."""
        return self.before.top1 - self.after.top1

    def text(self, words: str) -> str:
        """In words."""
        return (
            f"top-1 {self.before.top1:.2f} % before, {self.after.top1:.2f} % exported, {self.changed} of "
            f"{self.before.n} answers changed ({words})"
        )


def compare_on(
    trained: Trained, exported: ExportedNetwork, data: tuple[Any, tuple[str, ...], str], by_order: bool
) -> OnData:
    """Top-1 before and after, on images or volumes with class names as `open_part` gives them."""
    images, classes, _ = data
    batches = matched_batches(trained, images, classes, batch_size=32, by_order=by_order)
    first, second = (_Listening(each).eval() for each in (trained.network, exported))
    before, after = evaluate(first, batches), evaluate(second, batches)
    return OnData(before, after, int((torch.cat(first.answers) != torch.cat(second.answers)).sum()))


class _Listening(nn.Module):
    """A network whose answers are kept."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.num_classes = network, network.num_classes
        self.answers: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        self.answers.append(logits.argmax(1))
        return logits
