"""Where a classifier is wrong, by the names of the classes: those it knows worst, and what it takes them for."""

from dataclasses import dataclass
from typing import Any

from zoo.inference.evaluation import Score

SHOWN = 5
"""Classes, and confusions, that are named."""


@dataclass(frozen=True)
class Confusions:
    """The worst of a score, worst first; only what was wrong at least once."""

    worst: tuple[tuple[str, float, int], ...]
    """Class, recall in percent, and images."""
    most: tuple[tuple[str, str, int], ...]
    """True class, what it was taken for, and how often."""

    def text(self) -> str:
        """A line each; empty where nothing was wrong."""
        classes = ", ".join(f"{name} {recall:.2f} % of {n}" for name, recall, n in self.worst)
        taken = ", ".join(f"{true} for {other} {n} times" for true, other, n in self.most)
        return f"worst classes: {classes}\nmost often taken: {taken}" if self.worst else ""

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "worst_classes": [{"class": name, "recall": recall, "n": n} for name, recall, n in self.worst],
            "confusions": [{"class": true, "taken_for": other, "n": n} for true, other, n in self.most],
        }


def confusions(score: Score, names: list[str], shown: int = SHOWN) -> Confusions:
    """The classes of the lowest recall, and the most frequent confusions, of a score over classes of these names."""
    of_class, recall = score.confusion.sum(1).tolist(), score.per_class
    wrong = [k for k, n in enumerate(of_class) if n and recall[k] < 100]
    worst = sorted(wrong, key=lambda k: (recall[k], -of_class[k]))[:shown]
    apart = score.confusion.clone().fill_diagonal_(0).flatten()
    counts, places = apart.topk(min(shown, len(apart)))
    pairs = [(divmod(place, len(of_class)), int(n)) for place, n in zip(places.tolist(), counts.tolist(), strict=True)]
    return Confusions(
        tuple((names[k], recall[k], int(of_class[k])) for k in worst),
        tuple((names[true], names[other], n) for (true, other), n in pairs if n),
    )
