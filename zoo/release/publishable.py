"""Which files may be published: only the ones on a list, none that can run code, none that holds a secret."""

import re
from pathlib import Path

from huggingface_hub import get_token

from zoo.errors import UserError
from zoo.weights.manifest import FILE_NAME
from zoo.weights.model_folder import find_model_folder

PICTURES = {".png": b"\x89PNG", ".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff", ".webp": b"RIFF"}
"""Suffix -> first bytes of such a file."""
RESULTS = ".eval_results/results.yaml"
"""Where a release has a result for a leaderboard of the Hub."""
IN_MODEL = {"README.md", "config.json", FILE_NAME, "recipe.toml", "metrics.csv"}
"""Files of a model folder that may be published, beside pictures."""
OF_RUN = ("recipe.toml", "metrics.csv")
"""Files of a run, beside its model folder, that are published with it."""
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".tar"}
"""Suffixes of files that are or may hold pickles."""
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
"""How a pickle begins, and a zip archive, which may be around one."""

SECRETS = {
    "a token of the Hugging Face Hub": rb"hf_[A-Za-z0-9]{20,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a key of AWS": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": rb"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{22,}",
    "a key of a language model's API": rb"\bsk-[A-Za-z0-9_-]{20,}",
    "a token of Slack": rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a key of Google": rb"\bAIza[A-Za-z0-9_-]{35}|\bya29\.[A-Za-z0-9_-]{20,}|\bGOCSPX-[A-Za-z0-9_-]{20,}",
    "a JSON web token": rb"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    "a password in an address": rb"[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@\"']+:[^\s/@\"']+@",
    "a signed address": rb"[?&](?:X-Amz-Signature|X-Goog-Signature|Signature|sig)=[A-Za-z0-9%+/_-]{16,}",
}


class StagingError(UserError, ValueError):
    """A folder that cannot be published as it is."""


def find_model(source: str | Path) -> tuple[Path, list[Path]]:
    """The model folder of a run, or `source` itself if it is one; and the run's other files that are published.

    Raises StagingError if it is neither.
    """
    model, others = find_model_folder(source), [Path(source) / name for name in OF_RUN]
    if model is None:
        raise StagingError(f"{source} is no run and no model folder: it has no model/config.json and no config.json")
    return model, [path for path in others if path.exists()]


def check_folder(folder: Path) -> None:
    """Raise StagingError unless every file of a model folder may be published and no needed one is missing."""
    for path in sorted(folder.iterdir()):
        check_file(path)
    for name in ("config.json", FILE_NAME):
        if not (folder / name).is_file():
            raise StagingError(f"{folder} has no {name}; a model folder is what `zoo train` leaves in RUN/model")


def check_file(path: Path) -> None:
    """Raise StagingError if this file must not be published."""
    suffix = path.suffix.lower()
    if path.is_symlink():
        raise StagingError(f"{path} is a symbolic link, and what it points to would be published; put a copy there")
    if path.is_dir():
        raise StagingError(f"{path} is a folder; a release has no folders, so move it elsewhere")
    if path.name == FILE_NAME:
        return  # `with_provenance` looks at every value of it
    with path.open("rb") as file:
        start = file.read(8)
    if suffix in PICKLES or start.startswith(PICKLE_STARTS):
        raise StagingError(f"{path} is or may hold a pickle, which runs code when it is read; move it elsewhere")
    if suffix in PICTURES:
        if not start.startswith(PICTURES[suffix]):
            raise StagingError(f"{path} is no {suffix[1:]} picture; move it elsewhere")
    elif path.name not in IN_MODEL:
        known = ", ".join(sorted(IN_MODEL))
        raise StagingError(f"{path} is not published; move it elsewhere (what is: {known}, and pictures)")
    check_secrets(path)


def check_secrets(path: Path) -> None:
    """Raise StagingError if a file holds what looks like a secret; the message does not repeat it."""
    data = path.read_bytes()
    own = (get_token() or "").encode()
    found = {what: re.search(pattern, data) for what, pattern in SECRETS.items()}
    found["your own token of the Hub"] = re.search(re.escape(own), data) if own else None
    for what, match in found.items():
        if match:
            line = data.count(b"\n", 0, match.start()) + 1
            raise StagingError(f"{path.name}, line {line}, holds what looks like {what}; remove it, and revoke it")
