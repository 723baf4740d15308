"""The switches that a model's attention was built with, and where timm finds them when it saves the model."""

from typing import Any

NOTES = {True: "gates start at one", False: "gates in the published form"}
"""Whether a model is neutral, as a note in its pretrained_cfg, which timm's `save_for_hf` writes into config.json."""

WITH_ATTENTION = "with_attention"
"""Name of the model that is any network of timm with attention in it."""
ATTACHED = ("backbone", "attention", "where")
"""Its arguments, beside `attn_kwargs`."""


def attention_switches(model: Any) -> dict[str, Any]:
    """`attn_kwargs` that build the attention of `model` again, whether it is neutral among them; empty without any.

    What was left to the row's default is not among them, but for the form: weights say nothing of it.
    """
    if not hasattr(model, "gate_sites"):
        return {}
    newest = model.gate_sites[-1]  # attached gates come behind the network's own
    return {**model.attn_kwargs, "neutral": model.get_submodule(newest.gate).neutral}


def update_model_args(model: Any, **arguments: Any) -> None:
    """Add arguments to those by which timm saves that a model is built."""
    model._model_args = {**getattr(model, "_model_args", {}), **arguments}


def note_switches(model: Any) -> None:
    """Leave the switches where timm's `save_for_hf` looks: all as arguments, the form in the notes of pretrained_cfg.

    Where the user gave `attn_kwargs`, timm writes those and no others, so the form, which weights do not show, is in
    the notes as well.
    """
    if switches := attention_switches(model):
        others = [note for note in model.pretrained_cfg.get("notes") or () if note not in NOTES.values()]
        model.pretrained_cfg["notes"] = (*others, NOTES[switches["neutral"]])
        model._model_args = {**getattr(model, "_model_args", {}), "attn_kwargs": switches}


def noted_form(notes: Any) -> dict[str, bool]:
    """`attn_kwargs` from the notes of a pretrained_cfg: the form, or nothing."""
    return next(({"neutral": neutral} for neutral, note in NOTES.items() if note in (notes or ())), {})


def note_attached(model: Any, attention: str, where: str | list[str]) -> None:
    """Let timm save a network of its own, to which attention was attached, as the model `with_attention`.

    Not one whose own arguments hold `attn_kwargs`: a network of the catalogue has them, and config.json one place.
    """
    cfg, arguments = getattr(model, "pretrained_cfg", None), getattr(model, "_model_args", {})
    if cfg and "attn_kwargs" not in arguments:
        update_model_args(model, backbone=cfg["architecture"], attention=attention, where=where)
        cfg["architecture"] = WITH_ATTENTION
        note_switches(model)


def note_places(model: Any, places: list[str]) -> None:
    """Let a network that is noted as `with_attention` be saved with attention in these places alone."""
    if getattr(model, "pretrained_cfg", {}).get("architecture") == WITH_ATTENTION:
        update_model_args(model, where=places)


def forget_attached(model: Any) -> None:
    """Undo `note_attached`: what was attached was taken out, or is more than one note can say."""
    if getattr(model, "pretrained_cfg", {}).get("architecture") == WITH_ATTENTION:
        arguments = dict(model._model_args)
        model.pretrained_cfg["architecture"] = arguments["backbone"].split(".")[0]
        model.pretrained_cfg["notes"] = tuple(n for n in model.pretrained_cfg["notes"] if n not in NOTES.values())
        model._model_args = {k: v for k, v in arguments.items() if k not in (*ATTACHED, "attn_kwargs")}
