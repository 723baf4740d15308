"""The card of weights that newer ones replace: it names them, and the Hub shows that to whoever comes there."""

import tempfile
from pathlib import Path

import yaml  # the Hub's client brings it
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, hf_hub_download

from zoo.release.repository import look
from zoo.release.target import PublishError, Target
from zoo.weights.hub_requests import HubError, ask
from zoo.weights.scrub import scrub


def check_replaced(api: HfApi, target: Target) -> None:
    """Raise PublishError unless what `target` replaces is there and has a card, HubError."""
    if target.replaces and "README.md" not in look(api, Target(repo=target.replaces)).files:
        raise PublishError(f"--replaces {target.replaces}: there is no such repository with a card; check the name")


def announce(api: HfApi, target: Target) -> bool:
    """Have the card of what `target` replaces name it as the new version, and nothing else change in it.

    Returns False if it does already. A later release there takes it back. Raises HubError.
    """
    old, what = target.replaces, f"name the new version of {target.replaces}"
    head = look(api, Target(repo=old)).head
    with tempfile.TemporaryDirectory() as cache:
        path = ask(lambda: hf_hub_download(old, "README.md", revision=head, cache_dir=cache), what)
        try:
            card = ModelCard(Path(path).read_text(encoding="utf-8"))
        except (ValueError, yaml.YAMLError) as error:
            raise HubError(f"cannot {what}: its card cannot be read ({scrub(str(error))}); correct it there") from None
    if card.data.get("new_version") == target.repo:
        return False
    card.data["new_version"] = target.repo
    changed = CommitOperationAdd("README.md", str(card).encode())
    message = f"{target.repo} is the new version"
    ask(lambda: api.create_commit(old, [changed], commit_message=message, parent_commit=head), what, repeat=False)
    return True
