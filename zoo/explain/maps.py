"""What the gates of a network are for given inputs: `zoo.attention_maps`."""

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.attention import Attention, HardAttention
from zoo.explain.watching import ExplainError, at_rest, attention_modules, watched

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""Interpolation by the number of axes, as torch calls it."""


@dataclass(frozen=True)
class GateMaps:
    """The gates of one attention for a batch: the values that multiplied, as they are.

    For volumes read (B, D, H, W) where it says (B, H, W), for sequences (B, L).
    """

    values: Mapping[str, Tensor]
    """`Attention.gates`: by name, broadcastable to the map that was weighed."""
    constants: Mapping[str, float]
    """What each of them is at the start of a training: 1 where neutral, nan for SimAM, which has no start."""
    shape: tuple[int, ...]
    """Of the map that was weighed, (B, C, H, W)."""
    regions: Tensor | None = None
    """Of hard attention: centres (across, down) of the regions, (B, T, 2), from -1 to 1."""

    @property
    def constant(self) -> float:
        """What the gates multiply by at the start, all together."""
        return math.prod(self.constants.values())

    @property
    def channel(self) -> Tensor | None:
        """(B, C); (B, C, D) where each slice of a volume has its own."""
        return self._get("channel", lambda gate: gate.flatten(2).squeeze(2))

    @property
    def spatial(self) -> Tensor | None:
        """(B, H, W)."""
        return self._get("spatial", lambda gate: gate[:, 0])

    @property
    def joint(self) -> Tensor | None:
        """(B, C, H, W), of attention whose channels and places are no longer apart."""
        return self._get("joint", lambda gate: gate)

    @property
    def height(self) -> Tensor | None:
        """(B, C, H), of coordinate attention."""
        return self._get("height", lambda gate: gate.squeeze(3))

    @property
    def width(self) -> Tensor | None:
        """(B, C, W)."""
        return self._get("width", lambda gate: gate.squeeze(2))

    def _get(self, name: str, reshape: Any) -> Tensor | None:
        return reshape(self.values[name]) if name in self.values else None

    @property
    def places(self) -> Tensor | None:
        """(B, H, W): what each place is multiplied by, a mean over its channels where they differ; None for SE."""
        over_places = [gate for name, gate in self.values.items() if name != "channel"]
        return math.prod(over_places).mean(1) if over_places else None  # pyright: ignore

    @property
    def channels(self) -> Tensor | None:
        """(B, C): what each channel is multiplied by, a mean over its places where they differ."""
        over_channels = [gate for name, gate in self.values.items() if name != "spatial"]
        return math.prod(over_channels).flatten(2).mean(2) if over_channels else None  # pyright: ignore

    @property
    def places_constant(self) -> float:
        """What `places` is at the start."""
        return math.prod(value for name, value in self.constants.items() if name != "channel")

    @property
    def channels_constant(self) -> float:
        """What `channels` is at the start."""
        return math.prod(value for name, value in self.constants.items() if name != "spatial")

    def upsample(self, size: Sequence[int]) -> Tensor:
        """`places` at another size, (B, *size), by linear interpolation. Raises ExplainError where there are none."""
        if self.places is None:
            raise ExplainError(
                f"there is no map over places: this attention has {', '.join(self.values) or 'no'} gates"
            )
        return F.interpolate(self.places[:, None].float(), tuple(size), mode=LINEAR[len(size)], align_corners=False)[
            :, 0
        ]


def attention_maps(model: nn.Module, x: Tensor, names: str | Sequence[str] = "*") -> dict[str, GateMaps]:
    """The gates of each attention of `model` for the inputs `x` (B, C, H, W), by its path, such as `layer1.0.se`.

    `names` are paths or patterns as of timm's AttentionExtract, such as `layer4.*`. They are read in eval mode and
    detached; the network is left as it was. Of an attention that is called twice it is the last call. Raises
    ExplainError for a network without attention and for names that none has.
    """
    modules = select(attention_modules(model), names)
    found: dict[str, GateMaps] = {}

    def read(path: str, module: Attention, x: Tensor, output: Any) -> None:
        hard = next((part for part in module.modules() if isinstance(part, HardAttention)), None)
        found[path] = GateMaps(module.gates(x), start_of(module, x), tuple(x.shape), hard.locate(x) if hard else None)

    with at_rest(model), watched(modules, read):
        model(x)
    return found


def select(modules: Mapping[str, Attention], names: str | Iterable[str]) -> dict[str, Attention]:
    """Those whose paths fit one of the names or patterns. Raises ExplainError for one that none fits."""
    patterns = [names] if isinstance(names, str) else list(names)
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in modules):
            raise ExplainError(f"no attention of the network is called {pattern!r}; it has {', '.join(modules)}")
    return {path: module for path, module in modules.items() if any(fnmatchcase(path, each) for each in patterns)}


def start_of(module: Attention, x: Tensor) -> dict[str, float]:
    """What each gate of an attention was when it started: of a copy that was made constant, for the map `x`."""
    still = copy.deepcopy(module)
    try:
        still.make_constant()
    except ValueError:  # SimAM has nothing that could be set
        return dict.fromkeys(module.gates(x[:1]), math.nan)
    return {name: gate.float().mean().item() for name, gate in still.gates(x[:1]).items()}
