"""Read every image of a data set: counts, broken and suspicious files, the same content in several places."""

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.images import DataError, Encoded, Images, Source, open_image, read_image
from zoo.data.kinds import kind_of
from zoo.data.sources import read_parts
from zoo.data.volumes import read_volume

SMALLEST = 8
"""Pixels or voxels; what has a shorter side may not show what was meant."""


@dataclass(frozen=True)
class Report:
    """What was found; an image is named by its path, or by its place in a file."""

    counts: dict[str, dict[str, int]]
    """Part -> class -> number of images."""
    broken: dict[str, str] = field(default_factory=dict)
    """Images that cannot be read, and why: training refuses them."""
    suspicious: dict[str, str] = field(default_factory=dict)
    """Images that can be read, but may not show what was meant."""
    duplicates: list[list[str]] = field(default_factory=list)
    """Groups of files with the same content in more than one part, or under more than one class."""
    missing: dict[str, list[str]] = field(default_factory=dict)
    """Classes that a part lacks."""

    @property
    def problems(self) -> int:
        """How much should be mended before training; suspicious images do not count, a person has to judge them."""
        return len(self.broken) + len(self.duplicates) + len(self.missing)

    def text(self) -> str:
        """The report for a terminal; of each list the first twenty lines."""
        lines = []
        for part, counts in self.counts.items():
            few, most = min(counts.values()), max(counts.values())
            lines.append(f"{part}: {sum(counts.values())} images, {len(counts)} classes of {few} to {most}")
            if len(counts) <= 20:
                lines += [f"    {count:6d}  {name}" for name, count in counts.items()]
        sections: list[tuple[str, list[str]]] = [
            ("broken", [f"{name}: {reason}" for name, reason in self.broken.items()]),
            ("suspicious", [f"{name}: {reason}" for name, reason in self.suspicious.items()]),
            ("the same content in several places", [" = ".join(group) for group in self.duplicates]),
            ("missing classes", [f"{part} lacks {', '.join(names)}" for part, names in self.missing.items()]),
        ]
        for title, found in sections:
            if found:
                lines.append(f"{title} ({len(found)}):")
                lines += [f"    {line}" for line in found[:20]] + (["    ..."] if len(found) > 20 else [])
        return "\n".join([*lines, "" if self.problems else "no problems found"]).rstrip()


@dataclass(frozen=True)
class _Look:
    """What one image shows; `broken` and `suspicious` are reasons, or empty."""

    name: str
    digest: str
    broken: str = ""
    suspicious: str = ""


def check_data(name: str) -> Report:
    """Read every image of the data called `name`. Raises DataError if it cannot be opened, or is a stream."""
    source = read_parts(name)
    counts, broken, suspicious, missing = {}, {}, {}, {}
    places: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for part, images in source.parts.items():
        if not isinstance(images, Images):
            raise DataError(
                f"{name} is read by a library of its own; check-data looks at folders, tables and parquet files"
            )
        tally = Counter(images.labels)
        counts[part] = {label: tally[k] for k, label in enumerate(source.classes)}
        if absent := [label for label, count in counts[part].items() if not count]:
            missing[part] = absent
        looks = _look_at_all(images.images, LOOK_AT[kind_of(images).name])
        for k, (look, label) in enumerate(zip(looks, images.labels, strict=True)):
            if isinstance(images.images[k], np.ndarray):
                look = replace(look, name=f"{source.origins.get(part, part)}, number {k}")
            if look.broken:
                broken[look.name] = look.broken
            elif look.suspicious:
                suspicious[look.name] = look.suspicious
            places[look.digest].append((look.name, part, source.classes[label]))
    duplicates = [
        [place for place, _, _ in group]
        for group in places.values()
        if len({part for _, part, _ in group}) > 1 or len({label for _, _, label in group}) > 1
    ]
    return Report(counts, broken, suspicious, duplicates, missing)


def _look_at_all(images: list[Any], look_at: Callable[[Any], _Look]) -> Iterator[_Look]:
    with ThreadPoolExecutor() as pool:
        yield from pool.map(look_at, images)


def _look_at_volume(source: Path | np.ndarray) -> _Look:
    name = str(source) if isinstance(source, Path) else "a volume in memory"
    try:
        volume = read_volume(source)
    except DataError as error:
        return _Look(name, name, broken=str(error))
    digest = hashlib.sha256(repr(volume.shape).encode() + volume.tobytes()).hexdigest()
    found = []
    if (most := volume.max()) == volume.min():
        found.append(f"every voxel is {most}")
    elif most == 1:
        found.append("the values are 0 and 1, of 255; save it as booleans")
    if min(volume.shape[1:3]) < SMALLEST:
        found.append(f"only {'x'.join(map(str, volume.shape[:3]))} voxels")
    return _Look(name, digest, suspicious="; ".join(found))


def _look_at_image(image: Source) -> _Look:
    if isinstance(image, Image.Image):
        return _Look("an image in memory", hashlib.sha256(image.tobytes()).hexdigest())
    name, content = str(image), image.content if isinstance(image, Encoded) else Path(image).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return _Look(name, name, broken="the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_image(image) as opened:
                odd = _oddities(opened)
    except Image.DecompressionBombWarning as warning:
        return _Look(name, digest, suspicious=f"very large: {warning}")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        odd = ""
    try:
        read_image(image)
    except DataError as error:
        return _Look(name, digest, broken=str(error).removeprefix(f"cannot read the image {name}: ").partition(";")[0])
    return _Look(name, digest, suspicious=odd)


def _oddities(image: Any) -> str:
    """What is unusual about an image that Pillow has opened."""
    found = []
    if getattr(image, "n_frames", 1) > 1:
        found.append(f"animated, {image.n_frames} frames, of which the first is used")
    if image.mode in ("CMYK", "YCCK", "LAB", "I", "F", "I;16"):
        found.append(f"colour mode {image.mode}, which becomes RGB by a rule of thumb")
    if min(image.size) < SMALLEST:
        found.append(f"only {image.size[0]}x{image.size[1]} pixels")
    if max(image.size) > 20 * min(image.size):
        found.append(f"a strip of {image.size[0]}x{image.size[1]} pixels")
    return "; ".join(found)


LOOK_AT: dict[str, Callable[[Any], _Look]] = {"images": _look_at_image, "volumes": _look_at_volume}
"""By the name of the kind."""
