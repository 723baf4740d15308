"""The switches that a model's attention was built with."""

from typing import Any


def attention_switches(model: Any) -> dict[str, Any]:
    """`attn_kwargs` that build the attention of `model` again, whether it is neutral among them; empty without any.

    What was left to the row's default is not among them, but for the form: weights say nothing of it.
    """
    if not hasattr(model, "gate_sites"):
        return {}
    return {**model.attn_kwargs, "neutral": model.get_submodule(model.gate_sites[0].gate).neutral}
