"""Exact warm start: weights of a plain network in, the same function out (zoo/models/README.md).

The plain network's weights load as they are, and the last layer of every gate is zeroed. A neutral gate is then one
for every input, so it changes nothing, wherever it stands: logits and features, in eval and in train mode, are the
plain network's. That is exact in floating point for all gates but HA's, which is right to rounding.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from timm.models import clean_state_dict, is_model, load_pretrained
from torch import Tensor

from zoo.errors import UserError
from zoo.models.head import quiet_head
from zoo.models.placement import Network, Site
from zoo.models.switches import ATTACHED, attention_switches
from zoo.weights.foreign_files import read_weights
from zoo.weights.form import form_of


class WarmStartError(UserError, ValueError):
    """The weights are neither the model's own nor those of its plain backbone, or would not compute what they did."""


def checkpoint_filter(weights: Mapping[str, Tensor], model: Network, neutral: bool | None = None) -> dict[str, Tensor]:
    """Weights for `model` from weights of its plain backbone; weights that already hold gates come back as they are.

    This is timm's checkpoint filter of every attention model, so it sees all that `pretrained=True` loads. A network
    with a method `adapt_weights` first converts the weights (2-D ones for volumes, zoo/networks/volume_resnet.py). The
    classifier and the input convolution may have another width; timm adapts them afterwards. Zeroes the last layer of
    the model's gates. `neutral` says whether gates in the weights are neutral, if that is known from elsewhere than
    the model's `attn_kwargs`.

    Raises WarmStartError if a weight is missing or has another shape, for plain weights if the model's gates have the
    published form, and for weights with gates if they have the other form than the model, or nobody says which.
    """
    sites: Sequence[Site] = getattr(model, "gate_sites", ())
    if hasattr(model, "adapt_weights"):
        weights = model.adapt_weights(weights)
    own = model.state_dict()
    gate_keys = [key for key in own if key.startswith(tuple(f"{site.gate}." for site in sites))]
    # Gates without parameters (SimAM) leave no trace in weights and cannot be constant: all weights load as they are.
    if not gate_keys:
        _check(weights, own, model)
        return dict(weights)
    if any(key in weights for key in gate_keys):
        _check(weights, own, model)
        _check_form(model, model.attn_kwargs.get("neutral") if neutral is None else neutral)
        return dict(weights)

    renamed = dict(site.renamed for site in sites if site.renamed)
    plain = {_rename(key, renamed): value for key, value in weights.items()}
    _check(plain, {key: value for key, value in own.items() if key not in gate_keys}, model)
    if not attention_switches(model)["neutral"]:
        raise WarmStartError(
            f"these are the plain network's weights, and gates in the published form would change what it computes; "
            f"build the model as {_line(model, True)}"
        )
    for site in sites:
        model.get_submodule(site.gate).make_constant()
    gates = model.state_dict()
    return plain | {key: gates[key] for key in gate_keys}


def warm_start(model: Network, weights: str | Path | Mapping[str, Tensor]) -> Network:
    """Load a plain backbone's weights into an attention model so that it computes the same function; return it.

    `weights` is a file (safetensors, or a PyTorch file read with `weights_only=True`) or a state dict. An input
    convolution with another number of channels is adapted as timm does; a classifier for another number of classes is a
    new one, which starts quietly (zoo/models/head.py). Weights that hold gates already are loaded as they are. Raises
    WarmStartError as `checkpoint_filter` does, WeightFileError for a file that holds no weights.
    """
    if not (hasattr(model, "gate_sites") or hasattr(model, "adapt_weights")):
        raise WarmStartError(_without_gates(model))
    state = dict(weights) if isinstance(weights, Mapping) else clean_state_dict(read_weights(weights))
    if not state:
        raise WarmStartError("there are no weights in the state dict")
    adapt = partial(checkpoint_filter, neutral=None if isinstance(weights, Mapping) else form_of(weights))
    if not getattr(model, "pretrained_cfg", None):  # not timm's: its classifier and stem are layers like all others
        model.load_state_dict(adapt(state, model), strict=False)  # a count may be missing; all else was checked
        return model
    cfg: dict[str, Any] = dict(model.pretrained_cfg, state_dict=state)
    classifiers, stems = ([state[key] for key in _weights_of(model, part) if key in state] for part in PARTS)
    cfg["num_classes"] = len(classifiers[0]) if classifiers else -1
    if stems:
        cfg["input_size"] = (stems[0].shape[1], *cfg["input_size"][1:])
    load_pretrained(model, pretrained_cfg=cfg, num_classes=model.num_classes, in_chans=model.in_chans, filter_fn=adapt)
    if cfg["num_classes"] != model.num_classes:
        quiet_head(model)
    return model


PARTS = ("classifier", "first_conv")
"""Of a pretrained_cfg: the layers whose width is not the backbone's own."""


def _weights_of(model: Network, part: str) -> tuple[str, ...]:
    """Keys of the weights of a model's classifier or stem; timm names several for some, none for networks of others."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get(part) or ()
    return tuple(f"{name}.weight" for name in ([names] if isinstance(names, str) else names))


TIMMS_GATES = {
    "SEModule": "se",
    "CbamModule": "cbam",
    "LightCbamModule": "cbam",
    "EcaModule": "eca",
    "CecaModule": "eca",
    "CoordAttn": "coord",
}
"""timm's own attention, which starts random, and the prefix of the zoo's."""


def _without_gates(model: Network) -> str:
    """What a network is that has no gates of the zoo."""
    kinds = {type(module).__name__ for module in model.modules()}
    found = next((kind for kind in TIMMS_GATES if kind in kinds), "")
    architecture = (getattr(model, "pretrained_cfg", None) or {}).get("architecture", "")
    if not found:
        name, known = "cbam_resnet50", f"{type(model).__name__} has no gates to start from plain weights"
    else:
        name = f"{TIMMS_GATES[found]}_{architecture}"
        name = name if is_model(name) else f"{TIMMS_GATES[found]}_resnet50"
        known = (
            f"this {architecture or type(model).__name__} has timm's own gates ({found}), which are random at the "
            "start and cannot be made constant"
        )
    return f'{known}; build it by a name of the zoo, such as timm.create_model("{name}")'


def _rename(key: str, renamed: Mapping[str, str]) -> str:
    for old, new in renamed.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _check(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], model: Network) -> None:
    """Raise WarmStartError unless `weights` has what `wanted` names, in its shapes, and nothing else."""
    head = tuple(key.removesuffix("weight") for key in _weights_of(model, "classifier"))
    stems = _weights_of(model, "first_conv")
    optional = (".num_batches_tracked",)  # a count, which only momentum=None reads
    missing = [key for key in wanted if key not in weights and not key.startswith(head) and not key.endswith(optional)]
    unknown = [key for key in weights if key not in wanted and not key.startswith(head) and not key.endswith(optional)]
    other_shape = [
        f"{key} {tuple(weights[key].shape)} where the model has {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in weights and not key.startswith(head) and not _fits(weights[key], value, any_input=key in stems)
    ]
    faults = {"missing": missing, "unknown": unknown, "of another shape": other_shape}
    found = [f"{_some(keys)} {what}" for what, keys in faults.items() if keys]
    if found:
        name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture", type(model).__name__)
        raise WarmStartError(
            f"these weights fit neither {name} nor its plain backbone: {'; '.join(found)}. "
            "Pass the weights of the same backbone, with or without gates."
        )


def _check_form(model: Network, neutral: bool | None) -> None:
    """Raise WarmStartError unless gates in weights, `neutral` or not, have the form that the model's gates have."""
    if neutral is None:
        raise WarmStartError(
            "these weights hold gates, and nobody says in which form: if they were trained with gates that start at "
            f"one, the zoo's own default, build {_line(model, True)}; if with the published form, as those of papers "
            f"and of other projects, {_line(model, False)}"
        )
    if neutral != attention_switches(model)["neutral"]:
        form = "are neutral" if neutral else "have the published form"
        raise WarmStartError(f"the gates in these weights {form}; build the model as {_line(model, neutral)}")


def _line(model: Network, neutral: bool) -> str:
    """The Python that builds this model in another form."""
    if not getattr(model, "pretrained_cfg", None):
        return f"it by zoo.attach with neutral={neutral}"
    switches = ", ".join(f"{key}={value!r}" for key, value in {**model.attn_kwargs, "neutral": neutral}.items())
    arguments = getattr(model, "_model_args", {})
    attached = "".join(f", {key}={arguments[key]!r}" for key in ATTACHED if key in arguments)
    return f'timm.create_model("{model.pretrained_cfg["architecture"]}"{attached}, attn_kwargs=dict({switches}))'


def _fits(weight: Tensor, own: Tensor, any_input: bool) -> bool:
    if any_input and weight.ndim == own.ndim:
        return weight.shape[:1] + weight.shape[2:] == own.shape[:1] + own.shape[2:]
    return weight.shape == own.shape


def _some(keys: Iterable[str], at_most: int = 3) -> str:
    keys = list(keys)
    rest = f" and {len(keys) - at_most} more" if len(keys) > at_most else ""
    return ", ".join(keys[:at_most]) + rest
