"""The catalogue: one loop registers its rows with timm.

    timm.create_model("cbam_resnet50", pretrained=True, attn_kwargs=dict(reduction=8))

The rows are in zoo/models/variants.py, and what they name in backbones.py and attentions.py; build.py makes a network
of a row. A tag `.warm_<tag>` means published weights of the plain backbone, warm-started exactly
(zoo/models/warm_start.py); any other tag is a row of the weights manifest (zoo/weights/manifest.py).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from zoo.models.attentions import ATTENTIONS
from zoo.models.backbones import BACKBONES
from zoo.models.build import build
from zoo.models.variants import VARIANTS, Variant
from zoo.models.warm_start import checkpoint_filter
from zoo.weights.hub_requests import fetch
from zoo.weights.manifest import FILE_NAME, Weights, read_manifest

__all__: list[str] = []  # timm's register_model fills it


def _register(variant: Variant) -> Callable[..., nn.Module]:
    """timm's entry point of a row."""
    backbone = BACKBONES[variant.backbone]
    filter_fn = checkpoint_filter if variant.attention or backbone.dims == 3 else None

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        make = partial(
            build_model_with_cfg,
            partial(build, variant),
            variant.name,
            pretrained,
            feature_cfg=dict(backbone.features),
            pretrained_filter_fn=filter_fn,
            **kwargs,
        )
        tag = kwargs.get("pretrained_cfg")
        return fetch(make, f"{variant.name}.{tag}" if isinstance(tag, str) else variant.name) if pretrained else make()

    entrypoint.__name__ = entrypoint.__qualname__ = variant.name
    entrypoint.__doc__ = variant.doc
    return register_model(entrypoint)


def pretrained_cfgs(variant: Variant, weights: tuple[Weights, ...]) -> dict[str, PretrainedCfg]:
    """timm's pretrained_cfg by `name.tag`: of the model's rows of the manifest, `weights`, then of its warm start.

    Without a tag timm takes the first one that has weights, and with it the number of classes. So that a model has its
    backbone's classes by default, weights for other classes come behind another one, which is marked with `*`.
    """
    backbone = BACKBONES[variant.backbone]
    plain = replace(PretrainedCfg(**backbone.cfg), architecture=None, tag=None)
    kept = {key: getattr(plain, key) for key in ("first_conv", "classifier", "pool_size")}
    rows = {
        row.name: PretrainedCfg(
            **{
                **kept,
                **row.config,
                "file": str(row.path()) if row.file else None,
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


_WEIGHTS = read_manifest()
default_cfgs = generate_default_cfgs(
    {
        name: cfg
        for variant in VARIANTS
        for name, cfg in pretrained_cfgs(variant, tuple(row for row in _WEIGHTS if row.model == variant.name)).items()
    }
)
globals().update({variant.name: _register(variant) for variant in VARIANTS})
