"""Data by one string. Whatever it names, parts with labels and class names come out, split by one rule.

    digits                       scikit-learn's handwritten digits
    photos                       a folder of class folders, with or without train/, val/, test/
    photos.csv                   paths and labels, with or without a column `split`
    scans.npz, scans             volumes: arrays of NumPy in one file, or class folders of .npy files
    frames/FOLDER                clips: class folders of folders, each with the frames of a clip
    cifar100                     a folder of parquet files as the Hugging Face Hub stores them
    hfds/ORG/NAME, hfids/...     a data set of the Hub, loaded or streamed; wds/FOLDER: shards; torch/NAME@FOLDER
                                 (all four read by timm)

`#LABEL` or `#IMAGE,LABEL` behind it names the columns, where they have other names than usual.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import IterableDataset, Subset

from zoo.data.images import EXTENSIONS, DataError, Encoded, Images
from zoo.data.volumes import Volumes, is_volume, read_npz

PARTS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing", "eval"),
}
IMAGE_COLUMNS = ("image", "img", "path", "file", "filename", "file_name", "image_path")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "fine_label")
SPLIT_COLUMNS = ("split", "part", "set", "subset")
WHOLE = "whole"
"""Key of data that nobody has split."""


@dataclass(frozen=True)
class Parts:
    """What a source holds: train, val and test as far as they are there, or the whole."""

    parts: dict[str, Any]
    """Data sets of (image, class index): map-style ones, or streams."""
    classes: tuple[str, ...]
    names: dict[str, str]
    """What the source calls each part."""


@dataclass(frozen=True)
class Data:
    """A data set, split."""

    train: Any
    val: Any
    """Looked at after every epoch."""
    test: Any | None
    """Looked at once, after training; None where `val` is the only held-out part."""
    classes: tuple[str, ...]
    """Name of each class index."""
    split: str
    """Where the held-out part that gives the result comes from, in words."""
    listing: tuple[tuple[str, str, str], ...] = ()
    """(path, label, split) of every image, where the split was made here."""
    skipped: tuple[str, ...] = field(default=())
    """Images that could not be read and were left out."""


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """How data is completed to a training, a validation and a test part."""

    val_fraction: float = 0.2
    """Share of each class that is split off where there is no held-out part."""
    seed: int = 0
    keep_test: bool = False
    """An epoch will be chosen by the validation part, so the only held-out part is kept for the end."""
    skip_bad: bool = False
    """Leave images out that cannot be read."""
    num_classes: int = 0
    """For shards, which do not say it."""


def open_data(name: str, splitting: Splitting | None = None) -> Data:
    """Open the data called `name`, split. The split is the same for every training seed. Raises DataError."""
    splitting = splitting or Splitting()
    source = read_parts(name, splitting.num_classes)
    skipped: tuple[str, ...] = ()
    if splitting.skip_bad:
        source, skipped = _without_bad(source)
    return replace(_complete(source, splitting), skipped=skipped)


def open_held_out(name: str, part: str = "") -> tuple[Any, tuple[str, ...], str]:
    """What to evaluate on, the class names, and what it is in words: a named part, or test, or val, or all there is.

    Raises DataError.
    """
    source = read_parts(name)
    if part and part not in source.parts:
        there = ", ".join(source.parts)
        raise DataError(f"data {name!r} has no part {part!r}; it has {there}")
    for wanted in (part,) if part else ("test", "val"):
        if wanted in source.parts:
            return source.parts[wanted], source.classes, source.names[wanted]
    if name == "digits" or "train" in source.parts:  # the part that a training by default holds out
        data = _complete(source, Splitting())
        return data.val, data.classes, data.split
    return source.parts[WHOLE], source.classes, "all images"


def read_parts(name: str, num_classes: int = 0) -> Parts:
    """The parts of the data called `name`, as its source has them. Raises DataError."""
    if name == "digits":
        return _digits()
    kind, slash, rest = name.partition("/")
    if slash and kind in ("hfds", "hfids", "wds", "torch"):
        return _by_timm(kind, rest, num_classes)
    if slash and kind == "frames" and Path(rest).is_dir():
        return _folder(Path(rest), _frame_folders)
    place, _, columns = (name, "", "") if Path(name).exists() else name.partition("#")
    path = Path(place)
    if path.suffix.lower() == ".npz" and path.is_file():
        return _arrays(path)
    if path.is_file():
        return _table(path, columns)
    if path.is_dir():
        return _parquet(path, columns) if any(path.rglob("*.parquet")) else _folder(path)
    raise DataError(
        f"there is no data {name!r}; give digits, a folder of class folders or of parquet files, a CSV file, "
        "a file of volumes (.npz), frames/FOLDER, hfds/ORG/NAME, hfids/ORG/NAME, wds/FOLDER or torch/NAME@FOLDER"
    )


def _part_called(name: str) -> str | None:
    return next((part for part, names in PARTS.items() if name.lower() in names), None)


def _digits() -> Parts:
    """1797 handwritten digits of 43 people, 8x8 pixels in 17 greys (UCI, in scikit-learn), grown to 32x32."""
    from sklearn.datasets import load_digits

    greys, labels = load_digits(return_X_y=True)
    pixels = (greys.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = [Image.fromarray(pixel).resize((32, 32), Image.Resampling.BICUBIC) for pixel in pixels]
    return Parts({WHOLE: Images(images, labels.tolist())}, tuple("0123456789"), {})


def _arrays(path: Path) -> Parts:
    """Volumes of an .npz file."""
    arrays, classes = read_npz(path)
    named = {name: _part_called(name) if name else WHOLE for name in arrays}
    if unknown := [name for name, part in named.items() if part is None]:
        choices = ", ".join(name for names in PARTS.values() for name in names)
        raise DataError(f"{path} has arrays of an unknown part {unknown[0]!r}; choices are {choices}")
    found = {part: arrays[name] for name, part in named.items() if part}
    called = {part: f"{name} arrays of the file" for name, part in named.items() if part and name}
    return _labelled(found, called, str(path), classes)


def _folder(root: Path, find: Callable[[Path], list[Path]] | None = None) -> Parts:
    find = find or _files
    folders = {path.name: path for path in sorted(root.iterdir()) if path.is_dir()}
    parts = {part: path for name, path in reversed(folders.items()) if (part := _part_called(name))}
    if "train" not in parts and not (parts and len(parts) == len(folders)):
        files, names = _class_folders(root, find)
        return _labelled({WHOLE: (files, names)}, {}, str(root))
    found = {part: _class_folders(path, find) for part, path in parts.items()}
    return _labelled(found, {part: f"{path.name}/ of the folder" for part, path in parts.items()}, str(root))


def _files(folder: Path) -> list[Path]:
    """Images and volumes below a class folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in {*EXTENSIONS, ".npy"})


def _frame_folders(folder: Path) -> list[Path]:
    """The clips of a class folder."""
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _class_folders(root: Path, find: Callable[[Path], list[Path]]) -> tuple[list[Path], list[str]]:
    """Files of a folder of class folders in sorted order, and the class of each."""
    found = {
        folder.name: find(folder)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    if not any(found.values()):
        raise DataError(f"{root} holds no images in class folders, such as {root / 'cat' / '1.jpg'}")
    if empty := [name for name, files in found.items() if not files]:
        raise DataError(f"{root} has class folders without an image: {', '.join(empty)}; fill or remove them")
    return [file for files in found.values() for file in files], [name for name, files in found.items() for _ in files]


def _table(path: Path, columns: str) -> Parts:
    """A CSV file of paths (from its own folder on) and labels."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            text = file.read()
        except UnicodeDecodeError:
            raise DataError(f"{path} is no CSV file in UTF-8; a table of paths and labels is wanted") from None
    head = text.partition("\n")[0]
    rows = list(csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=head.count)))
    if not rows:
        raise DataError(f"{path} has no rows; its first line names the columns, such as path,label")
    image, label = _columns(list(rows[0]), columns, path)
    split = next((name for name in rows[0] if name and name.lower() in SPLIT_COLUMNS), None)

    found: dict[str, tuple[list[Path], list[str]]] = {}
    called: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        if not row[image] or not row[label]:
            raise DataError(f"{path}, line {number}: a path and a label are wanted, not {row[image]!r}, {row[label]!r}")
        if split and row[split] == "skipped":  # as a run's split.csv has it
            continue
        part = _part_called(row[split] or "") if split else WHOLE
        if part is None:
            choices = ", ".join(name for names in PARTS.values() for name in names)
            raise DataError(f"{path}, line {number}: unknown split {row[split]!r}; choices are {choices}")
        files, names = found.setdefault(part, ([], []))
        files.append(path.parent / row[image])
        names.append(row[label])
        called[part] = f"split {row[split]!r} of the table" if split else ""
    every = [file for files, _ in found.values() for file in files]
    if missing := [file for file in every if not file.exists()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{path} names {missing[0]}{more}, which {'are' if more else 'is'} not there")
    return _labelled(found, called, str(path))


def _columns(there: Sequence[str], wanted: str, where: Path | str) -> tuple[str, str]:
    """The columns of the image and of the label."""
    given = [name.strip() for name in wanted.split(",") if name.strip()]
    image, label = (None, *given) if len(given) == 1 else (given or (None, None))[:2]
    lower = {name.lower(): name for name in there if name}
    image = image or next((lower[name] for name in IMAGE_COLUMNS if name in lower), None)
    label = label or next((lower[name] for name in LABEL_COLUMNS if name in lower), None)
    if image is None or label is None or image not in there or label not in there:
        raise DataError(
            f"{where} has the columns {', '.join(there)}; say which hold the image and the label by #IMAGE,LABEL "
            "behind the name"
        )
    return image, label


def _parquet(root: Path, columns: str) -> Parts:
    """Parquet files as the Hub has them: an image {bytes, path} and a label; the file or its folder names the split."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{root} holds parquet files, which take pyarrow: pip install pyarrow") from None
    found: dict[str, tuple[list[Encoded], list[Any]]] = {}
    called: dict[str, str] = {}
    names: list[str] = []
    for file in sorted(root.rglob("*.parquet")):
        words = (file.name.partition(".")[0].partition("-")[0], file.parent.name)
        part = next((part for word in words if (part := _part_called(word))), WHOLE)
        table = pq.ParquetFile(file)
        image, label = _columns(table.schema_arrow.names, columns, file)
        described = json.loads((table.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        feature = described.get("info", {}).get("features", {}).get(label, {})
        names = feature.get("names") or feature.get("feature", {}).get("names") or names
        files, labels = found.setdefault(part, ([], []))
        read = table.read([image, label])
        for row, (content, value) in enumerate(zip(read[image].to_pylist(), read[label].to_pylist(), strict=True)):
            content = content["bytes"] if isinstance(content, dict) else content
            if not isinstance(content, bytes):
                raise DataError(
                    f"{file}, row {row}: column {image!r} holds no image bytes; name another by #IMAGE,LABEL"
                )
            files.append(Encoded(content, f"{file.name}, row {row}"))
            labels.append(names[value] if names and isinstance(value, int) else value)
        called[part] = f"{file.name.partition('-')[0]} files of the folder"
    return _labelled(found, called, str(root), tuple(names))


def _labelled(
    found: Mapping[str, tuple[Sequence[Any], Sequence[Any]]],
    called: dict[str, str],
    where: str,
    classes: tuple[str, ...] = (),
) -> Parts:
    """Parts out of images with class names; the classes are those of the training part, in sorted order."""
    main = found.get("train") or found.get(WHOLE) or next(iter(found.values()))
    if not classes:
        there = set(main[1])
        numbers = all(isinstance(name, int) or str(name).isdecimal() for name in there)
        classes = tuple(map(str, sorted(there, key=int if numbers else str)))
    if len(classes) == 1:
        raise DataError(f"{where} has one class only, {classes[0]!r}; to tell classes apart takes at least two")
    index = {name: k for k, name in enumerate(classes)}
    kinds = {is_volume(image) for images, _ in found.values() for image in images}
    if len(kinds) > 1:
        raise DataError(f"{where} holds images and volumes; keep them in folders of their own")
    kind = Volumes if kinds == {True} else Images
    parts = {}
    for part in sorted(found, key=[*PARTS, WHOLE].index):
        images, names = found[part]
        if unknown := sorted({str(name) for name in names} - set(index)):
            raise DataError(f"{called.get(part) or part} of {where} has classes that train lacks: {', '.join(unknown)}")
        parts[part] = kind(images, [index[str(name)] for name in names])
    return Parts(parts, classes, called)


def _by_timm(kind: str, rest: str, num_classes: int) -> Parts:
    """What timm's readers read: train, and the first held-out split that is there."""
    from timm.data import create_dataset

    place, _, columns = rest.partition("#")
    name, _, folder = place.partition("@")
    keys = [key.strip() for key in columns.split(",") if key.strip()]
    options: dict[str, Any] = {"root": folder or None}
    if keys:
        options |= {"target_key": keys[-1], "input_key": keys[0] if len(keys) == 2 else None}
    if kind == "wds":
        options["root"], name = place, ""
    if kind == "torch" and not folder:
        raise DataError(f"torch/{rest} takes the folder that holds it: torch/{rest}@FOLDER")

    def read(split: str) -> Any:
        try:
            return create_dataset(f"{kind}/{name}", split=split, is_training=split == "train", **options)
        except ImportError as error:
            package = {"hfds": "datasets", "hfids": "datasets"}.get(kind, error.name)
            raise DataError(f"{kind}/{rest} takes the package {package}: pip install {package}") from None
        except (AssertionError, KeyError) as error:
            raise DataError(f"cannot open {kind}/{rest}: {error}") from None

    def attempt(split: str) -> Any:
        try:
            return read(split)
        except DataError:
            raise
        except (ValueError, RuntimeError, OSError):
            return None

    try:
        train = read("train")
    except (ValueError, RuntimeError, OSError) as error:
        raise error if isinstance(error, DataError) else DataError(f"cannot open {kind}/{rest}: {error}") from None
    splits = ["validation"] if kind == "torch" else ["validation", "val", "test"]
    opened = ((split, attempt(split)) for split in splits)
    held_out = next(((split, part) for split, part in opened if part is not None), None)
    names = getattr(getattr(train, "reader", train), "class_to_idx", None) or {}
    classes = tuple(names) or tuple(map(str, range(num_classes)))
    if not classes:
        raise DataError(f"{kind}/{rest} does not say its classes; set num_classes in the recipe")
    parts, called = {"train": train}, {}
    if held_out:
        parts["test" if kind == "torch" else _part_called(held_out[0])] = held_out[1]  # pyright: ignore
        called = dict.fromkeys(parts, f"{held_out[0]} of {kind}/{name}")
    return Parts(parts, classes, called)


def _without_bad(source: Parts) -> tuple[Parts, tuple[str, ...]]:
    """The source without images that cannot be read, and their names. Reads every image once."""
    bad: list[str] = []

    def readable(read: Callable[[Any], Any], image: Any) -> bool:
        try:
            read(image)
        except DataError:
            return False
        return True

    parts = dict(source.parts)
    with ThreadPoolExecutor() as pool:
        for part, images in source.parts.items():
            if isinstance(images, Images):
                good = list(pool.map(partial(readable, images.read), images.images))
                bad += [str(image) for image, fine in zip(images.images, good, strict=True) if not fine]
                parts[part] = images.take([k for k, fine in enumerate(good) if fine])
    for part, images in parts.items():
        if isinstance(images, Images) and (gone := set(range(len(source.classes))) - set(images.labels)):
            before = set(source.parts[part].labels)
            if lost := sorted(source.classes[k] for k in gone & before):
                raise DataError(
                    f"no image of {', '.join(lost)} can be read in {part}; repair them or take the class out"
                )
    return replace(source, parts=parts), tuple(bad)


def _complete(source: Parts, splitting: Splitting) -> Data:
    """A training, a validation and perhaps a test part, by one rule for all sources."""
    parts, classes, called = source.parts, source.classes, source.names
    train = parts.get("train", parts.get(WHOLE))
    if train is None:
        raise DataError(f"there is no training part, only {', '.join(parts)}")
    val, test = parts.get("val"), parts.get("test")
    if val is None and test is not None and not splitting.keep_test:
        return Data(train, test, None, classes, called["test"])
    if val is not None:
        return Data(train, val, test, classes, called["test" if test is not None else "val"])
    rest, held_out = _stratified(train, classes, splitting)
    said = f"a stratified {len(held_out)} of {len(train)} images, the same for every training seed"
    listing = _listing({"train": rest, "val": held_out, "test": test}, classes)
    return Data(rest, held_out, test, classes, called["test"] if test is not None else said, listing)


def _stratified(dataset: Any, classes: tuple[str, ...], splitting: Splitting) -> tuple[Any, Any]:
    from sklearn.model_selection import train_test_split

    if isinstance(dataset, IterableDataset):
        raise DataError("a stream without a validation split cannot be split; give one that has it")
    labels = dataset.labels if isinstance(dataset, Images) else _labels(dataset)
    counts = Counter(labels)
    if few := [classes[label] for label, count in counts.items() if count < 2]:
        raise DataError(f"one image is too few to split for {', '.join(few)}; add images or a val/ folder")
    wanted = max(round(splitting.val_fraction * len(labels)), len(counts))
    rest, held_out = train_test_split(
        range(len(labels)), test_size=wanted, stratify=labels, random_state=splitting.seed
    )
    take: Callable[[list[int]], Any] = dataset.take if isinstance(dataset, Images) else lambda k: Subset(dataset, k)
    return take(sorted(rest)), take(sorted(held_out))


def _labels(dataset: Any) -> list[int]:
    reader = getattr(dataset, "reader", None)
    return [int(label) for label in (reader.iter_targets() if reader else dataset.targets)]


def _listing(parts: Mapping[str, Any], classes: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (str(image.absolute() if isinstance(image, Path) else image), classes[label], part)
        for part, images in parts.items()
        if isinstance(images, Images)
        and not any(isinstance(image, Image.Image | np.ndarray) for image in images.images[:1])
        for image, label in zip(images.images, images.labels, strict=True)
    )
