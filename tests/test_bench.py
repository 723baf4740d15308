"""`zoo bench`: what it times, what it writes, and that neither zeros nor another network's times are in it."""

import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from zoo.attention import Attention
from zoo.bench.contestants import contestants, randomise, with_timms_gates
from zoo.bench.table import COLUMNS, read
from zoo.bench.timing import Conditions, all_compiled, memory_kept, peak_mib, stepping, take_turns
from zoo.cli import main


def test_a_table_a_file_and_a_chart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, chart = tmp_path / "speeds.csv", tmp_path / "speeds.png"
    against = "plain,timm,timm:resnet20_cifar,pytorchcv:resnet20_cifar10"
    command = ["bench", "cbam_resnet20_cifar", "--batch", "2", "--rounds", "3", "--device", "cpu", "--out", str(out)]
    with pytest.raises(SystemExit):
        main([*command, "--dtype", "fp8"])
    assert main([*command, "--against", against, "--fuse", "--chart", str(chart)]) == 0
    said = capfd.readouterr().out
    rows = read(out)
    names = [(row["network"], row["form"]) for row in rows]
    assert names == [
        ("resnet20_cifar", "eager"),
        ("timm's gates", "eager"),
        ("timm:resnet20_cifar", "eager"),
        ("pytorchcv:resnet20_cifar10", "eager"),
        ("cbam_resnet20_cifar", "eager"),
        ("cbam_resnet20_cifar", "fused"),
    ]
    assert all(name in said and form in said for name, form in names) and rows[0]["ratio"] == "1.0"
    for row in rows:
        assert list(row) == COLUMNS and f"torch {torch.__version__.partition('+')[0]}" in row["software"]
        assert float(row["ratio_q1"]) <= float(row["ratio"]) <= float(row["ratio_q3"])
        assert float(row["ms"]) > 0 and float(row["peak_mib"]) > 0 and row["hardware"]
        assert float(row["img_per_s"]) == pytest.approx(2000 / float(row["ms"]), rel=0.01)
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--train", "--dtype", "bf16"]) == 0
    assert main([*command, "--against", "plain"]) == 0  # takes the place of what was measured under these conditions
    modes = [(row["network"], row["form"], row["mode"], row["dtype"]) for row in read(out)]
    assert len(set(modes)) == len(modes) == 7 and ("cbam_resnet20_cifar", "eager", "train", "bf16") in modes
    assert main([*command, "--against", "timm"]) == 0  # another network to be compared with: the rows stay apart
    beside = {(row["beside"], row["network"], row["ratio"]) for row in read(out) if row["mode"] == "infer"}
    firsts = {("resnet20_cifar", "resnet20_cifar", "1.0"), ("timm's gates", "timm's gates", "1.0")}
    assert firsts < beside and len(read(out)) == 9


def test_the_same_gates_of_timm() -> None:
    ours = timm.create_model("cbam_mobilenetv2_050", num_classes=2)
    theirs = with_timms_gates(timm.create_model("cbam_mobilenetv2_050"))
    gates = sum(isinstance(m, Attention) and not getattr(m, "part", False) for m in ours.modules())
    found = [m for m in theirs.modules() if type(m).__name__ == "CbamModule"]
    assert len(found) == gates and not any(isinstance(m, Attention) for m in theirs.modules())
    widths = [m.fc1.out_features for m in ours.modules() if type(m).__name__ == "ChannelGate"]
    assert [m.channel.fc1.out_channels for m in found] == widths  # pyright: ignore


def test_pytorchcv_has_names_of_its_own() -> None:
    found, _ = contestants("se_resnet18", ["pytorchcv"])
    assert [each.name for each in found] == ["pytorchcv:seresnet18", "se_resnet18"]


def test_nothing_is_zero_where_it_would_be_at_the_start() -> None:
    network = timm.create_model("resnet18")
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert any(not m.weight.any() for m in norms)
    randomise(network)
    assert all(m.weight.all() and m.running_var is not None and m.running_var.std() > 0 for m in norms)


def test_ratios_are_of_a_round() -> None:
    """Both become slower from round to round, and the ratio stays."""
    rounds = {"first": 0, "second": 0}

    def step(name: str, share: float) -> None:
        rounds[name] += 1
        until = time.process_time() + 0.004 * share * rounds[name]
        while time.process_time() < until:
            pass

    steps = {"first": lambda: step("first", 1), "second": lambda: step("second", 3)}
    found = take_turns(steps, Conditions(torch.device("cpu"), rounds=5))
    assert found["first"].ratio == 1 and 2 < found["second"].ratio < 3.5
    assert found["second"].low <= found["second"].ratio <= found["second"].high


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_network_comes_first_and_last(count: int) -> None:
    called: list[int] = []
    steps = {name: (lambda name=name: called.append(name)) for name in range(count)}
    take_turns(steps, Conditions(torch.device("cpu"), rounds=2 * count))
    rounds = [called[at : at + count] for at in range(2 * count, len(called), count)]  # after the first and the peak
    assert {each[0] for each in rounds} == {each[-1] for each in rounds} == set(range(count))
    assert all(sorted(each) == list(range(count)) for each in rounds) and len(rounds) == 2 * count


def test_peak_memory_of_training() -> None:
    """Gradients are a step's own, in the second one as in the first; momentum is there from the first on."""
    layer = nn.Linear(512, 512, bias=False)
    how = Conditions(torch.device("cpu"), batch=1, train=True)
    step = stepping(layer, torch.ones(1, 512), how)
    with memory_kept():
        step()
        assert peak_mib(step, how.device) == pytest.approx(1, abs=0.1)


def test_a_compiled_step_is_of_its_batch() -> None:
    """A batch of another size before it would make the compiler's graph one of any size."""
    sizes: list[list[Any]] = []

    def looking(graph: Any, inputs: list[Any]) -> Any:
        sizes.append([each for each in inputs if not isinstance(each, torch.Tensor)])
        return graph

    how = Conditions(torch.device("cpu"), batch=8, train=True)
    with all_compiled():
        network: Any = torch.compile(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2)), backend=looking)
        network(torch.randn(8, 3, 8, 8))
        sizes.clear()
        stepping(network, torch.randn(8, 3, 8, 8), how)()
    assert sizes and not any(sizes)


def test_peak_memory() -> None:
    def step() -> torch.Tensor:
        a = torch.ones(2**20)
        b = a + 1
        del a
        return b * 2

    with memory_kept():
        assert peak_mib(step, torch.device("cpu")) == pytest.approx(8, abs=0.1)


class Times(nn.Module):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_networks_that_share_code_are_all_compiled() -> None:
    """PyTorch compiles eight of them, and runs the others eagerly without a word."""
    counted = CompileCounter()
    with all_compiled():
        for factor in range(12):
            network: Any = torch.compile(Times(factor), backend=counted)
            assert network(torch.ones(2)).tolist() == [factor] * 2
    assert counted.frame_count == 12
