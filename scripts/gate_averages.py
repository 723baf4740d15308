"""Does a trained network use its attention? Hold its gates at their average over the images, and count what changes.

A gate that has learnt only a constant could as well be a weight: its average does what it does. Here the sigmoid of
every gate in `HELD`, a part of CBAM or a branch of BAM as well as a gate that stands alone, is replaced by its average
over the images, and the answers are compared with those of the network as it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.attention import Gate

HELD = {"all": ("channel", "spatial"), "channel": ("channel",), "spatial": ("spatial",)}
"""What is held at its average, by what the gates weigh (`Gate.weighs`)."""


@dataclass(frozen=True)
class Held:
    """What holding gates did to the answers."""

    changed: int
    """Answers (most probable classes) that became others."""
    top1: float
    """Percent, with the gates held."""


def _logits(gate: Gate, given: Tensor, returned: Tensor) -> Tensor:
    """The logits of a gate that was called: a part returned them, one that stands alone applied them."""
    return returned if gate.part else gate.logits(given)


@contextmanager
def _watched(gates: dict[str, Gate], hook: Any) -> Iterator[None]:
    """`hook(name, gate, input, output)` at every call of a gate; what it returns replaces the output."""
    handles = [
        gate.register_forward_hook(lambda module, args, output, name=name: hook(name, module, args[0], output))
        for name, gate in gates.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _answers(network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.cat([network(images).argmax(1) for images, _ in batches])


@torch.inference_mode()
def hold_gates(network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Held]:
    """Hold the gates of `network`, in eval mode, at their averages over (images (B, C, H, W), labels (B,)); by HELD.

    Only what the network has is held: SE has no spatial gate.
    """
    gates = {name: module for name, module in network.named_modules() if isinstance(module, Gate)}
    labels = torch.cat([labels for _, labels in batches])
    sums: dict[str, Tensor] = {}

    def add(name: str, gate: Gate, given: Tensor, returned: Tensor) -> None:
        values = torch.sigmoid(_logits(gate, given, returned).double()).sum(0, keepdim=True)
        sums[name] = sums.get(name, torch.zeros_like(values)) + values

    with _watched(gates, add):
        before = _answers(network, batches)
    averages = {name: torch.logit(values / len(labels), 1e-12) for name, values in sums.items()}

    def hold(name: str, gate: Gate, given: Tensor, returned: Tensor) -> Tensor:
        logits = averages[name].to(_logits(gate, given, returned))
        return logits.expand(len(given), *logits.shape[1:]) if gate.part else given * gate.weights(logits, given)

    found = {}
    for words, kinds in HELD.items():
        chosen = {name: gate for name, gate in gates.items() if gate.weighs in kinds}
        if chosen:
            with _watched(chosen, hold):
                after = _answers(network, batches)
            found[words] = Held(int((after != before).sum()), 100 * (after == labels).double().mean().item())
    return found
