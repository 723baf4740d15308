"""A Space beside a release: the page of `zoo demo` with these weights on it, as files that the Hub runs.

    README.md            front matter: which Gradio, which Python, which model
    app.py               starts the page
    requirements.txt     this package
    zoo.json             checksums of the others as they were written

By the last one a file that its owner has changed since is told apart: it stays as it is.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, SpaceCardData, SpaceInfo, hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError

import zoo
from zoo.release.publishable import check_secrets
from zoo.release.repository import is_owners
from zoo.release.target import PublishError, Target
from zoo.weights.hub_requests import HubError, ask, checksums, checksums_on_hub
from zoo.weights.scrub import scrub

GRADIO = "6.31.0"
"""The version that the page was tried with; a Space takes one exactly."""
PYTHON = "3.11"
"""A Space without it has 3.10, which this package does not run on."""
WRITTEN = "zoo.json"
FILES = ("README.md", "app.py", "requirements.txt", WRITTEN)

APP = '''"""The page of `zoo demo` on {repo}, as `zoo publish --space` wrote it."""

from zoo.demo.page import serve

MODEL = "hf-hub:{repo}@{revision}"

if __name__ == "__main__":
    serve([MODEL], host="0.0.0.0")
'''
ABOUT = """
Give it a picture, and see the classes that [{repo}](https://huggingface.co/{repo}) answers with and what its
attention did: the page of `zoo demo`, of the package `timm-attention-zoo`.
"""


@dataclass(frozen=True)
class Space:
    """What a Space holds."""

    exists: bool
    head: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path -> checksum, as the Hub states it."""
    written: Mapping[str, str] = field(default_factory=dict)
    """Path -> checksum of what was written there the last time."""

    def edited(self, path: str) -> bool:
        """Whether somebody has changed a file since it was written."""
        return path in self.files and path in self.written and self.files[path] != self.written[path]


def stage_space(folder: Path, name: str, repo: str, revision: str) -> dict[str, Path]:
    """Write the files of a Space that shows the release `name`, at this revision of `repo`; by their names."""
    card = SpaceCardData(
        title=name,
        sdk="gradio",
        sdk_version=GRADIO,
        python_version=PYTHON,
        app_file="app.py",
        models=[repo],
        short_description="See what the attention of a network sees",
    )
    texts = {
        "README.md": f"---\n{card.to_yaml()}\n---\n{ABOUT.format(repo=repo)}",
        "app.py": APP.format(repo=repo, revision=revision),
        "requirements.txt": f"timm-attention-zoo[demo,explain]=={zoo.__version__}\n",
    }
    folder.mkdir(parents=True)
    for path, text in texts.items():
        (folder / path).write_text(text, encoding="utf-8")
    written = {path: checksums(folder / path)[1] for path in texts}
    (folder / WRITTEN).write_text(json.dumps({"model": repo, "files": written}, indent=2) + "\n", encoding="utf-8")
    files = {path: folder / path for path in FILES}
    for file in files.values():
        check_secrets(file)
    return files


def look_at_space(api: HfApi, target: Target) -> Space:
    """The Space beside the target. Raises PublishError if it is somebody's already or seen by others, HubError."""
    repo, what = target.repo, f"look at the Space {target.repo}"

    def info() -> SpaceInfo | None:
        try:
            return api.space_info(repo, files_metadata=True)
        except RepositoryNotFoundError as error:
            if type(error) is RepositoryNotFoundError:
                return None
            raise

    found = ask(info, what)
    if found is None:
        return Space(exists=False)
    if target.private and not found.private:
        raise PublishError(f"the Space {repo} is public already; leave --private out, or choose another name")
    files, head = checksums_on_hub(found), found.sha or ""
    if WRITTEN in files:
        return Space(True, head, files, _read(repo, head, what))
    # The Hub itself gives a new Space a card.
    if taken := [path for path in files if not is_owners(path) and path != "README.md"]:
        raise PublishError(
            f"the Space {repo} is taken: it holds {', '.join(taken[:3])}, which `zoo publish` did not put there; "
            "choose another name, or leave --space out"
        )
    return Space(True, head, files)


def _read(repo: str, head: str, what: str) -> dict[str, str]:
    """The checksums in a Space's zoo.json; empty where it cannot be read."""
    with tempfile.TemporaryDirectory() as cache:
        path = ask(partial(hf_hub_download, repo, WRITTEN, repo_type="space", revision=head, cache_dir=cache), what)
        try:
            return {str(path): str(sha1) for path, sha1 in json.loads(Path(path).read_bytes())["files"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}


def send_space(api: HfApi, files: Mapping[str, Path], target: Target, say: Callable[[str], None]) -> bool:
    """Make the Space hold these files, but for those that its owner has changed; False if it does.

    It is read back and compared. Raises PublishError before anything is sent, HubError.
    """
    repo = target.repo
    space = look_at_space(api, target)
    if not space.exists:
        kind = {"repo_type": "space", "space_sdk": "gradio"}
        ask(partial(api.create_repo, repo, **kind, private=target.private, exist_ok=True), f"create the Space {repo}")
        space = look_at_space(api, target)
    for path in filter(space.edited, files):
        say(f"{path} of the Space was changed there since and stays as it is")
    ours = {path: file for path, file in files.items() if not space.edited(path)}
    changed = [path for path, file in ours.items() if space.files.get(path) not in checksums(file)]
    if not changed:
        return False
    operations = [CommitOperationAdd(path, ours[path]) for path in changed]
    message = target.message or f"Show {repo}"
    about = {"commit_message": message, "repo_type": "space", "parent_commit": space.head}
    try:
        done = ask(partial(api.create_commit, repo, operations, **about), f"publish the Space {repo}", repeat=False).oid
    except ValueError as error:  # the Hub's opinion of the front matter
        raise HubError(f"cannot publish the Space {repo}: {scrub(str(error))}") from None
    with tempfile.TemporaryDirectory() as cache:
        for path, file in ours.items():
            read = partial(hf_hub_download, repo, path, repo_type="space", revision=done, cache_dir=cache)
            got = ask(read, f"read {path} of the Space {repo} back")
            if Path(got).read_bytes() != file.read_bytes():
                raise HubError(f"{path} of the Space {repo} came back with other bytes than were sent; run it again")
    say(f"committed {done[:7]} to the Space, and read it back")
    return True
