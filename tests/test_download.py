"""Loading and verifying published weights: the manifest's names, the cache, and a Hub that fails."""

import hashlib
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
from conftest import STRANGER
from hub_server import File, Hub
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from test_publish import checkout
from timm.models import generate_default_cfgs

from zoo.cli import main
from zoo.models.backbones import BACKBONES
from zoo.models.catalog import pretrained_cfgs
from zoo.models.variants import VARIANTS
from zoo.release.manifest_row import config_of
from zoo.release.publish import publish, publish_all
from zoo.release.staging import stage
from zoo.release.target import Target
from zoo.weights.manifest import WEIGHTS, ManifestError, Weights, read_manifest, write_manifest

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
REPO = "me/cbam_resnet20_cifar.digits"
ROW = Weights(
    model="cbam_resnet20_cifar",
    tag="digits",
    sha256="0" * 64,
    bytes=1,
    config={"input_size": [3, 16, 16], "num_classes": 10, "mean": [0.5] * 3, "std": [0.5] * 3},
    attn_kwargs={"neutral": True},
    hub=REPO,
    commit="1" * 40,
)


@pytest.fixture
def published(hub: Hub, digits_run: Path) -> Hub:
    """A hub that holds the run; nothing of it is in the cache."""
    repo = hub.create(REPO)
    staged = stage(digits_run, Path(constants.HF_HUB_CACHE).parent / "staged", REPO)
    files = {path: file.read_bytes() for path, file in staged.files.items()}
    large = {path: File.large(data) if path.endswith(".safetensors") else File(data) for path, data in files.items()}
    hub.blobs |= {file.sha256: file.data for file in large.values() if file.sha256}
    repo.add("refs/heads/main", replace(repo.head, files=large, message="release"))
    return hub


@pytest.fixture
def verify(capfd: pytest.CaptureFixture[str]) -> Any:
    def run(source: str) -> tuple[int, str]:
        capfd.readouterr()
        code = main(["verify", source])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, (out + err).strip()

    return run


def cached() -> Path:
    return max(Path(constants.HF_HUB_CACHE).rglob("model.safetensors")).resolve()


def last(says: str) -> str:
    return says.splitlines()[-1]


# The manifest.


def test_the_manifest_that_is_shipped() -> None:
    """An ImageNet network of others takes at most 10 MB of the package, the zoo's own at most 5, all at most 20."""
    models = {variant.name for variant in VARIANTS}
    total = 0
    for row in read_manifest():
        assert row.upstream or row.model in models
        assert timm.is_model_pretrained(row.name), row.name
        path = row.path()
        if path:
            data = path.read_bytes()
            assert len(data) == row.bytes <= (10e6 if row.upstream else 5e6), row.name
            assert hashlib.sha256(data).hexdigest() == row.sha256, row.name
            total += len(data)
    assert total <= 20e6
    exist = {row.name for row in read_manifest()}
    exist |= {f"{v.name}.{BACKBONES[v.backbone].tag}" for v in VARIANTS if v.attention is None}  # published by others
    for name in timm.list_models(pretrained=True, module="catalog"):
        assert name in exist or ".warm_" in name, f"{name} is listed, but there are no such weights"


def test_the_manifest_refuses_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    write_manifest([ROW, replace(ROW, tag="another")], path)
    assert [row.tag for row in read_manifest(path)] == ["another", "digits"] and read_manifest(path)[1] == ROW
    text = path.read_text()
    for old, new, says in (
        ("1" * 40, "main", "is not pinned"),
        ('"bytes"', '"size"', "unknown key 'size'"),
        ('"bytes": 1,', "", "a row without 'bytes'"),
        ("num_classes", "classes", "does not say its num_classes"),
        ("another", "digits", "has cbam_resnet20_cifar.digits twice"),
        ('"neutral": true', '"reduction": 8', "does not say the form of its gates in attn_kwargs; write neutral: true"),
        ("true", '"yes"', "does not say the form of its gates"),
        ("0" * 64, "0", "sha256 '0'"),
        (REPO, "", "neither a file nor a Hub id"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(ManifestError, match=says):
            read_manifest(path)


@pytest.mark.parametrize(
    ("classes", "model", "default"),
    [
        (100, "cbam_resnet20_cifar", "digits"),
        (10, "cbam_resnet20_cifar", "untrained"),
        (1000, "cbam_resnet18", "digits"),
        (10, "cbam_resnet18", "warm_a1_in1k"),
    ],
)
def test_a_row_becomes_a_name(classes: int, model: str, default: str) -> None:
    """Weights for other classes than the network's own never change what the name without a tag builds."""
    row = replace(ROW, model=model, config={**ROW.config, "num_classes": classes}, license="mit")
    variant = next(variant for variant in VARIANTS if variant.name == model)
    cfgs = generate_default_cfgs(dict(pretrained_cfgs(variant, (row,))))[model]
    assert cfgs.tags[0] == default and cfgs.is_pretrained
    cfg = cfgs.cfgs["digits"]
    assert (cfg.hf_hub_id, cfg.hf_hub_filename) == (f"{REPO}@{'1' * 40}", "model.safetensors")
    assert cfg.license == "mit" and cfg.classifier == "fc" and cfg.first_conv == "conv1"
    assert cfg.test_input_size is None and cfg.paper_ids is None and cfg.origin_url is None, "timm's, not ours"
    with pytest.raises(ManifestError, match=rf"{model}.digits has gates, so its row needs attn_kwargs, with neutral"):
        pretrained_cfgs(variant, (replace(row, attn_kwargs={}),))


TAGS = '''
import sys, timm, torch, zoo
from safetensors.torch import load_file
from zoo.attention import CBAM
images, state = torch.randn(2, 3, 32, 32), load_file(sys.argv[1])

def switches(model_name, **options):
    """Form and kernel size of the gates, which are alike."""
    gates = [module for module in timm.create_model(model_name, **options).modules() if isinstance(module, CBAM)]
    (found,) = {(gate.neutral, gate.spatial.conv.kernel_size[0]) for gate in gates}
    return found

name = "cbam_resnet20_cifar"
usual, other = f"{name}.usual", f"{name}.other"
assert switches(name) == (True, 7), "without weights the model's own form"
# Both tags, with and without their weights; `usual` is what the name alone means.
for options in ({}, {"pretrained": True}):
    assert switches(usual, **options) == (False, 7) and switches(other, **options) == (False, 3)
assert switches(name, pretrained=True) == (False, 7)
published = timm.create_model(name, attn_kwargs={"neutral": False}).eval()
published.load_state_dict(state)
assert torch.equal(timm.create_model(name, pretrained=True).eval()(images), published(images))
# A script of timm hands the tag's pretrained_cfg on.
assert switches(**timm.models.resolve_model_input_args(other), pretrained=True) == (False, 3)
# The user's own switches come first, each for itself.
assert switches(other, attn_kwargs={"neutral": True}) == (True, 3)
assert switches(other, pretrained=True, attn_kwargs={"neutral": True}) == (True, 3)
# Facts of an overlay leave the weights what they are; other weights are not the row's.
assert switches(usual, pretrained=True, pretrained_cfg_overlay={"crop_pct": 1.0}) == (False, 7)
for overlay in ({"file": sys.argv[1]}, {"state_dict": state}):
    try:
        switches(usual, pretrained=True, pretrained_cfg_overlay=overlay)
        raise SystemExit("weights were loaded in a form that nobody said")
    except ValueError as error:
        assert "nobody says in which form" in str(error), error
    overlay = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    assert switches(usual, attn_kwargs={"neutral": True}, **overlay) == (True, 7)
# What is saved of such a model says it too.
timm.models.save_for_hf(timm.create_model(other, pretrained=True), sys.argv[2], safe_serialization=True)
assert switches(f"local-dir:{sys.argv[2]}", pretrained=True) == (False, 3)
'''


@pytest.mark.every
def test_a_tag_brings_the_switches_of_its_weights(tmp_path: Path) -> None:
    package = checkout(tmp_path / "checkout")
    weights, rows = package / "zoo" / "weights", []
    # Weights for the network's own classes are what its name alone means.
    for tag, classes, switches in (("usual", 100, {}), ("other", 10, {"kernel_size": 3})):
        switches |= {"neutral": False}
        file = weights / f"{tag}.safetensors"
        save_file(timm.create_model(ROW.model, num_classes=classes, attn_kwargs=switches).state_dict(), file)
        config = {**ROW.config, "input_size": [3, 32, 32], "num_classes": classes}
        row = replace(ROW, tag=tag, config=config, attn_kwargs=switches, file=f"weights/{file.name}", hub="", commit="")
        rows.append(row)
    write_manifest(rows, weights / "weights.json")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home"), "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    mine = shutil.copy(weights / "usual.safetensors", tmp_path / "mine.safetensors")
    command = [sys.executable, "-c", TAGS, str(mine), str(tmp_path / "saved")]
    done = subprocess.run(command, env=env, cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


OFFLINE = """
import socket, sys, timm, torch, zoo
from zoo.cli import main
def refuse(*arguments): raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
name = "cbam_resnet20_cifar.digits"
assert timm.list_pretrained("*_cifar*") == [name]
assert main(["predict", name, sys.argv[1], "--top-k", "1"]) == 0
assert main(["verify", name]) == 0
model = timm.create_model(name, pretrained=True, num_classes=4)
"""


def test_weights_inside_the_package(digits_run: Path, tmp_path: Path, published: Hub) -> None:
    """A row with a file: `zoo predict` by name on a fresh machine without a network, then `zoo publish --all`."""
    package = checkout(tmp_path / "checkout")
    staged = stage(digits_run, tmp_path / "out", "org/cbam_resnet20_cifar.digits")
    (package / "zoo" / "weights").mkdir(exist_ok=True)
    shutil.copyfile(staged.folder / "model.safetensors", package / "zoo" / "weights" / "digits.safetensors")
    cfg = {key: value for key, value in staged.config["pretrained_cfg"].items() if key not in ("tag", "custom_load")}
    row = replace(
        ROW,
        file="weights/digits.safetensors",
        hub="",
        commit="",
        sha256=staged.sha256,
        bytes=staged.size,
        config={**cfg, "label_names": staged.config["label_names"]},
        attn_kwargs=staged.config["model_args"]["attn_kwargs"],
        recipe=staged.config["zoo"]["recipe"],
        result=staged.config["zoo"]["result"],
    )
    write_manifest([row], package / "zoo" / "weights" / "weights.json")
    Image.new("RGB", (16, 16)).save(tmp_path / "image.png")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home"), "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", OFFLINE, str(tmp_path / "image.png")]
    done = subprocess.run(command, env=env, cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "image.png: " in done.stdout and "compared with the weights manifest" in done.stdout

    manifest = package / "zoo" / "weights" / "weights.json"
    (release,) = publish_all("org", Target(repo="org/any"), manifest=manifest)
    assert release.changed and not publish_all("org", Target(repo="org/any"), manifest=manifest)
    (after,) = read_manifest(manifest)
    assert replace(after, hub="", commit="") == row and after.commit in published.repos[after.hub].commits
    there = published.repos[after.hub].head.files
    assert there["model.safetensors"].sha256 == row.sha256, "the very bytes that are in the package"
    assert there["README.md"].data == (staged.folder / "README.md").read_bytes()
    assert config_of(row)["label_names"] == staged.config["label_names"]


def test_the_shelf_is_ready_to_be_published(hub: Hub, tmp_path: Path) -> None:
    """Every row of the package that is ours is released with its very bytes; others' weights are left to them."""
    manifest = shutil.copytree(WEIGHTS.parent, tmp_path / "weights") / WEIGHTS.name
    ours = {f"org/{row.name}": row for row in read_manifest() if row.file and not row.hub and not row.upstream}
    said: list[str] = []
    releases = publish_all("org", Target(repo="org/any"), say=said.append, manifest=manifest)
    assert len(releases) == len(ours) == len(hub.repos) > 0
    for name, row in ours.items():
        files = hub.repos[name].head.files
        card = files["README.md"].data.decode()
        assert files["model.safetensors"].sha256 == row.sha256 and f"{row.result['top1']:.2f}" in card
        assert row.model not in BACKBONES or "what the attention adds" not in card
    plain = "tf_efficientnet_lite0.in1k"
    assert f"{plain}: others have published it, as timm/{plain}" in said


# A hub that gives no weights, and what is said then.


def test_good_weights(published: Hub, verify: Any, digits_run: Path) -> None:
    code, says = verify(REPO)
    assert code == 0 and "good" in says and "compared with the Hub" in says
    code, says = verify(str(digits_run))
    assert code == 0 and "compared with nothing: it was not published yet" in says
    published.log.clear()
    assert verify(f"hf-hub:{REPO}@main")[0] == 0 and not published.count("cdn"), "what is good is not downloaded again"


@pytest.mark.parametrize("spoil", [lambda d: d[: len(d) // 2], lambda d: d[:-9] + b"\0\1" + d[-7:], lambda d: b""])
def test_a_damaged_file_is_found_named_and_healed(published: Hub, verify: Any, spoil: Any) -> None:
    assert verify(REPO)[0] == 0
    good = cached().read_bytes()
    cached().write_bytes(spoil(good))
    code, says = verify(REPO)
    assert code == 0 and "is damaged" in says and "model.safetensors" in says and "healed" in says
    assert cached().read_bytes() == good
    # Without the Hub the file is named and left as it is.
    cached().write_bytes(spoil(good))
    published.fault("HEAD", "/resolve/", 503, times=1000)
    code, says = verify(REPO)
    assert code == 2 and "is damaged" in says and "the Hub answers 503" in last(says)
    published.faults.clear()
    for oid in published.blobs:
        published.blobs[oid] = spoil(good) + b" " * (len(good) - len(spoil(good)))
    code, says = verify(REPO)
    assert code == 2 and "is not what it should be, also when downloaded anew" in last(says)


def test_a_damaged_card_or_folder(verify: Any, digits_run: Path, tmp_path: Path) -> None:
    staged = stage(digits_run, tmp_path / "staged", REPO)
    assert "compared with its card" in verify(str(staged.folder))[1]
    weights = staged.folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    assert "is not what its card describes" in verify(str(staged.folder))[1]
    weights.write_bytes(data[:-9])
    code, says = verify(str(staged.folder))
    assert code == 2 and "is no whole safetensors file" in says


def test_a_download_that_breaks(published: Hub, verify: Any) -> None:
    published.fault("GET", "/cdn/", 200, after=200_000, times=2)
    assert verify(REPO)[0] == 0
    shutil.rmtree(constants.HF_HUB_CACHE)
    published.fault("GET", "/cdn/", 503)
    assert verify(REPO)[0] == 0, "the client does not try that again, the zoo does"
    shutil.rmtree(constants.HF_HUB_CACHE)
    published.fault("GET", "/cdn/", 200, after=200_000, times=1000)
    code, says = verify(REPO)
    assert code == 2 and "the connection to the Hub broke" in last(says)


def predict(repo: str, tmp_path: Path) -> int:
    Image.new("RGB", (16, 16)).save(tmp_path / "image.png")
    return main(["predict", f"hf-hub:{repo}", str(tmp_path / "image.png")])


CASES = {
    "there is no such repository, or it is private": lambda hub: hub.repos.pop(REPO),
    "or it is private; check the name": lambda hub: setattr(hub.repos[REPO], "private", True),
    "the repository is gated; ask for access": lambda hub: setattr(hub.repos[REPO], "gated", True),
    "the Hub limits requests; wait 99 seconds": lambda hub: hub.fault(
        "HEAD", "", 429, times=99, headers={"Retry-After": "99"}
    ),
    "the Hub answers 503": lambda hub: hub.fault("HEAD", "", 503, times=99),
    "the Hub does not know the token": lambda hub: hub.tokens.clear(),
}


@pytest.mark.parametrize("says", CASES, ids=[says.replace(" ", "-") for says in CASES])
@pytest.mark.parametrize("token", ["", STRANGER], ids=["anonymous", "stranger"])
def test_no_weights(
    published: Hub,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    says: str,
    token: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    CASES[says](published)
    code = predict(REPO, tmp_path)
    if "know the token" in says and not token:
        assert code == 0, "nobody asked for a token"
        return
    error = last(capfd.readouterr().err)
    assert code == 2 and error.startswith(f"zoo: cannot load hf-hub:{REPO}: ") and says in error
    assert not published.count("pytorch_model")


def test_a_slow_hub(
    published: Hub, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.05)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", 0.05)
    published.fault("HEAD", "", 200, times=1000, then=lambda: threading.Event().wait(0.2))
    assert predict(REPO, tmp_path) == 2
    assert f"{published.url} is too slow to answer" in last(capfd.readouterr().err)


def test_a_network_that_swallows_requests(
    published: Hub, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("zoo.weights.download.SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        before = time.monotonic()
        assert predict(REPO, tmp_path) == 2
        assert time.monotonic() - before < 1.0, "what does not answer is not asked again"
    (line,) = capfd.readouterr().err.splitlines()
    assert "is too slow to answer" in line and "Without a network, `zoo finetune --weights FILE`" in line


def test_no_hub(
    published: Hub, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert predict(REPO, tmp_path) == 2
        assert "HF_HUB_OFFLINE is set" in capfd.readouterr().err
    assert predict(REPO, tmp_path) == 0
    with monkeypatch.context() as patch, socket.socket() as closed:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert predict(REPO, tmp_path) == 0, "the cache is enough"
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        patch.setattr(constants, "ENDPOINT", url)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        assert predict(REPO, tmp_path) == 0, "the cache is enough"
        shutil.rmtree(constants.HF_HUB_CACHE)
        capfd.readouterr()
        assert predict(REPO, tmp_path) == 2
        assert f"{url} cannot be reached; check the network and HF_ENDPOINT" in last(capfd.readouterr().err)


def test_a_repository_that_is_none_of_timms(published: Hub, verify: Any) -> None:
    published.commit(REPO, config_json=b'{"architecture": "bert", "pretrained_cfg": {}, "num_classes": 2}')
    code, says = verify(REPO)
    assert code == 2 and "names the model 'bert', which neither timm nor the zoo has" in last(says)
    published.create("me/empty")
    assert "me/empty has no config.json" in verify("me/empty")[1]


def test_a_pinned_commit_stays(hub: Hub, digits_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    release = publish(digits_run, Target(repo=REPO))
    hub.commit(REPO, config_json=b"{}")
    assert predict(f"{REPO}@{release.commit}", tmp_path) == 0
    assert predict(f"{REPO}@nowhere", tmp_path) == 2
    assert "the repository has no such revision" in last(capfd.readouterr().err)


def test_names_without_weights(verify: Any) -> None:
    assert "unknown model 'nonsense'" in verify("nonsense")[1]
    assert "resnet110_cifar has no weights" in verify("resnet110_cifar")[1]
