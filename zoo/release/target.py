"""Where a release goes, and what can be wrong with that before anything is asked of the repository itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

import zoo
from zoo.errors import UserError
from zoo.weights.hub_requests import ask


class PublishError(UserError, ValueError):
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
    replaces: str = ""
    """ORG/NAME of other weights, whose card then says that these are the newer ones."""


def check_target(target: Target, register: bool, space: bool = False) -> None:
    """Raise PublishError for names and options that are wrong whatever the Hub says; asks no network."""
    for option, repo in (("--repo", target.repo), ("--replaces", target.replaces)):
        if not repo and option == "--replaces":
            continue
        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise PublishError(f"{option} {repo}: {str(error).splitlines()[0]}") from None
        if "/" not in repo:
            raise PublishError(f"{option} takes ORG/NAME, not {repo!r}; ORG is your user name or an organisation")
    if target.replaces == target.repo:
        raise PublishError(f"--replaces names other weights than {target.repo}, whose card is written anew anyway")
    for option, name in (("--tag", target.tag), ("--revision", target.revision)):
        if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise PublishError(f"{option} {name!r} is no name of a tag or branch, such as v1 or main")
    if target.tag and target.tag in ("main", target.revision):
        raise PublishError(f"--tag {target.tag} is the name of a branch, and would hide it; choose another, such as v1")
    if target.create_pr and (target.tag or target.replaces or register or space or target.revision != "main"):
        raise PublishError(
            "--create-pr proposes a change to main: run the same without it, but with --tag, --revision, "
            "--replaces, --register or --space, after it is merged"
        )
    if register and not (Path(zoo.__file__).parents[1] / "pyproject.toml").is_file():
        raise PublishError(
            "--register writes zoo/weights/weights.json of a checkout, and this zoo is installed; leave it out"
        )


def check_token() -> None:
    """Raise PublishError for what cannot be a token, so that it is not sent."""
    token = get_token()
    if token and not re.fullmatch(r"[!-~]+", token):
        raise PublishError("HF_TOKEN holds spaces or characters that no token has; copy it anew or run `hf auth login`")


def log_in(api: HfApi, target: Target) -> None:
    """Raise PublishError if the Hub says that the token may not write to the target, HubError if there is no token."""
    me = ask(api.whoami, "log in to the Hub")
    access: Mapping[str, Any] = (me.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise PublishError("the token can only read; make one with write access and run `hf auth login` with it")
    mine = [me["name"], *(org["name"] for org in me.get("orgs", []) if org.get("roleInOrg") != "read")]
    owners = {repo.split("/")[0] for repo in (target.repo, target.replaces) if repo}
    # A fine-grained token lists what it may do in a form of its own, and not all its organisations; the Hub says 403
    # by itself before it creates anything.
    if (others := owners - {*mine}) and not target.create_pr and access.get("role") != "fineGrained":
        raise PublishError(
            f"{me['name']} may not write to {min(others)}; namespaces of this token: {', '.join(mine)}. "
            "To propose a change to somebody else's repository, add --create-pr"
        )
