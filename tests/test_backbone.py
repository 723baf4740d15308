"""Networks of the zoo as the backbone of others' detectors and segmenters: a step is trained."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

import zoo

MODEL = "cbam_mobilenetv2_050"


def step(model: nn.Module, loss: Tensor) -> None:
    """Every gate has a gradient, and the step is finite."""
    loss.backward()
    gates = [p for name, p in model.named_parameters() if ".se." in name and p.requires_grad]
    assert loss.isfinite() and gates and all(p.grad is not None and p.grad.isfinite().all() for p in gates)
    torch.optim.SGD(model.parameters(), lr=0.01).step()


def test_features_by_hand() -> None:
    """The maps of all strides, with a head of one's own."""
    backbone: Any = timm.create_model(MODEL, features_only=True, out_indices=(1, 2, 3, 4))
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]
    head = nn.ModuleList(nn.Conv2d(channels, 3, 1) for channels in backbone.feature_info.channels())
    maps = backbone(torch.randn(2, 3, 64, 64))
    up = [nn.functional.interpolate(to(x), size=maps[0].shape[2:]) for to, x in zip(head, maps, strict=True)]
    step(backbone, torch.stack(up).sum(0).square().mean())


class Pyramid(nn.Module):
    """A network of the zoo below torchvision's feature pyramid."""

    def __init__(self, name: str, width: int = 16) -> None:
        super().__init__()
        self.body: Any = timm.create_model(name, features_only=True, out_indices=(2, 3, 4))
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), width)
        self.out_channels = width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.fpn({str(k): y for k, y in enumerate(self.body(x))})


def test_torchvisions_detector() -> None:
    anchors = AnchorGenerator(((16,), (32,), (64,)), ((1.0,),) * 3)
    pool = MultiScaleRoIAlign(["0", "1", "2"], 3, 2)
    head = nn.Sequential(nn.Flatten(), nn.Linear(16 * 9, 16))
    predictor = nn.ModuleDict({"cls": nn.Linear(16, 2), "box": nn.Linear(16, 8)})

    class Predict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = predictor

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.parts["cls"](x), self.parts["box"](x)

    detector = FasterRCNN(
        Pyramid(MODEL),
        min_size=64,
        max_size=64,
        rpn_anchor_generator=anchors,
        box_roi_pool=pool,
        box_head=head,
        box_predictor=Predict(),
        rpn_pre_nms_top_n_train=50,
        rpn_post_nms_top_n_train=20,
    )
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 64, 64)] * 2, [target] * 2)
    step(detector, sum(losses.values(), torch.zeros(())))


@pytest.mark.parametrize("decoder", ["Unet", "DeepLabV3Plus"])
def test_segmentation_models(decoder: str) -> None:
    """By `tu-` names, which are timm's."""
    smp: Any = pytest.importorskip("segmentation_models_pytorch", reason="segmentation_models_pytorch is not installed")
    model = getattr(smp, decoder)(f"tu-{MODEL}", encoder_weights=None, classes=2)
    step(model, model(torch.randn(2, 3, 64, 64)).square().mean())


def test_any_network_with_attention_is_a_backbone() -> None:
    network: Any = zoo.attach(timm.create_model("test_resnet", features_only=True), "cbam", "stages")
    maps = network(torch.randn(2, 3, 64, 64))
    assert [x.shape[1] for x in maps] == network.feature_info.channels()
