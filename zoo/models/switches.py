"""The switches that a model's attention was built with, and a note of its form in the config that timm saves."""

from typing import Any

NOTES = {True: "gates start at one", False: "gates in the published form"}
"""Whether a model is neutral, as a note in its pretrained_cfg. timm's own `save_for_hf` writes that into config.json,
where it writes only those `attn_kwargs` that the user gave."""


def attention_switches(model: Any) -> dict[str, Any]:
    """`attn_kwargs` that build the attention of `model` again, whether it is neutral among them; empty without any.

    What was left to the row's default is not among them, but for the form: weights say nothing of it.
    """
    if not hasattr(model, "gate_sites"):
        return {}
    return {**model.attn_kwargs, "neutral": model.get_submodule(model.gate_sites[0].gate).neutral}


def note_form(model: Any) -> None:
    """Write the form of the gates, if there are any, into the notes of the model's pretrained_cfg."""
    if switches := attention_switches(model):
        others = [note for note in model.pretrained_cfg.get("notes") or () if note not in NOTES.values()]
        model.pretrained_cfg["notes"] = (*others, NOTES[switches["neutral"]])


def noted_form(notes: Any) -> dict[str, bool]:
    """`attn_kwargs` from the notes of a pretrained_cfg: the form, or nothing."""
    return next(({"neutral": neutral} for neutral, note in NOTES.items() if note in (notes or ())), {})
