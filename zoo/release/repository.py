"""What a repository on the Hub holds: whether a release may go there, and whether it is there already."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from zoo.release.publishable import IN_MODEL, PICTURES, RESULTS
from zoo.release.target import PublishError, Target
from zoo.weights.hub_requests import SECONDS, HubError, ask, checksums_on_hub, explain
from zoo.weights.scrub import scrub

Checksums = Mapping[str, tuple[str, str]]
"""Path -> sha256 and git's sha1 of a file, of which the Hub states one (zoo/weights/hub_requests.py)."""


@dataclass(frozen=True)
class Repository:
    """What a repository holds at the branch of a target."""

    exists: bool
    private: bool = False
    head: str = ""
    """Commit of the branch; of main, where the branch is still to be made."""
    has_branch: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    """Path -> sha256 of large files, git's sha1 of the others."""
    branches: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=dict)
    proposals: Mapping[str, str] = field(default_factory=dict)
    """refs/pr/N -> commit."""


def look(api: HfApi, target: Target) -> Repository:
    """What is there now; one that this token may not see looks like one that does not exist. Raises HubError."""

    def info(revision: str) -> Any:
        try:
            return api.model_info(target.repo, revision=revision, files_metadata=True, timeout=SECONDS)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            return error

    found = ask(lambda: info(target.revision), f"look at {target.repo}", first=True)
    if isinstance(found, RevisionNotFoundError):
        found = ask(lambda: info("main"), f"look at {target.repo}")
    if isinstance(found, RepositoryNotFoundError) and type(found) is RepositoryNotFoundError:
        return Repository(exists=False)
    if isinstance(found, Exception):
        raise HubError(explain(found, f"look at {target.repo}"))
    refs = ask(lambda: api.list_repo_refs(target.repo, include_pull_requests=True), f"look at {target.repo}")
    branches = frozenset(branch.name for branch in refs.branches)
    return Repository(
        exists=True,
        private=bool(found.private),
        head=found.sha,
        has_branch=target.revision in branches,
        files=checksums_on_hub(found),
        branches=branches,
        tags={tag.name: tag.target_commit for tag in refs.tags},
        proposals={pr.ref: pr.target_commit for pr in refs.pull_requests or ()},
    )


def read_release(target: Target, repository: Repository) -> dict[str, Any]:
    """config.json of what is there now; empty where there is none, or none that can be read. Raises HubError."""
    if "config.json" not in repository.files:
        return {}
    with tempfile.TemporaryDirectory() as cache:
        path = ask(
            lambda: hf_hub_download(target.repo, "config.json", revision=repository.head, cache_dir=cache),
            f"read config.json of {target.repo}",
        )
        try:
            config = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError:
            return {}
    return config if isinstance(config, dict) else {}


def pictures_of(config: Mapping[str, Any]) -> frozenset[str]:
    """The pictures that a release brought, as its config.json lists them; all others are their owner's."""
    facts = config.get("zoo")
    listed = facts.get("pictures") if isinstance(facts, dict) else None
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return frozenset(name for name in names if "/" not in name and is_picture(name))


def check_repository(
    target: Target, repository: Repository, there: Mapping[str, Any], architecture: str, wanted: Checksums
) -> None:
    """Raise PublishError if a release of the model `architecture`, of the files `wanted`, may not go there.

    `there` is the config.json of the release before it.
    """
    if not repository.exists:
        if target.create_pr:
            raise PublishError(f"{target.repo} does not exist, or this token may not see it; nothing to propose to")
        return
    if target.private and not repository.private:
        raise PublishError(f"{target.repo} is public already; leave --private out, or choose another name")
    if target.tag in repository.branches:
        raise PublishError(f"{target.repo} has a branch {target.tag}, which such a tag would hide; choose another tag")
    if target.revision in repository.tags:
        raise PublishError(f"--revision {target.revision} is a tag of {target.repo}; give a branch")
    foreign = [path for path in repository.files if not (is_ours(path) or is_owners(path))]
    if foreign:
        raise PublishError(
            f"{target.repo} holds {', '.join(foreign[:3])}, which no release of the zoo has; remove it there, or "
            "choose another name"
        )
    if "config.json" in repository.files and there.get("architecture") != architecture:
        held = str(there.get("architecture", "another library's model"))
        raise PublishError(f"{target.repo} is taken: it holds {held:.80}, not {architecture}; choose another name")
    for path in wanted.keys() & repository.files.keys():
        if is_picture(path) and path not in pictures_of(there) and repository.files[path] not in wanted[path]:
            raise PublishError(f"{target.repo} has another {path}, which no release put there; rename the picture here")


def is_ours(path: str) -> bool:
    """Whether a release has a file of that name, so that the next one replaces or removes it."""
    return path in IN_MODEL or path == RESULTS


def is_owners(path: str) -> bool:
    """Whether the owner of a repository may have put a file there that releases leave alone."""
    return "/" in path or is_picture(path) or path in (".gitattributes", ".gitignore", "LICENSE")


def is_picture(path: str) -> bool:
    return Path(path).suffix.lower() in PICTURES


def stale_files(there: Iterable[str], wanted: Iterable[str], pictures: Iterable[str] = ()) -> list[str]:
    """Files of an earlier release, which brought these `pictures`, that the one of the files `wanted` has no more."""
    before = {path for path in there if is_ours(path)} | {*there} & {*pictures}
    return sorted(before - {*wanted})


def find_release(api: HfApi, target: Target, repository: Repository, wanted: Checksums) -> tuple[str, str]:
    """A commit that holds exactly these files already, and its address; both empty if there is none.

    Raises PublishError if the target's tag is at other files.
    """
    if target.tag in repository.tags:
        commit = repository.tags[target.tag]
        if not _same(_files(api, target.repo, commit), wanted):
            raise PublishError(
                f"{target.repo} has the tag {target.tag} already, at {commit[:7]} with other files; choose another tag"
            )
        return commit, url_of_commit(api, target.repo, commit)
    if repository.has_branch and _same(repository.files, wanted):
        return repository.head, url_of_commit(api, target.repo, repository.head)
    if target.create_pr:
        for ref, commit in repository.proposals.items():
            if _same(_files(api, target.repo, commit), wanted):
                return commit, f"{scrub(api.endpoint)}/{target.repo}/discussions/{ref.split('/')[-1]}"
    return "", ""


def _files(api: HfApi, repo: str, commit: str) -> dict[str, str]:
    return checksums_on_hub(ask(lambda: api.model_info(repo, revision=commit, files_metadata=True), f"look at {repo}"))


def _same(there: Mapping[str, str], wanted: Checksums) -> bool:
    """Whether there are all the files of a release and no other that could be one's; config.json lists its pictures."""
    equal = all(there.get(path) in checksums for path, checksums in wanted.items())
    return equal and not stale_files(there, wanted)


def url_of_commit(api: HfApi, repo: str, commit: str) -> str:
    return f"{scrub(api.endpoint)}/{repo}/tree/{commit}"
