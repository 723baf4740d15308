"""Attention attached to networks that timm does not make: torchvision's, segmentation models', detectors."""

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo


def same(a: Any, b: Any) -> bool:
    """Whether two outputs, tensors or lists and dicts of them, are equal to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b)


def norms_of(model: nn.Module, *x: Any) -> nn.Module:
    """Norms as trained networks have them."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.3, 0.9)
            nn.init.normal_(module.bias, std=0.1)
    return model


@pytest.mark.parametrize("where", ["layer?", ["layer?.*.conv2"]])
def test_a_torchvision_resnet(where: Any) -> None:
    from torchvision.models import resnet18

    model = norms_of(resnet18(num_classes=7))
    x = torch.randn(2, 3, 64, 64)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    plain = [model.train(training)(x) for training in (False, True)]
    model.load_state_dict(state)
    zoo.attach(model, "cbam", where)
    assert len(model.gate_sites) == (4 if where == "layer?" else 8)
    assert all(same(model.train(training)(x), y) for training, y in zip((False, True), plain, strict=True))
    assert list(zoo.detach(model).state_dict()) == list(state)
    started = zoo.warm_start(zoo.attach(resnet18(num_classes=7), "cbam", where), state).eval()
    assert same(started(x), plain[0])
    with pytest.raises(zoo.WarmStartError, match=r"fit neither ResNet nor .*fc.weight \(7, 512\) where the model has"):
        zoo.warm_start(zoo.attach(resnet18(), "cbam", where), state)
    with pytest.raises(zoo.AttachError, match="ResNet has no blocks that are known here"):
        zoo.attach(model, "cbam", "blocks")


def test_a_torchvision_detector() -> None:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    heads = {"box_head": TwoMLPHead(256 * 7 * 7, 16), "box_predictor": FastRCNNPredictor(16, 3)}
    few = {"rpn_post_nms_top_n_test": 20, "rpn_post_nms_top_n_train": 20, "box_score_thresh": 0.0}
    model = FasterRCNN(backbone, min_size=64, max_size=64, **heads, **few).eval()
    images = [torch.rand(3, 64, 60)]
    with torch.no_grad():
        plain = model(images)
        zoo.attach(model, "se", ["backbone.body.layer?", "backbone.fpn.layer_blocks.*.0"])
        assert len(model.gate_sites) == 8
        assert len(plain[0]["boxes"]) > 0 and same(model(images), plain)
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 60.0, 60.0]]), "labels": torch.tensor([1])}]
    sum(model.train()(images, targets).values()).backward()
    for site in model.gate_sites:
        assert model.get_submodule(site.gate).fc2.weight.grad is not None


@pytest.mark.skipif(not importlib.util.find_spec("segmentation_models_pytorch"), reason="the package is not installed")
def test_an_smp_unet() -> None:
    import segmentation_models_pytorch as smp

    model = norms_of(smp.Unet("resnet18", encoder_weights=None, classes=2)).eval()
    x = torch.randn(1, 3, 64, 64)
    plain = model(x)
    zoo.attach(model, "scse", ["encoder.layer?", "decoder.blocks.?"])
    assert len(model.gate_sites) == 9
    assert same(model(x), plain)


class Encoder(nn.Module):
    """Fully connected layers behind the maps, which is why it takes 28 pixels alone."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        )
        self.head = nn.Linear(16 * 7 * 7, 10)

    def forward(self, x: Tensor, scale: float) -> Tensor:
        return self.head(self.maps(x).flatten(1)) * scale


def test_a_network_that_needs_an_example() -> None:
    model = Encoder()
    x = torch.randn(2, 1, 28, 28)
    plain = model(x, 2.0)
    with pytest.raises(zoo.AttachError, match=r"Encoder does not run on zeros.*pass example="):
        zoo.attach(model, "se", "maps")
    zoo.attach(model, "se", "maps", example=(x, 2.0))
    assert torch.equal(model(x, 2.0), plain)
