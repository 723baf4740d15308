"""Publish a run on the Hugging Face Hub: one commit, read back and compared before it gets its tag.

Nothing is created before everything that can be known has been checked. Each step looks first at what is there, so a
run that was interrupted anywhere is completed by the same command, and a second run of it changes nothing.
"""

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, hf_hub_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id
from torch import Tensor

import zoo
from zoo.data import open_held_out
from zoo.inference.evaluation import evaluate_images
from zoo.inference.trained import load_trained
from zoo.release.staging import (
    IN_MODEL,
    PICTURES,
    Staged,
    check_folder,
    find_model,
    load_staged,
    probe,
    public_path,
    stage,
)
from zoo.weights.hub import (
    CLIENT_ERRORS,
    WAITS,
    HubError,
    ask,
    checksums,
    explain,
    is_transient,
    retry_after,
    scrub,
    status_of,
    url_of,
)
from zoo.weights.manifest import FILE_NAME, WEIGHTS, Weights, read_manifest, write_manifest

LIBRARY = "timm-attention-zoo"

ASKED_ONCE = ("/commit/", "/api/validate-yaml")
"""The requests of a commit that the client does not try again by itself."""

Checksums = Mapping[str, tuple[str, str]]
"""Path -> the two names that the Hub may give its content (zoo/weights/hub.py)."""


class PublishError(ValueError):
    """A release that cannot be made as asked."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a release goes."""

    repo: str
    """ORG/NAME."""
    tag: str = ""
    """Git tag of the release, such as v1."""
    revision: str = "main"
    """Branch to commit to."""
    private: bool = False
    create_pr: bool = False
    """Propose the commit instead of making it."""
    message: str = ""


@dataclass(frozen=True)
class Release:
    """What is on the Hub now."""

    name: str
    """MODEL.TAG."""
    repo: str
    commit: str
    tag: str
    url: str
    changed: bool
    """False if all of it was there already."""


@dataclass(frozen=True)
class Remote:
    """What a repository holds at the branch of a target."""

    exists: bool
    private: bool = False
    head: str = ""
    """Commit of the branch; of main, where the branch is still to be made."""
    has_branch: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    """Path -> sha256 of large files, git's sha1 of the others."""
    tags: Mapping[str, str] = field(default_factory=dict)
    proposals: Mapping[str, str] = field(default_factory=dict)
    """refs/pr/N -> commit."""


def publish(
    source: str | Path,
    target: Target,
    license: str = "",
    seeds: Sequence[str | Path] = (),
    baseline: Sequence[str | Path] = (),
    measured: Mapping[str, Any] | None = None,
    register: bool = False,
    say: Callable[[str], None] = lambda line: None,
    manifest: Path = WEIGHTS,
) -> Release:
    """Release a run or a model folder; `say` is told each step. `register` writes the manifest of a checkout.

    Raises StagingError or PublishError before anything is sent, HubError when the Hub does not do its part.
    """
    check_target(target, register)
    with tempfile.TemporaryDirectory() as folder:
        staged = stage(source, Path(folder) / "staged", target.repo, license, seeds, baseline, measured)
        logits = load_staged(staged)
        say(f"checked {staged.name}: {len(staged.files)} files, {staged.size / 1e6:.1f} MB of weights, it loads")
        if register:
            check_row(staged)
        release = send(staged, logits, target, say)
    if register:
        changed = write_row(staged, release, manifest)
        say(f"{'wrote' if changed else 'found'} its row in {manifest}")
        release = replace(release, changed=release.changed or changed)
    return release


def dry_run(
    source: str | Path,
    target: Target,
    license: str = "",
    seeds: Sequence[str | Path] = (),
    baseline: Sequence[str | Path] = (),
    measured: Mapping[str, Any] | None = None,
) -> Staged:
    """Write the folder that `publish` would send beside the source, as SOURCE.staged; asks no network."""
    check_target(target, register=False)
    source = Path(source)
    place, beside = source.with_name(f"{source.name}.staged"), source.with_name(f".{source.name}.staged.new")
    if place.exists() and not (place / FILE_NAME).is_file():
        raise PublishError(f"{place} is there already and no staged release; move it away")
    for folder in (place, beside):
        shutil.rmtree(folder, ignore_errors=True)
    staged = stage(source, beside, target.repo, license, seeds, baseline, measured)
    load_staged(staged)
    beside.rename(place)
    return replace(staged, folder=place)


def publish_all(
    namespace: str, target: Target, say: Callable[[str], None] = lambda line: None, manifest: Path = WEIGHTS
) -> list[Release]:
    """Release every row of the manifest that has a file in the package and no Hub id, as NAMESPACE/MODEL.TAG."""
    releases = []
    for row in read_manifest(manifest):
        path = row.path(manifest)
        if path is None or row.hub:
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / row.name
            model.mkdir()
            (model / FILE_NAME).write_bytes(path.read_bytes())
            (model / "config.json").write_text(json.dumps(config_of(row)), encoding="utf-8")
            say(f"{row.name}:")
            to = replace(target, repo=f"{namespace}/{row.name}")
            releases.append(publish(model, to, register=True, say=say, manifest=manifest))
    return releases


def measure(source: str | Path, data: str, workers: int = 2) -> dict[str, Any]:
    """Figures of a run or model folder on the held-out part of `data`, as `publish` takes them in `measured`."""
    check_folder(find_model(source)[0])
    images, classes, words = open_held_out(data)
    score = evaluate_images(load_trained(str(source)), images, classes, workers=workers)
    return {"top1": score.top1, "top5": score.top5, "n": score.n, "split": words, "data": public_path(data)}


def config_of(row: Weights) -> dict[str, Any]:
    """config.json of a row's model folder."""
    facts = {"recipe": row.recipe, "result": row.result, "origin": row.provenance}
    cfg = {key: value for key, value in row.config.items() if key != "label_names"}
    return {
        "architecture": row.model,
        "num_classes": row.config["num_classes"],
        "label_names": row.config.get("label_names"),
        "pretrained_cfg": {**cfg, **({"license": row.license} if row.license else {})},
        "zoo": {key: value for key, value in facts.items() if value},
    }


# Before anything is sent.


def check_target(target: Target, register: bool) -> None:
    """Raise PublishError for what is wrong whatever the Hub says."""
    try:
        validate_repo_id(target.repo)
    except HFValidationError as error:
        raise PublishError(f"--repo {target.repo}: {str(error).splitlines()[0]}") from None
    if "/" not in target.repo:
        raise PublishError(f"--repo takes ORG/NAME, not {target.repo!r}; ORG is your user name or an organisation")
    for option, name in (("--tag", target.tag), ("--revision", target.revision)):
        if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise PublishError(f"{option} {name!r} is no name of a tag or branch, such as v1 or main")
    if target.create_pr and (target.tag or register or target.revision != "main"):
        raise PublishError(
            "--create-pr proposes a change to main: run the same without it, but with --tag, --revision or --register, "
            "after it is merged"
        )
    if register and not (Path(zoo.__file__).parents[1] / "pyproject.toml").is_file():
        raise PublishError(
            "--register writes zoo/weights/weights.json of a checkout, and this zoo is installed; leave it out"
        )


def check_row(staged: Staged) -> None:
    """Raise PublishError if a name of the catalog cannot stand for this model."""
    config = staged.config
    if timm.model_entrypoint(config["architecture"]).__module__ != "zoo.models.catalog":
        raise PublishError(f"--register is for models of the zoo, and {config['architecture']} is timm's")
    usual = {"num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate"}
    with torch.device("meta"):
        standard = timm.create_model(config["architecture"])
    given = {key: value for key, value in config.get("model_args", {}).items() if key not in usual and value}
    switches = {key: value for key, value in given.items() if getattr(standard, key, None) != value}
    if switches:
        raise PublishError(
            f"--register: {config['architecture']} was built with {switches}, which its name does not say; publish it "
            "without --register and load it as hf-hub:ORG/NAME"
        )


def log_in(api: HfApi, target: Target) -> None:
    """Raise HubError or PublishError unless the token may write to the target, as far as the Hub tells."""
    token = get_token()
    if token and not re.fullmatch(r"[!-~]+", token):
        raise PublishError("HF_TOKEN holds spaces or characters that no token has; copy it anew or run `hf auth login`")
    me = ask(api.whoami, "log in to the Hub")
    access: Mapping[str, Any] = (me.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise PublishError("the token can only read; make one with write access and run `hf auth login` with it")
    owner = target.repo.split("/")[0]
    mine = [me["name"], *(org["name"] for org in me.get("orgs", []) if org.get("roleInOrg") != "read")]
    # A fine-grained token lists what it may do in a form of its own, and not all its organisations; the Hub says 403
    # by itself before it creates anything.
    if owner not in mine and not target.create_pr and access.get("role") != "fineGrained":
        raise PublishError(
            f"{me['name']} may not write to {owner}; namespaces of this token: {', '.join(mine)}. "
            "To propose a change to somebody else's repository, add --create-pr"
        )


def look(api: HfApi, target: Target) -> Remote:
    """What is there now. A repository of somebody else that this token may not see does not exist either."""

    def info(revision: str) -> Any:
        try:
            return api.model_info(target.repo, revision=revision, files_metadata=True)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            return error

    found = ask(lambda: info(target.revision), f"look at {target.repo}")
    has_branch = not isinstance(found, Exception)
    if isinstance(found, RevisionNotFoundError):
        found = ask(lambda: info("main"), f"look at {target.repo}")
    if isinstance(found, RepositoryNotFoundError) and type(found) is RepositoryNotFoundError:
        return Remote(exists=False)
    if isinstance(found, Exception):
        raise HubError(explain(found, f"look at {target.repo}"))
    refs = ask(lambda: api.list_repo_refs(target.repo, include_pull_requests=True), f"look at {target.repo}")
    return Remote(
        exists=True,
        private=bool(found.private),
        head=found.sha,
        has_branch=has_branch,
        files={f.rfilename: (f.lfs.sha256 if f.lfs else f.blob_id) or "" for f in found.siblings or ()},
        tags={tag.name: tag.target_commit for tag in refs.tags},
        proposals={pr.ref: pr.target_commit for pr in refs.pull_requests or ()},
    )


def check_remote(api: HfApi, staged: Staged, target: Target, remote: Remote) -> None:
    """Raise PublishError if the name is taken by something else."""
    if not remote.exists:
        if target.create_pr:
            raise PublishError(f"{target.repo} does not exist, or this token may not see it; nothing to propose to")
        return
    if target.private and not remote.private:
        raise PublishError(f"{target.repo} is public already; leave --private out, or choose another name")
    foreign = [path for path in remote.files if not _ours(path) and path not in (".gitattributes", "LICENSE")]
    if foreign:
        raise PublishError(
            f"{target.repo} holds {', '.join(foreign[:3])}, which no release of the zoo has; remove it there, or "
            "choose another name"
        )
    if "config.json" in remote.files:
        with tempfile.TemporaryDirectory() as cache:
            path = ask(
                lambda: hf_hub_download(target.repo, "config.json", revision=remote.head, cache_dir=cache),
                f"read config.json of {target.repo}",
            )
            there = json.loads(Path(path).read_text(encoding="utf-8")).get("architecture")
        if there != staged.config["architecture"]:
            raise PublishError(
                f"{target.repo} is taken: it holds {there}, not {staged.config['architecture']}; choose another name"
            )


def _ours(path: str) -> bool:
    return path in IN_MODEL or path.startswith(".eval_results/") or Path(path).suffix.lower() in PICTURES


# The release.


def send(staged: Staged, logits: Tensor, target: Target, say: Callable[[str], None]) -> Release:
    """Make the Hub hold `staged`, whose model gives `logits` for the fixed images, and nothing less or more."""
    api = HfApi(library_name=LIBRARY, library_version=zoo.__version__)
    log_in(api, target)
    remote = look(api, target)
    check_remote(api, staged, target, remote)
    wanted = {path: checksums(file) for path, file in staged.files.items()}
    commit, url = find_release(api, target, remote, wanted)
    changed = not commit
    if not commit:
        remote = prepare(api, target, remote)
        commit, url = commit_files(api, staged, target, remote, wanted)
        say(f"committed {commit[:7]}{f' as {url}' if target.create_pr else ''}")
    read_back(staged, logits, target.repo, commit)
    say(f"read back {commit[:7]}: all checksums and logits are equal")
    if target.tag and remote.tags.get(target.tag) != commit:
        add_tag(api, target, commit)
        say(f"tagged {target.tag}")
        changed = True
    return Release(staged.name, target.repo, commit, target.tag, url, changed)


def find_release(api: HfApi, target: Target, remote: Remote, wanted: Checksums) -> tuple[str, str]:
    """The commit that holds exactly these files already and its address; empty if there is none."""
    if target.tag in remote.tags:
        commit = remote.tags[target.tag]
        if not _same(_files(api, target.repo, commit), wanted):
            raise PublishError(
                f"{target.repo} has the tag {target.tag} already, at {commit[:7]} with other files; choose another tag"
            )
        return commit, _url(api, target.repo, commit)
    if remote.has_branch and _same(remote.files, wanted):
        return remote.head, _url(api, target.repo, remote.head)
    if target.create_pr:
        for ref, commit in remote.proposals.items():
            if _same(_files(api, target.repo, commit), wanted):
                return commit, f"{api.endpoint}/{target.repo}/discussions/{ref.split('/')[-1]}"
    return "", ""


def _files(api: HfApi, repo: str, commit: str) -> dict[str, str]:
    found = ask(lambda: api.model_info(repo, revision=commit, files_metadata=True), f"look at {repo}")
    return {f.rfilename: (f.lfs.sha256 if f.lfs else f.blob_id) or "" for f in found.siblings or ()}


def _same(there: Mapping[str, str], wanted: Checksums) -> bool:
    ours = {path: checksum for path, checksum in there.items() if _ours(path)}
    return ours.keys() == wanted.keys() and all(checksum in wanted[path] for path, checksum in ours.items())


def _url(api: HfApi, repo: str, commit: str) -> str:
    return f"{api.endpoint}/{repo}/tree/{commit}"


def prepare(api: HfApi, target: Target, remote: Remote) -> Remote:
    """Create the repository and the branch where they are missing."""
    if not remote.exists:
        create = lambda: api.create_repo(target.repo, private=target.private, exist_ok=True)  # noqa: E731
        ask(create, f"create {target.repo}")
        remote = look(api, target)
        if not remote.exists:
            raise HubError(f"{target.repo} was created, but cannot be seen; run the same again")
    if not remote.has_branch:
        branch = lambda: api.create_branch(target.repo, branch=target.revision, exist_ok=True)  # noqa: E731
        ask(branch, f"create the branch {target.revision} of {target.repo}")
        remote = look(api, target)
    return remote


def commit_files(api: HfApi, staged: Staged, target: Target, remote: Remote, wanted: Checksums) -> tuple[str, str]:
    """One commit on top of what was seen, with all files; a commit that somebody made since is an error."""
    message = target.message or f"Publish {staged.name}{f' {target.tag}' if target.tag else ''}"
    waits = iter(WAITS)
    while True:
        stale = [path for path in remote.files if _ours(path) and path not in wanted]
        operations = [
            *(CommitOperationAdd(path, file) for path, file in staged.files.items()),
            *(CommitOperationDelete(path) for path in stale),
        ]
        try:
            with _upload_errors():
                done = api.create_commit(
                    target.repo,
                    operations,
                    commit_message=message,
                    revision=target.revision,
                    parent_commit=remote.head,
                    create_pr=target.create_pr,
                )
            return done.oid, done.pr_url or _url(api, target.repo, done.oid)
        except CLIENT_ERRORS as error:
            what = f"publish to {target.repo}"
            wait = next(waits, None)
            again = any(part in url_of(error) for part in ASKED_ONCE) and is_transient(error)
            if not again and status_of(error) != 412:
                raise HubError(explain(error, what)) from None
            # The commit may have been made and only its answer lost, so look before doing it again.
            before, remote = remote, look(api, target)
            commit, url = find_release(api, replace(target, tag=""), remote, wanted)
            if commit:
                return commit, url
            if remote.head != before.head and not target.create_pr:
                raise HubError(
                    f"somebody else published to {target.repo} at the same moment ({before.head[:7]} became "
                    f"{remote.head[:7]}); nothing of this release is there. Look at theirs, then run the same again"
                ) from None
            if status_of(error) == 412 or wait is None:
                raise HubError(explain(error, what)) from None
            time.sleep(max(wait, retry_after(error)))
        except ValueError as error:  # the Hub's opinion of the card's front matter, or no JSON where JSON was due
            raise HubError(f"cannot publish to {target.repo}: {scrub(str(error))}") from None


@contextmanager
def _upload_errors() -> Iterator[None]:
    """The client and Xet wrap what went wrong in an upload in a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__cause__, CLIENT_ERRORS):
            raise error.__cause__ from None
        raise ConnectionError(scrub(f"{error} {error.__cause__ or ''}")) from None


def read_back(staged: Staged, logits: Tensor, repo: str, commit: str) -> None:
    """Download the commit into an empty cache and compare bytes and logits. Raises HubError."""
    with tempfile.TemporaryDirectory() as cache:
        for path, file in staged.files.items():
            got = ask(
                lambda path=path: hf_hub_download(repo, path, revision=commit, cache_dir=cache),
                f"read {path} of {repo} back",
            )
            if Path(got).read_bytes() != file.read_bytes():
                raise HubError(
                    f"{path} of {repo} at {commit[:7]} came back with other bytes than were sent; it was not tagged. "
                    "Run the same again"
                )
        network = ask(
            lambda: timm.create_model(f"hf-hub:{repo}@{commit}", pretrained=True, cache_dir=cache),
            f"load {repo}",
        )
        if not torch.equal(probe(network), logits):
            raise HubError(
                f"{repo} at {commit[:7]} loads, but computes something else than was sent; it was not tagged"
            )


def add_tag(api: HfApi, target: Target, commit: str) -> None:
    """Tag the commit and read the tag back."""

    def tag() -> None:
        # With `exist_ok` the client keeps a tag that is at another commit, without a word; it is read back below.
        api.create_tag(target.repo, tag=target.tag, revision=commit, exist_ok=True)

    ask(tag, f"tag {target.repo}")
    refs = ask(lambda: api.list_repo_refs(target.repo), f"read the tags of {target.repo}")
    at = {found.name: found.target_commit for found in refs.tags}.get(target.tag)
    if at != commit:
        where = f"at {at[:7]}" if at else "missing"
        raise HubError(f"the tag {target.tag} of {target.repo} is {where}, not at {commit[:7]}; choose another tag")


def write_row(staged: Staged, release: Release, manifest: Path) -> bool:
    """Put the release into the weights manifest; False if it is there already."""
    config = staged.config
    cfg = {
        key: value for key, value in config["pretrained_cfg"].items() if key not in ("tag", "custom_load", "license")
    }
    if "label_names" in config:
        cfg["label_names"] = config["label_names"]
    facts = config.get("zoo", {})
    rows = {row.name: row for row in read_manifest(manifest)}
    before = rows.get(staged.name)
    rows[staged.name] = Weights(
        model=config["architecture"],
        tag=staged.name.split(".", 1)[1],
        sha256=staged.sha256,
        bytes=staged.size,
        config=cfg,
        file=before.file if before and before.sha256 == staged.sha256 else "",
        hub=release.repo,
        commit=release.commit,
        result=facts.get("result", {}),
        recipe=facts.get("recipe", {}),
        license=config["pretrained_cfg"].get("license", ""),
        provenance=facts.get("origin", ""),
    )
    if rows[staged.name] == before:
        return False
    write_manifest(rows.values(), manifest)
    return True
