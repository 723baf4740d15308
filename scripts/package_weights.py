"""Put what runs have learnt into the package: the weights of the median seed, rounded to half precision.

    python scripts/package_weights.py RUN RUN RUN --data CIFAR --tag cifar100 --license apache-2.0 --baseline PLAIN ...

RUN are finished runs of one recipe with several seeds, PLAIN those of the plain network by it, which the weights' card
compares them with. What the rounded weights score on DATA, and what their gates do there, is measured again; these are
the row's figures. It leaves zoo/weights/MODEL.TAG.safetensors and its row in zoo/weights/weights.json; the same runs
leave the same bytes.
"""

import argparse
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median_low

from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from zoo.explain import ExplainError, GateReport
from zoo.files import write_whole
from zoo.inference.evaluation import matched_batches
from zoo.inference.held_out import open_part
from zoo.inference.trained import load_trained
from zoo.release.manifest_row import check_row, put_row, row_of
from zoo.release.publish import measure, workplace
from zoo.release.publishable import find_model
from zoo.release.staging import load_staged, stage
from zoo.training.run_directory import add_facts, read_result
from zoo.weights.config import read_config
from zoo.weights.manifest import FILE_NAME, WEIGHTS, Weights

ROUNDED = "Its weights are rounded to half precision, and were measured after that."


def median_of(runs: Sequence[Path]) -> Path:
    """The run of the middle accuracy; of an even number the lower one of the two."""
    _, run = median_low((read_result(run)["top1"], run) for run in runs)
    return run


def in_half(file: Path) -> dict[str, Tensor]:
    """The weights of a file in half precision; what counts, such as the steps of a batch norm, stays as it is."""
    return {name: value.half() if value.is_floating_point() else value for name, value in load_file(file).items()}


def rounded(run: Path, folder: Path) -> Path:
    """The model folder of a run with its weights in half precision, in `folder`."""
    model, _ = find_model(run)
    (ours := folder / "model").mkdir()
    shutil.copyfile(model / "config.json", ours / "config.json")
    save_file(in_half(model / FILE_NAME), ours / FILE_NAME, {"format": "pt"})
    add_facts(folder, origin=ROUNDED)
    return ours


def look_at_gates(source: Path, data: str) -> GateReport:
    """What the gates of a run or model folder do on the images that judge it. Raises ExplainError if it has none."""
    trained = load_trained(str(source))
    images, classes, _ = open_part(source, data)
    return zoo.gate_report(trained.network, list(matched_batches(trained, images, classes, 100)))


def package(
    runs: Sequence[Path], data: str, tag: str, license: str, baseline: Sequence[Path] = (), manifest: Path = WEIGHTS
) -> Weights:
    """Put the median of `runs` into the package; return its row. Raises StagingError for runs that do not compare."""
    chosen = median_of(runs)
    others = [run for run in runs if run != chosen]
    with workplace() as folder:
        model = rounded(chosen, folder)
        figures = measure(model, data, workers=0)
        with suppress(ExplainError):  # a plain network has no gates
            add_facts(folder, gates=look_at_gates(model, data).summary)
        name = f"package/{read_config(model)['architecture']}.{tag}"
        staged = stage(model, folder / "staged", name, license, others, baseline, figures)
        load_staged(staged)
        check_row(staged)
        row = row_of(staged, file=f"weights/{staged.name}.safetensors")
        to = manifest.parents[1] / row.file
        write_whole(to, lambda beside: shutil.copyfile(staged.folder / FILE_NAME, beside))
    put_row(row, manifest)
    return row


def main() -> None:
    """Package the weights, and print their row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--license", required=True)
    parser.add_argument("--baseline", type=Path, nargs="+", default=[], metavar="RUN")
    options = parser.parse_args()
    row = package(options.runs, options.data, options.tag, options.license, options.baseline)
    print(f"{row.in_words(row.name)}: {row.file}")


if __name__ == "__main__":
    main()
