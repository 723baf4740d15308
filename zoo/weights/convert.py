"""Convert weights of another project: to a model of the zoo that computes the same, or an error that says why not.

Gates of other projects have the published form, so a model with such weights is built with `neutral=False`; gates that
plain weights come without are made here, in the model's own form. What is written says which.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import PretrainedCfg, save_for_hf
from torch import Tensor

from zoo.files import write_whole
from zoo.weights.foreign_files import ConvertError, read_weights
from zoo.weights.form import form_of
from zoo.weights.known import UnknownModelError, require_model
from zoo.weights.projects import SOURCES, Source


@dataclass(frozen=True)
class Converted:
    """A network of the zoo with another project's weights in it."""

    network: Any
    source: str
    """Key of SOURCES."""
    file: str
    """Name of the file that held the weights."""
    attn_kwargs: Mapping[str, Any]
    """Switches of the attention, its form (`neutral`) among them; empty for a plain network."""

    @property
    def name(self) -> str:
        """The model's name without a tag."""
        return self.network.pretrained_cfg["architecture"]


def convert(path: str | Path, source: str, model: str, network: str = "") -> Converted:
    """The zoo's `model` with the weights of a file of `source`, a key of SOURCES; it has as many classes as the file.

    `network` is the source's own name of the network; it is needed where two of its networks have the same names and
    shapes of weights and compute differently. Raises ConvertError.
    """
    if source not in SOURCES:
        raise ConvertError(f"unknown source {source!r}; choices are {', '.join(SOURCES)}")
    try:
        name = require_model(model).split(".")[0]
    except UnknownModelError as error:
        raise ConvertError(str(error)) from None
    path, row = Path(path), SOURCES[source]
    weights = read_weights(path)
    refuse_what_differs(path, source, name, network, weights)
    weights = rename(weights, row)
    if "fc.weight" not in weights:
        raise ConvertError(f"{path} has no classifier, so it is no whole ResNet of {source}; is --from right?")
    attn_kwargs = dict(row.attn_kwargs)
    if source == "timm" and "layer1.0.se.channel.fc1.weight" in weights:
        attn_kwargs = {"bias": "layer1.0.se.channel.fc1.bias" in weights}
    if attn_kwargs and not name.startswith("cbam_"):
        raise ConvertError(f"{path} holds CBAM, which {name} has not; name --model cbam_{name.split('_', 1)[-1]}")
    gates = gates_of(name)
    weights = place_bam(weights, gates)
    held = any(key.startswith(tuple(gates)) for key in weights)
    if gates and not row.plain and not held:
        raise ConvertError(f"{path} holds no attention, and {name} has it; a warm start is --from torchvision or timm")
    if not held and not all(gates.values()):
        raise ConvertError(
            f"{path} is a plain network, and the gates of {name} have no form that leaves it as it is; name the plain "
            "model, or another attention"
        )
    if gates:
        # A file that the zoo wrote has timm's names, so it may come here too; it says itself in which form it is.
        attn_kwargs["neutral"] = (form_of(path) or False) if held else all(gates.values())
    options = {"num_classes": len(weights["fc.weight"]), "attn_kwargs": attn_kwargs or None}
    loaded = {"state_dict": weights, "num_classes": options["num_classes"]}
    try:
        built: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=loaded, **options)
    except (ValueError, RuntimeError) as error:  # of the model's checkpoint filter, and of PyTorch
        raise ConvertError(f"{path} is no {name} of {source}: {' '.join(str(error).split())[:400]}") from None
    del built.pretrained_cfg["state_dict"]
    return Converted(built.eval(), source, path.name, attn_kwargs)


def gates_of(model: str) -> dict[str, bool]:
    """How the names of a model's gate weights begin (`layer1.0.se.`) -> whether that gate is neutral by default.

    Empty for a plain network.
    """
    with torch.device("meta"):  # without values, so it costs no memory
        network: Any = timm.create_model(model)
    gates = [site.gate for site in getattr(network, "gate_sites", ())]
    return {f"{gate}.": network.get_submodule(gate).neutral for gate in gates}


def rename(weights: Mapping[str, Tensor], row: Source) -> dict[str, Tensor]:
    """A source's weights under the zoo's names, each in the form of the zoo's layer."""
    converted = {}
    for key, value in weights.items():
        for pattern, new in row.rules:
            key = re.sub(pattern, new, key)
        for pattern, change in row.changes.items():
            if re.fullmatch(pattern, key):
                value = change(value)
        converted[key] = value
    return converted


def place_bam(weights: Mapping[str, Tensor], gates: Iterable[str]) -> dict[str, Tensor]:
    """`layerN.bam.` becomes the zoo's name of that gate, which sits behind the stage's last block: `layerN.B.`."""
    of_stage = {gate.split(".")[0]: gate for gate in gates}
    return {re.sub(r"^(layer\d)\.bam\.", lambda m: of_stage.get(m[1], f"{m[1]}."), k): v for k, v in weights.items()}


def refuse_what_differs(path: Path, source: str, name: str, network: str, weights: Mapping[str, Tensor]) -> None:
    """Raise ConvertError for weights that fit the model `name` in names and shapes, but would compute something else.

    `network` is the source's own name of the network, where the user gave it.
    """
    bam = any(re.match(r"(module\.)?bam\d\.|features\.stage\d\.unit1\.bam\.", key) for key in weights)
    if bam and name.startswith("bam_") and not name.startswith("bam_mul_"):
        right = f"bam_mul_{name.removeprefix('bam_')}"
        raise ConvertError(f"BAM is a product in the networks of {source}, and a sum in {name}; name --model {right}")
    if any(key.startswith("layer0.") for key in weights):
        raise ConvertError(
            f"{path} is one of timm's legacy SE networks, which stride in the first 1x1 convolution; {name} strides in "
            f"the 3x3 one. Use timm's own name: legacy_{name.replace('se_', 'se')}"
        )
    if source == "timm" and name in ("se_resnet18", "se_resnet34") and "layer1.0.se.fc1.weight" in weights:
        raise ConvertError(
            f"timm rounds the 4 hidden units of its first SE gates up to 8, which {name} has not; use timm's own name: "
            f"{name.replace('se_', 'se')}"
        )
    if (
        source == "pytorchcv"
        and re.match(r"(se_)?resnet\d", name)
        and "features.stage1.unit1.body.conv3.conv.weight" in weights
    ):
        # (se)resnet50 and (se)resnet50b have the same names and shapes; a file is called by the network's name.
        called = network or re.split(r"[-.]", path.name)[0]
        right = f"{name.replace('se_', 'se')}b"
        if called == right[:-1]:
            raise ConvertError(
                f"pytorchcv's {called} strides in the first 1x1 convolution, {name} in the 3x3 one; only {right} can "
                "be converted"
            )
        if called != right:
            raise ConvertError(
                f"{path.name} does not say whether it is pytorchcv's {right[:-1]} or {right}, which differ only in "
                f"where they stride; add --network {right} if it is that one"
            )


def require_free(out: str | Path, tag: str = "") -> None:
    """Raise ConvertError if a file or folder is in the place of what is to be written, or a tag is none."""
    path = Path(out)
    if path.exists() or path.is_symlink():
        raise ConvertError(f"{path} is there already; give another path with --out, or remove it")
    if above := next((each for each in path.parents if each.exists() and not each.is_dir()), None):
        raise ConvertError(f"cannot write {path}: {above} is a file; give another path with --out")
    if tag and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", tag):
        raise ConvertError(f"--tag {tag!r} is no tag of weights, such as official_in1k")


def write(converted: Converted, out: str | Path, tag: str = "") -> str:
    """Write a `.safetensors` file, or a model folder if `out` is called otherwise; return the Python that loads it.

    Raises ConvertError if something is there already.
    """
    path, row, network = Path(out), SOURCES[converted.source], converted.network
    origin = f"Converted from {converted.file} of {row.origin}; it computes the same."
    require_free(path, tag)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        about = {"format": "pt", "architecture": converted.name, "origin": origin}
        if "neutral" in converted.attn_kwargs:
            about["neutral"] = str(converted.attn_kwargs["neutral"]).lower()  # as `form_of` reads it
        write_whole(path, lambda beside: save_file(weights, beside, about))
        return _loading_line(converted, path)
    # What timm knows of the weights that this model usually starts from does not describe these. It writes by itself
    # with which `attn_kwargs` the network was made.
    kept = ("first_conv", "classifier", "input_size", "pool_size", "interpolation", "crop_pct", "mean", "std")
    cfg: dict[str, Any] = {key: network.pretrained_cfg[key] for key in kept} | dict(row.cfg)
    cfg |= {"license": row.license or None, "num_classes": network.num_classes}
    cfg |= {"tag": tag or f"{converted.source}_in1k"}
    network.pretrained_cfg = PretrainedCfg(architecture=converted.name, **cfg).to_dict()
    options: dict[str, Any] = {"model_config": {"zoo": {"origin": origin}}, "safe_serialization": True}
    options["data_config"] = {key: cfg[key] for key in ("input_size", "interpolation", "crop_pct", "mean", "std")}
    write_whole(path, lambda beside: save_for_hf(network, str(beside), **options))
    return f'timm.create_model("local-dir:{path}", pretrained=True)'


def _loading_line(converted: Converted, path: Path) -> str:
    classes = converted.network.num_classes
    words = [f'"{converted.name}"', "pretrained=True"]
    overlay = [f'file="{path}"']
    if classes != 1000:
        words.append(f"num_classes={classes}")
        overlay.append(f"num_classes={classes}")
    if converted.attn_kwargs:
        words.append(f"attn_kwargs={dict(converted.attn_kwargs)!r}")
    return f"timm.create_model({', '.join(words)}, pretrained_cfg_overlay=dict({', '.join(overlay)}))"
