"""What a network takes: how many channels, of which size, images or volumes."""

from dataclasses import dataclass, replace
from typing import Any

from zoo.data.kinds import IMAGES, VOLUMES, Kind


@dataclass(frozen=True)
class InputSpec:
    """The input of a network, without the batch's axis."""

    channels: int
    size: tuple[int, ...]
    """(H, W) of images, (D, H, W) of volumes."""
    kind: Kind

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) or (C, D, H, W)."""
        return (self.channels, *self.size)

    @property
    def model_args(self) -> dict[str, Any]:
        """What timm.create_model has to be told for this size: a depth, for which timm's `input_size` has no place."""
        return {"depth": self.size[0]} if self.kind is VOLUMES else {}

    def of_size(self, size: tuple[int, ...]) -> "InputSpec":
        """The same input in another size."""
        return replace(self, size=size)


def input_spec(model: Any) -> InputSpec:
    """What a timm model takes. timm's `input_size` is (C, H, W); a network for volumes has its `depth` beside it."""
    channels, *sides = model.pretrained_cfg["input_size"]
    if hasattr(model, "depth"):
        return InputSpec(channels, (model.depth, *sides), VOLUMES)
    return InputSpec(channels, tuple(sides), IMAGES)
