"""The weights manifest: `weights.json`, the only list of the zoo's weights, a row for each that exists.

`zoo publish --register` writes it, the catalog makes names of it (`MODEL.TAG`), `zoo verify` compares with it.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from zoo.errors import UserError
from zoo.files import write_whole

WEIGHTS = Path(__file__).with_name("weights.json")
FILE_NAME = "model.safetensors"
"""Name of the file of weights on the Hub. The Hub is asked for this file only, so no pickle is ever downloaded."""


class ManifestError(UserError, ValueError):
    """A row of the weights manifest is wrong."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A row: one file of weights, inside the package (`file`), on the Hub (`hub` at `commit`), or both."""

    model: str
    tag: str
    sha256: str
    bytes: int
    config: dict[str, Any]
    """What the model was trained on, in the words of timm's pretrained_cfg: input_size, mean, std, num_classes ..."""
    attn_kwargs: dict[str, Any] = field(default_factory=dict)
    """The switches that its attention was built with, its form (`neutral`) always among them; empty for a plain
    network. The catalogue builds the model with them where these weights are asked for."""
    file: str = ""
    """Path below the package's folder."""
    hub: str = ""
    """ORG/NAME."""
    commit: str = ""
    """40 hexadecimal digits."""
    result: dict[str, Any] = field(default_factory=dict)
    """Measured figures: top1 and top5 in percent, n, split, seeds ..."""
    gates: dict[str, Any] = field(default_factory=dict)
    """What its attention did on the images of `result`: `GateReport.summary`. Empty if nobody looked."""
    recipe: dict[str, Any] = field(default_factory=dict)
    license: str = ""
    provenance: str = ""
    """Where the weights come from, in words."""
    upstream: str = ""
    """ORG/NAME of others on the Hub in whose place the package's file is read; empty for weights of the zoo's own."""

    def __post_init__(self) -> None:
        if not (self.file or self.hub):
            raise ManifestError(f"{self.name} has neither a file nor a Hub id")
        if self.hub and not re.fullmatch("[0-9a-f]{40}", self.commit):
            raise ManifestError(f"{self.name} is not pinned: its commit is {self.commit!r}, not 40 hexadecimal digits")
        if "num_classes" not in self.config:
            raise ManifestError(f"{self.name} does not say its num_classes in config")
        if self.attn_kwargs and not isinstance(self.attn_kwargs.get("neutral"), bool):
            raise ManifestError(
                f"{self.name} does not say the form of its gates in attn_kwargs; write neutral: true if they were "
                "trained so that they start at one, false if in the published form"
            )
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ManifestError(f"{self.name} has the sha256 {self.sha256!r}, not 64 hexadecimal digits")

    @property
    def name(self) -> str:
        """The name that timm.create_model takes."""
        return f"{self.model}.{self.tag}"

    @property
    def pinned(self) -> str:
        """ORG/NAME@COMMIT, empty if the weights are not on the Hub."""
        return f"{self.hub}@{self.commit}" if self.hub else ""

    def in_words(self, tag: str) -> str:
        """A tag that loads these weights, with what they score, and size and licence if they are in the package."""
        score = [f"{self.result['top1']:.2f} %"] if "top1" in self.result else []
        size = [f"{self.bytes / 1e6:.1f} MB", self.license] if self.file else []
        known = ", ".join([*score, *filter(None, size)])
        return f"{tag} ({known})" if known else tag

    def path(self, manifest: Path = WEIGHTS) -> Path | None:
        """The file inside the package, None if there is none."""
        return manifest.parents[1] / self.file if self.file else None


def read_manifest(path: Path = WEIGHTS) -> tuple[Weights, ...]:
    """All rows, in the order of the file. Raises ManifestError."""
    known = {f.name for f in fields(Weights)}
    needed = {"model", "tag", "sha256", "bytes", "config"}
    rows = []
    for values in json.loads(path.read_text(encoding="utf-8")):
        if unknown := set(values) - known:
            raise ManifestError(f"{path.name} has an unknown key {min(unknown)!r}; keys are {', '.join(sorted(known))}")
        if missing := needed - set(values):
            raise ManifestError(f"{path.name} has a row without {min(missing)!r}: {values}")
        rows.append(Weights(**values))
    names = [row.name for row in rows]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ManifestError(f"{path.name} has {min(twice)} twice")
    return tuple(rows)


def write_manifest(rows: Iterable[Weights], path: Path = WEIGHTS) -> None:
    """Write the rows, sorted by name, without the fields that are empty."""
    plain = [
        {key: value for key, value in asdict(row).items() if value not in ("", {})}
        for row in sorted(rows, key=lambda row: row.name)
    ]
    text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def find_weights(name: str, path: Path = WEIGHTS) -> Weights | None:
    """The row of `MODEL.TAG`, None if there is none."""
    return next((row for row in read_manifest(path) if row.name == name), None)
