"""Weights of other projects, converted: each source is a table of names, and what it computes otherwise is refused.

    official      Jongchan/attention-module, CBAM and BAM ResNets (MIT)
    pytorchcv     osmr/pytorchcv: cbam_resnet*, bam_resnet*, seresnet18/34 and seresnet*b (MIT)
    luuuyi        luuuyi/CBAM.PyTorch, CBAM ResNets (no licence)
    torchvision   its plain ResNets, as a warm start (BSD-3-Clause)
    timm          its SE and plain ResNets, and those with `attn_layer="cbam"` (Apache-2.0)

BAM is a product in `official` and in `pytorchcv`, so their BAM networks are the zoo's `bam_mul_*`. Their CBAM reads
[max, mean] in its spatial gate where the zoo's reads [mean, max], so that convolution's input channels change places.
"""

import difflib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import PretrainedCfg, save_for_hf
from torch import Tensor

from zoo.files import write_whole
from zoo.models.warm_start import WarmStartError, fold_gates

Change = Callable[[Tensor], Tensor]


class ConvertError(ValueError):
    """A file that cannot be converted to the model that was named."""


@dataclass(frozen=True)
class Source:
    """How a project names its weights, and what its networks compute otherwise."""

    origin: str
    """Where the project is, for the provenance."""
    license: str
    rules: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    """Regular expression -> replacement in a name; all that match are applied, in this order."""
    changes: Mapping[str, Change] = field(default_factory=dict)
    """Regular expression of a converted name -> what happens to that weight."""
    attn_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Switches of the attention that make the zoo's model compute the same."""
    plain: bool = False
    """Whether weights without gates are taken for a model with gates, as a warm start."""
    cfg: Mapping[str, Any] = field(default_factory=dict)
    """Input that the source's ImageNet weights were made for, where the model's own default is another."""


def _swap(weight: Tensor) -> Tensor:
    """Exchange the two input channels of CBAM's spatial convolution, (1, 2, k, k)."""
    return weight.flip(1)


def _flat(weight: Tensor) -> Tensor:
    """A 1x1 convolution (out, in, 1, 1) as a linear layer (out, in)."""
    return weight.flatten(1)


def _stage_before(match: re.Match[str]) -> str:
    """pytorchcv has BAM in front of a stage where the zoo has it behind the one before."""
    return f"layer{int(match[1]) - 1}.bam."


def _unit_before(match: re.Match[str]) -> str:
    """pytorchcv counts units from 1."""
    return f".{int(match[1]) - 1}."


IMAGENET = {"interpolation": "bilinear", "crop_pct": 0.875}

SOURCES = {
    "official": Source(
        "https://github.com/Jongchan/attention-module",
        "mit",
        (
            (r"^module\.", ""),
            (r"\.cbam\.ChannelGate\.mlp\.1\.", ".se.channel.fc1."),
            (r"\.cbam\.ChannelGate\.mlp\.3\.", ".se.channel.fc2."),
            (r"\.cbam\.SpatialGate\.spatial\.", ".se.spatial."),
            (r"^bam(\d)\.", r"layer\1.bam."),
            (r"\.channel_att\.gate_c\.gate_c_fc_0\.", ".channel.fc1."),
            (r"\.channel_att\.gate_c\.gate_c_bn_1\.", ".channel.bn."),
            (r"\.channel_att\.gate_c\.gate_c_fc_final\.", ".channel.fc2."),
            (r"\.spatial_att\.gate_s\.gate_s_conv_reduce0\.", ".spatial.trunk.reduce."),
            (r"\.spatial_att\.gate_s\.gate_s_bn_reduce0\.", ".spatial.trunk.reduce_bn."),
            (r"\.spatial_att\.gate_s\.gate_s_conv_di_0\.", ".spatial.trunk.conv1."),
            (r"\.spatial_att\.gate_s\.gate_s_bn_di_0\.", ".spatial.trunk.conv1_bn."),
            (r"\.spatial_att\.gate_s\.gate_s_conv_di_1\.", ".spatial.trunk.conv2."),
            (r"\.spatial_att\.gate_s\.gate_s_bn_di_1\.", ".spatial.trunk.conv2_bn."),
            (r"\.spatial_att\.gate_s\.gate_s_conv_final\.", ".spatial.project."),
        ),
        {r".*\.se\.spatial\.conv\.weight": _swap},
        cfg=IMAGENET,
    ),
    "pytorchcv": Source(
        "https://github.com/osmr/pytorchcv",
        "mit",
        (
            (r"^features\.init_block\.conv\.conv\.", "conv1."),
            (r"^features\.init_block\.conv\.bn\.", "bn1."),
            (r"^features\.stage(\d)\.", r"layer\1."),
            (r"\.res_unit\.", "."),
            (r"\.body\.conv(\d)\.conv\.", r".conv\1."),
            (r"\.body\.conv(\d)\.bn\.", r".bn\1."),
            (r"\.identity_conv\.conv\.", ".downsample.0."),
            (r"\.identity_conv\.bn\.", ".downsample.1."),
            (r"\.cbam\.ch_gate\.mlp\.", ".se.channel."),
            (r"\.cbam\.sp_gate\.conv\.", ".se.spatial."),
            (r"\.se\.conv(\d)\.", r".se.fc\1."),
            (r"\.ch_att\.init_fc\.fc\.", ".channel.fc1."),
            (r"\.ch_att\.init_fc\.bn\.", ".channel.bn."),
            (r"\.ch_att\.final_fc\.", ".channel.fc2."),
            (r"\.sp_att\.init_conv\.conv\.", ".spatial.trunk.reduce."),
            (r"\.sp_att\.init_conv\.bn\.", ".spatial.trunk.reduce_bn."),
            (r"\.sp_att\.dil_convs\.conv(\d)\.conv\.", r".spatial.trunk.conv\1."),
            (r"\.sp_att\.dil_convs\.conv(\d)\.bn\.", r".spatial.trunk.conv\1_bn."),
            (r"\.sp_att\.final_conv\.", ".spatial.project."),
            (r"^layer(\d)\.unit1\.bam\.", _stage_before),
            (r"\.unit(\d+)\.", _unit_before),
            (r"^output\.", "fc."),
        ),
        {r".*\.se\.spatial\.conv\.weight": _swap, r".*\.se\.fc\d\.weight": _flat},
        cfg=IMAGENET,
    ),
    "luuuyi": Source(
        "https://github.com/luuuyi/CBAM.PyTorch",
        "",
        (
            (r"^module\.", ""),
            (r"\.ca\.fc1\.", ".se.channel.fc1."),  # the project's first years
            (r"\.ca\.fc2\.", ".se.channel.fc2."),
            (r"\.ca\.fc\.0\.", ".se.channel.fc1."),
            (r"\.ca\.fc\.2\.", ".se.channel.fc2."),
            (r"\.sa\.conv1\.", ".se.spatial.conv."),
        ),
        {r".*\.se\.channel\.fc\d\.weight": _flat},
        {"bias": False, "norm": False},
        cfg=IMAGENET,
    ),
    "torchvision": Source("https://github.com/pytorch/vision", "bsd-3-clause", (), plain=True, cfg=IMAGENET),
    "timm": Source(
        "https://github.com/huggingface/pytorch-image-models",
        "apache-2.0",
        (
            (r"\.se\.spatial\.conv\.conv\.", ".se.spatial.conv."),
            (r"\.se\.spatial\.conv\.bn\.", ".se.spatial.bn."),
        ),
        {r".*\.se\.(channel\.)?fc\d\.weight": _flat},
        plain=True,
    ),
}


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors or PyTorch file; no code in the file is run. Raises ConvertError."""
    path = Path(path)
    if not path.is_file():
        raise ConvertError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ConvertError(f"{path} is no whole safetensors file: {error}") from None
    if zipfile.is_zipfile(path):
        inside = zipfile.ZipFile(path).namelist()
        if not any(name.endswith("data.pkl") for name in inside):
            raise ConvertError(f"{path} is an archive of {', '.join(inside[:3])}; unpack it, and give what was in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which are then read or refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)|Unsupported (?:global|class|operand)[^\w]*([\w.]+)", str(error))
        what = f" ({found[1] or found[2]})" if found else ""
        raise ConvertError(
            f"{path} holds more than weights{what}, and reading that could run any code it brings; save only the state "
            "dict where you trust the file: torch.save(model.state_dict(), FILE)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConvertError(f"{path} is no whole PyTorch file: {str(error).splitlines()[0]}") from None
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        nested = [content[key] for key in ("state_dict", "model", "net") if isinstance(content.get(key), Mapping)]
        if not nested:
            break
        content = nested[0]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ConvertError(f"{path} holds no state dict, but {type(content).__name__}")
    if "state_dict" in content and isinstance(content["state_dict"], Mapping):
        content = content["state_dict"]  # beside a tensor such as the best accuracy
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class Converted:
    """A network of the zoo with another project's weights in it."""

    network: Any
    source: str
    file: str
    """Name of the file that they came from."""
    attn_kwargs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the model, without a tag."""
        return self.network.pretrained_cfg["architecture"]


def convert(path: str | Path, source: str, model: str, network: str = "") -> Converted:
    """Make the zoo's `model` of a file of `source`, one of SOURCES; both compute the same.

    `network` is the name of the network in the source, needed where two of them differ only in what no file shows.
    The model has as many classes as the file. Raises ConvertError.
    """
    if source not in SOURCES:
        raise ConvertError(f"unknown source {source!r}; choices are {', '.join(SOURCES)}")
    name = model.split(".")[0]
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        raise ConvertError(
            f"unknown model {name!r}; {'did you mean ' + ' or '.join(near) if near else 'see `zoo list`'}"
        )
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
    built: Any = timm.create_model(name, num_classes=len(weights["fc.weight"]), attn_kwargs=attn_kwargs or None)
    weights = place_bam(weights, built)
    gates = tuple(f"{site.gate}." for site in getattr(built, "gate_sites", ()))
    if gates and not row.plain and not any(key.startswith(gates) for key in weights):
        raise ConvertError(f"{path} holds no attention, and {name} has it; a warm start is --from torchvision or timm")
    try:
        built.load_state_dict(fold_gates(weights, built) if hasattr(built, "gate_sites") else weights)
    except (WarmStartError, RuntimeError) as error:
        raise ConvertError(f"{path} is no {name} of {source}: {' '.join(str(error).split())[:400]}") from None
    return Converted(built.eval(), source, path.name, attn_kwargs)


def rename(weights: Mapping[str, Tensor], row: Source) -> dict[str, Tensor]:
    """The zoo's names for a source's weights, each changed to how the zoo's layer holds it."""
    converted = {}
    for key, value in weights.items():
        for pattern, new in row.rules:
            key = re.sub(pattern, new, key)
        for pattern, change in row.changes.items():
            if re.fullmatch(pattern, key):
                value = change(value)
        converted[key] = value
    return converted


def place_bam(weights: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """`layerN.bam.` becomes the zoo's place of that gate: one behind the stage's last block."""
    places = {site.gate.split(".")[0]: site.gate for site in getattr(network, "gate_sites", ())}
    return {re.sub(r"^(layer\d)\.bam\.", lambda m: f"{places.get(m[1], m[1])}.", key): v for key, v in weights.items()}


def refuse_what_differs(path: Path, source: str, name: str, network: str, weights: Mapping[str, Tensor]) -> None:
    """Raise ConvertError for weights whose names and shapes fit, but that the named model does not compute with."""
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


def write(converted: Converted, out: str | Path, tag: str = "") -> str:
    """Write a `.safetensors` file, or else a model folder that `zoo publish` takes; return the line that loads it.

    Raises ConvertError if a folder is there already.
    """
    path, row, network = Path(out), SOURCES[converted.source], converted.network
    origin = f"Converted from {converted.file} of {row.origin}; it computes the same."
    if path.exists() and path.suffix != ".safetensors":
        raise ConvertError(f"{path} is there already; give another folder with --out, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        about = {"format": "pt", "architecture": converted.name, "origin": origin}
        write_whole(path, lambda beside: save_file(weights, beside, about))
        return _call(converted, path)
    # What timm knows of the weights that this model usually starts from does not describe these.
    kept = ("first_conv", "classifier", "input_size", "pool_size", "interpolation", "crop_pct", "mean", "std")
    cfg: dict[str, Any] = {key: network.pretrained_cfg[key] for key in kept} | dict(row.cfg)
    cfg |= {"license": row.license or None, "num_classes": network.num_classes}
    cfg |= {"tag": tag or f"{converted.source}_in1k"}
    network.pretrained_cfg = PretrainedCfg(architecture=converted.name, **cfg).to_dict()
    options: dict[str, Any] = {"model_config": {"zoo": {"origin": origin}}, "safe_serialization": True}
    options["data_config"] = {key: cfg[key] for key in ("input_size", "interpolation", "crop_pct", "mean", "std")}
    write_whole(path, lambda beside: save_for_hf(network, str(beside), **options))
    return f'timm.create_model("local-dir:{path}", pretrained=True)'


def _call(converted: Converted, path: Path) -> str:
    classes = converted.network.num_classes
    words = [f'"{converted.name}"', "pretrained=True"]
    overlay = [f'file="{path}"']
    if classes != 1000:
        words.append(f"num_classes={classes}")
        overlay.append(f"num_classes={classes}")
    if converted.attn_kwargs:
        words.append(f"attn_kwargs={dict(converted.attn_kwargs)!r}")
    return f"timm.create_model({', '.join(words)}, pretrained_cfg_overlay=dict({', '.join(overlay)}))"
