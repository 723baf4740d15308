"""The catalogue: one loop registers its rows with timm.

    timm.create_model("cbam_resnet50", pretrained=True, attn_kwargs=dict(reduction=8))

The rows are in zoo/models/variants.py, and what they name in backbones.py and attentions.py; build.py makes a network
of a row. A tag `.warm_<tag>` means published weights of the plain backbone, warm-started exactly
(zoo/models/warm_start.py); any other tag is a row of the weights manifest (zoo/weights/manifest.py), and brings the
switches of the attention that its weights were trained with.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    resolve_pretrained_cfg,
)
from torch import nn

import zoo.models.with_attention  # noqa: F401  (registers itself)
from zoo.models.attentions import ATTENTIONS
from zoo.models.backbones import BACKBONES
from zoo.models.build import build
from zoo.models.head import quiet_head
from zoo.models.switches import note_switches, noted_form
from zoo.models.variants import VARIANTS, Variant
from zoo.models.warm_start import checkpoint_filter
from zoo.weights.download import fetch, pinned_source
from zoo.weights.manifest import FILE_NAME, ManifestError, Weights, read_manifest

__all__: list[str] = []  # timm's register_model fills it


def _register(variant: Variant, weights: Sequence[Weights]) -> Callable[..., nn.Module]:
    """timm's entry point of a row, which has these `weights`."""
    backbone = BACKBONES[variant.backbone]
    filter_fn = checkpoint_filter if variant.attention or backbone.dims == 3 else None

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        cfg, overlay = kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay")
        called = f"{variant.name}.{cfg}" if isinstance(cfg, str) else variant.name
        if pretrained or cfg:  # what the weights were trained with, where the user does not say otherwise
            asked = resolve_pretrained_cfg(variant.name, cfg, overlay)
            called = _called(asked) or called
            of_row = next((row.attn_kwargs for row in weights if _names(asked, row)), {})
            kwargs["attn_kwargs"] = {**noted_form(asked.notes), **of_row, **(kwargs.get("attn_kwargs") or {})}
            if pretrained and (source := pinned_source(asked, called, kwargs.get("cache_dir"))):
                kwargs["pretrained_cfg_overlay"] = {**(overlay or {}), **source}
        make = partial(
            build_model_with_cfg,
            partial(build, variant),
            variant.name,
            pretrained,
            feature_cfg=dict(backbone.features),
            pretrained_filter_fn=filter_fn,
            **kwargs,
        )
        model = fetch(make, called) if pretrained else make()
        note_switches(model)
        if pretrained and not kwargs.get("features_only") and model.num_classes != model.pretrained_cfg["num_classes"]:
            quiet_head(model)  # the weights have none for these classes
        return model

    entrypoint.__name__ = entrypoint.__qualname__ = variant.name
    entrypoint.__doc__ = variant.doc
    return register_model(entrypoint)


def _called(cfg: PretrainedCfg) -> str:
    """What a user calls weights that are no tag's, but a folder's or a repository's; empty for those of a tag."""
    place = {"hf-hub": cfg.hf_hub_id, "local-dir": cfg.file}.get(cfg.source or "")
    return f"{cfg.source}:{place}" if place else ""


def _names(cfg: PretrainedCfg, row: Weights) -> bool:
    """Whether a pretrained_cfg names the weights of a row of the manifest, and no others in their place."""
    places = (cfg.state_dict, cfg.file, cfg.url, cfg.hf_hub_id)
    return cfg.tag == row.tag and places == (None, _file(row), None, row.pinned or None)


def _file(row: Weights) -> str | None:
    return str(row.path()) if row.file else None


def pretrained_cfgs(variant: Variant, weights: Sequence[Weights]) -> dict[str, PretrainedCfg]:
    """timm's pretrained_cfg by `name.tag`: of the model's rows of the manifest, `weights`, then of its warm start.

    Without a tag timm takes the first one that has weights, and with it the number of classes. So that a model has its
    backbone's classes by default, weights for other classes come behind another one, which is marked with `*`.
    Raises ManifestError for a row that does not say the form of its gates.
    """
    if silent := [row.name for row in weights if variant.attention and not row.attn_kwargs]:
        raise ManifestError(f"{silent[0]} has gates, so its row needs attn_kwargs, with neutral: true or false in it")
    backbone = BACKBONES[variant.backbone]
    plain = replace(PretrainedCfg(**backbone.cfg), architecture=None, tag=None)
    kept = {key: getattr(plain, key) for key in ("first_conv", "classifier", "pool_size")}
    rows = {
        row.name: PretrainedCfg(
            **{
                **kept,
                **row.config,
                "file": _file(row),
                "hf_hub_id": row.pinned or None,
                "hf_hub_filename": FILE_NAME if row.hub else None,
                "license": row.license or None,
            }
        )
        for row in sorted(weights, key=lambda row: row.config["num_classes"] != plain.num_classes)
    }
    own = any(cfg.num_classes == plain.num_classes for cfg in rows.values())
    star = "" if own or not rows else "*"
    if backbone.tag and variant.attention is None:
        return {**rows, f"{variant.name}.{backbone.tag}{star}": plain}
    if backbone.tag and variant.attention and ATTENTIONS[variant.attention].exact:
        return {**rows, f"{variant.name}.warm_{backbone.tag}{star}": plain}
    return rows if own else {**rows, f"{variant.name}.untrained{star}": replace(plain, hf_hub_id=None, url=None)}


_MANIFEST = read_manifest()
_WEIGHTS = {variant: [row for row in _MANIFEST if row.model == variant.name] for variant in VARIANTS}
default_cfgs = generate_default_cfgs(
    {name: cfg for variant, rows in _WEIGHTS.items() for name, cfg in pretrained_cfgs(variant, rows).items()}
)
globals().update({variant.name: _register(variant, rows) for variant, rows in _WEIGHTS.items()})
