"""Publishing, with the real client over HTTP: the round trip, and every failure that the Hub and its users know."""

import csv
import hashlib
import html
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from conftest import READER, STRANGER, WRITER
from hub_server import Account, Hub, serve
from huggingface_hub import constants
from PIL import Image
from safetensors import safe_open
from timm.models import save_for_hf

import zoo
from zoo.cli import main
from zoo.models.attentions import ATTENTIONS
from zoo.models.backbones import BACKBONES
from zoo.models.variants import VARIANTS
from zoo.release.card import release_card
from zoo.release.facts import Facts
from zoo.release.manifest_row import check_row, config_of
from zoo.release.publish import publish
from zoo.release.publishable import StagingError
from zoo.release.run_card import run_card, write_run_card
from zoo.release.staging import stage
from zoo.release.target import PublishError, Target
from zoo.report.page import write_report
from zoo.weights.manifest import read_manifest, write_manifest
from zoo.weights.probe import probe

ROOT = Path(zoo.__file__).parents[1]
REPO = "me/cbam_resnet20_cifar.digits"
Cli = Callable[..., tuple[int, str]]
# The client sends its own uploads in a way that its HTTP library finds old.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def run(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may spoil."""
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


@pytest.fixture
def cli(run: Path, capfd: pytest.CaptureFixture[str]) -> Cli:
    def publish(*options: str, repo: str = REPO) -> tuple[int, str]:
        capfd.readouterr()
        code = main(["publish", str(run), "--repo", repo, *options])
        out, err = capfd.readouterr()
        assert not any(token in out + err for token in (WRITER, READER, STRANGER)), "the token was printed"
        assert "Traceback" not in err
        return code, out + err

    return publish


# The round trip, in processes of their own, with the package copied so that its manifest can be written.


def checkout(folder: Path) -> Path:
    shutil.copytree(ROOT / "zoo", folder / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def environment(hub: Hub, package: Path, home: Path, **extra: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHONPATH"))}
    client = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)}
    return {**kept, **client, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", **extra}


LOAD = """
import json, pathlib, sys, timm, torch, zoo
from huggingface_hub import constants
from zoo.release.card import release_card
from zoo.release.facts import Facts
from zoo.models.variants import VARIANTS
from zoo.cli import main
from zoo.weights.probe import probe
name, by_xet = "cbam_resnet20_cifar.digits", "cbam_resnet20_cifar.digits_by_xet"
home, logits = pathlib.Path(sys.argv[1]), sys.argv[2]
assert [n for n in timm.list_pretrained("*_cifar*") if not n.endswith(".cifar100")] == [name, by_xet]
constants.HF_HUB_OFFLINE = True
try:
    timm.create_model(name, pretrained=True)
    raise SystemExit("weights that are not there were loaded")
except zoo.weights.hub_requests.HubError as error:
    assert str(error).startswith(f"cannot load {name}: HF_HUB_OFFLINE is set"), error
constants.HF_HUB_OFFLINE = False
torch.save([probe(timm.create_model(n, pretrained=True)) for n in (name, by_xet)], logits)
other = timm.create_model(name, pretrained=True, num_classes=3)
assert other.fc.weight.shape[0] == 3 and timm.create_model("cbam_resnet20_cifar").num_classes == 100
assert main(["verify", name]) == 0 == main(["verify", by_xet])
for n in (name, by_xet):
    (file,) = home.glob(f"hub/models--me--{n}/snapshots/*/model.safetensors")
    file = file.resolve()
    good = file.read_bytes()
    file.write_bytes(good[:5000])
    try:
        timm.create_model(n, pretrained=True)
        raise SystemExit("a truncated file was loaded")
    except zoo.weights.hub_requests.HubError as error:
        print(error, file=sys.stderr)
    assert main(["verify", n]) == 0 and file.read_bytes() == good
    file.write_bytes(good[:-100] + bytes([good[-100] ^ 1]) + good[-99:])
    constants.HF_HUB_OFFLINE = True
    assert main(["verify", n]) == 2
    constants.HF_HUB_OFFLINE = False
    assert main(["verify", n]) == 0 and file.read_bytes() == good
constants.HF_HUB_OFFLINE = True
timm.create_model(name, pretrained=True), timm.create_model(by_xet, pretrained=True)
"""


def test_round_trip(digits_run: Path, tmp_path: Path) -> None:
    """Publish by LFS and by Xet with `--register`, then load by name in a fresh process: the same logits to the bit."""
    (store := tmp_path / "store").mkdir()
    package = checkout(tmp_path / "checkout")
    with serve(store) as hub:
        hub.tokens[WRITER] = Account("me")
        for name, disable in ((REPO, "1"), (f"{REPO}_by_xet", "0")):
            hub.log.clear()
            command = [sys.executable, "-m", "zoo", "publish", digits_run, "--repo", name, "--tag", "v1", "--register"]
            env = environment(hub, package, tmp_path / "home", HF_TOKEN=WRITER, HF_HUB_DISABLE_XET=disable)
            done = subprocess.run(command, env=env, cwd=package, capture_output=True, text=True)
            assert done.returncode == 0 and WRITER not in done.stdout + done.stderr, done.stderr
            assert "model.safetensors" in done.stderr, "a bar must show the upload"
            assert hub.count("^PUT") == int(disable) and hub.count("xet-write-token") == 1 - int(disable)
            repo = hub.repos[name]
            assert len(repo.commits) == 2 and repo.refs["refs/tags/v1"] == repo.refs["refs/heads/main"]
            rows = json.loads((package / "zoo" / "weights" / "weights.json").read_text())
            (row,) = (row for row in rows if row.get("hub") == name)
            assert row["attn_kwargs"] == {"neutral": True}, "the form that the run trained"
            assert (row["hub"], row["commit"]) == (name, repo.refs["refs/tags/v1"])
            assert row["sha256"] == repo.head.files["model.safetensors"].sha256
        assert len(hub.xet_hashes) == 1

        home = tmp_path / "fresh"
        command = [sys.executable, "-c", LOAD, home, tmp_path / "logits"]
        done = subprocess.run(command, env=environment(hub, package, home), cwd=package, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert hub.count("pytorch_model") == 0 and hub.count("xet-read-token") and not hub.authorized_cdn
    assert "are damaged" in done.stderr and "`zoo verify cbam_resnet20_cifar.digits` replaces" in done.stderr
    assert done.stderr.count("is damaged (") == 6 and done.stderr.count("HF_HUB_OFFLINE is set") == 2
    assert done.stdout.count(": good,") == 2 and done.stdout.count(": healed,") == 4
    ours = probe(timm.create_model(f"local-dir:{digits_run / 'model'}", pretrained=True))
    for theirs in torch.load(tmp_path / "logits", weights_only=True):
        assert torch.equal(theirs, ours)


def test_a_rerun_changes_nothing(hub: Hub, cli: Cli) -> None:
    assert cli("--tag", "v1")[0] == 0
    commits = dict(hub.repos[REPO].commits)
    hub.log.clear()
    code, says = cli("--tag", "v1")
    assert code == 0 and "nothing to do, it is all there" in says
    assert hub.repos[REPO].commits == commits and not hub.count("^(POST|PUT)")
    # A later change of main leaves the release where its tag is.
    hub.commit(REPO, LICENSE=b"words")
    assert "nothing to do" in cli("--tag", "v1")[1]


def test_a_branch_and_a_message(hub: Hub, cli: Cli) -> None:
    assert cli("--revision", "next", "--private", "--message", "a try")[0] == 0
    repo = hub.repos[REPO]
    assert repo.private and repo.commits[repo.refs["refs/heads/next"]].message == "a try"
    assert list(repo.head.files) == [".gitattributes"]


def test_a_proposal_to_somebody_else(hub: Hub, cli: Cli) -> None:
    hub.create("you/cbam_resnet20_cifar.digits")
    code, says = cli(repo="you/cbam_resnet20_cifar.digits")
    assert code == 2 and "me may not write to you" in says and "--create-pr" in says
    for expected in ("published", "nothing to do"):
        code, says = cli("--create-pr", repo="you/cbam_resnet20_cifar.digits")
        assert code == 0 and expected in says and "/discussions/1" in says
    repo = hub.repos["you/cbam_resnet20_cifar.digits"]
    assert sum(ref.startswith("refs/pr/") for ref in repo.refs) == 1 and len(repo.head.files) == 1
    assert "does not exist" in cli("--create-pr", repo="you/other")[1]


# What may fail, and that nothing is half-published and nothing lost.


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("", "nobody is logged in; run `hf auth login`"),
        ("hf_" + "x" * 34, "the Hub does not know the token; log in again"),
        ("hf_two words", "HF_TOKEN holds spaces or characters that no token has"),
        (READER, "the token can only read; make one with write access"),
        (STRANGER, "you may not write to me; namespaces of this token: you"),
    ],
)
def test_tokens(hub: Hub, cli: Cli, monkeypatch: pytest.MonkeyPatch, token: str, says: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    code, said = cli()
    assert (code == 2 and says in said and token[3:] not in said.replace("x" * 34, "")) or not token
    assert code == 2 and says in said
    assert not hub.repos and not hub.count("^POST")


def test_a_network_that_swallows_requests(hub: Hub, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.release.repository.SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        before = time.monotonic()
        code, says = cli()
    assert code == 2 and "is too slow to answer" in says and time.monotonic() - before < 5.0


def test_a_token_that_may_not_create(hub: Hub, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fine-grained token tells the Hub alone what it may do."""
    hub.tokens[READER].role = "fineGrained"
    monkeypatch.setenv("HF_TOKEN", READER)
    code, says = cli()
    assert code == 2 and "the token may not do that; use one with write access" in says and not hub.repos


def test_names(hub: Hub, cli: Cli) -> None:
    assert "--repo takes ORG/NAME" in cli(repo="name")[1]
    assert "--repo me/a--b" in cli(repo="me/a--b")[1]
    assert "--tag 'v 1' is no name" in cli("--tag", "v 1")[1]
    assert "--create-pr proposes" in cli("--create-pr", "--tag", "v1")[1]
    assert not hub.log


def test_a_name_that_is_taken(hub: Hub, cli: Cli) -> None:
    hub.create(REPO)
    hub.commit(REPO, config_json=b'{"architecture": "resnet18"}')
    assert "is taken: it holds resnet18, not cbam_resnet20_cifar" in cli()[1]
    hub.commit(REPO, pytorch_model_bin=b"x")
    code, says = cli()
    assert code == 2 and "which no release of the zoo has" in says and len(hub.repos[REPO].commits) == 3
    hub.create("me/public")
    assert "is public already" in cli("--private", repo="me/public")[1]


def test_a_tag_that_is_taken(hub: Hub, cli: Cli) -> None:
    refs = hub.create(REPO).refs
    refs["refs/tags/v1"] = refs["refs/heads/main"]
    code, says = cli("--tag", "v1")
    assert code == 2 and "has the tag v1 already" in says and len(hub.repos[REPO].commits) == 1


def test_a_tag_made_by_somebody_else_meanwhile(hub: Hub, cli: Cli) -> None:
    repo = hub.create(REPO)
    first = repo.refs["refs/heads/main"]
    hub.fault("POST", "/tag/", 200, then=lambda: repo.refs.update({"refs/tags/v1": first}))
    code, says = cli("--tag", "v1")
    assert code == 2 and f"the tag v1 of {REPO} is at {first[:7]}, not at" in says


def test_two_publishers_at_the_same_moment(hub: Hub, cli: Cli) -> None:
    hub.create(REPO)
    hub.fault("POST", "/commit/", 200, then=lambda: hub.commit(REPO, "theirs", README_md=b"theirs"))
    code, says = cli("--tag", "v1")
    assert code == 2 and "somebody else published" in says and "nothing of this release is there" in says
    assert hub.repos[REPO].head.message == "theirs" and "refs/tags/v1" not in hub.repos[REPO].refs
    assert cli("--tag", "v1")[0] == 0, "the second try builds on theirs"
    assert hub.repos[REPO].head.parent is not None and len(hub.repos[REPO].commits) == 3


STEPS = [
    ("GET", "/whoami"),
    ("GET", "/api/models/.*/revision"),
    ("POST", "/repos/create"),
    ("POST", "/validate-yaml"),
    ("POST", "/preupload/"),
    ("POST", "/objects/batch"),
    ("PUT", "/lfs/"),
    ("POST", "/commit/"),
    ("GET", "/cdn/"),
    ("POST", "/tag/"),
    ("GET", "/refs"),
]


@pytest.mark.parametrize(("method", "path"), STEPS, ids=[path for _, path in STEPS])
def test_a_step_that_fails_a_little_and_one_that_fails_for_long(hub: Hub, cli: Cli, method: str, path: str) -> None:
    hub.fault(method, path, 503, times=1000)
    code, says = cli("--tag", "v1")
    assert code == 2 and "zoo: cannot " in says.splitlines()[-1] and "503" in says
    assert not any(ref.startswith("refs/tags/") for repo in hub.repos.values() for ref in repo.refs)
    hub.faults.clear()
    hub.waits.clear()
    hub.fault(method, path, 500)
    hub.fault(method, path, 429, headers={"Retry-After": "7"})
    code, says = cli("--tag", "v1")
    assert code == 0, says
    assert len(hub.repos[REPO].commits) == 2 and "refs/tags/v1" in hub.repos[REPO].refs
    assert max(hub.waits) >= 7 or path == "/repos/create", "Retry-After is waited for"


def test_a_hub_that_asks_for_a_long_wait(hub: Hub, cli: Cli) -> None:
    hub.fault("GET", "/whoami", 429, headers={"Retry-After": "3600"})
    code, says = cli()
    assert code == 2 and "the Hub limits requests; wait 3600 seconds" in says and not hub.waits


def test_a_commit_whose_answer_is_lost(hub: Hub, cli: Cli) -> None:
    hub.fault("POST", "/commit/", 500, does_it=True)
    code, says = cli("--tag", "v1")
    assert code == 0, says
    assert len(hub.repos[REPO].commits) == 2, "it was not made twice"


def test_an_upload_that_is_cut(hub: Hub, cli: Cli) -> None:
    hub.fault("PUT", "/lfs/", after=1000, times=2)
    assert cli()[0] == 0, "the client goes on by itself"
    hub.create("me/again")
    hub.blobs.clear()
    hub.fault("PUT", "/lfs/", after=1000, times=1000)
    code, says = cli(repo="me/again")
    assert code == 2 and "the connection to the Hub broke" in says and len(hub.repos["me/again"].commits) == 1
    hub.faults.clear()
    hub.fault("POST", "/commit/", 500, times=1000)
    assert cli(repo="me/again")[0] == 2 and hub.blobs
    hub.faults.clear()
    hub.log.clear()
    assert cli(repo="me/again")[0] == 0 and not hub.count("^PUT"), "what was uploaded is not uploaded again"


def test_a_download_that_is_cut(hub: Hub, cli: Cli) -> None:
    hub.fault("GET", "/cdn/", 200, after=100_000, times=2)
    assert cli("--tag", "v1")[0] == 0
    hub.fault("GET", "/cdn/", 200, after=100_000, times=1000)
    code, says = cli("--tag", "v1")
    assert code == 2 and "the connection to the Hub broke" in says


def test_bytes_that_come_back_changed(hub: Hub, cli: Cli) -> None:
    def flip() -> None:
        for oid, data in hub.blobs.items():
            hub.blobs[oid] = data[:-9] + bytes([data[-9] ^ 4]) + data[-8:]

    hub.fault("GET", "/cdn/", 200, then=flip)
    code, says = cli("--tag", "v1")
    assert code == 2 and "came back with other bytes than were sent; it was not tagged" in says
    assert "refs/tags/v1" not in hub.repos[REPO].refs
    flip()
    assert cli("--tag", "v1")[0] == 0 and len(hub.repos[REPO].commits) == 2


def test_a_hub_that_is_down(hub: Hub, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        code, says = cli()
    assert code == 2 and "cannot be reached; check the network and HF_ENDPOINT" in says
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in cli()[1]


# What is published.


def _link(folder: Path) -> None:
    (folder / "notes.png").symlink_to("/etc/hostname")


SPOILED = {
    "holds what looks like a token of the Hugging Face Hub": lambda m: (m / "README.md").write_text(f"x\n{STRANGER}"),
    "holds what looks like your own token": lambda m: (m / "README.md").write_text("key: " + "w" * 8),
    "holds what looks like a private key": lambda m: (m / "README.md").write_text("-----BEGIN RSA PRIVATE KEY-----"),
    "holds what looks like a key of AWS": lambda m: (m / "README.md").write_text("AKIA" + "Z" * 16),
    "optimizer.pt is or may hold a pickle": lambda m: torch.save({}, m / "optimizer.pt"),
    "README.md is or may hold a pickle": lambda m: torch.save({}, m / "README.md"),
    "is a symbolic link": _link,
    "is a folder": lambda m: (m / "more").mkdir(),
    ".env is not published": lambda m: (m / ".env").write_text("A=1"),
    "is no png picture": lambda m: (m / "map.png").write_text("no"),
    "has no model.safetensors": lambda m: (m / "model.safetensors").unlink(),
    "is no whole safetensors file": lambda m: (m / "model.safetensors").write_bytes(b"\x10" + bytes(20)),
    "is not what timm writes": lambda m: (m / "config.json").write_text("{}"),
    "names the model 'nonsense'": lambda m: _edit(m, architecture="nonsense"),
    "the model does not load": lambda m: _edit(m, architecture="cbam_resnet56_cifar"),
}


def _edit(model: Path, **changes: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("says", SPOILED, ids=[says.replace(" ", "-") for says in SPOILED])
def test_what_is_not_published(hub: Hub, run: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    if "your own" in says:
        monkeypatch.setenv("HF_TOKEN", "w" * 8)
    SPOILED[says](run / "model")
    code, said = cli()
    assert code == 2 and says in said and not hub.log
    assert STRANGER not in said


def test_undefined_weights(hub: Hub, run: Path, cli: Cli) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(run / "model" / "model.safetensors")
    weights["fc.bias"][0] = float("nan")
    save_file(weights, run / "model" / "model.safetensors")
    assert "infinite or undefined values in fc.bias" in cli()[1] and not hub.log


def test_dry_run_asks_no_network(
    hub: Hub, run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    Image.new("RGB", (8, 8)).save(run / "model" / "attention_map.png")
    _edit(run / "model", secret="of the machine")
    config = json.loads((run / "model" / "config.json").read_text())
    recipe = config["zoo"]["recipe"] | {"data": "/home/me/photos"}
    _edit(run / "model", zoo=config["zoo"] | {"recipe": recipe})
    text = (run / "recipe.toml").read_text().replace('"digits"', '"/home/me/photos"')
    (run / "recipe.toml").write_text(text)
    digests = []
    for _ in range(2):
        assert main(["publish", str(run), "--repo", REPO, "--dry-run", "--license", "mit"]) == 0
        staged = run.with_name("run.staged")
        files = {path.name: path.read_bytes() for path in sorted(staged.iterdir())}
        digests.append({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    assert digests[0] == digests[1], "the same bytes each time, or a rerun would be a new release"
    assert not hub.log and "would go to me/cbam" in capfd.readouterr().out
    allowed = {"README.md", "config.json", "model.safetensors", "recipe.toml", "metrics.csv", "attention_map.png"}
    assert set(files) == allowed
    assert not any(b"/home/me" in data or b"of the machine" in data for data in files.values())
    assert b"![attention map](attention_map.png)" in files["README.md"]
    with safe_open(staged / "model.safetensors", "pt") as file:
        header = file.metadata()
    assert (
        header.items()
        >= {
            "format": "pt",
            "architecture": "cbam_resnet20_cifar",
            "tag": "digits",
            "license": "mit",
        }.items()
    )


def test_nothing_of_timms_provenance(tmp_path: Path) -> None:
    """timm writes the tag, licence, address and papers of the weights it started from into what it saves."""
    model: Any = timm.create_model("resnet18.a1_in1k", num_classes=3)
    save_for_hf(model, tmp_path / "model", safe_serialization=True)
    before = (tmp_path / "model" / "config.json").read_text()
    assert "a1_in1k" in before and "2110.00476" in before
    staged = stage(tmp_path / "model", tmp_path / "staged", "me/mine")
    text = (staged.folder / "config.json").read_text()
    assert not re.search("a1_in1k|2110.00476|origin_url|paper|apache|timm/", text)
    assert staged.config["pretrained_cfg"]["num_classes"] == 3 and "tag" in staged.config["pretrained_cfg"]


def test_the_card_and_the_report_of_a_run(run: Path) -> None:
    """What `zoo train` adds to a run: from its files alone, and the same when it is done again."""
    for path in (run / "model" / "README.md", run / "report.html"):
        path.unlink(missing_ok=True)
    recipe = (run / "recipe.toml").read_text()
    result = json.loads((run / "model" / "config.json").read_text())["zoo"]["result"]
    card, report = write_run_card(run).read_text(), write_report(run).read_text()
    assert front_matter(card)["pipeline_tag"] == "image-classification"
    assert "# cbam_resnet20_cifar, trained on digits\n" in card and f"```toml\n{recipe}```" in card
    assert f"Top-1 {result['top1']:.2f} % on held-out images (n = 359: {result['split']}), last epoch" in card
    assert "10 classes: `0`, `1`, `2`, `3`, `4`, `5`, `6`, `7`, `8`, `9`.\n" in card
    with (run / "metrics.csv").open(newline="") as file:
        (epoch,) = csv.DictReader(file)
    assert "".join(f"<td>{float(value):.4g}</td>" for value in epoch.values()) in report
    assert f"{result['top1']:.2f} %" in report and html.escape(recipe) in report and "<script" not in report
    assert (write_run_card(run).read_text(), write_report(run).read_text()) == (card, report)
    main(["publish", str(run), "--repo", REPO, "--dry-run"])
    assert (run.with_name("run.staged") / "README.md").read_text() != card, "a release has a card of its own"


def test_the_card_of_a_run_on_volumes() -> None:
    name = "cbam_resnet18_volume"
    cfg = timm.get_pretrained_cfg(name)
    assert cfg
    config = {
        "architecture": name,
        "num_classes": 2,
        "label_names": ["a", "b"],
        "model_args": {"depth": 8},
        "pretrained_cfg": cfg.to_dict(),
        "zoo": {
            "recipe": {"model": name, "data": "scans.npz", "seed": 3},
            "result": {"top1": 50, "n": 4, "split": "test"},
        },
    }
    card = run_card(config, 'model = "x"\n')
    assert "pipeline_tag" not in front_matter(card) and "volume-classification" in front_matter(card)["tags"]
    assert "Top-1 50.00 % on held-out volumes (n = 4: test), last epoch, one seed (3).\n2 classes: `a`, `b`." in card


def front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---")[1])


def test_the_card_says_what_was_measured(run: Path, tmp_path: Path) -> None:
    staged = stage(run, tmp_path / "a", REPO, license="mit")
    card = (staged.folder / "README.md").read_text()
    result = staged.config["zoo"]["result"]
    head = front_matter(card)
    assert head["library_name"] == "timm" and head["license"] == "mit" and "cbam" in head["tags"]
    (index,) = head["model-index"]
    metrics = {m["name"]: m["value"] for m in index["results"][0]["metrics"]}
    assert metrics["top-1 accuracy, percent"] == round(result["top1"], 4)
    for words in (
        f"| this file | {result['top1']:.2f} |",
        "One seed (0)",
        "The plain network was not trained",
        "0.276 M",
        "CBAM, convolutional block attention: Woo et al. 2018, arXiv 1807.06521",
        "Weights: mit",
        "CC BY 4.0",
        staged.sha256,
        'model = "cbam_resnet20_cifar"',
        "hflip = 0.0",
    ):
        assert words in card, words
    assert "weight_decay" not in card, "recipe.toml has what is as usual"
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0]
    assert code.index("zoo") < code.index("create_model")
    (local := tmp_path / "image.jpg").write_bytes(b"")
    Image.new("RGB", (20, 20)).save(local)
    names: dict[str, Any] = {}
    exec(code.replace(f"hf-hub:{REPO}", f"local-dir:{staged.folder}").replace("image.jpg", str(local)), names)
    assert names["embedding"].shape == (1, 64) and len(names["maps"]) == 4

    _edit(run / "model", zoo={"recipe": json.loads((run / "model" / "config.json").read_text())["zoo"]["recipe"]})
    card = (stage(run, tmp_path / "b", REPO).folder / "README.md").read_text()
    assert "Not measured by this project." in card and "%" not in card and "model-index" not in front_matter(card)
    assert "Weights: not stated by the publisher" in card


def test_the_card_of_a_network_that_had_a_teacher(run: Path, tmp_path: Path) -> None:
    facts = json.loads((run / "model" / "config.json").read_text())["zoo"]
    _edit(run / "model", zoo=facts | {"recipe": facts["recipe"] | {"teacher": "/home/me/resnet56_cifar.digits"}})
    card = (stage(run, tmp_path / "a", REPO).folder / "README.md").read_text()
    assert "10 classes. Trained on `digits`, with `resnet56_cifar.digits` as its teacher.\n" in card


ONE_OF_EACH = {(variant.attention, BACKBONES[variant.backbone].dims): variant.name for variant in VARIANTS}
WITHOUT_ATTENTION = [variant.name for variant in VARIANTS if not variant.attention]


@pytest.mark.parametrize("name", sorted({*ONE_OF_EACH.values(), *WITHOUT_ATTENTION}))
def test_every_attention_has_a_card_with_its_paper(name: str) -> None:
    config = {"architecture": name, "num_classes": 7, "pretrained_cfg": timm.get_pretrained_cfg(name).to_dict()}
    card = release_card(Facts(f"{name}.photos", f"me/{name}.photos", config, "0" * 64, 1))
    variant = next(variant for variant in VARIANTS if variant.name == name)
    cited = card.split("## Citation")[1].count("\n- ") - 1  # the last line is the zoo itself
    if variant.attention:
        assert re.search(r"\w+( et al\.|, \w+)+ \d{4}, (arXiv \d{4}\.\d{5}|ICML)\n", card), ATTENTIONS[
            variant.attention
        ].gate.paper
    assert cited >= (2 if variant.attention and variant.backbone != "hacnn" else 1), card.split("## Citation")[1]


def test_seeds_and_the_plain_baseline(run: Path, tmp_path: Path) -> None:
    def another(name: str, top1: float, architecture: str = "cbam_resnet20_cifar", **recipe: Any) -> Path:
        copy = Path(shutil.copytree(run, tmp_path / name))
        facts = json.loads((copy / "model" / "config.json").read_text())["zoo"]
        zoo = {"recipe": facts["recipe"] | {"model": architecture} | recipe, "result": facts["result"] | {"top1": top1}}
        _edit(copy / "model", architecture=architecture, zoo=zoo)
        return copy

    seeds = [another("s1", 90.0, seed=1), another("s2", 92.0, seed=2)]
    plain = [another("p0", 80.0, "resnet20_cifar"), another("p1", 84.0, "resnet20_cifar", seed=1)]
    _edit(run / "model", zoo=(facts := json.loads((run / "model" / "config.json").read_text())["zoo"]))
    facts["result"]["top1"] = 91.0
    _edit(run / "model", zoo=facts)
    card = (stage(run, tmp_path / "a", REPO, seeds=seeds, baseline=plain).folder / "README.md").read_text()
    assert "| same recipe, mean ± sd of seeds | 91.00 ± 1.00 |  | 3 |" in card
    assert "| `resnet20_cifar`, without attention, same recipe | 82.00 ± 2.83 |  | 2 |" in card
    assert "Difference of the means to the plain network: +9.00 points." in card
    alike = [another("a0", 90.0, "resnet20_cifar"), another("a1", 91.5, "resnet20_cifar", seed=1)]
    card = (stage(run, tmp_path / "b", REPO, seeds=seeds, baseline=alike).folder / "README.md").read_text()
    assert "+0.25 points, less than one standard deviation between seeds: no difference was shown." in card
    n = facts["result"]["n"]
    measured = {"top1": 90.5, "n": n, "data": "digits"}  # again, of the same images, as after rounding
    card = (stage(run, tmp_path / "c", REPO, seeds=seeds, measured=measured).folder / "README.md").read_text()
    assert "| this file | 90.50 |" in card and "| same recipe, mean ± sd of seeds | 91.00 ± 1.00 |" in card
    for number, (fault, message) in enumerate(
        (
            ({"seeds": [another("x", 90.0, seed=3, lr=1.0)]}, "has lr = 1.0 where this recipe has 0.004"),
            ({"seeds": [another("y", 90.0)]}, "has the seed 0 again"),
            ({"baseline": [another("z", 90.0, "resnet18")]}, "the baseline is resnet18"),
            (
                {"seeds": seeds, "measured": measured | {"n": 7}},
                "--measure looked at 7 images of digits, and the runs of",
            ),
            (
                {"baseline": plain, "measured": measured | {"data": "photos"}},
                f"--measure looked at {n} images of photos",
            ),
        )
    ):
        with pytest.raises(StagingError, match=re.escape(message)):
            stage(run, tmp_path / str(number), REPO, **fault)


def test_figures_measured_by_the_publisher(hub: Hub, run: Path, cli: Cli) -> None:
    """A folder that no run left, such as converted weights, is measured when it is published."""
    facts = json.loads((run / "model" / "config.json").read_text())["zoo"]
    _edit(run / "model", zoo={"origin": "Found."})
    assert "--license takes a name as the Hub has it" in cli("--license", "MIT License")[1]
    assert cli("--measure", "digits")[0] == 0
    card = hub.repos[REPO].head.files["README.md"].data.decode()
    assert f"| this file | {facts['result']['top1']:.2f} |" in card and "Data: `digits`" in card and "Found." in card
    assert "## Training" not in card and "One seed" not in card and "was not measured beside it" in card


def test_front_matter_that_the_hub_refuses(hub: Hub, cli: Cli) -> None:
    hub.fault("POST", "/validate-yaml", 400)
    code, says = cli()
    assert code == 2 and f"cannot publish to {REPO}: Invalid metadata in README.md" in says
    assert len(hub.repos[REPO].commits) == 1


def test_register_needs_a_model_that_its_name_describes(hub: Hub, run: Path, cli: Cli) -> None:
    config = json.loads((run / "model" / "config.json").read_text())
    _edit(run / "model", model_args=config["model_args"] | {"act_layer": "silu"})
    code, says = cli("--register")
    assert code == 2 and "was built with {'act_layer': 'silu'}, which its name does not say" in says and not hub.log


@pytest.mark.parametrize("switches", [{"neutral": False}, {"arrangement": "channel_spatial", "neutral": True}])
def test_a_row_has_the_switches_of_the_attention(hub: Hub, run: Path, tmp_path: Path, switches: dict[str, Any]) -> None:
    config = json.loads((run / "model" / "config.json").read_text())
    _edit(run / "model", model_args=config["model_args"] | {"attn_kwargs": switches})
    write_manifest((), tmp_path / "weights.json")
    publish(run, Target(repo=REPO), register=True, manifest=tmp_path / "weights.json")
    (row,) = read_manifest(tmp_path / "weights.json")
    assert row.attn_kwargs == switches and config_of(row)["model_args"] == {"attn_kwargs": switches}


def test_a_row_needs_the_form_of_the_gates(tmp_path: Path) -> None:
    """Of any other gates the model itself refuses weights whose form nobody says; SimAM's have no weights."""
    save_for_hf(timm.create_model("simam_resnet18", num_classes=3), tmp_path / "model", safe_serialization=True)
    staged = stage(tmp_path / "model", tmp_path / "said", "me/mine")
    check_row(staged)
    cfg = json.loads((tmp_path / "model" / "config.json").read_text())["pretrained_cfg"]
    del cfg["notes"]
    _edit(tmp_path / "model", model_args={"num_classes": 3}, pretrained_cfg=cfg)
    staged = stage(tmp_path / "model", tmp_path / "silent", "me/mine")
    with pytest.raises(PublishError, match="this simam_resnet18 does not say the form of its gates; write"):
        check_row(staged)
