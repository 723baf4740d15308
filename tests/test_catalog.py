"""The table of models: names, switches, and what timm expects of every model."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay

import zoo.models.variants
import zoo.run
from zoo.attention import BAM, CBAM, Gate, SpatialGate, SqueezeExcite
from zoo.models.attentions import ATTENTIONS
from zoo.models.backbones import BACKBONES
from zoo.models.switches import attention_switches
from zoo.models.variants import VARIANTS
from zoo.weights.known import UnknownModelError, require_model

EVERY = [v.name for v in VARIANTS]
# One a family and attention; the rest of the contract is timm's suite (scripts/timm_suite.py).
SOME = [
    "se_resnet18",
    "bam_resnet50",
    "cbam_resnext50_32x4d",
    "wide_resnet18_2",
    "cbam_mobilenetv1_070",
    "bam_mobilenetv2_050",
    "cbam_mobilenetv3_small_100",
    "se_resnet20_cifar",
    "bam_resnet18_cifar",
    "cbam_mobilenetv2_100_cifar",
    "scse_resnet18",
    "ha_mobilenetv2_100",
    "hacnn",
]


def test_rows_are_literal_unique_and_documented() -> None:
    source = Path(zoo.models.variants.__file__).read_text()
    assert len(set(EVERY)) == len(EVERY)
    for variant in VARIANTS:
        assert f'"{variant.name}",' in source
        assert timm.model_entrypoint(variant.name).__doc__ == variant.doc
        assert timm.is_model(variant.name) and variant.doc.endswith(".")
        prefix = {"spatial": "cbam", None: ""}.get(variant.attention, variant.attention)
        assert variant.name == f"{prefix}_{variant.backbone}".lstrip("_")
    assert timm.list_models(module="catalog") == sorted(EVERY, key=timm.models._registry._natural_key)


def test_no_file_is_called_like_one_of_timms() -> None:
    theirs = {path.stem for path in Path(timm.models.__file__).parent.glob("*.py")} - {"__init__"}
    ours = {path.stem for path in Path(zoo.__file__).parent.rglob("*.py")}
    assert not ours & theirs


def test_import_is_fast_silent_and_light_and_takes_no_name_of_timms() -> None:
    code = """
import sys, time, timm
theirs, before, start = timm.list_models(), set(sys.modules), time.process_time()
import zoo
print(time.process_time() - start)
print(sorted(m for m in set(sys.modules) - before if not m.startswith("zoo")))
print(*theirs)
"""
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, modules, theirs = run.stdout.splitlines()
    assert modules == "[]" and run.stderr == ""
    assert not set(theirs.split()) & set(EVERY)
    assert float(seconds) < 0.3, f"import zoo took {seconds} s of a processor on top of timm"


@pytest.mark.parametrize("name", SOME)
def test_timm_features(name: str) -> None:
    channels, size, _ = timm.create_model(name).pretrained_cfg["input_size"]
    size = min(size, 64)
    x = torch.randn(2, channels, size, size)
    drop_path: dict[str, Any] = {} if name == "hacnn" else {"drop_path_rate": 0.1}
    model = timm.create_model(name, num_classes=7, drop_rate=0.1, **drop_path).eval()
    assert model(x).shape == (2, 7)

    for pool in ("avg", "max"):
        assert timm.create_model(name, num_classes=0, global_pool=pool)(x).shape == (2, model.head_hidden_size)
    assert timm.create_model(name, in_chans=1)(x[:, :1]).ndim == 2

    model.reset_classifier(3)
    plain = model(x)
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(x), plain)
    model.set_grad_checkpointing(False)

    last, maps = model.forward_intermediates(x)
    assert [m.shape[1] for m in maps] == [info["num_chs"] for info in model.feature_info]
    assert [m.shape[2] for m in maps] == [size // info["reduction"] for info in model.feature_info]
    torch.testing.assert_close(last, model.forward_features(x))

    backbone = timm.create_model(name, features_only=True, out_indices=(1, 2)).eval()
    assert [f.shape[1] for f in backbone(x)] == backbone.feature_info.channels()
    assert [f.shape[1] for f in backbone(x)] == [m.shape[1] for m in maps[1:3]]

    groups = param_groups_layer_decay(model, layer_decay=0.5)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    names = [name for name, _ in model.named_parameters()]
    for site in getattr(model, "gate_sites", ()):
        first = next(name for name, _ in model.named_parameters() if name.startswith(f"{site.gate}."))
        gate, beside = model.get_parameter(first), model.get_parameter(names[names.index(first) - 1])
        assert scales[id(gate)] in (scales[id(beside)], scales[id(beside)] / 2, scales[id(beside)] * 2)
    assert create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=1e-4)

    model.prune_intermediate_layers([1])
    assert model.forward_features(x).shape[1] == maps[1].shape[1]


@pytest.mark.parametrize("name", ["bam_mobilenetv2_050", "bam_mobilenetv3_small_100"])
def test_pruning_to_a_stage_that_bam_ends(name: str) -> None:
    model = timm.create_model(name)
    model.prune_intermediate_layers([2], extra_blocks=True)
    assert model(torch.randn(1, 3, 64, 64)).shape[1] == model.num_features


@pytest.mark.parametrize("neutral", [True, False])
@pytest.mark.parametrize("name", SOME)
def test_save_for_hf_round_trip(name: str, neutral: bool, tmp_path: Path) -> None:
    """timm's own way to save keeps the form of the gates, though it writes only the `attn_kwargs` that it was given."""
    if not neutral and not hasattr(timm.create_model(name), "gate_sites"):
        pytest.skip("it has no attention")
    switches: dict[str, Any] = {"reduction": 8} if name.startswith(("se_", "bam_")) else {}
    switches |= {} if neutral else {"neutral": False}
    model = timm.create_model(name, num_classes=5, attn_kwargs=switches or None).eval()
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    again: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model(x))
    assert attention_switches(again) == attention_switches(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_attn_kwargs_reach_every_gate() -> None:
    cbam = timm.create_model("cbam_resnet18", attn_kwargs={"reduction": 8, "kernel_size": 3, "arrangement": "channel"})
    assert all(m.fc1.out_features == m.fc1.in_features // 8 for m in cbam.modules() if hasattr(m, "fc1"))
    assert sum(isinstance(m, CBAM) for m in cbam.modules()) == 8
    assert not any(isinstance(m, SpatialGate) for m in cbam.modules())
    bam = timm.create_model("bam_resnet18", attn_kwargs={"dilation": 2, "fuse": "mul"})
    assert all(m.fusion == "mul" for m in bam.modules() if isinstance(m, BAM))
    v3 = timm.create_model("cbam_mobilenetv3_small_100", attn_kwargs={"kernel_size": 3})
    assert {m.conv.kernel_size for m in v3.modules() if isinstance(m, SpatialGate)} == {(3, 3)}


@pytest.mark.parametrize(
    ("name", "attn_kwargs", "says"),
    [
        ("se_resnet18", {"kernel_size": 3}, "unknown key 'kernel_size'; SqueezeExcite takes reduction=16, bias=True"),
        ("cbam_resnet18", {"reducton": 8}, "'reducton'; CBAM takes reduction=16, kernel_size=7, bias=True, norm=True"),
        ("bam_mul_resnet50", {"fuse": "add"}, "unknown key 'fuse'"),
        ("cbam_mobilenetv3_small_100", {"reduction": 8}, "SpatialGate takes kernel_size=7, norm=True"),
        ("cbam_resnet18", {"channels": 8}, "unknown key 'channels'"),
        ("cbam_resnet18", {"reduction": 0}, "reduction must be"),
        ("cbam_resnet18", {"kernel_size": 6}, "kernel_size must be an odd"),
        ("resnet20_cifar", {"reduction": 8}, "resnet20_cifar has no attention"),
        ("bam_resnet18", {"place": "between"}, "place must be one of before, after, not 'between'"),
        ("cbam_resnet18", {"place": "after"}, "unknown key 'place'"),
        ("cbam_resnet18", {"keep_depth": True}, "unknown key 'keep_depth'"),
        ("cbam_r3d_18", {"depth": 4}, "CBAM takes reduction=8, kernel_size=3, bias=True"),
    ],
)
def test_wrong_attn_kwargs(name: str, attn_kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        timm.create_model(name, attn_kwargs=attn_kwargs)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cbam_resnet5", "unknown model 'cbam_resnet5'; did you mean cbam_resnet50 or "),
        ("cbam_resnet5.digits", "unknown model 'cbam_resnet5.digits'; did you mean cbam_resnet50 or "),
        ("§", "unknown model '§'; give a name of `zoo list` or timm.list_models(), or a run"),
    ],
)
def test_an_unknown_model_gets_near_names_and_the_next_step(name: str, says: str) -> None:
    with pytest.raises(UnknownModelError, match=re.escape(says)):
        require_model(name, or_give="a run")
    assert require_model("resnet18.a1_in1k") == "resnet18.a1_in1k"


def test_attention_in_block_args_is_refused() -> None:
    with pytest.raises(ValueError, match="pass attn_kwargs"):
        timm.create_model("cbam_resnet18", block_args={"attn_layer": "se"})


def test_same_seed_same_backbone() -> None:
    torch.manual_seed(3)
    plain = timm.create_model("resnet18").state_dict()
    torch.manual_seed(3)
    attended = timm.create_model("cbam_resnet18").state_dict()
    assert all(torch.equal(attended[key], value) for key, value in plain.items())


@pytest.mark.parametrize(
    "name",
    [
        "cbam_resnet18",
        *(pytest.param(name, marks=pytest.mark.every) for name in ("bam_mobilenetv2_100", "se_mobilenetv1_100")),
    ],
)
def test_whole_network_exports_and_compiles(name: str) -> None:
    model, dim = timm.create_model(name).eval(), torch.export.Dim
    shapes = ({0: dim("b", min=1), 2: 32 * dim("h", min=2), 3: 32 * dim("w", min=2)},)
    exported = torch.export.export(model, (torch.randn(2, 3, 96, 96),), dynamic_shapes=shapes).module()
    x = torch.randn(3, 3, 64, 128)
    torch.testing.assert_close(exported(x), model(x))
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), model(x))


def test_bam_behind_the_strides() -> None:
    for name, first in (("bam_resnet18", "layer2.0.gate"), ("bam_mobilenetv2_050", "blocks.2.0.gate")):
        model = timm.create_model(name, attn_kwargs={"place": "after"}).eval()
        assert [site.gate for site in model.gate_sites][-3] == first
        assert isinstance(model.get_submodule(first), BAM)
        assert timm.create_model(name, attn_kwargs={"place": "after"}, features_only=True)(torch.randn(1, 3, 64, 64))
        _, maps = model.forward_intermediates(torch.randn(1, 3, 64, 64))
        assert [m.shape[1] for m in maps] == [info["num_chs"] for info in model.feature_info]


def test_every_backbone_and_attention_is_used() -> None:
    assert {v.backbone for v in VARIANTS} == set(BACKBONES)
    assert {v.attention for v in VARIANTS if v.attention} == set(ATTENTIONS)
    places = {attention.where for attention in ATTENTIONS.values()}
    for backbone in BACKBONES.values():
        assert set(backbone.placements) <= places | set(ATTENTIONS)
    assert issubclass(SqueezeExcite, Gate)


def test_run_registers_models_for_any_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'found'")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, timm, beside\nprint(timm.is_model('cbam_resnet50'), beside.WORD, sys.argv, __name__)"
    )
    command = [sys.executable, "-m", "zoo.run", str(script), "--lr", "0.1"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split("[")[0] == "True found " and "'--lr', '0.1'] __main__" in run.stdout
    monkeypatch.setattr(sys, "argv", ["zoo.run", "nowhere.py"])
    with pytest.raises(SystemExit) as ended:
        zoo.run.main()
    assert ended.value.code == 2 and "nowhere.py" in capsys.readouterr().err
