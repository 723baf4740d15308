"""Parameters and multiply-accumulates: the golden counts, and the pages that are made of them.

In one file, because a model is counted once a process.
"""

import csv
import sys
from pathlib import Path

import pytest
import timm
import torch

import zoo
from zoo.models.counts import count, read_counts
from zoo.models.macs import cost, macs, parameter_count
from zoo.models.variants import VARIANTS
from zoo.weights.manifest import read_manifest

GOLDEN = list(csv.DictReader(Path(__file__).with_name("golden_counts.csv").read_text().splitlines()))
sys.path.insert(0, str(Path(zoo.__file__).parents[1] / "scripts"))


@pytest.mark.parametrize("row", GOLDEN, ids=[row["model"] for row in GOLDEN])
def test_golden_counts(row: dict[str, str]) -> None:
    """`agrees_with` names the code or table whose count this is; the rest are frozen as they were first built."""
    params, multiply_accumulates = cost(row["model"])
    assert params == int(row["parameters"])
    assert f"{multiply_accumulates / 1e9:.4f}" == row["gmacs"]


def test_zoo_list_has_these_counts() -> None:
    """counts.csv is written by `python -m zoo.models.counts`."""
    listed = {row.model: row for row in read_counts()}
    assert list(listed) == timm.list_models(module="catalog")
    for row in GOLDEN:
        ours = listed[row["model"]]
        assert (ours.parameters, ours.gmacs) == (int(row["parameters"]), row["gmacs"])
        cfg = timm.get_pretrained_cfg(ours.model)
        assert cfg and ours.size.endswith("x".join(map(str, cfg.input_size[1:])))
    started = {f"{row.model}.{row.warm}" for row in listed.values() if row.warm}
    trained = {row.name for row in read_manifest() if not row.upstream}
    assert started | trained == set(timm.list_models(pretrained=True, module="catalog"))
    for model in ("cbam_resnet20_cifar", "resnet18_volume", "cbam_mobilenetv2_050"):
        assert count(model) == listed[model]


def test_every_model_has_a_golden_count() -> None:
    assert [row["model"] for row in GOLDEN] == [variant.name for variant in VARIANTS]


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [
        ("resnet50", 4.0892),
        ("resnext101_32x4d", 7.9700),
        ("mobilenetv2_100", 0.3008),
        ("mobilenetv3_small_100", 0.0565),
    ],
)
def test_macs_follow_the_references(name: str, gmacs: float) -> None:
    """timm 1.0.31's plain networks, conv and linear only, 224 pixels (counted by hooks in an independent study)."""
    assert round(cost(name)[1] / 1e9, 4) == gmacs


def test_a_linear_layer_is_its_weights() -> None:
    assert macs(torch.nn.Linear(3, 5), (3,)) == 15


def test_bam_papers_cifar_table() -> None:
    """Its 24.07 M and 34.61 M have the batch norm that the paper's text puts at the end of each branch."""
    for name, millions in (("bam_resnet50_cifar", 24.07), ("bam_resnext29_8x64d_cifar", 34.61)):
        with torch.device("meta"):
            model = timm.create_model(name, attn_kwargs={"end_norm": True})
        assert round(parameter_count(model) / 1e6, 2) == millions


def test_the_tables_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    import readme_tables

    monkeypatch.setattr(sys, "argv", ["readme_tables.py", "--check"])
    assert readme_tables.main() == 0, "run python scripts/readme_tables.py"


def test_the_page_of_ablations_is_up_to_date() -> None:
    import ablations

    assert ablations.PAGE.read_text(encoding="utf-8") == ablations.page(), "run python scripts/ablations.py"
