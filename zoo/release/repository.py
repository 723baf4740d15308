"""What a repository on the Hub holds: whether a release may go there, and whether it is there already."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from zoo.release.publishable import IN_MODEL, PICTURES
from zoo.release.target import PublishError, Target
from zoo.weights.hub_requests import HubError, ask, checksums_on_hub, explain

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
    tags: Mapping[str, str] = field(default_factory=dict)
    proposals: Mapping[str, str] = field(default_factory=dict)
    """refs/pr/N -> commit."""


def look(api: HfApi, target: Target) -> Repository:
    """What is there now; one that this token may not see looks like one that does not exist. Raises HubError."""

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
        return Repository(exists=False)
    if isinstance(found, Exception):
        raise HubError(explain(found, f"look at {target.repo}"))
    refs = ask(lambda: api.list_repo_refs(target.repo, include_pull_requests=True), f"look at {target.repo}")
    return Repository(
        exists=True,
        private=bool(found.private),
        head=found.sha,
        has_branch=has_branch,
        files=checksums_on_hub(found),
        tags={tag.name: tag.target_commit for tag in refs.tags},
        proposals={pr.ref: pr.target_commit for pr in refs.pull_requests or ()},
    )


def check_repository(target: Target, repository: Repository, architecture: str) -> None:
    """Raise PublishError if what is there is not a release of the model `architecture`, or nothing that can be one."""
    if not repository.exists:
        if target.create_pr:
            raise PublishError(f"{target.repo} does not exist, or this token may not see it; nothing to propose to")
        return
    if target.private and not repository.private:
        raise PublishError(f"{target.repo} is public already; leave --private out, or choose another name")
    foreign = [path for path in repository.files if not is_ours(path) and path not in (".gitattributes", "LICENSE")]
    if foreign:
        raise PublishError(
            f"{target.repo} holds {', '.join(foreign[:3])}, which no release of the zoo has; remove it there, or "
            "choose another name"
        )
    if "config.json" in repository.files:
        with tempfile.TemporaryDirectory() as cache:
            path = ask(
                lambda: hf_hub_download(target.repo, "config.json", revision=repository.head, cache_dir=cache),
                f"read config.json of {target.repo}",
            )
            there = json.loads(Path(path).read_text(encoding="utf-8")).get("architecture")
        if there != architecture:
            raise PublishError(f"{target.repo} is taken: it holds {there}, not {architecture}; choose another name")


def is_ours(path: str) -> bool:
    """Whether a release may have a file of that name, so that the next one replaces or removes it."""
    return path in IN_MODEL or path.startswith(".eval_results/") or Path(path).suffix.lower() in PICTURES


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
                return commit, f"{api.endpoint}/{target.repo}/discussions/{ref.split('/')[-1]}"
    return "", ""


def _files(api: HfApi, repo: str, commit: str) -> dict[str, str]:
    return checksums_on_hub(ask(lambda: api.model_info(repo, revision=commit, files_metadata=True), f"look at {repo}"))


def _same(there: Mapping[str, str], wanted: Checksums) -> bool:
    ours = {path: checksum for path, checksum in there.items() if is_ours(path)}
    return ours.keys() == wanted.keys() and all(checksum in wanted[path] for path, checksum in ours.items())


def url_of_commit(api: HfApi, repo: str, commit: str) -> str:
    return f"{api.endpoint}/{repo}/tree/{commit}"
