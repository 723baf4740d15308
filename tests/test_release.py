"""What a release says and leaves alone: the text of others, paths, secrets, front matter; an owner's own files."""

import json
import os
import re
import shutil
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from hub_server import Hub
from PIL import Image
from timm.models import save_for_hf

from zoo.cli import main
from zoo.release.benchmark import add_benchmark_result
from zoo.release.card import release_card
from zoo.release.facts import Facts
from zoo.release.front_matter import base_model
from zoo.release.markdown import code, plain
from zoo.release.public_paths import hide_paths, public, public_path, public_words
from zoo.release.publishable import RESULTS, StagingError, check_secrets
from zoo.release.run_card import run_card
from zoo.release.staging import own_config, stage

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
NAME = "cbam_resnet20_cifar"
REPO = f"me/{NAME}.photos"
RECIPE = {"model": NAME, "data": "photos", "seed": 0, "epochs": 2}
RESULT = {"top1": 87.5, "top5": 99.0, "n": 40, "split": "20 % of the images"}
Publish = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, as a training leaves it."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=3)
    about = {"label_names": ["a", "b", "c"], "zoo": {"recipe": RECIPE, "result": RESULT}}
    save_for_hf(model, folder, model_config=about, safe_serialization=True)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "work" / "model"))


@pytest.fixture
def publish(model: Path, capfd: pytest.CaptureFixture[str]) -> Publish:
    def run(*options: str) -> tuple[int, str]:
        capfd.readouterr()
        code = main(["publish", str(model), "--repo", REPO, *options])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out + err

    return run


def edit(model: Path, **changes: Any) -> dict[str, Any]:
    config = json.loads((model / "config.json").read_text()) | changes
    (model / "config.json").write_text(json.dumps(config))
    return config


def front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


# Text from others is data.

LABELS = [
    "\x1b[31mred\x1b[0m",
    "a | b",
    "two\nlines\n---\n# Title",
    "<script>alert(1)</script>",
    "[click](http://evil.example)",
    "`rm -rf` ``",
    "$$x$$",
    "",
    "x" * 500,
]


def test_names_of_classes_are_text_on_a_card(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    facts = config["zoo"]["result"] | {
        "split": "held | out\n---\n<img src=x> [a](http://evil.example)",
        "hardware": "*",
    }
    recipe = config["zoo"]["recipe"] | {"data": "photos`|<b>", "a```\n<script>": 1}
    config |= {"num_classes": len(LABELS), "label_names": LABELS}
    config["pretrained_cfg"]["num_classes"] = len(LABELS)
    config["zoo"] = {"recipe": recipe, "result": facts, "origin": "From www.evil.example by <i>me</i>"}
    card = release_card(Facts(f"{NAME}.photos", REPO, config, "0" * 64, 1, ("a](x).png", "my map.png")))
    text = re.sub(r"```.*?```|(`+) ?.+? ?\1(?!`)", "", card.split("---\n", 2)[2], flags=re.DOTALL)  # what is no code
    assert not re.search(r"<[a-z/]|\]\((?!a%5D|my%20map)|https?://(?!archive|image-net)|www\.", text), text
    assert "\x1b" not in card and "\n# Title" not in card and "x" * 101 not in card
    table = card.split("## Model")[1].split("## Licence")[0].strip().splitlines()
    assert {len(re.split(r"(?<!\\)\|", line)) for line in table} == {4}, "a bar is no border"
    assert front_matter(card)["model-index"][0]["results"][0]["dataset"]["split"].startswith("held | out ---")
    for shown in ("`red`", "`<script>alert(1)</script>`", "``` `rm -rf` `` ```", "(no name)"):
        assert shown in card, shown

    config["zoo"]["recipe"]["model"] = "<b>"
    card = run_card(config, 'model = "x"\n"""\n```\n<script>\n"""\n')
    assert "````toml\n" in card and "# &lt;" not in card and "# &#60;b&#62;, trained on" in card


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain_name", "plain_name"), ("_a_ *b*", "&#95;a&#95; &#42;b&#42;"), ("see https://x.org/a", "see x.org/a")],
)
def test_text_in_a_sentence(text: str, shown: str) -> None:
    assert plain(text) == shown and code(text) == f"`{text}`"


def test_figures_are_numbers(model: Path, tmp_path: Path) -> None:
    edit(model, zoo={"result": {"top1": "100 <b>"}})
    with pytest.raises(StagingError, match=r"config.json has the top1 '100 <b>' in zoo.result, which is no number"):
        stage(model, tmp_path / "staged", REPO)


# Paths and secrets.


@pytest.mark.parametrize(
    ("path", "public"),
    [
        ("/home/me/photos", "photos"),
        ("~/photos/", "photos"),
        ("/home/me/photos.csv#path,label", "photos.csv#path,label"),
        ("torch/cifar100@/home/me/data", "torch/cifar100@data"),
        ("torch/cifar100@/home/me@corp/data", "torch/cifar100@data"),
        ("wds//home/me/shards", "wds/shards"),
        ("C:\\Users\\me\\photos", "photos"),
        ("C:/Users/me/photos", "photos"),
        ("wds/C:/Users/me/shards", "wds/shards"),
        ("\\\\server\\share\\me\\photos", "photos"),
        ("//server/share/me/photos", "photos"),
        ("../../me/photos", "photos"),
        ("..\\me\\photos", "photos"),
        ("data/../../me/photos", "data/photos"),
        ("local-dir:C:/Users/me/run/model", "local-dir:model"),
        ("local-dir:/home/me/run/model", "local-dir:model"),
        ("file:///home/me/photos", "file:photos"),
        ("..", "folder"),
        ("~", "folder"),
        ("C:\\", "folder"),
        ("https://bucket.org/a.tar?X-Sig=abcdef", "https://bucket.org/a.tar?***"),
        ("hfds/uoft-cs/cifar100#fine_label", "hfds/uoft-cs/cifar100#fine_label"),
        ("hf-hub:me/m1@v2", "hf-hub:me/m1@v2"),
        ("photos/birds", "photos/birds"),
        ("", ""),
    ],
)
def test_no_folder_of_the_machine_is_published(path: str, public: str) -> None:
    assert public_path(path) == public


def test_no_path_reaches_a_card(model: Path, tmp_path: Path) -> None:
    """Wherever in a run it stands: the model, its options, words about the data, the tag that is made of the data."""
    recipe = RECIPE | {
        "model": "local-dir:/home/secret/run/model",
        "data": "C:\\Users\\secret\\photos",
        "model_kwargs": {"pretrained_cfg_overlay": {"file": "//server/secret/a.pth"}, "paths": ["../secret/b"]},
    }
    result = RESULT | {"split": "val of /home/secret/photos", "changes": ['Went on with data = "D:/secret/photos".']}
    facts = {"recipe": recipe, "result": result, "origin": "Converted from ~/secret/x.pth.", "other": "/home/secret"}
    edit(model, zoo=facts)
    staged = stage(model, tmp_path / "staged", "me/other")
    assert staged.name == f"{NAME}.photos"
    for path, file in staged.files.items():
        assert b"secret" not in file.read_bytes(), path


def test_words_and_recipes_without_paths(tmp_path: Path) -> None:
    assert public_words("and/or 3/4 of /home/me/a, C:/me/b; https://x.org/y") == "and/or 3/4 of a, b; https://x.org/y"
    assert public({"a": ["/x/y", 1], "b": {"c": "D:/x/y"}}) == {"a": ["y", 1], "b": {"c": "y"}}
    path = tmp_path / "recipe.toml"
    path.write_text("model = 'resnet18'\ndata = 'C:\\Users\\me\\photos'\nweights = \"/home/m\\u00fc/a.pth\"\n")
    hide_paths(path)
    assert tomllib.loads(path.read_text()) == {"model": "resnet18", "data": "photos", "weights": "a.pth"}
    path.write_text(clean := "# mine\nmodel = 'resnet18'\ndata = 'digits'\n")
    hide_paths(path)
    assert path.read_text() == clean, "what holds no path stays as it is"


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        ("AIza" + "Sy_-4" * 7, "a key of Google"),
        ("ya29." + "a" * 30, "a key of Google"),
        ("GOCSPX-" + "a" * 28, "a key of Google"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM", "a JSON web token"),
        ("postgres://me:hunter2@db.example/x", "a password in an address"),
        ("https://token:x-oauth@github.com/me", "a password in an address"),
        ("https://s3.org/x?a=1&X-Amz-Signature=0123456789abcdef", "a signed address"),
    ],
)
def test_secrets_that_are_found(tmp_path: Path, secret: str, what: str) -> None:
    (file := tmp_path / "README.md").write_text(f"# Mine\n\nsee `{secret}`\n")
    with pytest.raises(StagingError, match=f"README.md, line 3, holds what looks like {what}; remove it") as error:
        check_secrets(file)
    assert secret not in str(error.value)


def test_what_is_no_secret(tmp_path: Path) -> None:
    said = "https://huggingface.co/me/m:1@v2 eyJ0 AIza http://localhost:8080/a@b sha256 " + "0" * 64
    (file := tmp_path / "README.md").write_text(said)
    check_secrets(file)


# Cards as the Hub reads them.


@pytest.mark.parametrize(
    ("recipe", "base"),
    [
        ({"model": "cbam_resnet18.warm_a1_in1k", "pretrained": True}, "timm/resnet18.a1_in1k"),
        ({"model": "resnet18.a1_in1k", "pretrained": True}, "timm/resnet18.a1_in1k"),
        ({"model": "resnet18.a1_in1k", "pretrained": False}, ""),
        ({"model": "hf-hub:me/m1@v2", "pretrained": True}, "me/m1"),
        ({"model": "resnet18", "weights": "hf-hub:me/m1", "pretrained": False}, "me/m1"),
        ({"model": "resnet18.a1_in1k", "weights": "model.safetensors", "pretrained": True}, ""),
        ({"model": "local-dir:model", "pretrained": True}, ""),
        ({"model": NAME, "pretrained": False}, ""),
        ({}, ""),
    ],
)
def test_base_model(recipe: dict[str, Any], base: str) -> None:
    assert base_model(recipe) == base


@pytest.mark.parametrize(("recipe", "base"), [({"model": "hf-hub:me/m1", "pretrained": True}, "me/m1"), ({}, "")])
def test_the_card_names_the_base_model(recipe: dict[str, Any], base: str, saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    head = front_matter(release_card(Facts(NAME, REPO, config | {"zoo": {"recipe": recipe}}, "0" * 64, 1)))
    wanted = {"base_model": base, "base_model_relation": "finetune"} if base else {}
    assert {key: value for key, value in head.items() if key.startswith("base_model")} == wanted


EVAL = b"name: C\ntasks:\n- id: top1\n  split: test\n"


@pytest.mark.parametrize(
    ("tags", "text", "task"),
    [
        (["benchmark:official"], EVAL, "top1"),
        ([], EVAL, ""),
        (["benchmark:official"], EVAL + b"- id: another\n", ""),
        (["benchmark:official"], b"{", ""),
        (None, b"", ""),
    ],
)
def test_a_result_for_a_leaderboard(
    hub: Hub, model: Path, tmp_path: Path, tags: list[str] | None, text: bytes, task: str
) -> None:
    """Of data that the Hub calls a Benchmark, under the name of its one task; all else is in the card."""
    edit(model, zoo={"recipe": RECIPE | {"data": "hfds/uoft-cs/cifar100"}, "result": RESULT})
    if tags is not None:
        hub.datasets["uoft-cs/cifar100"] = (tags, text)
    staged = stage(model, tmp_path / "a", REPO)
    assert RESULTS not in staged.files
    add_benchmark_result(staged)
    assert (RESULTS in staged.files) == bool(task)
    if task:
        (entry,) = yaml.safe_load((staged.folder / RESULTS).read_text())
        assert entry["dataset"] == {"id": "uoft-cs/cifar100", "task_id": task} and entry["value"] == 87.5
    head = front_matter((staged.folder / "README.md").read_text())
    assert head["datasets"] == ["uoft-cs/cifar100"] and head["model-index"]


def test_newer_weights_are_named_by_the_card_of_the_older(hub: Hub, publish: Publish) -> None:
    assert "may not write to you" in publish("--replaces", "you/old")[1]
    assert "there is no such repository with a card" in publish("--replaces", "me/old")[1] and REPO not in hub.repos
    hub.create("me/old")
    hub.commit("me/old", README_md=b"---\nlicense: mit\n---\n# Old\n")
    code, says = publish("--replaces", "me/old")
    assert code == 0 and f"me/old names {REPO} as its new version" in says
    card = hub.repos["me/old"].head.files["README.md"].data.decode()
    assert front_matter(card) == {"license": "mit", "new_version": REPO} and card.endswith("# Old\n")
    assert "nothing to do" in publish("--replaces", "me/old")[1] and len(hub.repos["me/old"].commits) == 3


# What others have there, and what is left behind.


def test_what_the_owner_put_there_stays(hub: Hub, model: Path, publish: Publish) -> None:
    """A release removes what the one before it brought, and nothing else."""
    for name in ("map.png", "gates.png"):
        Image.new("RGB", (8, 8)).save(model / name)
    assert publish()[0] == 0
    hub.commit(REPO, **{"figures/arch_png": b"theirs", "onnx/model_onnx": b"x", "own_jpg": b"theirs", "LICENSE": b"x"})
    (model / "map.png").unlink()
    assert publish("--tag", "v2")[0] == 0
    left = set(hub.repos[REPO].head.files)
    assert left >= {"figures/arch.png", "onnx/model.onnx", "own.jpg", "LICENSE", "gates.png"} and "map.png" not in left
    assert "nothing to do" in publish("--tag", "v2")[1] and "nothing to do" in publish()[1]
    Image.new("RGB", (9, 9)).save(model / "own.jpg")
    code, says = publish()
    assert code == 2 and "has another own.jpg, which no release put there" in says
    assert hub.repos[REPO].head.files["own.jpg"].data == b"theirs"


def test_pictures_of_the_release_before_are_names_of_pictures(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert own_config(config, f"{NAME}.x", "", {}, ("a.png",))["zoo"]["pictures"] == ["a.png"]
    from zoo.release.repository import pictures_of

    assert pictures_of({"zoo": {"pictures": ["a.png", "LICENSE", "figures/b.png", 3]}}) == {"a.png"}
    assert not pictures_of({"zoo": {"pictures": "a.png"}}) and not pictures_of({"zoo": []})


def test_a_tag_named_like_a_branch(hub: Hub, publish: Publish) -> None:
    assert "--tag main is the name of a branch" in publish("--tag", "main")[1]
    assert "--tag next is the name of a branch" in publish("--tag", "next", "--revision", "next")[1] and not hub.log
    refs = hub.create(REPO).refs
    refs |= {"refs/heads/dev": refs["refs/heads/main"], "refs/tags/v1": refs["refs/heads/main"]}
    code, says = publish("--tag", "dev")
    assert code == 2 and "has a branch dev, which such a tag would hide" in says
    code, says = publish("--revision", "v1")
    assert code == 2 and "--revision v1 is a tag" in says and len(hub.repos[REPO].commits) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_an_interrupted_publisher_leaves_no_folder(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (work := tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(work))
    number = getattr(signal, name)
    before = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, before)  # under nohup it is ignored
    hub.fault("GET", "/cdn/", 200, then=lambda: os.kill(os.getpid(), number))
    try:
        code: Any = main(["publish", str(model), "--repo", REPO])
    except SystemExit as stop:
        code = stop.code
    assert code == 128 + number and not list(work.iterdir()) and signal.getsignal(number) is before


def test_a_dry_run_that_fails_leaves_what_was_there(model: Path) -> None:
    command = ["publish", str(model), "--repo", REPO, "--dry-run"]
    killed = model.with_name(".model.staged.a1b2.new")
    killed.mkdir()
    assert main(command) == 0 and not killed.exists()
    before = {path.name for path in model.parent.iterdir()}
    card = (model.with_name("model.staged") / "README.md").read_bytes()
    edit(model, architecture="cbam_resnet56_cifar")
    assert main(command) == 2 and {path.name for path in model.parent.iterdir()} == before
    assert (model.with_name("model.staged") / "README.md").read_bytes() == card
    assert main(["publish", str(model / "nowhere" / "it"), "--repo", REPO, "--dry-run"]) == 2
