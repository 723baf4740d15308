"""Any network of timm with attention in it, as a model by name: it trains, saves and publishes as every other.

    timm.create_model("with_attention", backbone="convnext_tiny.fb_in22k_ft_in1k", attention="cbam", where="stages",
                      pretrained=True)

What was chosen lies in `model_args` of the config.json that timm saves, so folders and repositories bring it back.
Weights of the plain network are loaded by its own entry point, as timm does it for that family, and the gates start
as `zoo.attach` makes them: exactly one. Weights that hold gates are loaded as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import timm
from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    load_pretrained,
    load_state_dict,
    register_model,
)
from torch import Tensor, nn

from zoo.data.input_spec import input_spec
from zoo.models.attach import make_exact, place, require_exact
from zoo.models.head import quiet_head
from zoo.models.mounting import AttachError
from zoo.models.placement import Network
from zoo.models.places import attached_sites
from zoo.models.switches import WITH_ATTENTION, note_switches, noted_form, update_model_args
from zoo.models.warm_start import checkpoint_filter
from zoo.weights.download import fetch, pinned_source
from zoo.weights.known import require_model

default_cfgs = generate_default_cfgs({f"{WITH_ATTENTION}.untrained": PretrainedCfg()})


@register_model
def with_attention(
    pretrained: bool = False,
    backbone: str = "",
    attention: str = "",
    where: str | Sequence[str] = "stages",
    attn_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A network of timm, `backbone`, with attention in it."""
    _check(backbone, attention, where)
    cfg, overlay = kwargs.pop("pretrained_cfg", None), kwargs.pop("pretrained_cfg_overlay", None)
    asked = _asked(backbone, cfg, overlay or {})
    called = {"hf-hub": f"hf-hub:{asked.hf_hub_id}", "local-dir": f"local-dir:{asked.file}"}.get(
        asked.source or "", backbone
    )
    if pretrained and (source := pinned_source(asked, called, kwargs.get("cache_dir"))):
        overlay, asked = {**(overlay or {}), **source}, replace(asked, **source)
    put = partial(_put, backbone, attention, where, {**noted_form(asked.notes), **(attn_kwargs or {})})
    make = partial(
        build_model_with_cfg,
        partial(_build, backbone, pretrained, asked, overlay, put, kwargs.get("cache_dir")),
        WITH_ATTENTION,
        False,
        pretrained_cfg=asked.to_dict(),  # pyright: ignore[reportArgumentType]  timm's hint
        feature_cfg={"feature_cls": "getter", "out_indices": None},
        **kwargs,
    )
    model: Any = fetch(make, called) if pretrained else make()
    note_switches(model)
    if pretrained and not kwargs.get("features_only") and model.num_classes != asked.num_classes:
        quiet_head(model)  # the weights have none for these classes
    return model


def _check(backbone: Any, attention: Any, where: Any) -> None:
    """Raise AttachError for arguments that no config.json could hold, or that name no network of timm."""
    if not backbone or not attention:
        missing = "backbone" if not backbone else "attention"
        raise AttachError(
            f"{WITH_ATTENTION} needs {missing}=: timm.create_model({WITH_ATTENTION!r}, "
            f"backbone={backbone or 'resnet26d'!r}, attention={attention or 'cbam'!r})"
        )
    if ":" in backbone or "/" in backbone:
        raise AttachError(
            f"backbone={backbone!r} is a place, and a name is what is saved; give the network's name, and the place as "
            "pretrained_cfg_overlay=dict(file=...), or let `zoo finetune` do that"
        )
    if require_model(backbone).split(".")[0] == WITH_ATTENTION:
        raise AttachError(f"backbone={backbone!r} is no network by itself; give one of timm.list_models()")
    if callable(where):
        raise AttachError("a function cannot be saved; give where= as names or patterns, or use zoo.attach")
    require_exact(attention)


def _asked(backbone: str, cfg: Any, overlay: Mapping[str, Any]) -> PretrainedCfg:
    """timm's pretrained_cfg of the weights that are asked for: the backbone's own, unless others are given."""
    if isinstance(cfg, str):
        cfg = timm.get_pretrained_cfg(f"{backbone.split('.')[0]}.{cfg}")
    if isinstance(cfg, Mapping):
        cfg = PretrainedCfg(**cfg)
    cfg = cfg or timm.get_pretrained_cfg(backbone) or PretrainedCfg()
    return replace(cfg, **{**overlay, "architecture": WITH_ATTENTION})


def _build(
    backbone: str, pretrained: bool, asked: PretrainedCfg, overlay: Any, put: Any, cache_dir: Any, **kwargs: Any
) -> Network:
    """The network with its gates, and its weights if they are wanted."""
    plain = partial(timm.create_model, backbone, cache_dir=cache_dir, **kwargs)
    saved = asked.source in ("hf-hub", "local-dir")
    state = _given_state(asked) if pretrained and not saved else None
    if not pretrained or saved or state:
        nowhere = dict.fromkeys(("state_dict", "file", "url", "hf_hub_id", "source"))
        as_asked = replace(asked, architecture=backbone.split(".")[0], **nowhere)  # pyright: ignore[reportArgumentType]
        network: Network = plain(pretrained_cfg=as_asked)
        put(network)
        gates = tuple(f"{site.gate}." for site in attached_sites(network))
        if not pretrained:
            return network
        if not state or any(key.startswith(gates) for key in state):
            load_pretrained(
                network,
                pretrained_cfg={**asked.to_dict(), **({"state_dict": state} if state else {})},
                num_classes=network.num_classes,
                in_chans=network.in_chans,
                filter_fn=checkpoint_filter,
                cache_dir=cache_dir,
            )
            return network
    own = timm.get_pretrained_cfg(
        backbone
    )  # its entry point knows the form of the gates in its own file, if it has any
    given = {} if not state or (own and asked.file and asked.file == own.file) else {"state_dict": state, "file": None}
    network = plain(pretrained=True, pretrained_cfg_overlay={**(overlay or {}), **given})
    put(network)
    for site in attached_sites(network):  # a network of the catalogue has gates of its own, which have learnt
        gate = network.get_submodule(site.gate)
        if not gate.neutral:
            raise AttachError(
                "gates in the published form would change what a plain network's weights compute; leave out "
                "neutral=False, or pretrained"
            )
        make_exact(gate)
    return network


def _put(backbone: str, attention: str, where: Any, attn_kwargs: Mapping[str, Any], network: Network) -> None:
    """Put the gates in, and say in the network what they are, for its errors and for timm's save."""
    place(network, attention, where, attn_kwargs, input_spec(network).kind.axes)
    update_model_args(network, backbone=backbone, attention=attention, where=where)


def _given_state(asked: PretrainedCfg) -> dict[str, Tensor] | None:
    """The tensors of weights that somebody gives, in which there may be gates; None for published ones."""
    if asked.state_dict:
        return dict(asked.state_dict)
    return load_state_dict(asked.file) if asked.file and not asked.custom_load else None
