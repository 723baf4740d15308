"""Learning rates, parameter groups, what trains when, and the loss."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from shapes import TINY, draw_shapes
from timm.utils import ModelEmaV3

from zoo.training.batches import size_of_epoch
from zoo.training.objective import make_objective
from zoo.training.parameter_groups import new_parts, parameter_groups, thawing
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.schedule import SHAPES, rate_of_step
from zoo.training.start import train
from zoo.training.state import State

TEN = Recipe(model="cbam_resnet20_cifar", data="", epochs=10, lr=1.0, warmup_epochs=1.0, min_lr=0.1, decay_epochs=4.0)


def test_schedules_by_update() -> None:
    updates = 5
    rates = {name: rate_of_step(replace(TEN, schedule=name), updates) for name in SHAPES}
    for rate in rates.values():
        assert [rate(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0]), "warm-up"
    middle = 5 + 45 / 2
    assert rates["cosine"](int(middle)) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 22 / 45)))
    assert rates["one-cycle"](5 + 9) == pytest.approx(1 - 0.9 * 9 / 45)
    assert [rates["step"](5 * epoch) for epoch in (3, 4, 8)] == pytest.approx([1.0, 0.1, 0.01])
    at = rate_of_step(replace(TEN, schedule="step", decay_at=(2.0, 7.5)), updates)
    assert [at(step) for step in (9, 10, 37, 38)] == pytest.approx([1.0, 0.1, 0.1, 0.01])
    assert rates["wsd"](29) == rates["wsd"](30) == 1.0 and rates["wsd"](40) == pytest.approx(0.55)
    assert {rates["constant"](step) for step in range(5, 50)} == {1.0}
    for name in ("cosine", "one-cycle", "wsd"):
        assert rates[name](50) == pytest.approx(0.1)


def test_sizes_grow_in_steps() -> None:
    sizes = [size_of_epoch(128, 224, 20, epoch) for epoch in range(20)]
    assert sizes[0] == 128 and set(sizes) == {128, 160, 192, 224} and sizes == sorted(sizes)
    assert sizes[15:] == [224] * 5
    assert {size_of_epoch(32, 32, 3, epoch) for epoch in range(3)} == {32}


def test_gates_and_head_keep_the_full_rate() -> None:
    model = timm.create_model("cbam_mobilenetv2_050", num_classes=3)
    groups = parameter_groups(model, replace(TEN, model="cbam_mobilenetv2_050", layer_decay=0.5, freeze=("conv_stem",)))
    scale = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    named = dict(model.named_parameters())
    assert id(named.pop("conv_stem.weight")) not in scale
    for name, parameter in named.items():
        assert (scale[id(parameter)] == 1) == name.startswith(new_parts(model)) or name.startswith(("conv_head", "bn2"))
        assert decay[id(parameter)] == (0.05 if parameter.ndim > 1 else 0)
    assert scale[id(named["blocks.0.0.conv_dw.weight"])] < scale[id(named["blocks.5.0.conv_dw.weight"])] < 1
    with pytest.raises(RecipeError, match=r"no parameter of .* begins with 'stem'; they begin with conv_stem, "):
        parameter_groups(model, replace(TEN, freeze=("stem",)))


def test_head_and_gates_first(tmp_path: Path) -> None:
    model = timm.create_model("cbam_resnet20_cifar", num_classes=2)
    recipe = replace(TEN, head_epochs=2, freeze=("conv1", "bn1"))
    thaw = thawing(model, recipe)
    thaw(1)
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trains and all(name.startswith("fc.") or ".se." in name for name in trains)
    assert not model.layer1[0].bn1.training and model.layer1[0].se.spatial.bn.training
    thaw(2)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
    }
    assert model.layer1[0].bn1.training and not model.bn1.training

    data = draw_shapes(tmp_path / "data", count=8)
    start = train(replace(TINY, data=str(data), lr=0.0, epochs=1, warmup_epochs=0.0), tmp_path / "0").directory
    first = train(replace(TINY, data=str(data), epochs=2, head_epochs=2, weights=str(start)), tmp_path / "1").directory
    then = train(replace(TINY, data=str(data), epochs=3, head_epochs=2, weights=str(start)), tmp_path / "2").directory
    from safetensors.torch import load_file

    before, frozen, thawed = (load_file(run / "model" / "model.safetensors") for run in (start, first, then))
    for key in ("layer2.0.conv1.weight", "bn1.running_mean"):
        assert torch.equal(before[key], frozen[key]) and not torch.equal(before[key], thawed[key])
    assert not torch.equal(before["layer2.0.se.channel.fc2.weight"], frozen["layer2.0.se.channel.fc2.weight"])


def test_what_the_model_froze_itself_stays_frozen() -> None:
    """HA-CNN without its local branch leaves regressors that nothing reads; other networks have such parts, too."""
    model = timm.create_model("hacnn", local_branch=False, num_classes=2)
    own = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    recipe = replace(TEN, model="hacnn", head_epochs=1)
    groups = parameter_groups(model, recipe)
    thaw = thawing(model, recipe)
    for epoch in (0, 1):
        thaw(epoch)
        assert own and own <= {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert own == {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    decayed = {id(parameter) for group in groups for parameter in group["params"]}
    assert not decayed & {id(parameter) for name, parameter in model.named_parameters() if name in own}


def test_batch_norms_without_parameters_follow_the_data() -> None:
    model = timm.create_model("cbam_resnet20_cifar", num_classes=2)
    model.layer1[0].bn1 = torch.nn.BatchNorm2d(16, affine=False)
    thaw = thawing(model, replace(TEN, head_epochs=1, freeze=("layer2",)))
    model.layer2[0].bn1 = torch.nn.BatchNorm2d(32, affine=False)
    thaw(0)
    assert not model.layer1[0].bn1.training
    thaw = thawing(model, replace(TEN, freeze=("layer2",)))
    thaw(1)
    assert model.layer1[0].bn1.training and not model.layer2[0].bn1.training


def test_what_timm_does_not_decay_is_not_decayed() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    named = dict(model.named_parameters())
    groups = parameter_groups(model, replace(TEN, model="vit_tiny_patch16_224", weight_decay=0.1))
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert {"pos_embed", "cls_token"} <= model.no_weight_decay() and named["pos_embed"].ndim > 1
    assert decay[id(named["pos_embed"])] == decay[id(named["cls_token"])] == 0
    assert decay[id(named["blocks.0.attn.qkv.weight"])] == 0.1


def test_weights_that_are_nothing_to_go_on_from() -> None:
    """A mask of a network may be infinite; what it learns may not."""
    model = timm.create_model("cbam_resnet20_cifar", num_classes=2)
    model.register_buffer("mask", torch.full((3,), -torch.inf))
    optimizer = torch.optim.SGD(model.parameters())
    state = State(model, ModelEmaV3(model), optimizer, torch.amp.GradScaler("cpu", enabled=False))
    assert state.spoiled().tolist() == [0]
    model.bn1.running_var[3] = torch.inf
    state.ema.module.fc.bias.data[0] = torch.nan
    assert state.spoiled().tolist() == [2]


def test_losses(tmp_path: Path) -> None:
    logits, targets, images = torch.randn(4, 2), torch.rand(4, 2), torch.randn(4, 3, 16, 16)
    pixels = {"mean": (0.2,) * 3, "std": (0.1,) * 3}
    cpu = torch.device("cpu")
    names = ("cross", "disc")
    ce = make_objective(TEN, pixels, names, cpu)(logits, targets, images)
    assert ce == pytest.approx(-(targets * logits.log_softmax(1)).sum(1).mean().item(), rel=1e-5)
    bce = make_objective(replace(TEN, loss="bce"), pixels, names, cpu)(logits, targets, images)
    assert bce == pytest.approx(F.binary_cross_entropy(logits.sigmoid(), targets).item(), rel=1e-5)

    data = draw_shapes(tmp_path / "data", count=8)
    teacher = train(replace(TINY, data=str(data), epochs=1, warmup_epochs=0.0), tmp_path / "teacher").directory
    network = timm.create_model(f"local-dir:{teacher / 'model'}", pretrained=True).eval()
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    opinion = network((images * 0.1 + 0.2 - mean) / std)
    taught = replace(TEN, teacher=str(teacher), distill=0.7, temperature=2.0)
    wanted = 0.3 * ce + 0.7 * 4 * F.kl_div((logits / 2).log_softmax(1), (opinion / 2).softmax(1), reduction="batchmean")
    assert make_objective(taught, pixels, names, cpu)(logits, targets, images) == pytest.approx(wanted.item(), rel=1e-4)
    alike = make_objective(replace(taught, standardize_logits=True), pixels, names, cpu)
    apart = (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)
    wanted_of = (opinion - opinion.mean(1, keepdim=True)) / opinion.std(1, keepdim=True)
    far = F.kl_div((apart / 2).log_softmax(1), (wanted_of / 2).softmax(1), reduction="batchmean")
    assert alike(logits, targets, images) == pytest.approx((0.3 * ce + 0.7 * 4 * far).item(), rel=1e-4)
    same = replace(taught, standardize_logits=True, distill=1.0)
    far = make_objective(same, pixels, names, cpu)(3 * opinion + 5, targets, images)
    assert far.item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(RecipeError, match="knows 2 classes and the data has 10; fine-tune it"):
        make_objective(taught, pixels, "abcdefghij", cpu)
    run = train(replace(TINY, data=str(data), epochs=1, warmup_epochs=0.0, teacher=str(teacher)), tmp_path / "taught")
    assert run.epochs[0].train_loss > 0
