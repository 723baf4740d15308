"""What each model of the zoo costs, as it was counted once: to count takes a second a model, to read this nothing.

`python -m zoo.models.counts` counts anew and writes counts.csv, which tests/test_counts.py holds against the models.
"""

import csv
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

COUNTS = Path(__file__).with_name("counts.csv")


class Count(NamedTuple):
    """A row of counts.csv."""

    model: str
    parameters: int
    gmacs: str
    """Billions of multiply-accumulates, as zoo/models/macs.py counts them, for one input of `size`."""
    size: str
    """224x224, or 16x112x112 of volumes."""
    warm: str
    """Tag of the published weights of its plain network that it can start from; of a plain network its own."""

    def starts_from(self, plain: str, tag: str) -> bool:
        """Whether its warm start is from these weights of a plain network."""
        return self.model.endswith(f"_{plain}") and self.warm == f"warm_{tag}"


def read_counts(pattern: str = "*") -> list[Count]:
    """The models whose name the pattern fits, in timm's order; needs neither torch nor timm."""
    with COUNTS.open(newline="", encoding="utf-8") as file:
        rows = [
            Count(row["model"], int(row["parameters"]), row["gmacs"], row["size"], row["warm"])
            for row in csv.DictReader(file)
        ]
    return [row for row in rows if fnmatchcase(row.model, pattern)]


def count(model: str) -> Count:
    """A row, counted; imports timm."""
    import timm
    import torch

    from zoo.data.input_spec import input_spec
    from zoo.models.macs import cost

    with torch.device("meta"):
        spec = input_spec(timm.create_model(model))
    tags = (name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*"))
    warm = next((tag for tag in tags if tag.startswith("warm_") or not has_attention(model)), "")
    parameters, macs = cost(model)
    return Count(model, parameters, f"{macs / 1e9:.4f}", "x".join(map(str, spec.size)), warm)


def has_attention(model: str) -> bool:
    """Whether the catalogue's row has attention."""
    from zoo.models.variants import VARIANTS

    return any(variant.name == model and variant.attention for variant in VARIANTS)


def write_counts(path: Path = COUNTS) -> None:
    """Count all models of the zoo, and write the table."""
    import timm

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Count._fields)
        writer.writerows(count(model) for model in timm.list_models(module="catalog"))


if __name__ == "__main__":
    write_counts()
