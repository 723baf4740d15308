"""The jobs for a GPU, at toy size on the CPU: each makes its table, is stopped in the middle, and is gone on with."""

import csv
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shapes import draw_shapes
from test_resume import same, when_there

import zoo
from zoo.training.recipe_file import load_recipe
from zoo.training.start import train

ROOT = Path(zoo.__file__).parents[1]
sys.path[:0] = [str(ROOT / "scripts" / "gpu"), str(ROOT / "scripts")]
SHORT, LONG = (str(ROOT / "configs" / f"cifar100_{{backbone}}_{length}.toml") for length in ("short", "300"))
TOY = ("epochs=4", "warmup_epochs=1", "batch_size=8", "checkpoint_minutes=0", "amp=off", "device=cpu", "cutout=8")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process and in those that it starts, whose sums would otherwise differ in the last bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def call(job: str, *arguments: object) -> int:
    return importlib.import_module(job).main([str(argument) for argument in arguments])


def table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The comment head and the rows."""
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("# ")]
    return head, list(csv.DictReader(lines[len(head) :]))


def sets(changes: Sequence[str]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


@pytest.mark.every
def test_release_is_stopped_packed_unpacked_and_gone_on_with(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, state, bundle = draw_shapes(tmp_path / "data", size=32), tmp_path / "state", tmp_path / "bundle"
    common: list[Any] = ["--data", data, "--recipe", SHORT, "--backbones", "resnet20", "--attentions", "cbam"]
    common += ["--seeds", 0, "--state", state, "--bundle", bundle, "--piece-mib", 0.5, "--table", tmp_path / "t.csv"]
    common += sets(TOY)
    run = state / "cbam_resnet20_cifar-0"
    watcher = when_there(run, 8, lambda: os.kill(os.getpid(), signal.SIGTERM), 200)  # in the second epoch
    assert call("cifar100_release", *common) == 75
    watcher.join()
    head, (row,) = table(tmp_path / "t.csv")
    assert (row["runs"], row["top1_mean"]) == ("0 of 1", "not yet run")
    assert "stopped, saved" in capfd.readouterr().err and not (run / "model").exists()
    pieces = sorted(bundle.iterdir())
    assert len(pieces) > 1 and max(piece.stat().st_size for piece in pieces) <= 2**19

    state.rename(tmp_path / "lost")
    assert call("cifar100_release", *common) == 0
    told = capfd.readouterr()
    assert "goes on" in told.err and "1 of 1 runs finished" in told.out
    head, (row,) = table(tmp_path / "t.csv")
    assert (row["runs"], row["n"], row["median_seed"], row["parameters"]) == ("1 of 1", "48", "0", "275227")
    assert sum("command python scripts/gpu/" in line and f"torch {torch.__version__}" in line for line in head) == 1, (
        "both were the same call"
    )
    overrides = ["model=cbam_resnet20_cifar", f"data={data}", "seed=0", *TOY]
    uninterrupted = train(load_recipe(SHORT.format(backbone="resnet20"), overrides), tmp_path / "whole")
    assert same(run, uninterrupted.directory), "stopped, packed, unpacked and resumed"
    assert float(row["top1_mean"]) == pytest.approx(uninterrupted.score.top1, abs=0.01)
    rounded = load_file(state / "weights" / "cbam_resnet20_cifar.cifar100.safetensors")
    for name, value in load_file(run / "model" / "model.safetensors").items():
        assert torch.equal(rounded[name], value.half() if value.is_floating_point() else value)
    assert abs(float(row["top1_fp16"]) - float(row["top1_median"])) <= 5

    written = (run / "model" / "config.json").stat().st_mtime_ns
    assert call("cifar100_release", *common) == 0
    assert (run / "model" / "config.json").stat().st_mtime_ns == written and "starts" not in capfd.readouterr().err
    assert call("cifar100_release", *common, "--set", "lr=0.3") == 2
    assert "was trained with lr = 0.2, not 0.3; give the same arguments" in capfd.readouterr().err


def test_a_bundle_keeps_what_matters_most(tmp_path: Path) -> None:
    from bundle import pack, unpack

    files = {
        "calls.json": 9,
        "a-0/model/config.json": 9,
        "a-0/model/model.safetensors": 90000,
        "a-0/checkpoint/9-x.pt": 9,
    }
    files |= {"b-0/recipe.toml": 9, "b-0/checkpoint/000000001-x.pt": 9, "b-0/checkpoint/000000002-x.pt": 70000}
    files |= {"c-0/checkpoint/000000001-x.pt": 50000}
    for name, size in files.items():
        (tmp_path / "state" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "state" / name).write_bytes(os.urandom(size))
    out = pack(tmp_path / "state", tmp_path / "bundle", 0.01, 0.1)
    assert out == ["b-0/checkpoint/000000002-x.pt", "a-0/model/model.safetensors"]
    assert sum(piece.stat().st_size for piece in (tmp_path / "bundle").iterdir()) <= 0.1 * 2**20
    assert unpack(tmp_path / "bundle", tmp_path / "new") and not unpack(tmp_path / "bundle", tmp_path / "new")
    there = {str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert there == {"calls.json", "a-0/model/config.json", "b-0/recipe.toml", "c-0/checkpoint/000000001-x.pt"}
    assert all((tmp_path / "new" / name).read_bytes() == (tmp_path / "state" / name).read_bytes() for name in there)


def test_paper_has_the_papers_figures_and_says_what_is_not_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["--recipe", LONG, "--state", tmp_path / "state", "--table", tmp_path / "t.csv", "--minutes", 0]
    common += ["--side-by-side", 1]
    assert call("cifar100_paper", *common) == 75
    rows = {row["model"]: row for row in table(tmp_path / "t.csv")[1]}
    assert len(rows) == 6 and {row["error_mean"] for row in rows.values()} == {"not yet run"}
    assert {row["paper_error"] for row in rows.values()} == {"21.49", "20.00", "18.18", "16.71", "-"}
    for row in rows.values():
        if row["paper_error"] != "-":
            assert float(row["paper_parameters_m"]) == pytest.approx(int(row["parameters"]) / 1e6, abs=0.01)
    assert call("cifar100_paper", *common, "--recipe", "configs/{backbone}.toml") == 2
    assert "cannot read the recipe configs/resnet50.toml" in capfd.readouterr().err


@pytest.mark.every
def test_ablation_has_a_row_for_each_of_the_papers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    common: list[Any] = ["--state", tmp_path / "state", "--table", tmp_path / "t.csv", "--side-by-side", 1]
    assert call("ablation", *common, "--recipe", LONG, "--networks", "cbam_resnet50_cifar", "--minutes", 0) == 75
    assert [row["paper_imagenet_errors"] for row in table(tmp_path / "t.csv")[1]] == ["22.66 / 6.31"] * 2
    common += ["--backbone", "resnet20", "--recipe", SHORT]
    assert call("ablation", *common, "--minutes", 0) == 75
    rows = table(tmp_path / "t.csv")[1]
    assert len(rows) == 31 and {row["error_mean"] for row in rows} == {"not yet run"}
    assert len({row["model"] for row in rows}) == 26, "rows that are one network are trained once"

    data = draw_shapes(tmp_path / "data", size=32)
    common += ["--networks", "bam_resnet20_cifar-place=after"]
    common += ["--data", data, "--seeds", 0, *sets((*TOY, "epochs=1", "warmup_epochs=0"))]
    assert call("ablation", *common) == 0
    ((row, *others), recipe) = table(tmp_path / "t.csv")[1], next((tmp_path / "state").glob("*/recipe.toml"))
    assert not others and row["row"] == "right behind it" and float(row["error_mean"]) < 100
    assert load_recipe(recipe).attn_kwargs == {"place": "after", "neutral": True}
    assert call("ablation", *common, "--networks", "bam_resnet20_cifar-reduction=3") == 2
    assert "no row has the network bam_resnet20_cifar-reduction=3; there are resnet20_cifar," in capfd.readouterr().err


def test_runs_share_the_gpu_by_their_size() -> None:
    from fleet import side_by_side

    sizes = [side_by_side(f"{name}_cifar") for name in ("resnet20", "mobilenetv2_100", "resnet18", "resnext29_8x64d")]
    assert sizes == [6, 6, 2, 1]


def test_throughput_goes_on_where_it_stopped(tmp_path: Path) -> None:
    common = ["--recipe", SHORT, "--backbones", "resnet20", "--attentions", "plain", "se", "--how", "eager"]
    common += ["--images", 100, "--rounds", 2, "--steps", 2, "--warm-up", 1, *sets(["batch_size=8", "device=cpu"])]
    common += ["--state", tmp_path / "state.json", "--table", tmp_path / "t.csv"]
    started = time.monotonic()
    import throughput

    measure, measured = throughput.case, []

    def case(recipe: Any, *rest: Any) -> dict[str, Any]:
        measured.append(recipe.model)
        return measure(recipe, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throughput, "case", case)
        patch.setattr(time, "monotonic", lambda: started + 100 * len(measured))  # time is over after one row
        assert call("throughput", *common, "--minutes", 1) == 75
        assert [row["img_per_s"] for row in table(tmp_path / "t.csv")[1]][1] == "not yet run"
        assert call("throughput", *common) == 0
    assert measured == ["resnet20_cifar", "se_resnet20_cifar"]
    for row in table(tmp_path / "t.csv")[1]:
        parts = [float(row[name]) for name in ("data", "network", "optimizer")]
        assert sum(parts) == pytest.approx(1, abs=0.01) and min(parts) > 0
        assert float(row["q1"]) <= float(row["img_per_s"]) <= float(row["q3"])
        assert float(row["step_ms"]) == pytest.approx(8000 / float(row["img_per_s"]), rel=0.02)


@pytest.mark.every
def test_correctness_compares_and_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import correctness

    data, state = draw_shapes(tmp_path / "data", size=32), tmp_path / "c.json"
    common = ["--device", "cpu", "--backend", "eager", "--batch", 8, "--state", state, "--table", tmp_path / "t.csv"]
    common += ["--data", data, "--epochs", 4, "--kernels"]
    assert call("correctness", *common, "--models", "--resumes", "deterministic") == 0
    (row,) = table(tmp_path / "t.csv")[1]
    assert row["verdict"] == "ok" and float(row["error"]) == 0 and "resumed after epoch 2 of 4" in row["compared"]

    monkeypatch.setattr(correctness, "STEPS", 2)
    wrong = correctness.Way({"label_smoothing": 0.9}, False, "bf16")
    ways = {name: correctness.WAYS[name] for name in ("bf16", "fp32 compiled")} | {"wrong": wrong}
    monkeypatch.setattr(correctness, "WAYS", ways)
    common += ["--resumes", "--models", "cbam_resnet20_cifar"]
    assert call("correctness", *common, "--minutes", 0) == 75
    assert call("correctness", *common) == 1
    rows = table(tmp_path / "t.csv")[1]
    assert [row["check"] for row in rows] == ["gradient", "gates' gradient", "losses"] * 3
    assert [row["verdict"] for row in rows[3:]] == ["ok"] * 3 + ["WRONG"] * 3
    assert "WRONG" not in [row["verdict"] for row in rows[:3]]
    assert float(rows[3]["error"]) < 1e-2 < float(rows[0]["error"]), "fp32 is nearer than bf16"
    assert len(rows[2]["losses"].split()) == 2


@pytest.mark.every
def test_kernels_are_checked_and_timed(tmp_path: Path) -> None:
    """In Triton's interpreter."""
    pytest.importorskip("triton")
    common = ["--device", "cpu", "--table", tmp_path / "t.csv"]
    small = ["--kernels", "se", "--kernel-shape", 2, 8, 3, 5, "--models", "--resumes", "--state", tmp_path / "c.json"]
    assert call("correctness", *common, *small) == 0
    rows = table(tmp_path / "t.csv")[1]
    assert len(rows) == 6 and {row["verdict"] for row in rows} == {"ok"}
    assert call("bench_kernels", *common, "--tiny", "--no-compile", "--rounds", 2) == 0
    assert len(table(tmp_path / "t.csv")[1]) == 24
