"""A row of the catalogue made into a network: the plain backbone, then its gates."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from zoo.models.attentions import ATTENTIONS, AttentionRow
from zoo.models.backbones import BACKBONES
from zoo.models.placement import MakeGate, Network, Placement
from zoo.models.variants import Variant

NOT_OPTIONS = ("channels", "act_layer", "dims", "device", "dtype")
"""Arguments of a gate that its place in the network decides."""


def build(variant: Variant, attn_kwargs: Mapping[str, Any] | None = None, **kwargs: Any) -> Network:
    """The network of a row, with random weights. `attn_kwargs` changes its attention, `kwargs` are the backbone's.

    Raises ValueError for an `attn_kwargs` that the row cannot have.
    """
    backbone = BACKBONES[variant.backbone]
    if variant.attention is None:
        if attn_kwargs:
            raise ValueError(f"{variant.name} has no attention, so attn_kwargs={attn_kwargs!r} has no place in it")
        return backbone.build(**kwargs)
    make_gate, place_gates = resolve(variant, attn_kwargs)
    model = backbone.build(**kwargs)
    model.gate_sites = tuple(place_gates(model, make_gate))
    model.attn_kwargs = dict(attn_kwargs or {})
    return model


def resolve(variant: Variant, attn_kwargs: Mapping[str, Any] | None) -> tuple[MakeGate, Placement]:
    """The gate factory and the placement of a row with attention, each with its share of `attn_kwargs`.

    Raises ValueError for a key that neither takes.
    """
    choices, given = attention_options(variant), dict(attn_kwargs or {})
    row, place_gates = _attention(variant)
    require_known(given, choices, row)
    for_placement = {key: given.pop(key) for key in _options(place_gates) if key in given}
    return _factory(row, given, BACKBONES[variant.backbone].dims), partial(place_gates, **for_placement)


def gate_factory(row: AttentionRow, attn_kwargs: Mapping[str, Any], dims: int) -> MakeGate:
    """The gates of a row for maps with `dims` axes of space. Raises ValueError for a key that they do not take."""
    require_known(attn_kwargs, _gate_options(row, dims), row)
    return _factory(row, attn_kwargs, dims)


def _factory(row: AttentionRow, given: Mapping[str, Any], dims: int) -> MakeGate:
    given = {"neutral": row.neutral, **given}
    if dims != 2:
        given = {**(row.in_volumes if dims == 3 else {}), **given, "dims": dims}
    return partial(row.gate, **row.fixed, **given)


def require_known(given: Mapping[str, Any], choices: Mapping[str, Any], row: AttentionRow) -> None:
    """Raise ValueError for a switch that is none of the choices, or is no truth where one is wanted."""
    for key in given:
        if key not in choices:
            listed = ", ".join(f"{name}={default!r}" for name, default in choices.items())
            raise ValueError(f"attn_kwargs has an unknown key {key!r}; {row.gate.__name__} takes {listed}")
        if isinstance(choices[key], bool) and not isinstance(given[key], bool):
            raise ValueError(f"attn_kwargs takes {key}=True or {key}=False, not {given[key]!r}")


def attention_options(variant: Variant) -> dict[str, Any]:
    """What `attn_kwargs` of a row may hold, with the defaults; empty for a row without attention."""
    if variant.attention is None:
        return {}
    row, place_gates = _attention(variant)
    return {**_gate_options(row, BACKBONES[variant.backbone].dims), **_options(place_gates)}


def _attention(variant: Variant) -> tuple[AttentionRow, Placement]:
    assert variant.attention is not None
    row, placements = ATTENTIONS[variant.attention], BACKBONES[variant.backbone].placements
    return row, placements[variant.attention if variant.attention in placements else row.where]


def _gate_options(row: AttentionRow, dims: int) -> dict[str, Any]:
    """The gate's options in a network for images (`dims` 2), volumes (3) or sequences (1)."""
    closed = {*NOT_OPTIONS, *row.fixed, *(("keep_depth",) if dims != 3 else ())}
    options = {name: default for name, default in _options(row.gate).items() if name not in closed}
    return options | {"neutral": row.neutral} | (dict(row.in_volumes) if dims == 3 else {})


def _options(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a function or class that have a default, with it."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
