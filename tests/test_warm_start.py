"""Plain weights in, the same function out: for every attention variant, on networks whose norms were randomised.

(A freshly built timm ResNet has zero last norms, so an equality test on it would prove nothing.)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import zoo
from zoo.attention import BAM, CoordAttention, SoftAttention
from zoo.data.input_spec import input_spec
from zoo.data.kinds import VOLUMES
from zoo.models.attentions import ATTENTIONS
from zoo.models.backbones import BACKBONES
from zoo.models.build import build
from zoo.models.variants import VARIANTS, Variant
from zoo.weights.manifest import read_manifest

GATED = [v for v in VARIANTS if v.attention and ATTENTIONS[v.attention].exact]
SMALL = [
    v
    for v in GATED
    if v.backbone in ("resnet18", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100")
    and v.attention in ("se", "cbam", "bam", "spatial")
]
names = pytest.mark.parametrize("name", [v.name for v in SMALL])


def images(model: nn.Module) -> Tensor:
    """A batch on which the last stage still has several places, or train-mode norms would amplify any rounding."""
    spec, name = input_spec(model), model.pretrained_cfg["architecture"]
    like = next(model.parameters())
    if spec.kind is VOLUMES:
        return torch.randn(4, spec.channels, 2, 32, 32).to(like)
    size = min(spec.size[0], 64)
    return torch.randn(2 if "resnext29" in name else 4, spec.channels, size, size).to(like)


def amplifies_rounding(name: str) -> bool:
    """Whether fp32 says nothing of a gate that rounds, so that the test is held in fp64, to 1e-10.

    Many layers with random norms amplify rounding: a change in the last bit of the plain network's own weights moves
    ResNet-101 by 2e-5 at 64 pixels, and ResNet-50 by 3e-5, where HA in each block rounds most.
    """
    return not name.startswith(("se_", "cbam_")) and any(part in name for part in ("ha_resnet50", "101", "152"))


def randomise(model: nn.Module) -> nn.Module:
    """Random norms with statistics near their true ones, so that the signal neither dies nor explodes."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.3, 0.9)  # about what trained networks have
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images(model))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.1
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean += 0.1 * module.running_var.sqrt() * torch.randn_like(module.running_mean)
            module.running_var *= torch.empty_like(module.running_var).uniform_(0.8, 1.2)
    return model


def plain(backbone: str, **kwargs: Any) -> nn.Module:
    """A randomised plain network: timm's own, or the zoo's where timm has none."""
    return randomise(timm.create_model(backbone, **kwargs))


def outputs(model: Any, training: bool, x: Tensor) -> dict[str, Tensor]:
    """Logits, the maps of all stages, and what the classifier reads."""
    model.train(training)
    with torch.no_grad():
        last, maps = model.forward_intermediates(x)
        found = {f"stage {i}": feature for i, feature in enumerate(maps)}
        found |= {"embedding": model.forward_head(last, pre_logits=True), "logits": model.forward_head(last)}
        assert training or torch.equal(found["logits"], model(x))
    return found


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def check_same_function(variant: Variant, reference: nn.Module, model: nn.Module) -> None:
    x = images(model)
    check_outputs(variant, model, x, [outputs(reference, training, x) for training in (False, True)])


def check_outputs(variant: Variant, model: nn.Module, x: Tensor, plain_outputs: list[dict[str, Tensor]]) -> None:
    """In eval and in train mode; the latter moves the statistics, so it comes last."""
    for training, tolerance, expected in zip((False, True), (1e-5, 1e-4), plain_outputs, strict=True):
        found = outputs(model, training, x)
        assert expected["logits"].std() > 1e-3, "the network computes nothing, so equality would mean nothing"
        assert found.keys() == expected.keys()
        tolerance = 1e-10 if x.dtype == torch.float64 else tolerance
        for where, y in found.items():
            said = (variant.name, training, where, relative(y, expected[where]))
            if variant.attention == "ha":  # its 3/4 is rounded
                assert relative(y, expected[where]) < tolerance, said
            else:
                assert torch.equal(y, expected[where]), said


# One for each kind of block: whether a gate learns depends on that, not on the depth.
LEARNING = (
    "resnet18",
    "resnet50_cifar",
    "mobilenetv1_100",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "resnet18_volume",
)


SHALLOW = (*LEARNING, "resnet20_cifar")
"""One of each kind and the plain ones of its block; the rest is deeper or wider."""


@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(name, marks=[] if name in SHALLOW else [pytest.mark.every])
        for name, row in BACKBONES.items()
        if row.placements
    ],
)
def test_every_variant_computes_what_its_backbone_did_and_learns(backbone: str) -> None:
    reference = plain(backbone)
    weights = {key: value.clone() for key, value in reference.state_dict().items()}
    wanted: dict[torch.dtype, tuple[Tensor, list[dict[str, Tensor]]]] = {}
    for variant in (v for v in GATED if v.backbone == backbone):
        dtype = torch.float64 if amplifies_rounding(variant.name) else torch.float32
        given = {key: value.to(dtype) if value.is_floating_point() else value for key, value in weights.items()}
        model = zoo.warm_start(timm.create_model(variant.name).to(dtype), given)
        if dtype not in wanted:
            reference.to(dtype).load_state_dict(weights)
            x = images(model)
            wanted[dtype] = x, [outputs(reference, training, x) for training in (False, True)]
        check_outputs(variant, model, *wanted[dtype])
        if backbone in LEARNING:
            check_gates_wake(model)


@pytest.mark.parametrize(
    ("name", "attn_kwargs"),
    [
        ("se_resnet18", {"reduction": 8, "bias": False}),
        ("cbam_resnet18", {"bias": False, "norm": False, "kernel_size": 3}),
        ("cbam_resnet18", {"arrangement": "channel"}),
        ("cbam_resnet18", {"arrangement": "spatial"}),
        ("cbam_resnet18", {"arrangement": "parallel"}),
        ("cbam_mobilenetv1_070", {"arrangement": "spatial_channel"}),
        ("cbam_resnet18", {"channel_pool": "max", "spatial_pool": "conv"}),
        ("cbam_mobilenetv3_small_100", {"pool": "conv"}),
        ("bam_resnet20_cifar", {"end_norm": True}),
        ("bam_resnet18", {"fuse": "max", "place": "after"}),
        ("bam_resnet50_cifar", {"branches": "channel", "place": "after"}),
        ("bam_mobilenetv1_070", {"branches": "spatial", "place": "after"}),
        ("bam_mobilenetv3_small_100", {"place": "after"}),
        ("bam_resnet18_volume", {"keep_depth": True, "place": "after"}),
        ("bam_r2plus1d_18", {"place": "after"}),
        ("cbam_resnet18_volume", {"keep_depth": True, "bias": False}),
        ("scse_resnet18", {"fuse": "max"}),
        ("scse_resnet18", {"fuse": "mul", "bias": False}),
        ("bam_mobilenetv2_100", {"fuse": "mul", "dilation": 2}),
    ],
)
def test_every_switch(name: str, attn_kwargs: dict[str, Any]) -> None:
    variant = next(v for v in VARIANTS if v.name == name)
    reference = plain(variant.backbone)
    model = timm.create_model(name, attn_kwargs=attn_kwargs)
    zoo.warm_start(model, reference.state_dict())
    check_same_function(variant, reference, model)
    check_gates_wake(model)


def shift_nothing(gate: nn.Module) -> set[str]:
    """What a batch norm behind it takes out again, and so has no gradient: biases, and a single channel's scale.

    A ReLU between the two changes nothing of that while the bias in front of it is 0, as it is at the start.
    """
    pairs = {
        BAM: ("channel.fc1", "spatial.trunk.reduce", "spatial.trunk.conv1", "spatial.trunk.conv2"),
        CoordAttention: ("conv",),
        SoftAttention: ("conv", "spatial.conv1", "spatial.conv2", "channel.conv1", "channel.conv2"),
    }
    scales = {"spatial.bn1.weight", "spatial.conv2.weight"}
    if isinstance(gate, BAM) and gate.state_dict().get("spatial.trunk.reduce.weight", torch.zeros(0)).shape[0] == 1:
        scales |= {"spatial.trunk.reduce_bn.weight", "spatial.trunk.conv1_bn.weight"}
    return {f"{name}.bias" for name in pairs.get(type(gate), ())} | scales


def check_gates_wake(model: nn.Module) -> None:
    """Every parameter of every gate has a gradient in the first or the second step."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    gates = {
        f"{site.gate}.{name}": parameter
        for site in model.gate_sites
        for name, parameter in model.get_submodule(site.gate).named_parameters()
        if name not in shift_nothing(model.get_submodule(site.gate))
    }
    asleep = set(gates)
    x = images(model)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(len(x))).backward()
        asleep -= {name for name, p in gates.items() if p.grad is not None and p.grad.abs().max() > 0}
        optimizer.step()
    assert not asleep


@names
def test_by_file_and_by_state_dict_and_by_overlay(name: str, tmp_path: Path) -> None:
    variant = next(v for v in VARIANTS if v.name == name)
    reference = plain(variant.backbone)
    file, pickled = tmp_path / "plain.safetensors", tmp_path / "plain.pth"
    save_file(reference.state_dict(), file)
    torch.save({"state_dict": {f"module.{k}": v for k, v in reference.state_dict().items()}}, pickled)
    by_overlay = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
    assert not any(isinstance(value, Tensor) for value in by_overlay.pretrained_cfg.values())
    by_hand = zoo.warm_start(timm.create_model(name), file)
    by_pickle = zoo.warm_start(timm.create_model(name), pickled)
    for model in (by_overlay, by_hand, by_pickle):
        reference.load_state_dict(torch.load(pickled, weights_only=True)["state_dict"], strict=False)
        check_same_function(variant, plain_copy(reference, file, variant), model)


def plain_copy(reference: nn.Module, file: Path, variant: Variant) -> nn.Module:
    """The plain network as the file has it (a forward pass in training mode moves its statistics)."""
    return timm.create_model(variant.backbone, checkpoint_path=str(file))


@names
def test_other_classes_and_channels(name: str, tmp_path: Path) -> None:
    variant = next(v for v in VARIANTS if v.name == name)
    save_file(plain(variant.backbone).state_dict(), file := tmp_path / "plain.safetensors")
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    x = torch.randn(2, 1, 64, 64)
    for more in ({"num_classes": 5, "in_chans": 1}, {"num_classes": 0, "in_chans": 1}):
        torch.manual_seed(1)
        model = timm.create_model(name, **overlay, **more).eval()
        torch.manual_seed(1)
        by_hand = zoo.warm_start(timm.create_model(name, **more), file).eval()
        torch.manual_seed(1)
        reference = timm.create_model(variant.backbone, **overlay, **more).eval()
        assert torch.equal(model.forward_features(x), by_hand.forward_features(x))
        assert torch.equal(model.forward_features(x), reference.forward_features(x))


def test_features_only_starts_warm(tmp_path: Path) -> None:
    save_file(plain("resnet18").state_dict(), file := tmp_path / "plain.safetensors")
    kwargs: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}, "features_only": True}
    x = torch.randn(1, 3, 64, 64)
    attention = timm.create_model("cbam_resnet18", **kwargs).eval()(x)
    for a, b in zip(attention, timm.create_model("resnet18", **kwargs).eval()(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bam_mobilenetv2_100", {"attn_kwargs": {"place": "after"}, "act_layer": nn.SiLU}),
        ("bam_resnet18", {"attn_kwargs": {"place": "after"}, "act_layer": nn.SiLU}),
        ("cbam_mobilenetv1_100", {"act_layer": nn.SiLU}),
        ("se_mobilenetv2_050", {"norm_layer": "groupnorm1"}),
        ("cbam_resnet18", {"norm_layer": "groupnorm"}),
        ("bam_resnet50", {"norm_layer": "groupnorm", "attn_kwargs": {"place": "after"}}),
        ("cbam_mobilenetv1_070", {"norm_layer": "groupnorm1"}),
        ("coord_resnet18", {"norm_layer": "layernorm2d"}),
    ],
)
def test_any_activation_and_norm(name: str, options: dict[str, Any]) -> None:
    variant = next(v for v in VARIANTS if v.name == name)
    kept = {key: value for key, value in options.items() if key != "attn_kwargs"}
    reference = plain(variant.backbone, **kept)
    model = zoo.warm_start(timm.create_model(name, **options), reference.state_dict())
    check_same_function(variant, reference, model)
    check_gates_wake(model)


@pytest.mark.parametrize("neutral", [True, False])
def test_weights_with_gates_load_as_they_are(tmp_path: Path, neutral: bool) -> None:
    form: dict[str, Any] = {"attn_kwargs": {"neutral": neutral}}
    trained = randomise(timm.create_model("cbam_resnet18", **form))
    save_file(trained.state_dict(), file := tmp_path / "own.safetensors")
    model = zoo.warm_start(timm.create_model("cbam_resnet18", **form), file)
    for key, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_plain_weights_do_not_start_gates_of_the_published_form() -> None:
    reference = plain("resnet18")
    model = timm.create_model("cbam_resnet18", attn_kwargs={"kernel_size": 3, "neutral": False})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(zoo.WarmStartError, match="published form would change what it computes") as error:
        zoo.warm_start(model, reference.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "half a warm start"
    line = str(error.value).partition("build the model as ")[2]
    assert line == 'timm.create_model("cbam_resnet18", attn_kwargs=dict(kernel_size=3, neutral=True))'
    zoo.warm_start(eval(line), reference.state_dict())


def test_gates_of_unknown_form_are_refused_with_both_choices(tmp_path: Path) -> None:
    """The same file computes something else in the other form, so nothing is guessed."""
    trained = randomise(timm.create_model("se_resnet18"))
    save_file(trained.state_dict(), file := tmp_path / "own.safetensors")
    overlay: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    for load in (
        lambda: zoo.warm_start(timm.create_model("se_resnet18"), file),
        lambda: zoo.warm_start(timm.create_model("se_resnet18"), trained.state_dict()),
        lambda: timm.create_model("se_resnet18", **overlay),
    ):
        with pytest.raises(zoo.WarmStartError, match="nobody says in which form") as error:
            load()
        for neutral in (True, False):
            assert f'timm.create_model("se_resnet18", attn_kwargs=dict(neutral={neutral}))' in str(error.value)

    x = torch.randn(2, 3, 64, 64)
    either = [timm.create_model("se_resnet18", attn_kwargs={"neutral": n}, **overlay).eval() for n in (True, False)]
    assert torch.equal(either[0](x), trained.eval()(x))
    assert relative(either[1](x), trained(x)) > 0.01


@pytest.mark.parametrize("neutral", [True, False])
def test_a_file_that_says_its_form_is_held_to_it(tmp_path: Path, neutral: bool) -> None:
    forms: list[dict[str, Any]] = [{"attn_kwargs": {"neutral": n}} for n in (neutral, not neutral)]
    form, other = forms
    trained = randomise(timm.create_model("se_resnet18", **form))
    file = tmp_path / "own.safetensors"
    save_file(trained.state_dict(), file, {"neutral": str(neutral).lower()})
    assert zoo.warm_start(timm.create_model("se_resnet18", **form), file)
    if neutral:  # the catalogue's default form needs no switch
        assert zoo.warm_start(timm.create_model("se_resnet18"), file)
    with pytest.raises(zoo.WarmStartError, match="the gates in these weights") as error:
        zoo.warm_start(timm.create_model("se_resnet18", **other), file)
    assert f"neutral={neutral}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("cbam_resnet18", lambda: timm.create_model("resnet34").state_dict(), "unknown"),
        ("cbam_resnet34", lambda: timm.create_model("resnet18").state_dict(), "layer1.2.conv1.weight.* missing"),
        ("cbam_resnet18", lambda: timm.create_model("resnet50").state_dict(), "of another shape"),
        ("bam_mobilenetv2_100", lambda: timm.create_model("mobilenetv2_050").state_dict(), "of another shape"),
        ("se_resnet18", lambda: {"fc.bias": torch.zeros(9)}, "conv1.weight, bn1.weight, bn1.bias and .* missing"),
        (
            "cbam_resnet18",
            lambda: {k: v for k, v in timm.create_model("cbam_resnet18").state_dict().items() if "1.se.spat" not in k},
            "layer1.1.se.spatial.conv.weight.*missing",
        ),
    ],
)
def test_refuses_what_fits_neither(name: str, spoil: Callable[[], dict[str, Tensor]], says: str) -> None:
    model = timm.create_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(zoo.WarmStartError, match=says) as error:
        zoo.warm_start(model, spoil())
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "half a warm start"


def test_refuses_an_empty_state_dict() -> None:
    with pytest.raises(zoo.WarmStartError, match="no weights in the state dict"):
        zoo.warm_start(timm.create_model("se_resnet18"), {})


def test_refuses_a_model_without_gates() -> None:
    with pytest.raises(zoo.WarmStartError, match="ResNet has no gates"):
        zoo.warm_start(timm.create_model("resnet18"), {})


def test_default_tags_point_to_the_plain_weights() -> None:
    packaged = {row.model: row.tag for row in read_manifest()}
    for variant in GATED:
        backbone = BACKBONES[variant.backbone]
        cfg = timm.models.get_pretrained_cfg(variant.name)
        assert cfg is not None
        if not backbone.tag:
            own = packaged.get(variant.name)
            assert cfg.tag == (own or "untrained") and bool(cfg.has_weights) == bool(own)
            continue
        assert cfg.tag == f"warm_{backbone.tag}"
        assert f"{variant.name}.warm_{backbone.tag}" in timm.list_pretrained(f"{variant.name}.*")
        if backbone.dims == 2:
            assert cfg.hf_hub_id == f"timm/{variant.backbone}.{backbone.tag}"
        else:
            plain_cfg = timm.models.get_pretrained_cfg(variant.backbone)
            assert plain_cfg is not None and plain_cfg.tag == backbone.tag
            assert cfg.url == plain_cfg.url and str(cfg.url).startswith("https://download.pytorch.org/models/r")


def test_simam_cannot_start_warm() -> None:
    """Its gate has no parameters: plain weights load, as they must, since SimAM's own look alike."""
    reference = plain("resnet18")
    assert not timm.list_pretrained("simam_*")
    model = zoo.warm_start(timm.create_model("simam_resnet18"), reference.state_dict())
    assert set(model.state_dict()) == set(reference.state_dict())
    x = images(model)
    y, expected = outputs(model, False, x)["logits"], outputs(reference, False, x)["logits"]
    assert relative(y, expected) > 0.01


def test_output_stride_keeps_the_warm_start() -> None:
    reference = plain("resnet18", output_stride=8)
    model = zoo.warm_start(timm.create_model("bam_resnet18", output_stride=8), reference.state_dict())
    check_same_function(next(v for v in VARIANTS if v.name == "bam_resnet18"), reference, model)
    assert build(next(v for v in VARIANTS if v.name == "cbam_resnet18"), output_stride=8)
