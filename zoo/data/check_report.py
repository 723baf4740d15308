"""What zoo check-data found, and how it says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

UNEVEN = 3.0
"""Times that the largest class is the smallest, from which on it is worth a word."""


@dataclass(frozen=True)
class Report:
    """What was found; an image is named by its path, or by its place in a file."""

    counts: dict[str, dict[str, int]]
    """Part -> class -> number of images."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Width x height, upright, or depth x height x width -> number of images."""
    modes: dict[str, int] = field(default_factory=dict)
    """Pillow's name of what is in a pixel, or the channels of volumes -> number of images."""
    imbalance: dict[str, float] = field(default_factory=dict)
    """Part -> images of the largest class for one of the smallest that has any."""
    broken: dict[str, str] = field(default_factory=dict)
    """Images that cannot be read, and why: training refuses them."""
    suspicious: dict[str, str] = field(default_factory=dict)
    """Images that can be read, but may not show what was meant."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Endings of files that are no images by them, or lie in no class folder -> number of files."""
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
        if self.sizes:
            lines += [f"sizes: {_sizes_in_words(self.sizes)}", f"modes: {_in_words(self.modes)}"]
        if (most := max(self.imbalance.values(), default=1.0)) >= UNEVEN:
            lines.append(
                f"imbalance: one class has {most:.1f} times the images of another; balance = 'sampler' in a "
                "recipe draws them equally often"
            )
        sections: list[tuple[str, list[str]]] = [
            ("broken", [f"{name}: {reason}" for name, reason in self.broken.items()]),
            ("suspicious", [f"{name}: {reason}" for name, reason in self.suspicious.items()]),
            (
                "left out, in no class folder or no images by their names",
                [f"{count} {ending}" for ending, count in self.left_out.items()],
            ),
            ("the same content in several places", [" = ".join(group) for group in self.duplicates]),
            ("missing classes", [f"{part} lacks {', '.join(names)}" for part, names in self.missing.items()]),
        ]
        for title, found in sections:
            if found:
                lines.append(f"{title} ({len(found)}):")
                lines += [f"    {line}" for line in found[:20]] + (["    ..."] if len(found) > 20 else [])
        return "\n".join([*lines, "" if self.problems else "no problems found"]).rstrip()


def _sizes_in_words(sizes: Mapping[str, int]) -> str:
    by_area = sorted(sizes, key=lambda size: prod(map(int, size.split("x"))))
    if len(by_area) == 1:
        return f"all {by_area[0]}"
    often = max(sizes, key=lambda size: sizes[size])
    return f"{by_area[0]} to {by_area[-1]}, {len(sizes)} different ones, most often {often} ({sizes[often]})"


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in sorted(counts, key=lambda name: -counts[name]))
