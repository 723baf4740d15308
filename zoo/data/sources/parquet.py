"""`cifar100`: a folder of parquet files as the Hugging Face Hub stores data sets."""

import json
from pathlib import Path
from typing import Any

from zoo.data.images import DataError, Encoded
from zoo.data.sources.columns import find_columns
from zoo.data.sources.labels import class_of
from zoo.data.sources.parts import WHOLE, Parts, labelled, part_called, require_one_word


def read_parquet(root: Path, columns: str) -> Parts:
    """Rows of an encoded image and a label; a file's name or its folder says the part. Raises DataError."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{root} holds parquet files, which take pyarrow: pip install pyarrow") from None
    found: dict[str, tuple[list[Encoded], list[str]]] = {}
    origins: dict[str, str] = {}
    names: list[str] = []
    files = sorted(root.rglob("*.parquet"))
    require_one_word([_word_for_part(file) for file in files], str(root))
    for file in files:
        table = pq.ParquetFile(file)
        schema = table.schema_arrow
        with_images = [field.name for field in schema if pa.types.is_struct(field.type) or _is_bytes(field.type)]
        image, label = find_columns(schema.names, columns, file, with_images)
        names = _class_names(schema.metadata or {}, label) or names
        read = table.read([image, label])
        part = part_called(_word_for_part(file)) or WHOLE
        images, labels = found.setdefault(part, ([], []))
        images += _encoded_images(read[image].to_pylist(), image, file)
        said = read[label].to_pylist()
        labels += [class_of(value, f"{file}, row {row}", names) for row, value in enumerate(said)]
        origins[part] = f"{file.name.partition('-')[0]} files of the folder"
    return labelled(found, origins, str(root), tuple(names))


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _word_for_part(file: Path) -> str:
    """What says the part: `train-00000-of-00002.parquet` and `train/0000.parquet` are of the training part."""
    words = (file.name.partition(".")[0].partition("-")[0], file.parent.name)
    return next((word for word in words if part_called(word)), WHOLE)


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
