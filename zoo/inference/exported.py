"""A network that lies in a file of its own, as `zoo export` writes it: `.onnx` run by ONNX Runtime, `.pt2` by torch.

It takes what the network took, a normalised batch (B, C, H, W) or (B, C, D, H, W), and returns logits, on the CPU. What
a timm model says of itself is in the file's metadata, as timm's config.json has it.
"""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import UserError, in_a_line
from zoo.weights.config import check_config
from zoo.weights.model_folder import ModelError

INSTALL = "pip install 'timm-attention-zoo[export]'"
CONFIG, ABOUT = "config.json", "zoo.json"
"""Keys of the metadata: what timm knows of the network, and `About` of the file."""


class ExportedError(UserError, ValueError):
    """A file that holds no exported network, or one that cannot run here."""


@dataclass(frozen=True)
class About:
    """What a file says of itself beside the network's config.json."""

    pixels: bool
    """It takes pixels, uint8 (B, H, W, C) or (B, D, H, W, C), and normalises them itself."""
    free: tuple[str, ...]
    """Axes that may have any length: batch, depth, height, width."""
    parameters: int
    """Of the network that was exported."""


Run = Callable[[Tensor], Tensor]


class ExportedNetwork(nn.Module):
    """In the place of the timm model that was exported."""

    def __init__(self, run: Run, config: dict[str, Any], about: About, called: str) -> None:
        super().__init__()
        self.run, self.about, self.called = run, about, called
        self.config = config
        names = {"label_names": config["label_names"]} if "label_names" in config else {}
        self.pretrained_cfg = {**config["pretrained_cfg"], "architecture": config["architecture"], **names}
        self.num_classes: int = config["num_classes"]
        if "depth" in (config.get("model_args") or {}):
            self.depth: int = config["model_args"]["depth"]

    def forward(self, x: Tensor) -> Tensor:
        """Normalised (B, C, H, W) to logits, where `x` is. Raises ExportedError for a size that the file refuses."""
        images = self.to_pixels(x) if self.about.pixels else x
        try:
            return self.run(images.cpu()).to(x.device)
        except Exception as error:  # each runtime has errors of its own
            shape, free = " x ".join(map(str, images.shape)), ", ".join(self.about.free)
            raise ExportedError(f"{self.called} cannot take {shape} (free are {free}): {in_a_line(error)}") from error

    def to_pixels(self, x: Tensor) -> Tensor:
        """The pixels that were normalised, exactly."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean, std = (torch.tensor(self.pretrained_cfg[key]).view(shape).to(x) for key in ("mean", "std"))
        return (x * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).contiguous()


def is_exported(source: str | Path) -> bool:
    """Whether this names a file that `zoo export` may have written."""
    return Path(source).suffix.lower() in READERS and not Path(source).is_dir()


def load_exported(path: str | Path) -> ExportedNetwork:
    """The network in a file. Raises ExportedError if there is none, or what runs it is not installed."""
    path = Path(path)
    if not path.is_file():
        raise ExportedError(f"there is no file {path}; zoo export MODEL --out {path} writes one")
    run, metadata = READERS[path.suffix.lower()](path)
    if CONFIG not in metadata or ABOUT not in metadata:
        raise ExportedError(
            f"{path} was not written by zoo export: it does not say its input and its classes; export the network with "
            "zoo export, or run it by what wrote it"
        )
    try:
        config, said = check_config(metadata[CONFIG], f"config.json in {path}"), json.loads(metadata[ABOUT])
        about = About(bool(said["pixels"]), tuple(said["free"]), int(said["parameters"]))
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ExportedError(f"the metadata of {path} is damaged ({in_a_line(error)}); export it again") from error
    return ExportedNetwork(run, config, about, str(path))


def as_metadata(config: dict[str, Any], about: About) -> dict[str, str]:
    """What `load_exported` reads."""
    return {CONFIG: json.dumps(config, ensure_ascii=False), ABOUT: json.dumps(asdict(about))}


def _read_onnx(path: Path) -> tuple[Run, dict[str, str]]:
    if not find_spec("onnxruntime"):
        raise ExportedError(f"to run {path} takes ONNX Runtime: {INSTALL}")
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what it cannot do it raises, too
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen kinds, and no root of them
        raise ExportedError(f"{path} is no ONNX file that ONNX Runtime can run: {in_a_line(error)}") from error
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    name = session.get_inputs()[0].name if session.get_inputs() else ""
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]), metadata  # pyright: ignore


def _read_pt2(path: Path) -> tuple[Run, dict[str, str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            metadata = {
                key: archive.read(name).decode()
                for key in (CONFIG, ABOUT)
                for name in names
                if name.endswith(f"/extra/{key}")
            }
            _refuse_pickles(archive, path)
    except (zipfile.BadZipFile, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, ExportedError):
            raise
        raise ExportedError(f"{path} is no .pt2 file of torch.export: {in_a_line(error)}") from error
    if len(metadata) < 2:
        return torch.nn.Identity(), {}
    compiled = any("/aotinductor/" in name for name in names)
    try:
        return (_load_compiled if compiled else _load_program)(path), metadata
    except Exception as error:  # torch raises whatever it meets
        raise ExportedError(f"torch {torch.__version__} cannot load {path}: {in_a_line(error)}") from error


def _refuse_pickles(archive: zipfile.ZipFile, path: Path) -> None:
    """torch would unpickle what a .pt2 file declares to be a pickle, and that can run anything."""
    for name in archive.namelist():
        if name.endswith("_config.json") and "/data/" in name:
            entries = json.loads(archive.read(name)).get("config", {}).values()
            if any(entry.get("use_pickle") for entry in entries):
                raise ExportedError(
                    f"{path} holds pickled objects, which can run anything when read; they are not read"
                )
        if "/sample_inputs/" in name and (content := archive.read(name)):
            try:
                torch.load(io.BytesIO(content), weights_only=True)
            except Exception as error:
                raise ExportedError(f"{path} holds inputs that are no tensors; it is not read") from error


def _load_program(path: Path) -> Run:
    program = torch.export.load(path).module()  # which has no eval mode, so it is no part of a module
    return lambda x: program(x)


def _load_compiled(path: Path) -> Run:
    from torch._inductor import aoti_load_package

    return partial(_first, aoti_load_package(str(path)))


def _first(model: Any, x: Tensor) -> Tensor:
    found = model(x)
    return found[0] if isinstance(found, list | tuple) else found


READERS: dict[str, Callable[[Path], tuple[Run, dict[str, str]]]] = {".onnx": _read_onnx, ".pt2": _read_pt2}
"""By the end of the file's name."""
