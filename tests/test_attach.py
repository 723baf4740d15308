"""Attention attached to networks that know nothing of it: nothing changes, everything goes on working, it comes off."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from test_warm_start import randomise, relative
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn

import zoo
from zoo.attention import CBAM, Attention
from zoo.models.attentions import ATTENTIONS
from zoo.models.switches import attention_switches

EXACT = [name for name, row in ATTENTIONS.items() if row.exact]
NETWORKS = [
    ("test_resnet", "stages", 4, ""),
    ("seresnext26t_32x4d", "blocks", 8, "SEModule, 8 times, first at layer1.0.se"),
    ("test_efficientnet", "stages", 5, "SqueezeExcite, 2 times, first at blocks.3.0.se"),
    ("mobilenetv3_small_050", "blocks", 11, "SqueezeExcite"),
    ("test_byobnet", "stages", 4, "SEModule"),
    ("test_convnext", "stages", 4, ""),
    ("test_convnext", "blocks", 9, ""),
    ("regnetx_002", "blocks", 13, ""),
    ("resnest14d", "blocks", 4, "SplitAttn"),
    ("densenet121", "stages", 4, ""),
    ("test_nfnet", "stages", 4, "SEModule"),
    ("test_mambaout", "stages", 4, ""),
    ("resnet20_cifar", "blocks", 9, ""),
]
"""A family each, where in it, how many gates that makes, and the attention of its own of which it tells."""


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """In eval and in train mode; the latter moves the statistics, which are put back."""
    state, found = {key: value.clone() for key, value in model.state_dict().items()}, []
    for training in (False, True):
        torch.manual_seed(1)
        with torch.no_grad():
            found.append(model.train(training)(x))
    model.load_state_dict(state)
    return found


def images(model: Any, size: int = 64) -> Tensor:
    fixed = model.pretrained_cfg.get("fixed_input_size")
    return torch.randn(2, *(model.pretrained_cfg["input_size"] if fixed else (3, size, size)))


def wake(gate: Attention) -> None:
    """Let a gate have learnt something."""
    for parameter in gate.parameters():
        nn.init.normal_(parameter, std=0.5)


@pytest.fixture
def network() -> Any:
    """A small network whose gates hang on hooks, as its stages are no Sequentials."""
    return zoo.attach(randomise(timm.create_model("test_convnext")), "cbam").eval()


@pytest.mark.parametrize(("name", "where", "count", "own"), NETWORKS)
def test_the_network_computes_what_it_did(
    name: str, where: str, count: int, own: str, caplog: pytest.LogCaptureFixture
) -> None:
    model: Any = randomise(timm.create_model(name))
    for parameter in (parameter for key, parameter in model.named_parameters() if key.endswith("gamma")):
        nn.init.uniform_(parameter, 0.5, 1)  # a new ConvNeXt multiplies its branches by 1e-6
    x, keys = images(model), list(model.state_dict())
    plain = outputs(model, x)
    plain_maps = model.eval().forward_intermediates(x, intermediates_only=True)
    assert zoo.attach(model, "cbam", where) is model
    assert len(model.gate_sites) == count
    assert all(isinstance(model.get_submodule(site.gate), CBAM) for site in model.gate_sites)
    assert [key for key in model.state_dict() if key in set(keys)] == keys, "a plain weight has another name"
    for y, expected in zip(outputs(model, x), plain, strict=True):
        assert expected.std() > 1e-3 and torch.equal(y, expected)
    for y, expected in zip(model.eval().forward_intermediates(x, intermediates_only=True), plain_maps, strict=True):
        assert torch.equal(y, expected)
    assert bool(caplog.records) == bool(own) and own in caplog.text

    for site in model.gate_sites:
        wake(model.get_submodule(site.gate))
    assert relative(model.eval()(x), plain[0]) > 0.01, "the gates are never called"
    for site in model.gate_sites:
        model.get_submodule(site.gate).make_constant()
    assert zoo.detach(model) is model and not hasattr(model, "gate_sites")
    assert list(model.state_dict()) == keys
    assert torch.equal(model.eval()(x), plain[0])


@pytest.mark.parametrize("attention", EXACT)
@pytest.mark.parametrize("where", ["stages", "blocks"])
def test_every_attention(attention: str, where: str) -> None:
    model = randomise(timm.create_model("test_resnet"))
    x = images(model, 96)
    plain = outputs(model, x)
    zoo.attach(model, attention, where)
    for y, expected in zip(outputs(model, x), plain, strict=True):
        assert relative(y, expected) < 1e-4 if attention == "ha" else torch.equal(y, expected)


def test_every_gate_learns(network: Any) -> None:
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.01)
    asleep = {
        f"{site.gate}.{n}": p
        for site in network.gate_sites
        for n, p in network.get_submodule(site.gate).named_parameters()
    }
    x = images(network)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), torch.tensor([0, 1])).backward()
        asleep = {name: p for name, p in asleep.items() if p.grad is None or not p.grad.abs().max() > 0}
        optimizer.step()
    assert not asleep


def test_blocks_of_a_resnet_are_those_of_the_catalogue() -> None:
    attached = zoo.attach(timm.create_model("resnet18"), "cbam", "blocks", reduction=8)
    built = timm.create_model("cbam_resnet18", attn_kwargs={"reduction": 8})
    assert {k: v.shape for k, v in attached.state_dict().items()} == {k: v.shape for k, v in built.state_dict().items()}


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "sync_bn": lambda model: nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)),
    "ema": lambda model: ModelEmaV3(model).module,
}


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_copies_have_gates_of_their_own(name: str) -> None:
    model = zoo.attach(randomise(timm.create_model(name)), "bam", "blocks").eval()
    x, gate = images(model), model.gate_sites[0].gate
    wake(model.get_submodule(gate))
    plain, expected = timm.create_model(name).state_dict().keys(), model(x)
    for way, copied in COPIES.items():
        twin = copied(model).eval()
        assert torch.equal(twin(x), expected), way
        twin.get_submodule(gate).make_constant()
        assert torch.equal(model(x), expected) and not torch.equal(twin(x), expected), way
        assert zoo.detach(twin).state_dict().keys() == plain, way


def test_what_timm_does_with_a_model(network: Any) -> None:
    x = images(network)
    for site in network.gate_sites:
        wake(network.get_submodule(site.gate))
    plain = network(x)
    network.set_grad_checkpointing()
    assert torch.equal(network(x.clone().requires_grad_()), plain)
    network.set_grad_checkpointing(False)
    groups = param_groups_layer_decay(network, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    network.reset_classifier(5)
    assert network(x).shape == (2, 5)
    network.reset_classifier(0)
    assert torch.equal(network(x), network.forward_head(network.forward_features(x), pre_logits=True))
    values = network.get_submodule(network.gate_sites[0].gate).gates(torch.randn(1, 24, 4, 4))
    assert set(values) == {"channel", "spatial"}


def test_checkpointing_passes_no_gate_by() -> None:
    """timm runs the children of a ResNet's stages one by one then."""
    model: Any = zoo.attach(randomise(timm.create_model("test_resnet")), "se").eval()
    for site in model.gate_sites:
        wake(model.get_submodule(site.gate))
    x = images(model)
    plain = model(x)
    model.set_grad_checkpointing()
    assert torch.equal(model.requires_grad_()(x.requires_grad_()), plain)


class Dense(nn.ModuleDict):
    """A container that calls its children in its own way, as timm's DenseBlock does."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x) for layer in self.values()], 1)


class Small(nn.Module):
    """A network of a user, in which gates hang in each of the ways there are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.stage = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU())
        self.dense = Dense({"a": nn.Conv2d(8, 4, 1), "b": nn.Sequential(nn.Conv2d(8, 12, 1), nn.Tanh())})
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dense(self.stage(self.stem(x))).mean((2, 3)))


def test_a_network_of_a_user_compiled_exported_and_traced() -> None:
    model = Small().eval()
    x = torch.randn(2, 3, 24, 32)
    plain, keys = model(x), list(model.state_dict())
    zoo.attach(model, "cbam", ["stem", "stage", "dense"])
    assert torch.equal(model(x), plain)
    assert [site.gate for site in model.gate_sites] == ["stem.attached", "stage.2", "dense.b.1.attached_behind_all"]
    for site in model.gate_sites:
        wake(model.get_submodule(site.gate))
    expected = model(x)
    assert not torch.equal(expected, plain)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), expected)
    dynamic = ({0: torch.export.Dim("b", min=1)},)
    torch.testing.assert_close(torch.export.export(model, (x,), dynamic_shapes=dynamic).module()(x), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), expected)
    for site in model.gate_sites:
        model.get_submodule(site.gate).make_constant()
    assert list(zoo.detach(model).state_dict()) == keys and torch.equal(model(x), plain)


@pytest.mark.filterwarnings("ignore:.*jit.script. is deprecated")
def test_torchscript_is_refused_in_a_sentence(network: Any) -> None:
    with pytest.raises(zoo.AttachError, match="TorchScript does not know the hooks"):
        torch.jit.script(network)


def test_plain_weights_load_before_or_after() -> None:
    trained = randomise(timm.create_model("test_convnext")).eval()
    model = zoo.attach(timm.create_model("test_convnext"), "se").eval()
    missing = model.load_state_dict(trained.state_dict(), strict=False).missing_keys
    assert all(key.startswith(tuple(f"{site.gate}." for site in model.gate_sites)) for key in missing)
    x = images(model)
    assert torch.equal(model(x), trained(x))
    by_zoo = zoo.warm_start(zoo.attach(timm.create_model("test_convnext"), "se"), trained.state_dict()).eval()
    assert torch.equal(by_zoo(x), trained(x))


def test_networks_with_several_classifiers_or_stems() -> None:
    """timm names them all."""
    trained = randomise(timm.create_model("repvit_m0_9", num_classes=7)).eval()
    x = torch.randn(1, 3, 64, 64)
    same = zoo.warm_start(zoo.attach(timm.create_model("repvit_m0_9", num_classes=7), "se"), trained.state_dict())
    assert torch.equal(same.eval()(x), trained(x))
    other = zoo.warm_start(zoo.attach(timm.create_model("repvit_m0_9", num_classes=5), "se"), trained.state_dict())
    assert torch.equal(other.eval().forward_features(x), trained.forward_features(x)) and other(x).shape == (1, 5)
    grey: Any = zoo.attach(timm.create_model("mobileone_s0", in_chans=1), "se")
    zoo.warm_start(grey, timm.create_model("mobileone_s0").state_dict())
    assert grey.eval()(x[:, :1]).isfinite().all()


def test_gates_that_learnt_something_stay_and_are_named(caplog: pytest.LogCaptureFixture) -> None:
    model = zoo.attach(randomise(timm.create_model("test_convnext")), "se").eval()
    learnt = model.gate_sites[2].gate
    wake(model.get_submodule(learnt))
    x = images(model)
    expected = model(x)
    zoo.detach(model)
    assert [site.gate for site in model.gate_sites] == [learnt]
    assert torch.equal(model(x), expected)
    assert "1 of 4 gates have learnt something and stay" in caplog.text and learnt in caplog.text


def test_where_takes_patterns_and_functions() -> None:
    def attached(where: Any) -> list[str]:
        return [site.mount.place for site in zoo.attach(timm.create_model("test_resnet"), "se", where).gate_sites]

    assert attached("layer[23]") == ["layer2", "layer3"]
    assert attached(["layer1.*.conv2", "layer4"]) == ["layer1.0.conv2", "layer4"]
    assert attached(lambda name, module: isinstance(module, nn.MaxPool2d)) == ["maxpool"]
    assert attached(["layer3", "layer1.0.se"]) == ["layer1.0.se", "layer3"], "a slot that holds nothing"


def test_a_network_of_the_catalogue_has_its_switches_back(caplog: pytest.LogCaptureFixture) -> None:
    model: Any = timm.create_model("cbam_resnet20_cifar", attn_kwargs={"reduction": 8})
    switches = attention_switches(model)
    zoo.attach(model, "se", "layer3", reduction=4)
    assert "had gates of the zoo before these" in caplog.text
    assert attention_switches(zoo.detach(model)) == switches == {"reduction": 8, "neutral": True}
    assert not hasattr(model, "own_attn_kwargs")


def test_a_second_attention_goes_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    model = randomise(timm.create_model("test_resnet"))
    x = images(model)
    plain = outputs(model, x)
    zoo.attach(zoo.attach(model, "se", "blocks"), "bam", "stages")
    assert len(model.gate_sites) == 8
    assert "timm's save can say of one kind only where it is" in caplog.text
    assert model.pretrained_cfg["architecture"] == "test_resnet", "which has no gates, rather than half of them"
    assert all(torch.equal(y, expected) for y, expected in zip(outputs(model, x), plain, strict=True))


class Tuples(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pair, self.unused = nn.Conv2d(3, 8, 3), Pair(), nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(self.stem(x))[0]


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("make", "attention", "where", "says"),
    [
        (lambda: timm.create_model("test_resnet"), "simam", "stages", "simam has no parameters, so no weights make"),
        (
            lambda: timm.create_model("test_resnet"),
            "cbamm",
            "stages",
            "unknown attention 'cbamm'; choices are se, cbam",
        ),
        (lambda: timm.create_model("test_resnet"), "se", "layer5", r"fits no module of ResNet; did you mean .*layer"),
        (lambda: timm.create_model("test_resnet"), "se", [], r"where=\[\] fits no module of ResNet; it has 'conv1'"),
        (lambda: timm.create_model("test_resnet"), "se", "layer1.0.bn2", "layer1.0.bn2 is a batch norm: synchronising"),
        (lambda: timm.create_model("test_resnet"), "se", "fc", r"fc gives \(1, 1000\), and gates weigh the channels"),
        (lambda: timm.create_model("test_vit"), "se", "stages", r"blocks.0 gives tokens, \(1, \d+, 64\), and gates"),
        (lambda: timm.create_model("test_vit"), "se", "blocks", "VisionTransformer has no blocks that are known here"),
        (lambda: zoo.attach(timm.create_model("test_resnet"), "se"), "se", "stages", "attention at layer1 already"),
        (lambda: timm.create_model("cbam_resnet20_cifar"), "se", "blocks", "Identity"),
        (Tuples, "se", "stages", r"Tuples does not say what its stages are.*where=\['stem', 'pair'"),
        (Tuples, "se", "pair", "pair gives a tuple, no map; take a module inside"),
        (Tuples, "se", "unused", "unused is never called"),
    ],
)
def test_what_is_refused_changes_nothing(make: Any, attention: str, where: Any, says: str) -> None:
    model = make()
    before, hooks = list(model.state_dict()), [len(module._forward_hooks) for module in model.modules()]
    if says == "Identity":  # gates of the catalogue have their place; another stands behind them
        assert zoo.attach(model, attention, where)
        return
    with pytest.raises(zoo.AttachError, match=says) as error:
        zoo.attach(model, attention, where)
    assert "\n" not in str(error.value)
    assert list(model.state_dict()) == before
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_switches() -> None:
    model = zoo.attach(timm.create_model("test_resnet"), "cbam", kernel_size=3, reduction=8)
    assert {module.kernel_size for module in model.modules() if isinstance(module, nn.Conv2d)} >= {(3, 3)}
    with pytest.raises(ValueError, match="unknown key 'dilation'; CBAM takes reduction=16"):
        zoo.attach(timm.create_model("test_resnet"), "cbam", dilation=8)
    with pytest.raises(zoo.AttachError, match="leave out neutral=False"):
        zoo.attach(timm.create_model("test_resnet"), "cbam", neutral=False)
    with pytest.raises(zoo.AttachError, match="nothing was attached to this CifarResNet"):
        zoo.detach(timm.create_model("cbam_resnet20_cifar"))


def test_a_saved_module_is_whole(network: Any) -> None:
    torch.save(network, file := io.BytesIO())
    file.seek(0)
    x = images(network)
    assert torch.equal(torch.load(file, weights_only=False)(x), network(x))
