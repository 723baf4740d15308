"""Any network of timm with attention in it, by name: built, saved, trained, published, and back, bit for bit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_server import Hub
from safetensors.torch import save_file
from test_warm_start import randomise
from timm.models import save_for_hf
from torch import nn

import zoo
from zoo.cli import main
from zoo.models.switches import attention_switches
from zoo.release.comparison import compare
from zoo.release.publishable import StagingError
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.starting_model import create_model
from zoo.weights.known import UnknownModelError, require_model

ROOT = Path(zoo.__file__).parents[1]
CHOSEN: dict[str, Any] = {"backbone": "test_convnext", "attention": "cbam", "where": "stages"}
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A plain network that the catalogue lacks, and the file of its weights."""
    network = randomise(timm.create_model("test_convnext")).eval()
    save_file(network.state_dict(), file := tmp_path_factory.mktemp("weights") / "plain.safetensors")
    return network, file


@pytest.fixture(scope="module")
def tuned(plain: tuple[nn.Module, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It fine-tuned with attention from the command line, on a tenth of the digits."""
    run = tmp_path_factory.mktemp("runs") / "tuned"
    sets = [f"--set={each}" for each in ("image_size=32", "val_fraction=0.9", "device=cpu", "head_epochs=0")]
    words = ["finetune", "test_convnext", "digits", "--attention", "cbam", "--where", "stages.[13]"]
    assert main([*words, "--weights", str(plain[1]), "--epochs", "1", *sets, "--out", str(run)]) == 0
    return run


def model(**more: Any) -> Any:
    return timm.create_model("with_attention", **{**CHOSEN, **more}).eval()


def test_plain_weights_start_it_exactly(plain: tuple[nn.Module, Path]) -> None:
    network, file = plain
    x = torch.randn(2, 3, 64, 64)
    expected = network(x)
    for started in (
        model(pretrained=True, pretrained_cfg_overlay={"file": str(file)}),
        model(pretrained=True, pretrained_cfg={"file": str(file)}),
        zoo.warm_start(model(), file).eval(),
        zoo.attach(timm.create_model("test_convnext", checkpoint_path=str(file)), "cbam").eval(),
    ):
        assert torch.equal(started(x), expected)
        assert len(started.gate_sites) == 4
    other = model(pretrained=True, pretrained_cfg_overlay={"file": str(file)}, num_classes=5)
    assert other(x).shape == (2, 5) and torch.equal(other.forward_features(x), network.forward_features(x))
    assert other.get_classifier().weight.std() < 0.02, "the new head is not quiet"
    random = model()
    assert not torch.equal(random.get_submodule(random.gate_sites[0].gate).channel.fc2.weight.std(), torch.zeros(()))


@pytest.mark.parametrize("neutral", [True, False])
def test_what_timm_saves_comes_back(neutral: bool, tmp_path: Path) -> None:
    built = model(num_classes=5, where=["stages.1", "stages.3"], attn_kwargs={"reduction": 8, "neutral": neutral})
    save_for_hf(built, str(tmp_path), safe_serialization=True)
    arguments = json.loads((tmp_path / "config.json").read_text())["model_args"]
    assert arguments["backbone"] == "test_convnext" and arguments["where"] == ["stages.1", "stages.3"]
    again: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again(x), built(x))
    assert attention_switches(again) == {"reduction": 8, "neutral": neutral}
    maps = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True).eval()(x)
    assert all(map(torch.equal, maps, built.forward_intermediates(x, intermediates_only=True)))
    with torch.device("meta"):
        assert next(timm.create_model(f"local-dir:{tmp_path}").parameters()).is_meta


def test_what_was_attached_by_hand_is_saved_as_such(tmp_path: Path) -> None:
    network: Any = timm.create_model("test_resnet", num_classes=3).eval()
    before = network.pretrained_cfg | {}
    zoo.attach(network, "se", lambda name, module: name in ("layer1", "layer3"), reduction=4)
    nn.init.normal_(network.layer1[1].fc2.weight)
    save_for_hf(network, str(tmp_path), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again(x), network(x))
    network.layer1[1].make_constant()
    assert zoo.detach(network).pretrained_cfg["architecture"] == before["architecture"]


@pytest.mark.parametrize(("name", "where"), [("test_resnet", "blocks"), ("test_convnext", "blocks")])
def test_gates_that_stay_are_saved_where_they_are(name: str, where: str, tmp_path: Path) -> None:
    network: Any = zoo.attach(timm.create_model(name, num_classes=3), "se", where).eval()
    stays = network.gate_sites[1]
    nn.init.normal_(network.get_submodule(stays.gate).fc2.weight)
    zoo.detach(network)
    save_for_hf(network, str(tmp_path), safe_serialization=True)
    again: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again(x), network(x)) and again.gate_sites == network.gate_sites == (stays,)


def test_attention_in_a_network_that_has_learnt_its_own(tmp_path: Path) -> None:
    """SE of the package stays as it is."""
    name, x = "se_resnet20_cifar.cifar100", torch.randn(2, 3, 32, 32)
    plain: Any = timm.create_model(name, pretrained=True).eval()
    network: Any = timm.create_model("with_attention", backbone=name, attention="bam", pretrained=True).eval()
    assert torch.equal(network(x), plain(x))
    nn.init.normal_(network.get_submodule(network.gate_sites[-1].gate).channel.fc2.weight)
    save_for_hf(network, str(tmp_path / "saved"), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    assert torch.equal(again(x), network(x)) and not torch.equal(again(x), plain(x))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"backbone": ""}, "with_attention needs backbone=: timm.create_model"),
        ({"attention": ""}, "with_attention needs attention=: timm.create_model"),
        ({"backbone": "hf-hub:org/name"}, "'hf-hub:org/name' is a place, and a name is what is saved"),
        ({"backbone": "with_attention"}, "is no network by itself"),
        ({"backbone": "test_convnxt"}, "unknown model 'test_convnxt'; did you mean test_convnext"),
        ({"attention": "simam"}, "simam has no parameters"),
        ({"where": print}, "a function cannot be saved"),
        ({"attn_kwargs": {"reducton": 8}}, "unknown key 'reducton'"),
        ({"pretrained": True, "attn_kwargs": {"neutral": False}}, "gates in the published form would change"),
    ],
)
def test_what_is_refused(given: dict[str, Any], says: str, plain: tuple[nn.Module, Path]) -> None:
    overlay = {"pretrained_cfg_overlay": {"file": str(plain[1])}} if "pretrained" in given else {}
    with pytest.raises(ValueError, match=says):
        model(**given, **overlay)


def test_a_name_that_the_catalogue_could_have() -> None:
    with pytest.raises(UnknownModelError) as error:
        require_model("cbam_efficientnet_b0")
    for words in (
        '"with_attention", backbone="efficientnet_b0", attention="cbam"',
        "zoo finetune efficientnet_b0 DATA",
    ):
        assert words in str(error.value)
    with pytest.raises(UnknownModelError, match='backbone="efficientnet_b0", attention="bam_mul"'):
        require_model("bam_mul_efficientnet_b0")
    for name in ("wide_efficientnet_b0", "cbam_efficientnet_b99"):
        with pytest.raises(UnknownModelError, match="did you mean"):
            require_model(name)


def test_a_recipe_says_attention_and_where(plain: tuple[nn.Module, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="where 'blocks' says where attention goes; say which"):
        Recipe(model="resnet18", data="digits", where="blocks")
    with pytest.raises(RecipeError, match="where must be a text in quotes, or several in brackets, not 3"):
        Recipe(model="resnet18", data="digits", attention="se", where=3)  # pyright: ignore[reportArgumentType]
    save_for_hf(plain[0], str(tmp_path), safe_serialization=True)
    for place in ("test_convnext", f"local-dir:{tmp_path}"):
        weights = str(plain[1]) if place == "test_convnext" else ""
        started = create_model(
            Recipe(model=place, data="", weights=weights, pretrained=not weights, attention="se", where=("stages.3",)),
            [str(i) for i in range(7)],
        ).eval()
        x = torch.randn(1, 3, 64, 64)
        assert [site.gate for site in started.gate_sites] == ["stages.3.attached"]
        assert torch.equal(started.forward_features(x), plain[0].forward_features(x))
    with pytest.raises(RecipeError, match=r"where='stages\.9' fits no module"):
        create_model(Recipe(model="test_convnext", data="", attention="se", where="stages.9"), ["0"])


def test_tuned_published_and_loaded_in_a_fresh_process(tuned: Path, hub: Hub, tmp_path: Path) -> None:
    folder = tuned / "model"
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "with_attention" and config["model_args"]["where"] == "stages.[13]"
    trained: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    gate = trained.get_submodule(trained.gate_sites[0].gate)
    assert gate.channel.fc2.weight.abs().max() > 0, "the gates did not learn"
    assert main(["publish", str(tuned), "--repo", "me/convnext-cbam"]) == 0
    x = torch.randn(2, 3, 32, 32)
    save_file({"x": x}, tmp_path / "x.safetensors")
    code = """
import sys, timm, zoo
from safetensors.torch import load_file, save_file
model = timm.create_model("hf-hub:me/convnext-cbam", pretrained=True).eval()
save_file({"y": model(load_file(sys.argv[1])["x"])}, sys.argv[2])
"""
    files = [str(tmp_path / "x.safetensors"), str(tmp_path / "y.safetensors")]
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "HF_TOKEN": ""}
    subprocess.run([sys.executable, "-c", code, *files], check=True, env=environment, capture_output=True)
    from safetensors.torch import load_file

    assert torch.equal(load_file(files[1])["y"], trained(x))


def test_its_card(tuned: Path, tmp_path: Path) -> None:
    assert main(["publish", str(tuned), "--repo", "me/convnext-cbam", "--dry-run"]) == 0
    card = (tuned.with_name("tuned.staged") / "README.md").read_text()
    assert "timm's `test_convnext` with attention `cbam` put into it (`where='stages.[13]'`)" in card
    assert "Woo et al. 2018" in card and "arXiv:2201.03545" in card and "\n- cbam\n" in card


def test_its_baseline_is_the_plain_network(tuned: Path, digits_run: Path) -> None:
    config = json.loads((tuned / "model" / "config.json").read_text())
    with pytest.raises(StagingError, match="it must be test_convnext without its attention"):
        compare(tuned, config, [], [digits_run])
