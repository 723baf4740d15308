"""Send a release to the Hub: one commit, read back and compared, then tagged.

Each step looks first at what is there, so the same command completes a release that was interrupted anywhere.
"""

import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from torch import Tensor

import zoo
from zoo.release.repository import (
    Checksums,
    Repository,
    check_repository,
    find_release,
    look,
    pictures_of,
    read_release,
    stale_files,
    url_of_commit,
)
from zoo.release.space import look_at_space
from zoo.release.staging import Staged
from zoo.release.successor import announce, check_replaced
from zoo.release.target import Target, check_token, log_in
from zoo.weights.hub_requests import (
    CLIENT_ERRORS,
    WAITS,
    HubError,
    ask,
    checksums,
    explain,
    is_transient,
    retry_after,
    status_of,
    url_of,
)
from zoo.weights.probe import probe
from zoo.weights.scrub import scrub

LIBRARY = "timm-attention-zoo"

ASKED_ONCE = ("/commit/", "/api/validate-yaml")
"""Parts of the addresses of a commit's requests that the client does not repeat by itself."""


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
    """False if everything was there already."""


def hub_of_zoo() -> HfApi:
    """The Hub's client, which says by whom it asks."""
    return HfApi(library_name=LIBRARY, library_version=zoo.__version__)


def send(
    api: HfApi, staged: Staged, logits: Tensor, target: Target, say: Callable[[str], None], space: bool = False
) -> Release:
    """Make the repository of `target` hold the files of `staged`, and no others that a release may have.

    `logits` are what `probe` gives of the staged model, `space` says that one is to follow. Raises PublishError before
    anything is sent, HubError.
    """
    check_token()
    repository = look(api, target)  # first, as the client waits for ever for an answer to who one is
    log_in(api, target)
    there = read_release(target, repository)
    wanted = {path: checksums(file) for path, file in staged.files.items()}
    check_repository(target, repository, there, staged.config["architecture"], wanted)
    check_replaced(api, target)
    if space:
        look_at_space(api, target)
    commit, url = find_release(api, target, repository, wanted)
    changed = not commit
    if not commit:
        repository = prepare(api, target, repository)
        commit, url = commit_files(api, staged, target, repository, wanted, pictures_of(there))
        say(f"committed {commit[:7]}{f' as {url}' if target.create_pr else ''}")
    read_back(staged, logits, target.repo, commit)
    say(f"read back {commit[:7]}: all checksums and logits are equal")
    if target.tag and repository.tags.get(target.tag) != commit:
        add_tag(api, target, commit)
        say(f"tagged {target.tag}")
        changed = True
    if target.replaces and announce(api, target):
        say(f"{target.replaces} names {target.repo} as its new version")
        changed = True
    return Release(staged.name, target.repo, commit, target.tag, url, changed)


def prepare(api: HfApi, target: Target, repository: Repository) -> Repository:
    """Create the repository and the branch where they are missing."""
    if not repository.exists:
        create = lambda: api.create_repo(target.repo, private=target.private, exist_ok=True)  # noqa: E731
        ask(create, f"create {target.repo}")
        repository = look(api, target)
        if not repository.exists:
            raise HubError(f"{target.repo} was created, but cannot be seen; run the same again")
    if not repository.has_branch:
        branch = lambda: api.create_branch(target.repo, branch=target.revision, exist_ok=True)  # noqa: E731
        ask(branch, f"create the branch {target.revision} of {target.repo}")
        repository = look(api, target)
    return repository


def commit_files(
    api: HfApi,
    staged: Staged,
    target: Target,
    repository: Repository,
    wanted: Checksums,
    pictures: Collection[str] = (),
) -> tuple[str, str]:
    """Commit all files on top of what `repository` saw, and return the commit and its address.

    What the release before it brought goes, `pictures` among it; what its owner put there stays. Raises HubError, also
    for a commit that somebody else has made since.
    """
    message = target.message or f"Publish {staged.name}{f' {target.tag}' if target.tag else ''}"
    waits = iter(WAITS)
    while True:
        stale = stale_files(repository.files, wanted, pictures)
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
                    parent_commit=repository.head,
                    create_pr=target.create_pr,
                )
            return done.oid, done.pr_url or url_of_commit(api, target.repo, done.oid)
        except CLIENT_ERRORS as error:
            what = f"publish to {target.repo}"
            wait = next(waits, None)
            again = any(part in url_of(error) for part in ASKED_ONCE) and is_transient(error)
            if not again and status_of(error) != 412:
                raise HubError(explain(error, what)) from None
            # The commit may have been made and only its answer lost, so look before doing it again.
            before, repository = repository, look(api, target)
            commit, url = find_release(api, replace(target, tag=""), repository, wanted)
            if commit:
                return commit, url
            if repository.head != before.head and not target.create_pr:
                raise HubError(
                    f"somebody else published to {target.repo} at the same moment ({before.head[:7]} became "
                    f"{repository.head[:7]}); nothing of this release is there. Look at theirs, then run the same again"
                ) from None
            if status_of(error) == 412 or wait is None:
                raise HubError(explain(error, what)) from None
            time.sleep(max(wait, retry_after(error)))
        except ValueError as error:  # the Hub's opinion of the card's front matter, or no JSON where JSON was due
            raise HubError(f"cannot publish to {target.repo}: {scrub(str(error))}") from None


@contextmanager
def _upload_errors() -> Iterator[None]:
    """Raise what went wrong in an upload, which the client and Xet wrap in a RuntimeError."""
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
    """Tag the commit, and read the tag back. Raises HubError."""

    def tag() -> None:
        # With `exist_ok` the client keeps a tag that is at another commit, without a word; it is read back below.
        api.create_tag(target.repo, tag=target.tag, revision=commit, exist_ok=True)

    ask(tag, f"tag {target.repo}")
    refs = ask(lambda: api.list_repo_refs(target.repo), f"read the tags of {target.repo}")
    at = {found.name: found.target_commit for found in refs.tags}.get(target.tag)
    if at != commit:
        where = f"at {at[:7]}" if at else "missing"
        raise HubError(f"the tag {target.tag} of {target.repo} is {where}, not at {commit[:7]}; choose another tag")
