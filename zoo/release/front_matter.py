"""What a release says to the Hub in YAML: the front matter of its card."""

import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from timm.models import get_pretrained_cfg

from zoo.models.attentions import ATTENTIONS
from zoo.printable import printable
from zoo.release.data_terms import data_name, hub_dataset
from zoo.release.facts import Facts
from zoo.release.words import WORDS

METRICS = {"top1": "top-1 accuracy, percent", "top5": "top-5 accuracy, percent"}


def front_matter(facts: Facts) -> str:
    """The head of a card, by which the Hub files the model: licence, tags, task, data, figures."""
    words, result, data = WORDS[facts.input.kind.name], facts.result, facts.data
    measured = [
        EvalResult(
            task_type=words.task,
            dataset_type=printable(hub_dataset(data) or data_name(data) or "unnamed"),
            dataset_name=printable(data_name(data) or "unnamed"),
            dataset_split=printable(result["split"]) if "split" in result else None,
            metric_type="accuracy",
            metric_value=round(result[key], 4),
            metric_name=metric,
        )
        for key, metric in METRICS.items()
        if key in result
    ]
    attention = [
        key for key in ATTENTIONS if facts.name.startswith(f"{key}_") or facts.attached.get("attention") == key
    ]
    base = base_model(facts.recipe)
    card = ModelCardData(
        library_name="timm",
        pipeline_tag=words.pipeline,
        tags=[words.task, "timm", "timm-attention-zoo", *attention],
        license=facts.cfg.get("license"),
        datasets=[hub_dataset(data)] if hub_dataset(data) else None,
        base_model=base or None,
        base_model_relation="finetune" if base else None,
        metrics=["accuracy"] if measured else None,
        model_name=facts.name if measured else None,
        eval_results=measured or None,
    )
    return f"---\n{card.to_yaml()}\n---"


def base_model(recipe: Mapping[str, Any]) -> str:
    """ORG/NAME of the weights on the Hub that a recipe starts from; empty for others, and for none."""
    start = recipe.get("weights") or (recipe.get("model", "") if recipe.get("pretrained") else "")
    source, _, place = start.partition(":")
    if source in ("hf-hub", "hf_hub"):
        repo = place.partition("@")[0]
        return repo if re.fullmatch(r"[\w.-]+/[\w.-]+", repo) else ""
    cfg = get_pretrained_cfg(start) if start and not place and not recipe.get("weights") else None
    return (cfg.hf_hub_id or "").partition("@")[0] if cfg else ""
