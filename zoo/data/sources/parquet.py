"""`cifar100`: a folder of parquet files as the Hugging Face Hub stores data sets."""

import json
from pathlib import Path
from typing import Any

from zoo.data.images import DataError, Encoded
from zoo.data.sources.columns import find_columns
from zoo.data.sources.parts import WHOLE, Parts, labelled, part_called


def read_parquet(root: Path, columns: str) -> Parts:
    """Rows of an encoded image and a label; a file's name or its folder says the part. Raises DataError."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{root} holds parquet files, which take pyarrow: pip install pyarrow") from None
    found: dict[str, tuple[list[Encoded], list[Any]]] = {}
    origins: dict[str, str] = {}
    names: list[str] = []
    for file in sorted(root.rglob("*.parquet")):
        table = pq.ParquetFile(file)
        image, label = find_columns(table.schema_arrow.names, columns, file)
        names = _class_names(table.schema_arrow.metadata or {}, label) or names
        read = table.read([image, label])
        part = _part_of(file)
        images, labels = found.setdefault(part, ([], []))
        images += _encoded_images(read[image].to_pylist(), image, file)
        labels += [names[value] if names and isinstance(value, int) else value for value in read[label].to_pylist()]
        origins[part] = f"{file.name.partition('-')[0]} files of the folder"
    return labelled(found, origins, str(root), tuple(names))


def _part_of(file: Path) -> str:
    """`train-00000-of-00002.parquet` or `train/0000.parquet` is of the training part."""
    words = (file.name.partition(".")[0].partition("-")[0], file.parent.name)
    return next((part for word in words if (part := part_called(word))), WHOLE)


def _class_names(metadata: dict[bytes, bytes], label: str) -> list[str]:
    """Names of the classes of the column `label`, or none: the Hub writes a ClassLabel, or a list of them, there."""
    described = json.loads(metadata.get(b"huggingface", b"{}"))
    feature = described.get("info", {}).get("features", {}).get(label, {})
    return feature.get("names") or feature.get("feature", {}).get("names") or []


def _encoded_images(contents: list[Any], column: str, file: Path) -> list[Encoded]:
    """A cell holds an image's bytes, or {"bytes": ..., "path": ...}."""
    images = []
    for row, content in enumerate(contents):
        content = content["bytes"] if isinstance(content, dict) else content
        if not isinstance(content, bytes):
            raise DataError(f"{file}, row {row}: column {column!r} holds no image bytes; name another by #IMAGE,LABEL")
        images.append(Encoded(content, f"{file.name}, row {row}"))
    return images
