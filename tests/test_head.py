"""A new classifier starts quietly, by every way into the zoo, and one that is kept goes by the names of its classes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from shapes import TINY
from timm.models import save_for_hf
from torch import nn

import zoo
from zoo.data import DataError
from zoo.models.head import QUIET, classifiers
from zoo.training.starting_model import create_model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of timm's MobileNetV2 at half its width."""
    file = tmp_path_factory.mktemp("plain") / "mobilenetv2_050.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("mobilenetv2_050").state_dict(), file)
    return file


def is_quiet(model: nn.Module) -> bool:
    return all(
        0.8 * QUIET < head.weight.std() < 1.2 * QUIET and (head.bias is None or not head.bias.any())
        for head in classifiers(model)
    )


def test_a_new_head_starts_quietly(plain: Path) -> None:
    overlay: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(plain)}}
    loud = timm.create_model("mobilenetv2_050", num_classes=20, **overlay)
    assert not is_quiet(loud), "or the zoo need not do anything"
    for model in (
        timm.create_model("cbam_mobilenetv2_050", num_classes=20, **overlay),
        zoo.warm_start(timm.create_model("cbam_mobilenetv2_050", num_classes=20), plain),
        zoo.quiet_head(loud),
        create_model(replace(TINY, model="mobilenetv2_050", weights=str(plain), image_size=0), [*map(str, range(20))]),
    ):
        assert is_quiet(model) and classifiers(model)[0].weight.shape == (20, 1280)
    for options in ({"num_classes": 0}, {"features_only": True}):
        timm.create_model("cbam_mobilenetv2_050", **options, **overlay)


def test_a_head_for_the_same_classes_is_kept(plain: Path) -> None:
    overlay: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(plain)}}
    kept = timm.create_model("mobilenetv2_050", **overlay).classifier.weight
    assert torch.equal(timm.create_model("cbam_mobilenetv2_050", **overlay).classifier.weight, kept)
    assert not is_quiet(timm.create_model("cbam_mobilenetv2_050")), "without weights it is timm's"
    for heads in (timm.create_model("hacnn", num_classes=3), timm.create_model("cbam_resnet18_volume", num_classes=3)):
        assert is_quiet(zoo.quiet_head(heads)) and classifiers(heads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a model that tells a, b and c apart, in this order."""
    folder = tmp_path_factory.mktemp("trained") / "abc"
    torch.manual_seed(0)
    model = timm.create_model("cbam_resnet20_cifar", num_classes=3)
    nn.init.normal_(model.fc.bias)
    save_for_hf(model, folder, model_config={"label_names": ["a", "b", "c"]}, safe_serialization=True)
    return folder


@pytest.mark.parametrize("by", ["weights", "model"])
def test_a_kept_head_goes_by_names(trained: Path, by: str) -> None:
    """Weights of as many classes: in another order they are brought into it, with other names they are refused."""
    recipe = replace(TINY, weights=str(trained))
    if by == "model":
        recipe = replace(TINY, model=f"local-dir:{trained}", pretrained=True)
    head = timm.create_model(f"local-dir:{trained}", pretrained=True).fc
    turned = create_model(recipe, ("c", "a", "b")).fc
    assert torch.equal(turned.weight, head.weight[[2, 0, 1]]) and torch.equal(turned.bias, head.bias[[2, 0, 1]])
    says = "the data's 3 classes are a, b, d, and the head of .* knows 3: a, b, c, not 'd'; set new_head = .* by_order"
    with pytest.raises(DataError, match=says):
        create_model(recipe, ("a", "b", "d"))
    assert torch.equal(create_model(replace(recipe, by_order=True), ("a", "b", "d")).fc.weight, head.weight)
    assert is_quiet(create_model(replace(recipe, new_head=True), ("a", "b", "d")))
    assert is_quiet(create_model(recipe, ("a", "b"))), "another number of classes is a new head by itself"


def test_a_head_whose_classes_nobody_named(tmp_path: Path) -> None:
    model = timm.create_model("resnet20_cifar", num_classes=3)
    save_file(model.state_dict(), file := tmp_path / "plain.safetensors")
    recipe = replace(TINY, model="resnet20_cifar", weights=str(file))
    with pytest.raises(DataError, match="knows 3: classes whose names nobody wrote down; set new_head = true"):
        create_model(recipe, ("a", "b", "c"))
    assert torch.equal(create_model(replace(recipe, by_order=True), ("a", "b", "c")).fc.weight, model.fc.weight)


def test_imagenets_head_goes_by_wordnet_ids(plain: Path) -> None:
    names = timm.data.ImageNetInfo("imagenet-1k").label_names()
    recipe = replace(TINY, model="mobilenetv2_050", weights=str(plain), image_size=0)
    kept = timm.create_model("mobilenetv2_050", checkpoint_path=str(plain)).classifier
    assert torch.equal(create_model(recipe, names).classifier.weight, kept.weight)
    assert torch.equal(create_model(recipe, names[::-1]).classifier.weight, kept.weight.flip(0))
    with pytest.raises(DataError, match="knows 1000: n01440764, n01443537, "):
        create_model(recipe, [f"class {k}" for k in range(1000)])
