"""timm's tools, each a function that uses it on a network as its users do, and raises if it does not work."""

import tempfile
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import convert_splitbn_model, convert_sync_batchnorm
from timm.models import save_for_hf
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, dispatch_clip_grad, freeze, reparameterize_model, unfreeze
from timm.utils.model import ActivationStatsHook, avg_sq_ch_mean
from tool_network import Make, Tool, learn, require_same, stages
from torch import Tensor


def features_only(make: Make, x: Tensor, **options: Any) -> None:
    require_same(make(features_only=True, **options)(x), stages(make, x))


def output_stride(make: Make, x: Tensor) -> None:
    """Wherever it is deeper, the map has a 16th of the input's size."""
    model = make(features_only=True, output_stride=16)
    for y, reduction in zip(model(x), model.feature_info.reduction(), strict=True):
        assert reduction <= 16 and y.shape[-1] == -(-x.shape[-1] // reduction), f"{tuple(y.shape)} at {reduction}"


def prune_layers(make: Make, x: Tensor) -> None:
    model = make()
    expected = model.forward_intermediates(x, indices=[1, 2], intermediates_only=True)
    indices = model.prune_intermediate_layers([1, 2], prune_head=True)
    require_same(model.forward_intermediates(x, indices=indices, intermediates_only=True), expected)


def grad_checkpointing(make: Make, x: Tensor) -> None:
    model, plain = make(), make()
    model.set_grad_checkpointing()
    learn(model, x)
    learn(plain, x)
    for p, other in zip(model.parameters(), plain.parameters(), strict=True):
        require_same(p.grad, other.grad, 1e-3)


def reset_classifier(make: Make, x: Tensor) -> None:
    model = make()
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    model.reset_classifier(0)
    assert model(x).shape == (2, model.head_hidden_size)


def layer_decay(make: Make, x: Tensor) -> None:
    model = make()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.7)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    learn(model, x)
    optimizer.step()


def ema(make: Make, x: Tensor) -> None:
    model = make()
    average = ModelEmaV3(model, decay=0.5)
    learn(model, x)
    average.update(model)
    average.module(x)


def freezing(make: Make, x: Tensor) -> None:
    model = make()
    expected = model(x)
    freeze(model)
    model.train()
    require_same(model(x), expected)
    unfreeze(model)
    learn(model, x)


def reparameterize(make: Make, x: Tensor) -> None:
    require_same(reparameterize_model(make())(x), make()(x))


def split_bn(make: Make, x: Tensor) -> None:
    """Half of a batch of four to each norm."""
    model = convert_splitbn_model(make(), 2).train()
    model(torch.cat((x, x))).square().mean().backward()


def timms_sync_bn(make: Make, x: Tensor) -> None:
    require_same(convert_sync_batchnorm(make())(x), make()(x))


def save_and_load(make: Make, x: Tensor) -> None:
    model = make()
    with tempfile.TemporaryDirectory() as folder:
        save_for_hf(model, folder, safe_serialization=True)
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True, **make.options)
        require_same(loaded.eval()(x), model(x))


def other_inputs(make: Make, x: Tensor) -> None:
    """The weights in a network for five channels and seven classes."""
    more = torch.cat([x] * 5, 1)[:, :5]
    assert make(in_chans=5, num_classes=7)(more).shape == (2, 7)


def drop(make: Make, x: Tensor, **options: Any) -> None:
    learn(make(**options), x)


def clip_gradients(make: Make, x: Tensor) -> None:
    model = make()
    learn(model, x)
    dispatch_clip_grad(model.parameters(), 0.01, mode="agc")


def group_norm(make: Make, x: Tensor) -> None:
    learn(make.fresh(norm_layer="groupnorm1"), x)


def silu(make: Make, x: Tensor) -> None:
    learn(make(act_layer="silu"), x)


def activation_statistics(make: Make, x: Tensor) -> None:
    model = make()
    hook = ActivationStatsHook(model, ["*.act*"], [avg_sq_ch_mean])
    model(x)
    assert hook.stats["avg_sq_ch_mean"]


def in_half(make: Make, x: Tensor) -> None:
    y = make.fresh(dtype=torch.bfloat16)(x.bfloat16())
    assert y.dtype == torch.bfloat16 and y.isfinite().all()


TOOLS: dict[str, Tool] = {
    "timm: features_only": features_only,
    "timm: features_only, output_stride=16": output_stride,
    'timm: feature_cls="fx"': partial(features_only, feature_cls="fx"),
    'timm: feature_cls="hook"': partial(features_only, feature_cls="hook"),
    "timm: prune_intermediate_layers": prune_layers,
    "timm: set_grad_checkpointing": grad_checkpointing,
    "timm: reset_classifier": reset_classifier,
    "timm: layer_decay of create_optimizer_v2": layer_decay,
    "timm: ModelEmaV3": ema,
    "timm: freeze, unfreeze": freezing,
    "timm: reparameterize_model": reparameterize,
    "timm: convert_splitbn_model": split_bn,
    "timm: convert_sync_batchnorm": timms_sync_bn,
    "timm: save_for_hf, local-dir:": save_and_load,
    "timm: in_chans, num_classes of other weights": other_inputs,
    "timm: drop_rate": partial(drop, drop_rate=0.2),
    "timm: drop_path_rate": partial(drop, drop_path_rate=0.2),
    "timm: dispatch_clip_grad, agc": clip_gradients,
    "timm: norm_layer": group_norm,
    "timm: act_layer": silu,
    "timm: ActivationStatsHook": activation_statistics,
    "timm: dtype=bfloat16": in_half,
}
