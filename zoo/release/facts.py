"""What is known of a release, and what can be computed of it, before anything is written in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import timm
import torch

from zoo.data.input_spec import InputSpec, input_spec
from zoo.errors import in_a_line
from zoo.models.attach import own_attention
from zoo.models.macs import macs, parameter_count
from zoo.models.switches import WITH_ATTENTION, attention_switches
from zoo.weights.model_folder import ModelError


def network_of(config: Mapping[str, Any]) -> Any:
    """The network that a config.json describes, on the meta device: its shapes without its values.

    Raises ModelError if there is none.
    """
    size = {"input_size": tuple(config["pretrained_cfg"]["input_size"])}
    arguments = {"num_classes": config["num_classes"], **config.get("model_args", {})}
    try:
        with torch.device("meta"):
            return timm.create_model(config["architecture"], pretrained_cfg_overlay=size, **arguments)
    except Exception as error:  # timm calls the network with what config.json says, and that can fail in any way
        raise ModelError(
            f"no {config['architecture']} can be built with model_args = {arguments}: {in_a_line(error)}"
        ) from error


@dataclass(frozen=True)
class Facts:
    """A release: its names, its config.json, its files, and what can be computed of them."""

    name: str
    """MODEL.TAG."""
    repo: str
    """ORG/NAME on the Hub."""
    config: Mapping[str, Any]
    """config.json of the folder; figures are in `zoo.result`, the recipe in `zoo.recipe`."""
    sha256: str
    size: int
    """Bytes of the weights."""
    pictures: tuple[str, ...] = ()
    """Names of files."""

    @property
    def architecture(self) -> str:
        return self.config["architecture"]

    @property
    def cfg(self) -> Mapping[str, Any]:
        """timm's pretrained_cfg."""
        return self.config["pretrained_cfg"]

    @property
    def attached(self) -> Mapping[str, Any]:
        """The `backbone`, the `attention` and `where` of a network to which attention was attached; else empty."""
        return self.config["model_args"] if self.architecture == WITH_ATTENTION else {}

    @property
    def classes(self) -> int:
        return self.config["num_classes"]

    @property
    def labels(self) -> Sequence[str]:
        """Names of the classes; empty if nobody wrote them down."""
        return self.config.get("label_names") or ()

    @property
    def origin(self) -> str:
        """Where the weights come from if not from a training here, in a sentence."""
        return self._by_zoo.get("origin", "")

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What the weights were trained by; empty if that was not here."""
        return self._by_zoo.get("recipe", {})

    @property
    def result(self) -> Mapping[str, Any]:
        """Measured figures; empty if nothing was measured."""
        return self._by_zoo.get("result", {})

    @property
    def gates(self) -> Mapping[str, Any]:
        """What its attention did on what its run held out; empty if nobody looked, or without attention."""
        return self._by_zoo.get("gates", {})

    @property
    def data(self) -> str:
        """What the figures were measured on where that is known, else what the weights were trained on."""
        return self.result.get("data") or self.recipe.get("data", "")

    @cached_property
    def network(self) -> Any:
        """The network on the meta device: its shapes without its values."""
        return network_of(self.config)

    @property
    def attends(self) -> bool:
        """Whether there is attention in the network, of the zoo or of others."""
        return bool(self.attached or own_attention(self.network))

    @property
    def switches(self) -> Mapping[str, Any]:
        """Switches of its attention, the form of its gates among them; empty without attention."""
        return attention_switches(self.network)

    @cached_property
    def input(self) -> InputSpec:
        """What the network takes, in the size that it was trained on."""
        return input_spec(self.network)

    @cached_property
    def parameters(self) -> int:
        return parameter_count(self.network)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one input."""
        return macs(self.network, self.input.shape)

    @property
    def _by_zoo(self) -> Mapping[str, Any]:
        return self.config.get("zoo", {})
