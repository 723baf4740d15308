"""What a release says to the Hub in YAML: the front matter of its card, and its evaluation results."""

import yaml  # the Hub's client brings it
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from zoo.models.attentions import ATTENTIONS
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
            dataset_type=hub_dataset(data) or data_name(data) or "unnamed",
            dataset_name=data_name(data) or "unnamed",
            dataset_split=result.get("split"),
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
    card = ModelCardData(
        library_name="timm",
        pipeline_tag=words.pipeline,
        tags=[words.task, "timm", "timm-attention-zoo", *attention],
        license=facts.cfg.get("license"),
        datasets=[hub_dataset(data)] if hub_dataset(data) else None,
        metrics=["accuracy"] if measured else None,
        model_name=facts.name if measured else None,
        eval_results=measured or None,
    )
    return f"---\n{card.to_yaml()}\n---"


def eval_results(facts: Facts) -> str:
    """The text of `.eval_results/NAME.yaml`, empty unless top-1 was measured on data that the Hub knows."""
    result, dataset = facts.result, hub_dataset(facts.data)
    if "top1" not in result or not dataset:
        return ""
    notes = ", ".join(f"{key} {result[key]}" for key in ("n", "split") if key in result)
    entry = EvalResultEntry(
        dataset,
        WORDS[facts.input.kind.name].task.replace("-", "_"),
        round(result["top1"], 4),
        date=result.get("date"),
        notes=notes or None,
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
