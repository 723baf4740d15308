"""Latency on this machine's CPU: six networks in all the forms that they are shipped in, one and two threads.

    python scripts/latency_table.py [NETWORK ...]

Plain and CBAM MobileNetV2, ResNet-50 and EfficientNet-Lite0, one image and eight of 224 pixels: eager without kernels,
with them (extra `fast`), folded for inference, compiled, in ONNX Runtime, and there in int8. Weights are random, which
changes no time. All forms of a network take turns, as in `zoo bench`; what one thread computed is counted, of two the
clock. It writes scripts/latency_table.csv, and leaves out the conditions that are there.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from measured import read_rows, require_like, write_rows
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import resolve_data_config

import zoo
from zoo.attention.kernels import kernels
from zoo.bench.bench import software
from zoo.bench.contestants import randomise
from zoo.bench.timing import LAYOUTS, Conditions, memory_kept, stepping, take_turns
from zoo.export.int8 import quantise
from zoo.export.onnx_file import write_onnx
from zoo.export.writing import config_of
from zoo.hardware import hardware
from zoo.inference import Trained
from zoo.inference.exported import About, load_exported
from zoo.models.macs import parameter_count

TABLE = Path(__file__).with_suffix(".csv")
ACCURACY = Path(__file__).with_name("int8_table.csv")
NETWORKS = tuple(
    f"{gates}{backbone}"
    for backbone in ("mobilenetv2_100", "resnet50", "tf_efficientnet_lite0")
    for gates in ("", "cbam_")
)
ROUNDS = {1: 15, 8: 5}
"""By the images in a batch."""
CPU = torch.device("cpu")
FORMS = ("eager", "kernels", "fused", "compiled", "ONNX Runtime", "int8")


def conditions(rows: Sequence[Mapping[str, str]], name: str) -> list[tuple[int, int]]:
    """Threads and images of a batch that are not in the table yet."""
    done = {(int(row["threads"]), int(row["batch"])) for row in rows if row["network"] == name}
    return [(threads, batch) for threads in (1, 2) for batch in ROUNDS if (threads, batch) not in done]


def measure(name: str, left: Sequence[tuple[int, int]]) -> Iterator[list[Mapping[str, object]]]:
    """The network's rows, for each number of threads and each batch."""
    torch.manual_seed(0)
    network: Any = randomise(timm.create_model(name)).eval().to(memory_format=LAYOUTS["channels_last"][4])
    with TemporaryDirectory() as folder:
        files = exported(name, network, Path(folder))
        megabytes = {form: path.stat().st_size / 1e6 for form, path in files.items()}
        for threads, batch in left:
            torch.set_num_threads(threads)
            images = torch.randn(batch, 3, 224, 224).contiguous(memory_format=LAYOUTS["channels_last"][4])
            how = Conditions(CPU, batch, rounds=ROUNDS[batch])
            with memory_kept():
                timings = take_turns(steps(network, files, images, how), how)
            yield [
                {
                    "network": name,
                    "form": form,
                    "threads": threads,
                    "batch": batch,
                    "ms": f"{1000 * timing.seconds:.2f}",
                    "img_per_s": f"{batch / timing.seconds:.1f}",
                    "ratio": f"{timing.ratio:.3f}",
                    "ratio_q1": f"{timing.low:.3f}",
                    "ratio_q3": f"{timing.high:.3f}",
                    "megabytes": f"{megabytes.get(form, 4 * parameter_count(network) / 1e6):.1f}",
                    "rounds": how.rounds,
                }
                for form, timing in timings.items()
            ]


def exported(name: str, network: Any, folder: Path) -> dict[str, Path]:
    """Its ONNX files, in float and int8; calibrated on two photographs, which is enough to be timed."""
    trained = Trained(name, network, resolve_data_config({}, model=network), ())
    about = About(False, ("batch",), parameter_count(network))
    write_onnx(trained, folder / "float.onnx", config_of(trained), about, fixed=True)
    (folder / "pictures").mkdir()
    for k, pixels in enumerate(load_sample_images().images):
        Image.fromarray(pixels).save(folder / "pictures" / f"{k}.png")
    made = quantise(trained, folder / "float.onnx", folder / "pictures", None, False, most=100)
    int8 = next(each.path for each in made if each.way == "per channel")
    return {"ONNX Runtime": folder / "float.onnx", "int8": int8}


def steps(network: Any, files: Mapping[str, Path], images: torch.Tensor, how: Conditions) -> dict[str, Any]:
    """One pass of each form; plain networks have no kernels."""
    found = {"eager": without_kernels(stepping(network, images, how))}
    if any(isinstance(module, zoo.attention.Attention) for module in network.modules()):
        found["kernels"] = stepping(network, images, how)
    found["fused"] = stepping(zoo.fuse_for_inference(network, images[:1]), images, how)
    torch.compiler.reset()
    compiled: Any = torch.compile(network)
    found["compiled"] = stepping(compiled, images, how)
    sessions: dict[str, Any] = {form: load_exported(path) for form, path in files.items()}
    return found | {form: stepping(session, images.contiguous(), how) for form, session in sessions.items()}


def without_kernels(step: Callable[[], object]) -> Callable[[], object]:
    """The same in plain PyTorch."""

    def eager() -> object:
        with kernels("off"):
            return step()

    return eager


def table(rows: Sequence[Mapping[str, str]], accuracy: Sequence[Mapping[str, str]]) -> str:
    """The rows of the file as Markdown, a line a network and form."""
    columns = [(threads, batch) for threads in (1, 2) for batch in ROUNDS]
    heads = [f"{threads} thread{'s' * (threads > 1)}, batch {batch}" for threads, batch in columns]
    lines = [f"| network | form | {' | '.join(heads)} | MB | top-1, % |", "|---" * (4 + len(heads)) + "|"]
    known = {(row["network"], row["form"]): row["top1"] for row in accuracy}
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        for form in (form for form in FORMS if any(row["form"] == form for row in own)):
            mine = {(int(row["threads"]), int(row["batch"])): row for row in own if row["form"] == form}
            cells = [_cell(mine[key]) if key in mine else "-" for key in columns]
            top1 = known.get((name, "int8 per channel" if form == "int8" else "float, PyTorch"), "-")
            size = next(iter(mine.values()))["megabytes"]
            lines.append(f"| `{name}` | {form} | {' | '.join(cells)} | {size} | {top1} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, str]) -> str:
    if row["form"] == "eager":
        return row["img_per_s"]
    ratio, low, high = (float(row[key]) for key in ("ratio", "ratio_q1", "ratio_q3"))
    return f"{row['img_per_s']}; {ratio:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Measure what is not in the table yet, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=NETWORKS, help="these alone")
    asked = parser.parse_args()
    rows: list[Any] = read_rows(TABLE)[1] if TABLE.exists() else []
    how = f"{hardware(CPU)}; {software()}"
    for name in asked.networks:
        if left := conditions(rows, name):
            require_like(TABLE, how)
            for new in measure(name, left):
                rows += [{key: str(value) for key, value in row.items()} for row in new]
                write_rows(TABLE, how, rows)
                print(*(f"{row['form']} {row['img_per_s']}" for row in new), flush=True)
    print(table(rows, read_rows(ACCURACY)[1] if ACCURACY.exists() else []))


if __name__ == "__main__":
    main()
