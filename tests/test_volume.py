"""Networks for volumes: torchvision's function and weights, inflation, and timm's contract as far as it makes sense."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from test_warm_start import randomise
from timm.models.resnet import BasicBlock
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from torch import Tensor, nn
from torchvision.models import video

import zoo
from zoo.models.backbones import BACKBONES
from zoo.models.macs import parameter_count
from zoo.models.variants import VARIANTS
from zoo.networks.cifar import CifarResNet

VOLUMES = [v.name for v in VARIANTS if BACKBONES[v.backbone].dims == 3]


def volumes(model: nn.Module, batch: int = 2, depth: int = 3) -> Tensor:
    """Small, odd and not cubic."""
    return torch.randn(batch, model.in_chans, depth, 33, 18)


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18"])
def test_is_torchvisions_network(name: str, tmp_path: Path) -> None:
    theirs = getattr(video, name)()
    for m in theirs.modules():
        if isinstance(m, nn.BatchNorm3d):
            nn.init.uniform_(m.weight, 0.3, 0.9)
            nn.init.normal_(m.running_mean, std=0.1)
    torch.save(theirs.state_dict(), tmp_path / "kinetics.pth")
    overlay = {"file": str(tmp_path / "kinetics.pth")}
    x = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        expected = theirs.eval()(x)
        for variant in (name, f"se_{name}", f"cbam_{name}"):
            model = timm.create_model(variant, pretrained=True, pretrained_cfg_overlay=overlay).eval()
            assert torch.equal(model(x), expected), variant
        bam = timm.create_model(f"bam_{name}", pretrained=True, pretrained_cfg_overlay=overlay).eval()
        torch.testing.assert_close(bam(x), expected, rtol=1e-4, atol=1e-5)
    assert timm.list_pretrained(f"*{name}") == [
        f"bam_{name}.warm_tv_kinetics400",
        f"cbam_{name}.warm_tv_kinetics400",
        f"{name}.tv_kinetics400",
        f"se_{name}.warm_tv_kinetics400",
    ]
    url = getattr(video, {"r3d_18": "R3D_18_Weights", "r2plus1d_18": "R2Plus1D_18_Weights"}[name]).DEFAULT.url
    cfg = timm.models.get_pretrained_cfg(name)
    assert cfg is not None and cfg.url == url


def flat_resnet18() -> nn.Module:
    """timm's ResNet-18 without the pooling that R3D-18 does not have."""
    model = timm.create_model("resnet18")
    model.maxpool = nn.Identity()
    return model


def flat_small_resnet18() -> nn.Module:
    """The 2-D counterpart of resnet18_volume."""
    model = CifarResNet(BasicBlock, (2, 2, 2, 2), (16, 32, 64, 128), in_chans=1, num_classes=10)
    model.conv1.stride = (2, 2)
    model.pretrained_cfg = {"input_size": (1, 32, 32), "architecture": "resnet18_flat"}
    return model


@pytest.mark.parametrize(
    ("name", "flat"),
    [
        ("r3d_18", flat_resnet18),
        ("cbam_r3d_18", flat_resnet18),
        ("resnet18_volume", flat_small_resnet18),
        ("bam_resnet18_volume", flat_small_resnet18),
    ],
)
def test_inflated_weights_see_each_slice_as_an_image(name: str, flat: Any) -> None:
    reference = randomise(flat()).eval()
    model = timm.create_model(name, num_classes=reference.num_classes)
    zoo.warm_start(model, reference.state_dict())
    image = torch.randn(2, model.in_chans, 40, 24)
    with torch.no_grad():
        equal_slices = image[:, :, None].expand(-1, -1, 5, -1, -1)
        torch.testing.assert_close(model.eval()(equal_slices), reference(image), rtol=1e-4, atol=1e-5)
    model.train()(torch.randn(2, model.in_chans, 4, 32, 32)).square().sum().backward()
    kernel = (model.layer1[0].conv1[0]).weight.grad
    assert kernel is not None and (kernel[:, :, 0] != 0).any(), "the empty slices have to learn"


def test_other_channels_and_classes() -> None:
    theirs = video.r3d_18()
    x = torch.randn(1, 1, 4, 32, 32)
    for channels in (1, 4):
        model = zoo.warm_start(timm.create_model("cbam_r3d_18", in_chans=channels, num_classes=7), theirs.state_dict())
        assert model(torch.randn(1, channels, 4, 32, 32)).shape == (1, 7)
    one = zoo.warm_start(timm.create_model("r3d_18", in_chans=1), theirs.state_dict()).eval()
    with torch.no_grad():
        torch.testing.assert_close(one(x), theirs.eval()(x.expand(-1, 3, -1, -1, -1)), rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_fit() -> None:
    flat = timm.create_model("resnet18").state_dict()
    with pytest.raises(ValueError, match=r"do not inflate into R\(2\+1\)D"):
        zoo.warm_start(timm.create_model("cbam_r2plus1d_18"), flat)
    with pytest.raises(zoo.WarmStartError, match="of another shape"):
        zoo.warm_start(timm.create_model("cbam_resnet18_volume"), flat)
    with pytest.raises(zoo.WarmStartError, match="missing"):
        zoo.warm_start(timm.create_model("r3d_18"), video.r2plus1d_18().state_dict())


@pytest.mark.parametrize("name", VOLUMES)
def test_contract(name: str) -> None:
    model = timm.create_model(name, num_classes=7, drop_rate=0.1).eval()
    x = volumes(model)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, 7)
        features = model.forward_features(x)
        assert features.ndim == 5 and features.shape[1] == model.num_features
        assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
        torch.testing.assert_close(model.forward_head(features), logits)

        last, maps = model.forward_intermediates(x)
        torch.testing.assert_close(last, features)
        assert [m.shape[1] for m in maps] == [info["num_chs"] for info in model.feature_info]
        assert [m.shape[3] for m in maps] == [-(-33 // info["reduction"]) for info in model.feature_info]
        two = model.forward_intermediates(x, indices=[1, 2], stop_early=True, intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(two, maps[1:3], strict=True))

        model.set_grad_checkpointing()
        torch.testing.assert_close(model(x), logits)
        model.set_grad_checkpointing(False)

        model.reset_classifier(0)
        assert model(x).shape == (2, model.num_features)
        model.reset_classifier(0, "")
        assert model(x).ndim == 5
        model.reset_classifier(3, "max")
        assert model(x).shape == (2, 3) and model.get_classifier().out_features == 3

    groups = param_groups_layer_decay(model, layer_decay=0.5)
    assert len({group["lr_scale"] for group in groups}) > 3
    assert create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=1e-4)
    assert model.prune_intermediate_layers([1]) == [1]
    with torch.no_grad():
        torch.testing.assert_close(model.forward_features(x), maps[1])


@pytest.mark.parametrize("name", VOLUMES)
def test_trains_and_takes_small_volumes(name: str) -> None:
    model = timm.create_model(name, num_classes=4)
    model.train()(volumes(model)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    for depth in (1, 2, 8):
        assert model.eval()(volumes(model, 1, depth)).isfinite().all()


@pytest.mark.parametrize("name", ["se_r2plus1d_18", "cbam_resnet18_volume"])
def test_features_only_and_round_trip(name: str, tmp_path: Path) -> None:
    backbone = timm.create_model(name, features_only=True, out_indices=(1, 2)).eval()
    assert [f.shape[1] for f in backbone(volumes(backbone.model))] == backbone.feature_info.channels()

    kwargs: dict[str, Any] = {"num_classes": 5, "in_chans": 2, "attn_kwargs": {"keep_depth": True}}
    model = timm.create_model(name, **kwargs).eval()
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = volumes(model)
    assert torch.equal(again(x), model(x))

    own = tmp_path / "own.safetensors"
    save_file(model.state_dict(), own, {"neutral": "true"})
    assert torch.equal(zoo.warm_start(timm.create_model(name, **kwargs), own).eval()(x), model(x))


def test_exports_with_any_size() -> None:
    model, dim = timm.create_model("cbam_resnet18_volume").eval(), torch.export.Dim
    shapes = ({0: dim("b", min=1), 2: 16 * dim("d", min=2), 3: 16 * dim("h", min=2), 4: 16 * dim("w", min=2)},)
    exported = torch.export.export(model, (torch.randn(2, 1, 32, 48, 32),), dynamic_shapes=shapes).module()
    x = torch.randn(1, 1, 48, 32, 32)
    torch.testing.assert_close(exported(x), model(x))


def test_device_and_dtype_and_errors() -> None:
    model = timm.create_model("bam_r3d_18", device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert parameter_count(model) == 33_406_559
    for wrong in ({"drop_path_rate": 0.1}, {"output_stride": 8}, {"no_such_argument": 1}):
        with pytest.raises(TypeError):
            timm.create_model("r3d_18", device="meta", **wrong)
    small = timm.create_model("resnet18_volume")
    with pytest.raises(ValueError, match=r"takes \(B, C, D, H, W\), not 4 axes"):
        small(torch.randn(1, 1, 32, 32))
    with pytest.raises(ValueError, match="global_pool of a volume network must be 'avg', 'max', ''"):
        timm.create_model("resnet18_volume", global_pool="catavgmax")
    with pytest.raises(ValueError, match="output_fmt must be NCHW"):
        small.forward_intermediates(torch.randn(1, 1, 4, 4, 4), output_fmt="NHWC")


def test_gates_take_volumes_as_the_papers_do() -> None:
    cbam = timm.create_model("cbam_resnet18_volume")
    gate = cbam.layer2[0].conv2[2]
    assert gate.channel.fc1.out_features == 32 // 8 and gate.spatial.conv.kernel_size == (3, 3, 3)
    assert tuple(gate.channel.axes) == (-3, -2, -1)
    by_slice = timm.create_model("cbam_resnet18_volume", attn_kwargs={"keep_depth": True, "reduction": 4})
    assert tuple(by_slice.layer2[0].conv2[2].channel.axes) == (-2, -1)
