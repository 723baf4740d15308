"""Does the attention do anything: fixed gates against a network in which the same was done by hand."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import zoo
from zoo.attention import CBAM, Gate
from zoo.cli import main
from zoo.explain import Answers, ExplainError, GateFacts, GateReport
from zoo.explain.gate_report import WORDS

Batches = list[tuple[Tensor, Tensor]]


def batches(count: int = 24, size: int = 4) -> Batches:
    """Images whose contrast differs, so that gates can differ between them."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, 3, 16, 16, generator=generator) * torch.linspace(1, 2, count)[:, None, None, None]
    return list(zip(x.split(size), torch.randint(0, 5, (count,), generator=generator).split(size), strict=True))


def network(model: str, **kwargs: Any) -> nn.Module:
    torch.manual_seed(4)
    built = timm.create_model(model, num_classes=5, **kwargs)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm's last ones of a block are zero, and no gate would tell
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, Gate):  # large gates
            for parameter in module.parameters():
                nn.init.normal_(parameter)
    with torch.no_grad():  # no class is ahead everywhere
        built.get_classifier().bias -= torch.cat([built.eval()(x) for x, _ in batches()]).mean(0)
    return built.train()


class Fixed(nn.Module):
    """What stands in a network's attention's place: a product with what does not depend on the image."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value


def answers(model: nn.Module, data: Batches) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.eval()(x).argmax(1) for x, _ in data])


@pytest.mark.parametrize("model", ["cbam_resnet20_cifar", "bam_resnet20_cifar", "se_mobilenetv2_050"])
def test_against_a_network_fixed_by_hand(model: str) -> None:
    data, whole = batches(), network(model)
    report = zoo.gate_report(whole, data)
    assert whole.training and not any(module._forward_hooks for module in whole.modules())
    labels, before = torch.cat([labels for _, labels in data]), answers(whole, data)
    maps = zoo.attention_maps(whole, torch.cat([x for x, _ in data]))
    for which in ("all", "start"):
        by_hand = copy.deepcopy(whole)
        for path, found in maps.items():
            value = torch.ones(())
            for name, gate in found.values.items():
                value = value * (gate.mean(0, keepdim=True) if which == "all" else found.constants[name])
            by_hand.set_submodule(path, Fixed(value))
        after = answers(by_hand, data)
        assert report.fixed[which].changed == (after != before).sum()
        assert report.fixed[which].top1 == pytest.approx(100 * (after == labels).float().mean().item())
    assert report.n == 24 and report.top1 == pytest.approx(100 * (before == labels).float().mean().item())
    assert report.fixed["all"].changed + report.fixed["start"].changed > 0
    for path, found in maps.items():
        for name, gate in found.values.items():
            facts = report.gates[f"{path}.{name}"]
            assert facts.mean == pytest.approx(gate.mean().item(), rel=1e-4) and facts.start == 1
            assert facts.deviation == pytest.approx((gate - 1).abs().mean().item(), rel=1e-3)
            assert facts.between_images == pytest.approx(
                gate.std(0, correction=0).square().mean().sqrt().item(), rel=1e-3
            )
            assert facts.within == pytest.approx(gate.mean(0).std(correction=0).item(), rel=1e-3)


def test_which_gates_are_fixed() -> None:
    data = batches()
    for model, ways in {
        "cbam_resnet20_cifar": ["all", "channel", "spatial", "start"],
        "se_resnet20_cifar": ["all", "channel", "start"],
        "bam_resnet20_cifar": ["all", "start"],
    }.items():
        assert list(zoo.gate_report(network(model), data).fixed) == ways, model


def test_gates_that_learnt_a_constant_do_nothing() -> None:
    """A spatial gate that a bias alone moves is found out, whatever it is."""
    model = network("cbam_resnet20_cifar")
    for module in model.modules():
        if isinstance(module, CBAM):
            module.make_constant()
            nn.init.constant_(module.spatial.bn.bias, 1.5)
    report = zoo.gate_report(model, batches())
    assert report.fixed["all"].changed == report.fixed["spatial"].changed == 0
    assert report.gates["layer1.0.se.spatial"].deviation == pytest.approx(math.tanh(0.75), rel=1e-5)
    assert report.gates["layer1.0.se.spatial"].between_images == 0
    assert report.sentence == (
        "The gates differ by 0.000 between images; fixing them at their averages changes 0 of 24 answers "
        f"(top-1 {report.top1:.2f} instead of {report.top1:.2f} %): "
        "this network does not use attention, a plain one will do."
    )


@pytest.mark.parametrize(("changed", "says"), [(1, "does not use"), (3, "hardly uses its"), (9, "uses its")])
def test_the_sentence(changed: int, says: str) -> None:
    report = GateReport(100, 90.0, {"a": GateFacts(1, 1, 0, 0.25, 0)}, {"all": Answers(changed, 89.0)})
    assert f"changes {changed} of 100 answers (top-1 89.00 instead of 90.00 %): this network {says} " in report.sentence


@pytest.mark.parametrize("name", ["simam_resnet18", "triplet_resnet18", "ha_mobilenetv2_100", "hacnn"])
def test_every_attention_has_a_report(name: str) -> None:
    x = torch.randn(3, 3, 32, 32)
    report = zoo.gate_report(timm.create_model(name, num_classes=4), [(x, torch.tensor([0, 1, 2]))])
    assert ("start" in report.fixed) == (name != "simam_resnet18")
    assert "from start" in report.text() and len(report.text().splitlines()) > len(report.gates)


def test_batches_that_cannot_be_compared() -> None:
    model, data = network("se_resnet20_cifar"), batches(8)
    for wrong, says in ((iter(data), "only once"), ([], "no images")):
        with pytest.raises(ExplainError, match=says):
            zoo.gate_report(model, wrong)

    class Shuffling(list):
        def __iter__(self) -> Any:
            self.reverse()
            return super().__iter__()

    with pytest.raises(ExplainError, match="another order each time"):
        zoo.gate_report(model, Shuffling(data))


def test_eval_says_it(digits_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(digits_run), "digits", "--gates", "--workers", "0"]) == 0
    said = capfd.readouterr().out.splitlines()
    (sentence,) = (line for line in said if line.startswith("The gates differ by 0."))
    assert said[0].startswith("top-1 ")
    assert any(line.startswith("layer3.2.se.spatial ") for line in said)
    assert main(["eval", str(digits_run), "digits", "--gates", "--json", "--workers", "0"]) == 0
    gates = json.loads(capfd.readouterr().out)["gates"]
    assert gates["sentence"] == sentence and gates["n"] == 359 and list(gates["fixed"]) == list(WORDS)
