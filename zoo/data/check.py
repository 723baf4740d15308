"""Read every image of a data set: counts, broken and suspicious files, the same content in several places."""

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.check_report import Report
from zoo.data.images import DataError, Encoded, Images, Source, open_image, read_image, require_file, what_is_wrong
from zoo.data.kinds import kind_of
from zoo.data.listing import are_files
from zoo.data.pixels import orientation
from zoo.data.sources import read_parts
from zoo.data.sources.folders import walk
from zoo.data.sources.parts import Parts
from zoo.data.volumes import read_volume

SMALLEST = 8
"""Pixels or voxels; what has a shorter side may not show what was meant."""
DARK = 2**12
"""Of 16-bit values; where none is larger, no more than 16 greys are left of 8 bits."""


@dataclass(frozen=True)
class _Look:
    """What one image shows; `broken` and `suspicious` are reasons, or empty."""

    name: str
    digest: str
    size: tuple[int, ...] = ()
    """Empty where nothing could be read."""
    mode: str = ""
    broken: str = ""
    suspicious: str = ""


def check_data(name: str) -> Report:
    """Read every image of the data called `name`. Raises DataError if it cannot be opened, or is a stream."""
    source = read_parts(name)
    # Pillow warns of what is found here anyway. Filters are of the whole process, so they are set before its threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _check(source, name)


def _check(source: Parts, name: str) -> Report:
    report = Report({}, left_out=_left_out(source, name))
    sizes, modes = Counter(), Counter()
    places: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for part, images in source.parts.items():
        if not isinstance(images, Images):
            raise DataError(
                f"{name} is read by a library of its own; check-data looks at folders, tables and parquet files"
            )
        tally = Counter(images.labels)
        report.counts[part] = {label: tally[k] for k, label in enumerate(source.classes)}
        report.imbalance[part] = max(tally.values(), default=0) / max(1, min(tally.values(), default=1))
        if absent := [label for label, count in report.counts[part].items() if not count]:
            report.missing[part] = absent
        looks = _look_at_all(images.images, LOOK_AT[kind_of(images).name])
        for k, (look, label) in enumerate(zip(looks, images.labels, strict=True)):
            if not isinstance(images.images[k], Path | Encoded):
                look = replace(look, name=f"{source.origins.get(part, part)}, number {k}")
            if look.broken:
                report.broken[look.name] = look.broken
            elif look.suspicious:
                report.suspicious[look.name] = look.suspicious
            if look.size:
                sizes["x".join(map(str, look.size))] += 1
                modes[look.mode] += 1
            places[look.digest].append((look.name, part, source.classes[label]))
    report.duplicates.extend(
        [place for place, _, _ in group]
        for group in places.values()
        if len({part for _, part, _ in group}) > 1 or len({label for _, _, label in group}) > 1
    )
    return replace(report, sizes=dict(sizes), modes=dict(modes))


def _left_out(source: Parts, name: str) -> dict[str, int]:
    """Files in a folder of images that are no images by their names, or in no class folder, by their endings."""
    if not Path(name).is_dir() or not are_files(source.parts):
        return {}
    taken = {image for images in source.parts.values() for image in images.images}
    others = [path for path in walk(Path(name)) if path not in taken and not path.name.startswith(".")]
    return dict(Counter(path.suffix.lower() or "without an ending" for path in others))


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
    channels = f"{volume.shape[3]} channels" if volume.shape[3] > 1 else "1 channel"
    return _Look(name, digest, volume.shape[:3], channels, suspicious="; ".join(found))


def _look_at_image(image: Source) -> _Look:
    if isinstance(image, Image.Image):
        return _Look("in memory", hashlib.sha256(image.tobytes()).hexdigest(), image.size, image.mode)
    name = str(image)
    try:
        content = _content(image)
    except OSError as error:
        return _Look(name, name, broken=what_is_wrong(error).partition(";")[0])
    if not content:
        return _Look(name, name, broken="the file is empty")
    look = _Look(name, hashlib.sha256(content).hexdigest())
    try:
        with open_image(Encoded(content, name)) as opened:
            look = replace(look, mode=opened.mode, size=opened.size[:: -1 if orientation(opened) > 4 else 1])
            look = replace(look, suspicious=_oddities(opened))
    except Exception:  # whatever Pillow raises, reading it all is what counts
        look = replace(look, suspicious="")
    try:
        read_image(Encoded(content, name))
    except DataError as error:
        reason = str(error).removeprefix(f"cannot read the image {name}: ").partition(";")[0]
        return replace(look, size=(), broken=reason, suspicious="")
    return look


def _content(image: Path | Encoded) -> bytes:
    if isinstance(image, Encoded):
        return image.content
    require_file(image)
    return image.read_bytes()


def _oddities(image: Any) -> str:
    """What is unusual about an image that Pillow has opened."""
    found, (width, height) = [], image.size
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a photograph with a preview beside it
        found.append(f"animated, {image.n_frames} frames, of which the first is used")
    if image.mode in ("CMYK", "YCCK", "LAB"):
        found.append(f"colour mode {image.mode}, which becomes RGB by a rule of thumb")
    if min(width, height) < SMALLEST:
        found.append(f"only {width}x{height} pixels")
    if max(width, height) > 20 * min(width, height):
        found.append(f"a strip of {width}x{height} pixels")
    if width * height > (Image.MAX_IMAGE_PIXELS or width * height):
        found.append(f"very large: {width}x{height} pixels")
    elif image.mode.startswith("I") and (most := int(np.asarray(image).max())) < DARK:
        found.append(f"16 bits of which only 0 to {most} are used, so that it is nearly black; scale it")
    elif _is_transparent(image):
        found.append("transparent in places, which show the colour that lies beneath")
    if not _has_readable_exif(image):
        found.append("its EXIF block cannot be read, so nothing says which side is up")
    return "; ".join(found)


def _is_transparent(image: Any) -> bool:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return False
    return image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _has_readable_exif(image: Any) -> bool:
    try:
        Image.Exif().load(image.info.get("exif", b""))  # which `image.getexif()` does once, and then keeps silent
    except Exception:  # of a damaged block, whatever it meets
        return False
    return True


LOOK_AT: dict[str, Callable[[Any], _Look]] = {"images": _look_at_image, "volumes": _look_at_volume}
"""By the name of the kind."""
