"""An ONNX file in int8, by ONNX Runtime's static quantisation; the gates stay in float.

Scales of weights are one a channel or one a tensor, and which of them keeps more of a network's answers is not known
before: both are made and measured, and the better one is kept. (Dynamic quantisation is not offered: it collapses
convolutional networks.) A gate multiplies two activations, which int8 handles badly, and it is small.
"""

import ast
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.attention import Attention
from zoo.data import DataError
from zoo.errors import in_a_line
from zoo.export.check import OnData, compare_on
from zoo.export.errors import ExportError
from zoo.export.graph import graph_of
from zoo.export.onnx_file import SCOPES
from zoo.inference import Trained, find_inputs
from zoo.inference.exported import ExportedNetwork, load_exported

MOST = 256
"""Pictures of a folder that are looked at: half of them to calibrate, half to count the answers."""
WAYS = {"per channel": True, "per tensor": False}


@dataclass(frozen=True)
class Quantised:
    """One way to quantise, measured."""

    way: str
    path: Path
    same: int
    """Answers that are the network's."""
    n: int
    """Pictures that it was not calibrated on."""
    on_data: OnData | None

    @property
    def lost(self) -> float:
        """Percent of top-1 on data; without any, of the answers."""
        return self.on_data.lost if self.on_data else 100 - 100 * self.same / self.n

    def text(self) -> str:
        """In words."""
        top1 = f", top-1 {self.on_data.after.top1:.2f} after {self.on_data.before.top1:.2f} %" if self.on_data else ""
        size = self.path.stat().st_size / 1e6
        return f"int8 {self.way}: {self.same} of {self.n} answers stay{top1}, {size:.2f} MB"


def quantise(
    trained: Trained,
    file: Path,
    folder: Path,
    data: tuple[Any, tuple[str, ...], str] | None,
    by_order: bool,
    most: float,
) -> tuple[Quantised, Quantised]:
    """Make two int8 files beside the float `file`, calibrated on the pictures in `folder`: the better one first.

    Raises ExportError if that loses more than `most` percent, DataError for pictures that cannot be read.
    """
    fit, count = _pictures(trained, folder)
    exported = load_exported(file)
    with torch.inference_mode():
        answers = torch.cat([trained.network(x).argmax(1) for x in count.split(32)])
    gates = gate_nodes(trained, file, exported.about.pixels)
    found: list[Quantised] = []
    for way, per_channel in WAYS.items():
        path = file.with_name(f"{'channel' if per_channel else 'tensor'}.onnx")
        _quantise(file, path, _Calibration(exported, fit), per_channel, gates)
        network = load_exported(path)
        same = int((torch.cat([network(x).argmax(1) for x in count.split(32)]) == answers).sum())
        on_data = compare_on(trained, network, data, by_order) if data else None
        found.append(Quantised(way, path, same, len(count), on_data))
    better, other = sorted(found, key=lambda each: each.lost)
    if better.lost > most:
        raise ExportError(
            f"{better.text()}; {other.text()}: both lose more than {most:g} %; nothing was written. Calibrate on more "
            "pictures of the kind that it will see, keep the file in float, or allow more by --most-lost"
        )
    return better, other


def gate_nodes(trained: Trained, file: Path, pixels: bool) -> list[str]:
    """The nodes of an ONNX file that stand for attention, by the modules that they come from."""
    import onnx  # pyright: ignore[reportMissingImports]

    gates = {name for name, module in graph_of(trained, pixels).named_modules() if isinstance(module, Attention)}
    found = []
    for node in onnx.load(file).graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        if gates & set(ast.literal_eval(scopes)):
            found.append(node.name)
    return found


def _pictures(trained: Trained, folder: Path) -> tuple[Tensor, Tensor]:
    """Pictures to calibrate on and others to count answers on, as the network takes them."""
    files = list(find_inputs(trained, [folder]))
    chosen = files[:: max(1, -(-len(files) // MOST))]
    if len(chosen) < 2:
        raise DataError(f"{folder} holds {len(files)} {trained.spec.kind.many}; to calibrate takes two at least")
    read = trained.spec.kind.reader(trained.config, trained.spec.shape)
    x = torch.stack([read(file) for file in chosen])
    return x[::2], x[1::2]


class _Calibration:
    """What ONNX Runtime asks for inputs, one after the other."""

    def __init__(self, exported: ExportedNetwork, x: Tensor) -> None:
        self.batches: Iterator[Tensor] = iter(x.split(1))
        self.prepare = exported.to_pixels if exported.about.pixels else lambda batch: batch

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": self.prepare(batch).numpy()}


def _quantise(file: Path, path: Path, calibration: _Calibration, per_channel: bool, gates: list[str]) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # pyright: ignore[reportMissingImports]

    reader: Any = calibration
    level = logging.root.level
    try:
        logging.root.setLevel(logging.ERROR)  # it advises an optimisation that torch's exporter has done
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_static(
                file,
                path,
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=per_channel,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                nodes_to_exclude=gates,
            )
    except Exception as error:  # it has no errors of its own
        raise ExportError(f"ONNX Runtime cannot quantise this network: {in_a_line(error)}") from error
    finally:
        logging.root.setLevel(level)
