"""Places in any network where attention can go: `where` of zoo.attach, made into mounts.

"stages"     behind each stage, as timm's `feature_info` lists them
"blocks"     in each residual branch or inverted residual of the families in BLOCKS
patterns     behind each module whose name fits one of them, as timm's AttentionExtract takes them; the whole name of a
             place that "blocks" means is that place
a function   behind each module for which `where(name, module)` is true
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch

from torch import nn

from zoo.models.mounting import AttachedSite, AttachError, Mount, before, behind, in_slot
from zoo.models.placement import Network

Where = str | Sequence[str] | Callable[[str, nn.Module], bool]
"""Where gates go: "stages", "blocks", patterns of module names, or a function (name, module) -> bool."""


def mounts(model: Network, where: Where) -> list[Mount]:
    """The mounts that `where` means, first to last. Raises AttachError if it means none, or one that is taken."""
    find = WORDS.get(where) if isinstance(where, str) else None
    found = find(model) if find else _by_name(model, where)
    taken = {site.mount.place for site in attached_sites(model) if site.mount}
    for mount in found:
        if mount.place in taken or _ends_in_gate(model, mount):
            raise AttachError(
                f"there is attention at {mount.place} already; zoo.detach(model) takes gates out that have learnt "
                "nothing"
            )
    return found


def attached_sites(model: Network) -> list[AttachedSite]:
    """The gates that were attached to a network."""
    return [site for site in getattr(model, "gate_sites", ()) if isinstance(site, AttachedSite)]


def _ends_in_gate(model: Network, mount: Mount) -> bool:
    """Whether a mount that appends to a stage would stand behind a gate of the catalogue."""
    if mount.empty or not isinstance(keeper := model.get_submodule(mount.keeper), nn.Sequential):
        return False
    gates = {model.get_submodule(site.gate) for site in getattr(model, "gate_sites", ())}
    return len(keeper) > 0 and keeper[-1] in gates


def _stages(model: Network) -> list[Mount]:
    """Behind each entry of `feature_info` but the stem's."""
    info = getattr(model, "feature_info", None)
    if info is None:
        raise AttachError(
            f"{type(model).__name__} does not say what its stages are, as timm's networks do; give patterns of its "
            f"modules instead, such as where=[{_some(model)}]"
        )
    modules = dict(model.named_modules())
    names = dict.fromkeys(entry["module"] for entry in info if entry["module"] in modules)
    wanted = [name for place, name in enumerate(names) if name and not _is_stem(name, modules[name], place == 0)]
    usable = [_stage_of(model, name) for name in wanted]
    if not usable:
        raise AttachError(
            f"no stage of {type(model).__name__} is a module of its own; give patterns of its modules instead, such "
            f"as where=[{_some(model)}]"
        )
    return [behind(model, name) for name in usable]


def _is_stem(name: str, module: nn.Module, first: bool) -> bool:
    """Whether a feature is that of a network's first convolution: called so, its norm, or a layer beside the stages."""
    layer = "." not in name and not any(True for _ in module.children())
    norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return name.split(".")[0] in ("stem", "conv_stem") or (first and (layer or norm))


def _stage_of(model: Network, name: str) -> str:
    """The module of a stage: of a norm that ends it, the one in front of that (DenseNet's last)."""
    if not isinstance(model.get_submodule(name), nn.modules.batchnorm._BatchNorm):
        return name
    parent, _, norm = name.rpartition(".")
    names = [child for child, _ in model.get_submodule(parent).named_children()]
    return f"{parent}.{names[names.index(norm) - 1]}"


def _blocks(model: Network) -> list[Mount]:
    """In each block of a family that is known. Raises AttachError if there is none."""
    found = _in_known_blocks(model)
    if not found:
        raise AttachError(
            f"{type(model).__name__} has no blocks that are known here ({', '.join(FAMILIES)} have); take "
            f'where="stages", or patterns of its modules, such as [{_some(model)}]'
        )
    return found


def _in_known_blocks(model: Network) -> list[Mount]:
    found = []
    for name, module in model.named_modules():
        for cls in type(module).__mro__:
            way, attribute = BLOCKS.get(cls.__name__, (None, ""))
            if way and hasattr(module, attribute or "forward"):
                found.append(way(model, name, attribute) if attribute else behind(model, name))
                break
    return found


FAMILIES = ("ResNet", "RegNet", "ResNeSt", "EfficientNet", "MobileNetV1 to V4", "MobileOne", "ConvNeXt", "DenseNet")
BLOCKS: Mapping[str, tuple[Callable[[Network, str, str], Mount] | None, str]] = {
    "BasicBlock": (in_slot, "se"),
    "Bottleneck": (in_slot, "se"),
    "ResNestBottleneck": (before, "drop_path"),
    "DepthwiseSeparableConv": (in_slot, "se"),
    "InvertedResidual": (in_slot, "se"),
    "EdgeResidual": (in_slot, "se"),
    "UniversalInvertedResidual": (in_slot, "se"),
    "MobileOneBlock": (in_slot, "attn"),
    "ConvNeXtBlock": (before, "drop_path"),
    "DenseLayer": (lambda model, name, attribute: behind(model, name), ""),
}
"""timm's blocks by the name of their class: the slot that each has for attention, or what ends its branch."""


def _by_name(model: Network, where: Where) -> list[Mount]:
    """By patterns or a function: a place in a block by its whole name, others behind modules."""
    patterns = [] if callable(where) else [where] if isinstance(where, str) else list(where)
    in_blocks = [mount for mount in _in_known_blocks(model) if mount.place in patterns] if patterns else []
    places = [mount.place for mount in in_blocks]
    rest = [pattern for pattern in patterns if pattern not in places] if places else where
    return [*in_blocks, *(behind(model, name) for name in (_named(model, rest) if rest or not places else ()))]


def _named(model: Network, where: Where) -> list[str]:
    """Names of the modules that patterns or a function pick; gates and the network itself are none of them."""
    gates = tuple(f"{site.gate}." for site in getattr(model, "gate_sites", ()))
    children = tuple(f"{site.mount.name}." for site in attached_sites(model) if site.mount)
    names = {
        name: module
        for name, module in model.named_modules()
        if name and not f"{name}.".startswith((*gates, *children) or ("\0",))
    }
    if callable(where):
        picks, said = where, "where(name, module)"
    else:
        patterns = [where] if isinstance(where, str) else list(where)
        picks, said = (lambda name, module: any(fnmatch(name, pattern) for pattern in patterns)), f"where={where!r}"
    found = [name for name, module in names.items() if picks(name, module)]
    if not found:
        near = [name for pattern in [where] if isinstance(pattern, str) for name in _near(pattern, names)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {_some(model)} and more"
        raise AttachError(f"{said} fits no module of {type(model).__name__}; {hint} (`*` stands for any characters)")
    return found


def _near(pattern: str, names: Mapping[str, nn.Module]) -> list[str]:
    return difflib.get_close_matches(pattern, [*WORDS, *names], 3)


def _some(model: Network) -> str:
    """Names of modules to choose from: those on top, and the first in each that has several."""
    top = [name for name, module in model.named_children()]
    inner = [
        f"{name}.{first}" for name, module in model.named_children() for first, _ in [*module.named_children()][:1]
    ]
    return ", ".join(map(repr, [*top, *inner][:10]))


WORDS: Mapping[str, Callable[[Network], list[Mount]]] = {"stages": _stages, "blocks": _blocks}
"""What `where` may be in one word."""
