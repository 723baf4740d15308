"""Attention in any network, exactly (zoo/models/README.md#any-other-network).

    zoo.attach(model, "cbam", where="stages", reduction=8)
    zoo.detach(model)

A neutral gate whose last layer is zero is one for every input, so a network computes with it what it did without,
wherever it stands: to the bit where the constant is a power of two, to rounding for HA.
"""

import inspect
import logging
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch

from zoo.attention import Attention
from zoo.models.attentions import ATTENTIONS, AttentionRow
from zoo.models.build import gate_factory
from zoo.models.mounting import AttachedSite, AttachError, ChannelsLast, Mount
from zoo.models.placement import MakeGate, Network
from zoo.models.places import Where, attached_sites, mounts
from zoo.models.shapes import Look, look
from zoo.models.switches import forget_attached, note_attached, note_places

_logger = logging.getLogger(__name__)


def attach(
    model: Network, attention: str, where: Where = "stages", *, dims: int = 2, example: Any = None, **attn_kwargs: Any
) -> Network:
    """Put attention into a network, in place, so that it computes what it did; return it.

    `attention` is a prefix of the catalogue ("cbam"), `attn_kwargs` are its switches, `where` is explained in
    zoo/models/places.py. `dims` counts the axes of space of the maps: 1, 2, or 3 in volumes. What the network takes is
    found on zeros; `example`, an input or a tuple of arguments, is for networks for which that will not do.

    Raises AttachError, before anything is changed, for attention that cannot be exact or a place that has no map.
    """
    require_exact(attention)
    if attn_kwargs.get("neutral") is False:
        raise AttachError("gates in the published form would change what the network computes; leave out neutral=False")
    sites = place(model, attention, where, attn_kwargs, dims, example)
    for site in sites:
        make_exact(model.get_submodule(site.gate))
    if len(sites) == len(model.gate_sites):
        named = [site.mount.place for site in sites if site.mount] if callable(where) else where
        note_attached(model, attention, named if isinstance(named, str) else list(named))
    else:
        forget_attached(model)
        _logger.warning(
            "%s had gates of the zoo before these, and timm's save can say of one kind only where it is; keep the "
            "state dict, and attach again before you load it",
            type(model).__name__,
        )
    return model


def place(
    model: Network,
    attention: str,
    where: Where,
    attn_kwargs: Mapping[str, Any],
    dims: int = 2,
    example: Any = None,
) -> list[AttachedSite]:
    """Put gates in as they are built, near one and not yet exactly one; return their sites. Raises AttachError."""
    row = ATTENTIONS[require_exact(attention)]
    make_gate = gate_factory(row, attn_kwargs, _require_dims(row, attention, dims))
    own, found, sites = own_attention(model), mounts(model, where), list[AttachedSite]()
    for mount in found:
        mount.make_room(model)
    try:
        places = {mount.place: mount.hook == "input" for mount in found}
        before = look(model, places, dims, example)
        for mount, gate in zip(found, _gates(model, found, make_gate, before, dims), strict=True):
            mount.put(model, gate)
            inner = ".gate" if isinstance(gate, ChannelsLast) else ""
            sites.append(AttachedSite(f"{mount.name}{inner}", mount=mount))
        _require_all_called(before, look(model, {site.gate: False for site in sites}, dims, example))
    except Exception:
        for mount in found:
            mount.take(model)
        raise
    if own:
        _logger.warning("%s has attention of its own (%s); it stays, beside the new gates", type(model).__name__, own)
    if not attached_sites(model):
        model.own_attn_kwargs = getattr(model, "attn_kwargs", None)
    model.gate_sites = (*getattr(model, "gate_sites", ()), *sites)
    model.attn_kwargs = dict(attn_kwargs)
    return sites


def detach(model: Network) -> Network:
    """Take out the attached gates that are still constant, in place, so that nothing changes; return the network.

    Gates that have learnt something stay, and a warning of this module's logger names them. Raises AttachError for a
    network to which nothing was attached.
    """
    sites = attached_sites(model)
    if not sites:
        raise AttachError(
            f"nothing was attached to this {type(model).__name__}; gates that a network of the catalogue was built "
            "with belong to it, so build the plain one by its own name"
        )
    learnt = [site for site in sites if not is_exact(model.get_submodule(site.gate))]
    for site in sites:
        if site not in learnt and site.mount:
            site.mount.take(model)
    model.gate_sites = tuple(site for site in model.gate_sites if site not in sites or site in learnt)
    if learnt:
        names = ", ".join(site.gate for site in learnt[:3]) + (", ..." if len(learnt) > 3 else "")
        _logger.warning(
            "%d of %d gates have learnt something and stay, as the network would compute something else without "
            "them: %s",
            len(learnt),
            len(sites),
            names,
        )
    if learnt:
        note_places(model, [site.mount.place for site in learnt if site.mount])
        return model
    model.attn_kwargs = model.own_attn_kwargs
    del model.own_attn_kwargs
    if not model.gate_sites:
        del model.gate_sites, model.attn_kwargs
        forget_attached(model)
    return model


def make_exact(gate: Attention) -> None:
    """Let a gate be one for every input, unless it is on the meta device, where there are no values."""
    if not any(parameter.is_meta for parameter in gate.parameters()):
        gate.make_constant()


def is_exact(gate: Attention) -> bool:
    """Whether a gate is one for every input, as it was when it was attached."""
    constant = deepcopy(gate)
    constant.make_constant()
    pairs = zip(gate.parameters(), constant.parameters(), strict=True)
    return all(torch.equal(parameter, fixed) for parameter, fixed in pairs)


def require_exact(attention: str) -> str:
    """Return `attention`; raises AttachError unless it is one whose gates can be constant."""
    exact = [key for key, row in ATTENTIONS.items() if row.exact]
    if attention not in ATTENTIONS:
        raise AttachError(f"unknown attention {attention!r}; choices are {', '.join(exact)}")
    if attention not in exact:
        raise AttachError(
            f"{attention} has no parameters, so no weights make its gates constant, and the network would compute "
            f"something else from the start; take one of {', '.join(exact)}"
        )
    return attention


def _require_dims(row: AttentionRow, attention: str, dims: int) -> int:
    if dims not in (1, 2, 3):
        raise AttachError(f"dims counts the axes of space, so it is 1, 2 or 3, not {dims!r}")
    if dims != 2 and "dims" not in inspect.signature(row.gate).parameters:
        has = [key for key, each in ATTENTIONS.items() if "dims" in inspect.signature(each.gate).parameters]
        raise AttachError(
            f"{attention} is defined on rows and columns of a map (B, C, H, W), and not for dims={dims}; take one of "
            f"{', '.join(has)}"
        )
    return dims


def _gates(
    model: Network, found: Iterable[Mount], make_gate: MakeGate, before: Look, dims: int
) -> list[Attention | ChannelsLast]:
    """A gate for each mount, with the channels that were seen there, where the parameters beside it are."""
    made = []
    for mount in found:
        if before.error and mount.place not in before.seen:
            raise AttachError(
                f"{type(model).__name__} does not run on zeros, so its channels are not known "
                f"({_first_line(before.error)}); pass example=, an input or a tuple of arguments that it takes"
            ) from before.error
        channels, last = before.channels(mount.place, dims)
        like = _nearest_parameter(model, mount.place)
        gate = make_gate(channels, device=like.device, dtype=like.dtype)
        made.append(ChannelsLast(gate) if last else gate)
        made[-1].train(model.get_submodule(mount.place).training)
    return made


def _nearest_parameter(model: Network, place: str) -> torch.Tensor:
    """The first floating-point parameter of a module, or of those around it."""
    while True:
        for parameter in model.get_submodule(place).parameters():
            if parameter.is_floating_point():
                return parameter
        if not place:
            return torch.empty(0)
        place = place.rpartition(".")[0]


def _require_all_called(before: Look, after: Look) -> None:
    """Raise AttachError if the network passes a gate by, or stops at it, though it ran without."""
    if silent := [place for place in after.places if place not in after.seen]:
        why = f" ({_first_line(after.error)})" if after.error and not before.error else ""
        raise AttachError(
            f"the network does not call a module at {silent[0]} as it calls the others{why}; take another"
        )
    if after.error and not before.error:
        raise AttachError(f"the network does not run with the gates in it: {_first_line(after.error)}") from after.error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def own_attention(model: Network) -> str:
    """What attention a network has, in words: the names of its classes, how often, and where first; or nothing."""
    attached = tuple(f"{site.mount.name}." for site in attached_sites(model) if site.mount)
    found = dict[str, str]()
    for name, module in model.named_modules():
        kind, above = type(module).__name__, (*attached, *(f"{outer}." for outer in found))
        if (isinstance(module, Attention) or OTHERS.search(kind)) and not f"{name}.".startswith(above or ("\0",)):
            found[name] = kind
    first = next(iter(found), "")
    return f"{', '.join(dict.fromkeys(found.values()))}, {len(found)} times, first at {first}" if found else ""


OTHERS = re.compile(
    "Squeeze|^SE(Module|Block|Layer)$|SCSE|Eca|Ceca|C[Bb][Aa][Mm]|GatherExcite|SplitAttn|SelectiveKernel"
)
"""Names of classes of attention over maps, in timm, torchvision and others."""
