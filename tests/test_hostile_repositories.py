"""Repositories that mean harm, or are something else: each refused in a sentence, before memory is asked for, unpickled
never; and text from others stays text, on a terminal as on a card."""

import json
import logging
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_server import File, Hub
from huggingface_hub import constants
from PIL import Image
from timm.models import save_for_hf

from zoo.cli import main
from zoo.training.recipe import Recipe
from zoo.training.starting_model import create_model
from zoo.weights.hub_requests import HubError

REPO = "me/m1"
Ask = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a small model of three classes, as timm saves it."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    model = timm.create_model("cbam_resnet20_cifar", num_classes=3)
    save_for_hf(model, folder, model_config={"label_names": ["a", "b", "c"]}, safe_serialization=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def put(hub: Hub, saved: dict[str, bytes]) -> Callable[..., str]:
    """Commit the model, with other files or other words in config.json, and return the commit."""

    def commit(files: dict[str, bytes | None] | None = None, **changes: Any) -> str:
        repo = hub.repos.get(REPO) or hub.create(REPO)
        config = json.loads(saved["config.json"])
        config["pretrained_cfg"] |= changes.pop("pretrained_cfg", {})
        config = {key: value for key, value in {**config, **changes}.items() if value is not None}
        wanted = {**saved, "config.json": json.dumps(config).encode(), **(files or {})}
        large = ("model.safetensors", "pytorch_model.bin")
        made = {p: File.large(d) if p in large else File(d) for p, d in wanted.items() if d is not None}
        hub.blobs |= {file.sha256: file.data for file in made.values() if file.sha256}
        return repo.add("refs/heads/main", replace(repo.head, files=made, parent=repo.head.sha))

    return commit


@pytest.fixture
def ask(hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Ask:
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")

    def run(verb: str = "predict", source: str = f"hf-hub:{REPO}", *words: str) -> tuple[int, str]:
        capfd.readouterr()
        images = [str(tmp_path / "image.png")] if verb == "predict" else []
        code = main([verb, source, *images, *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out + err

    return run


def transformers(**more: Any) -> bytes:
    return json.dumps({"architectures": ["BertForSequenceClassification"], "model_type": "bert", **more}).encode()


CONFIGS: dict[str, Any] = {
    "holds a network of transformers (BertForSequenceClassification), not one of timm": {"": transformers()},
    "holds a network of diffusers (UNet2DModel)": {"": b'{"_class_name": "UNet2DModel", "_diffusers_version": "1"}'},
    "holds a network of open_clip": {"": b'{"model_cfg": {"embed_dim": 512}, "preprocess_cfg": {}}'},
    "is no JSON": {"": b"<html>404</html>"},
    "is not what timm writes: it is nested too deeply": {"": b"[" * 100_000},
    "names no architecture": {"": b'{"pretrained_cfg": {}}'},
    "names no architecture ": {"": b"[1]"},
    "names the model 'no\\x1b[31mne', which neither timm nor the zoo has": {"architecture": "no\x1b[31mne"},
    "names 2 classes of 3": {"label_names": ["a", "b"]},
    "has label_names that are no list of texts": {"label_names": {"x": ["a"]}},
    "has label_names that are no list of texts ": {"label_names": "abc"},
    "an input of 3 x 100000 x 100000": {"pretrained_cfg": {"input_size": [3, 100_000, 100_000]}},
    "an input of 3 x 0 x 32": {"pretrained_cfg": {"input_size": [3, 0, 32]}},
    "has the input_size 'big'": {"pretrained_cfg": {"input_size": "big"}},
    "an input of 3 x 32 x 32 cut out of one 1000000 times as large": {"pretrained_cfg": {"crop_pct": 1e-6}},
    "has the crop_pct 'all'": {"pretrained_cfg": {"crop_pct": "all"}},
    "has the std [0, 0, 0]": {"pretrained_cfg": {"std": [0, 0, 0]}},
    "has the mean [0.5, 0.5]": {"pretrained_cfg": {"mean": [0.5, 0.5]}},
    "has the interpolation 'spline'": {"pretrained_cfg": {"interpolation": "spline"}},
    "has the num_classes -1": {"num_classes": -1, "label_names": None},
    "has 1000000000 classes, and model.safetensors has 3": {
        "num_classes": 10**9,
        "pretrained_cfg": {"num_classes": 10**9},
        "label_names": None,
    },
    "has 3 and 5 classes": {"pretrained_cfg": {"num_classes": 5}},
    "has 461.1 million values, and model.safetensors has 0.3 million": {
        "architecture": "cbam_resnet20_cifar",
        "model_args": {"num_classes": 3, "in_chans": 3_200_000},
    },
    "does not load: ": {"model_args": {"pretrained_cfg_overlay": {"file": "/etc/passwd"}}},
    "does not load:  ": {"model_args": {"checkpoint_path": "/etc/passwd"}},
    "does not load:   ": {"pretrained_cfg": {"exec": "rm"}},
    "has model_args that are no table": {"model_args": ["a"]},
}


@pytest.mark.parametrize("says", CONFIGS, ids=[says.strip().replace(" ", "-")[:60] for says in CONFIGS])
def test_a_config_that_is_refused(put: Any, ask: Ask, hub: Hub, says: str) -> None:
    changes = dict(CONFIGS[says])
    whole = changes.pop("", None)
    put({"config.json": whole} if whole else {}, **changes)
    code, said = ask()
    line = said.splitlines()[-1]
    assert code == 2 and line.startswith("zoo: ") and says.strip() in line and "\x1b" not in said, said
    assert REPO in line and len(line) < 400


def test_a_pickle_is_never_asked_for(put: Any, ask: Ask, hub: Hub, saved: dict[str, bytes]) -> None:
    weights = saved["model.safetensors"]
    put({"model.safetensors": None, "pytorch_model.bin": weights})
    says = f"hf-hub:{REPO} has no model.safetensors; its pytorch_model.bin may run code when it is read"
    assert says in ask()[1] and says.removeprefix("hf-hub:") in ask("verify", REPO)[1]
    with pytest.raises(ValueError, match=re.escape(says)):
        timm.create_model(f"hf-hub:{REPO}", pretrained=True)
    for model, place in (("resnet20_cifar", f"hf-hub:{REPO}"), (f"hf-hub:{REPO}", "")):
        with pytest.raises(ValueError, match=re.escape(says)):
            create_model(Recipe(model=model, data="digits", weights=place, pretrained=not place), ("a", "b", "c"))
    # A config that names the file to load, and asks to load it in a way of its own.
    wanted = {"hf_hub_filename": "pytorch_model.bin", "custom_load": "hf", "url": f"{hub.url}/evil.pth"}
    put({"pytorch_model.bin": b"PK evil"}, pretrained_cfg=wanted)
    assert ask()[0] == 0
    assert timm.create_model(f"hf-hub:{REPO}", pretrained=True).num_classes == 3
    assert not hub.count("pytorch_model|evil")


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[:-9],
    "empty": lambda data: b"",
    "a web page": lambda data: b"<!doctype html><title>404</title>",
    "a header of 2 ** 60 bytes": lambda data: struct.pack("<Q", 2**60) + data[8:],
}


@pytest.mark.parametrize("spoil", DAMAGED.values(), ids=DAMAGED)
def test_advice_that_heals(put: Any, ask: Ask, hub: Hub, spoil: Callable[[bytes], bytes]) -> None:
    """The id that was given is the id in the advice, and the advice helps."""
    hub_id = f"{REPO}@v2"
    put()
    hub.repos[REPO].refs["refs/tags/v2"] = hub.repos[REPO].refs["refs/heads/main"]
    assert ask("predict", f"hf-hub:{hub_id}")[0] == 0
    file = max(Path(constants.HF_HUB_CACHE).rglob("model.safetensors")).resolve()
    good = file.read_bytes()
    file.write_bytes(spoil(good))
    says = rf"the weights of hf-hub:{hub_id} are damaged \(.*\); `zoo verify {hub_id}` replaces them"
    code, said = ask("predict", f"hf-hub:{hub_id}")
    assert code == 2 and re.search(says, said), said
    with pytest.raises(HubError, match=says):
        timm.create_model(f"hf-hub:{hub_id}", pretrained=True)
    assert ask("verify", hub_id)[0] == 0 and file.read_bytes() == good
    assert ask("predict", f"hf-hub:{hub_id}")[0] == 0


def test_a_damaged_run_is_told_what_it_is(ask: Ask, saved: dict[str, bytes], tmp_path: Path) -> None:
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    for name, data in saved.items():
        (model / name).write_bytes(data[: len(data) // 2] if name.endswith("safetensors") else data)
    code, said = ask("predict", str(model.parent))
    assert (
        code == 2 and f"the weights of local-dir:{model} are damaged (" in said and "copy or train them again" in said
    )
    with pytest.raises(HubError, match=f"of local-dir:{model} are damaged .*copy or train them again"):
        timm.create_model(f"local-dir:{model}", pretrained=True)
    (model / "model.safetensors").unlink()
    assert f"local-dir:{model} has no weights: there is no model.safetensors" in ask("predict", str(model.parent))[1]


@pytest.mark.parametrize("name", [f"hf-hub:{REPO}", "resnet18.a1_in1k", "cbam_resnet18.warm_a1_in1k"])
def test_without_a_network_it_ends_at_once(
    ask: Ask, hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, tmp_path: Path
) -> None:
    """52 seconds of retries, and five lines of log, before."""
    for key in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(constants, key, getattr(constants, key).replace(str(hub.port), "1"))
    capfd.readouterr()
    assert main(["predict", name, str(tmp_path / "image.png")]) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith(f"zoo: cannot load {name}: http://127.0.0.1:1 cannot be reached; check the network")
    assert "Without a network, `zoo finetune --weights FILE` takes a file" in line
    with pytest.raises(HubError, match=f"cannot load {name}: .* cannot be reached"):
        create_model(Recipe(model=name, data="digits", pretrained=True), ("a", "b", "c"))
    assert not hub.waits


def test_signed_addresses_are_nowhere(
    put: Any, ask: Ask, hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put()
    hub.fault("GET", "/cdn/", 503, times=1000)
    code, said = ask()
    assert code == 2 and "sig=" not in said
    hub.faults.clear()
    hub.fault("GET", "/cdn/", 200, after=10, times=1000)
    code, said = ask()
    assert code == 2 and "sig=" not in said + caplog.text and "/cdn/" in caplog.text, "the client's own log"
    log = logging.getLogger("huggingface_hub.utils._http")
    log.warning("'%s' thrown while requesting PUT %s", "Bearer abc", "https://me:pw@s3.org/x?X-Amz-Signature=f00&b=1")
    assert "'Bearer" not in caplog.text and "https://***@s3.org/x?***" in caplog.text


def test_text_from_others_is_text_on_a_terminal(put: Any, ask: Ask) -> None:
    names = ["\x1b[2J\x1b]0;title\x07cat", "a\nzoo: all is well\u202e", "\x9b31mdog"]
    put(label_names=names)
    code, said = ask()
    assert code == 0 and said.count("\n") == 1
    assert ": a zoo: all is well 37.0 %, dog 36.0 %, cat 27.1 %" in said and not re.search(
        "[\x00-\x09\x0b-\x1f\x80-\x9f\u202e]|2J|title|31m", said
    )
    code, said = ask("predict", f"hf-hub:{REPO}", "--json")
    assert {name for name, _ in json.loads(said)["classes"]} == set(names) and "\x9b" not in said


def test_names_of_folders_are_text_too(ask: Ask, tmp_path: Path) -> None:
    for name in ("\x1b[2Jcat", "dog"):
        (folder := tmp_path / "data" / name).mkdir(parents=True)
        for k in range(3):
            Image.new("RGB", (32, 32), (k, 0, 0)).save(folder / f"{k}.png")
    said = ask("check-data", str(tmp_path / "data"))[1]
    assert "cat" in said and "\x1b" not in said and "2J" not in said
