"""CIFAR-100 for the package: {plain, SE, CBAM, BAM} in four networks, three seeds each, on the whole test set.

    PYTHONPATH=. python scripts/gpu/cifar100_release.py --data FOLDER --minutes 8.5

Call it again until it exits with 0 (75 says that there is more to do). Each finished run's weights are rounded to fp16,
if they are at most 5 MB then, and measured again in fp32 arithmetic; those of the median seed come to STATE/weights.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleet import Planned, arguments, checked, each_attention, work
from safetensors.torch import load_file, save_file
from tables import RESULTS

from zoo.data import open_held_out
from zoo.data.loaders import HeldOut
from zoo.files import write_whole
from zoo.inference.device import pick_device
from zoo.inference.evaluation import evaluate
from zoo.inference.trained import load_trained

BACKBONES = ("resnet20", "resnet56", "mobilenetv2_100", "resnet18")
ATTENTIONS = ("plain", "se", "cbam", "bam")
LARGEST = 5_000_000
"""Bytes of a file of weights that may ship inside the package."""


class Rounding:
    """Rounds the weights of finished runs, and measures what that costs."""

    def __init__(self) -> None:
        self.batches: dict[str, list[Any]] = {}

    def __call__(self, run: Planned) -> None:
        """Write rounded.safetensors, if it is small enough, and rounded.json with its bytes and top-1."""
        trained, note = run.directory / "model" / "model.safetensors", run.directory / "rounded.json"
        if note.exists() or not trained.exists():
            return
        rounded = {k: v.half() if v.is_floating_point() else v for k, v in load_file(trained).items()}
        measured: dict[str, Any] = {"bytes": sum(value.nbytes for value in rounded.values())}
        if measured["bytes"] <= LARGEST:
            file, about = run.directory / "rounded.safetensors", {"format": "pt", "seed": str(run.seed)}
            write_whole(file, lambda path: save_file(rounded, path, about))
            measured |= {"bytes": file.stat().st_size, "top1": self.top1(run, file)}
        write_whole(note, lambda path: path.write_text(json.dumps(measured), encoding="utf-8"))

    def top1(self, run: Planned, file: Path) -> float:
        """Percent on all held-out images, in fp32 arithmetic."""
        device = pick_device(run.recipe.device)
        trained = load_trained(str(run.directory), device)
        trained.network.load_state_dict(load_file(file))
        key = repr(sorted(trained.config.items()))
        if key not in self.batches:
            images, _, _ = open_held_out(run.recipe.data)
            self.batches[key] = list(HeldOut(images, trained.config, 500, 0, device))
        return evaluate(trained.network, self.batches[key]).top1


def choose(runs: Sequence[Planned], weights: Path, tag: str) -> dict[str, Any]:
    """The run of the median seed of a model that has all its seeds; its rounded weights are moved to `weights`."""
    median = sorted(runs, key=lambda run: (run.result["top1"], run.seed))[(len(runs) - 1) // 2]
    measured = json.loads((median.directory / "rounded.json").read_text(encoding="utf-8"))
    row = {"median_seed": median.seed, "fp16_bytes": measured["bytes"]}
    if "top1" not in measured:
        return row | {"weights": "too large for the package"}
    kept = weights / f"{median.name}.{tag}.safetensors"
    if (rounded := median.directory / "rounded.safetensors").exists():
        weights.mkdir(parents=True, exist_ok=True)
        write_whole(kept, lambda path: shutil.copyfile(rounded, path))
        for run in runs:  # the others would only take room in a bundle
            (run.directory / "rounded.safetensors").unlink(missing_ok=True)
    return row | {
        "top1_median": f"{median.result['top1']:.2f}",
        "top1_fp16": f"{measured['top1']:.2f}",
        "weights": kept.name,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Carry on with the runs, and print the table."""
    recipe = "configs/cifar100_{backbone}_short.toml"
    parser = arguments(__doc__, recipe, "runs/cifar100_release", RESULTS / "cifar100_release.csv")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, metavar="NAME", help="without _cifar")
    parser.add_argument("--attentions", nargs="+", default=ATTENTIONS, metavar="NAME")
    parser.add_argument("--tag", default="cifar100", help="of the files of weights, MODEL.TAG.safetensors")
    options = parser.parse_args(argv)

    def finish(runs: Sequence[Planned], rows: list[dict[str, Any]]) -> Sequence[str]:
        for row in rows:
            of_model = [run for run in runs if run.name == row["model"]]
            if all(run.finished for run in of_model):
                row |= choose(of_model, options.state / "weights", options.tag)
        return ("model", "parameters", "runs", "top1_mean", "top1_sd", "images_per_second", "seconds", "top1_fp16")

    return checked(lambda: work(argv, options, each_attention(options), Rounding(), finish))


if __name__ == "__main__":
    sys.exit(main())
