"""What training changes, and all that a checkpoint holds."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from zoo.inference import Score
from zoo.training.run_directory import Epoch

PLAIN = ("step", "loss_sum", "seconds", "best", "best_epoch")
"""Fields that a checkpoint holds as they are."""


@dataclass
class State:
    """The networks, the optimizer, and how far the run has come."""

    model: nn.Module
    ema: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    """Updates made."""
    loss_sum: float = 0.0
    """Over this epoch's updates so far, mean over the processes."""
    seconds: float = 0.0
    """Of training in this epoch so far."""
    epochs: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the epoch that scored best on the validation part; empty unless an epoch is picked."""
    best_epoch: int = 0
    """Its number, counted from 1."""
    score: Score | None = None
    """Of the last epoch, on the validation part; not in a checkpoint, as it can be measured again."""

    @property
    def _parts(self) -> dict[str, Any]:
        """What has a state of its own."""
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        return parts | ({"ema": self.ema.module} if self.ema else {})

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and saved."""
        return self.ema.module if self.ema else self.model

    def spoiled(self) -> Tensor:
        """How many of the networks' parameters and running statistics hold a value that is not finite (1,)."""
        learnt: list[Tensor] = []
        for network in (self.model, *([self.ema.module] if self.ema else [])):
            buffers = dict(network.named_buffers())  # others may be infinite for good: masks are
            learnt += [*network.parameters(), *(buffers[name] for name in buffers if "running_" in name)]
        return torch.stack([each.isfinite().all() for each in learnt]).logical_not().sum().view(1)

    def dump(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            **{name: part.state_dict() for name, part in self._parts.items()},
            **{name: getattr(self, name) for name in PLAIN},
            "epochs": [asdict(epoch) for epoch in self.epochs],
        }

    def restore(self, dumped: dict[str, Any]) -> None:
        """Go back to what `dump` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(dumped[name])
        for name in PLAIN:
            setattr(self, name, dumped[name])
        self.epochs = [Epoch(**epoch) for epoch in dumped["epochs"]]
