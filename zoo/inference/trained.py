"""A trained model by one string: a run, a model folder, a name with weights, a Hub id, or a file of `zoo export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_data_config
from timm.models import is_model_pretrained

from zoo.data.input_spec import InputSpec, input_spec
from zoo.inference.class_names import imagenet, known_names
from zoo.inference.exported import ExportedNetwork, is_exported, load_exported
from zoo.models.macs import parameter_count
from zoo.models.sizes import SizeError, require_takes, size_arguments
from zoo.weights.known import require_model
from zoo.weights.load import load_network
from zoo.weights.model_folder import ModelError, find_model_folder


@dataclass(frozen=True)
class Trained:
    """A model in eval mode with what it was trained on."""

    source: str
    """What timm.create_model was given."""
    network: Any
    config: dict[str, Any]
    """Input size, mean, std, interpolation and crop, as timm's transforms take them."""
    labels: tuple[str, ...]
    """Name of each class index; WordNet ids for ImageNet's 1000 classes; empty if nobody wrote them down."""
    size: tuple[int, ...] = ()
    """Of the inputs, where it is another than the network's own."""

    @property
    def spec(self) -> InputSpec:
        """What goes into the network."""
        own = input_spec(self.network)
        return own.of_size(self.size) if self.size else own

    def describe(self, index: int) -> str:
        """The class in words."""
        if len(self.labels) == 1000 and self.labels[0] == "n01440764":
            return str(imagenet().index_to_description(index))
        return self.labels[index] if self.labels else f"class {index}"

    @property
    def device(self) -> torch.device:
        """Where the network is; what was exported runs on the CPU."""
        return next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))

    @property
    def parameters(self) -> int:
        """How many the network has, or had when it was exported."""
        return (
            self.network.about.parameters
            if isinstance(self.network, ExportedNetwork)
            else parameter_count(self.network)
        )

    @property
    def names(self) -> list[str]:
        """All classes in words."""
        return [self.describe(index) for index in range(self.network.num_classes)]


def load_trained(source: str, device: torch.device | str = "cpu", size: Sequence[int] = ()) -> Trained:
    """Load a run directory, a folder with config.json, `hf-hub:ORG/NAME`, a registered name with its weights, or a file
    that `zoo export` wrote.

    `size` is that of the inputs, in place of the network's own: one side, (H, W), or (D, H, W) of volumes. Raises
    ModelError if there is no such thing, HubError if the Hub does not give it, SizeError for a size that it does not
    take.
    """
    exported = is_exported(source)
    name = source if exported else _resolve(source)
    network: Any = load_exported(source) if exported else load_network(name)
    spec = input_spec(network)
    size = tuple(size) * spec.kind.axes if len(size) == 1 else tuple(size)
    if size:
        if len(size) != spec.kind.axes:
            raise SizeError(f"a size for {source} is {spec.kind.sizes}, as it takes {spec.kind.many}, not {list(size)}")
        if (arguments := size_arguments(network.pretrained_cfg, size)) and not exported:
            network = load_network(name, **arguments)
        require_takes(network, spec.of_size(size), source)
    network = network.to(device).eval()
    asked = {"input_size": (spec.channels, *size[-2:])} if size else {}
    labels = known_names(network.pretrained_cfg, network.num_classes)
    return Trained(name, network, resolve_data_config(asked, model=network), labels, size)


def _resolve(source: str) -> str:
    if folder := find_model_folder(source):
        return f"local-dir:{folder}"
    if source.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        return source
    if Path(source).is_file():
        raise ModelError(
            f"{source} is a file, and weights alone do not say of which network they are; give a run or a model "
            "folder, as `zoo convert` makes one"
        )
    if Path(source).exists() or "/" in source:
        raise ModelError(f"{source} is no run and no model folder; a repository on the Hub is hf-hub:{source}")
    if not is_model_pretrained(require_model(source, or_give="a run directory or hf-hub:ORG/NAME")):
        raise ModelError(f"{source} has no weights yet; give a run directory or a name of timm.list_pretrained()")
    return source
