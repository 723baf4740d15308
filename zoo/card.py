"""The model card: README.md of a model folder, with the figures that were measured and no others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import timm
import torch
import yaml  # the Hub's client brings it
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from zoo.count import macs, parameters
from zoo.recipe import Recipe, dump_recipe

IMAGENET = (
    "ImageNet's terms of access: research and education only, without commercial use (https://image-net.org/download)"
)
DATA_LICENSES = {
    "digits": "CC BY 4.0 (https://archive.ics.uci.edu/dataset/80, the test part, as scikit-learn has it)",
    "cifar10": "none stated by its authors (https://www.cs.toronto.edu/~kriz/cifar.html)",
    "cifar100": "none stated by its authors (https://www.cs.toronto.edu/~kriz/cifar.html)",
    "imagenet": IMAGENET,
    "imagenet-1k": IMAGENET,
}
"""By the last part of a recipe's `data`."""

PAPERS = {
    "se": "Hu, Shen, Sun: Squeeze-and-Excitation Networks. CVPR 2018. arXiv:1709.01507",
    "cbam": "Woo, Park, Lee, Kweon: CBAM: Convolutional Block Attention Module. ECCV 2018. arXiv:1807.06521",
    "bam": "Park, Woo, Lee, Kweon: BAM: Bottleneck Attention Module. BMVC 2018. arXiv:1807.06514",
    "resnet": "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385",
    "resnext": "Xie et al.: Aggregated Residual Transformations for Deep Neural Networks. CVPR 2017. arXiv:1611.05431",
    "wide": "Zagoruyko, Komodakis: Wide Residual Networks. BMVC 2016. arXiv:1605.07146",
    "mobilenetv1": "Howard et al.: MobileNets. 2017. arXiv:1704.04861",
    "mobilenetv2": "Sandler et al.: MobileNetV2. CVPR 2018. arXiv:1801.04381",
    "mobilenetv3": "Howard et al.: Searching for MobileNetV3. ICCV 2019. arXiv:1905.02244",
}
"""By the beginning of a part of a model's name."""


@dataclass(frozen=True)
class Facts:
    """All that a card says."""

    name: str
    """MODEL.TAG."""
    repo: str
    """ORG/NAME on the Hub."""
    config: Mapping[str, Any]
    """config.json of the folder; figures are in `zoo.result`, the recipe in `zoo.recipe`."""
    sha256: str
    size: int
    pictures: tuple[str, ...] = ()


def model_card(recipe: Recipe, classes: Sequence[str], split: str, n: int, top1: float) -> str:
    """README.md of a run's model directory; what `zoo publish` writes in its place is `release_card`."""
    names = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
    return f"""---
library_name: timm
pipeline_tag: image-classification
tags: [image-classification, timm, attention]
---

# {recipe.model}, trained on {recipe.data}

    import timm, zoo
    model = timm.create_model("local-dir:PATH-OF-THIS-FOLDER", pretrained=True)

Top-1 {top1:.2f} % on held-out images (n = {n}: {split}), last epoch, one seed ({recipe.seed}).
{len(classes)} classes: {names}.

Trained by this recipe (`zoo train`):

```toml
{dump_recipe(recipe)}```
"""


def hub_dataset(data: str) -> str:
    """The Hub id of a recipe's `data`, empty if it is not from the Hub."""
    return data.split("#")[0].split("/", 1)[1] if data.startswith(("hfds/", "hfids/")) else ""


def data_name(data: str) -> str:
    """`cifar100` of `folder/cifar100#label`, `hfds/ORG/cifar100` or `torch/cifar100@FOLDER`."""
    return Path(data.split("#")[0].split("@")[0]).name.lower()


def eval_results(facts: Facts) -> str:
    """`.eval_results/NAME.yaml`, empty unless top-1 was measured on data that the Hub knows."""
    result, data = _result(facts), _data(facts)
    if "top1" not in result or not hub_dataset(data):
        return ""
    notes = ", ".join(f"{key} {result[key]}" for key in ("n", "split") if key in result)
    entry = EvalResultEntry(
        hub_dataset(data),
        "image_classification",
        round(result["top1"], 4),
        date=result.get("date"),
        notes=notes or None,
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)


def release_card(facts: Facts) -> str:
    """README.md of a release: YAML front matter for the Hub, then what a reader wants to know, in their order."""
    parts = [_intro, _usage, _results, _training, _details, _terms, _limits, _integrity, _pictures, _citation]
    return "\n\n".join([_front_matter(facts), *filter(None, (part(facts) for part in parts))]) + "\n"


def _result(facts: Facts) -> Mapping[str, Any]:
    return facts.config.get("zoo", {}).get("result", {})


def _recipe(facts: Facts) -> Mapping[str, Any]:
    return facts.config.get("zoo", {}).get("recipe", {})


def _data(facts: Facts) -> str:
    """What it was measured on where that is known, else what it was trained on."""
    return _result(facts).get("data") or _recipe(facts).get("data", "")


def _front_matter(facts: Facts) -> str:
    result, data = _result(facts), _data(facts)
    cfg = facts.config["pretrained_cfg"]
    attention = [key for key in ("se", "cbam", "bam") if facts.name.startswith(f"{key}_")]
    measured = [
        EvalResult(
            task_type="image-classification",
            dataset_type=hub_dataset(data) or data_name(data) or "unnamed",
            dataset_name=data_name(data) or "unnamed",
            dataset_split=result.get("split"),
            metric_type="accuracy",
            metric_value=round(result[key], 4),
            metric_name=words,
        )
        for key, words in (("top1", "top-1 accuracy, percent"), ("top5", "top-5 accuracy, percent"))
        if key in result
    ]
    card = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "timm-attention-zoo", *attention],
        license=cfg.get("license"),
        datasets=[hub_dataset(data)] if hub_dataset(data) else None,
        metrics=["accuracy"] if measured else None,
        model_name=facts.name if measured else None,
        eval_results=measured or None,
    )
    return f"---\n{card.to_yaml()}\n---"


def _intro(facts: Facts) -> str:
    data, classes = _recipe(facts).get("data", ""), facts.config["num_classes"]
    what = (timm.model_entrypoint(facts.config["architecture"]).__doc__ or "").strip().splitlines()
    trained = f" Trained on `{data}`." if data else ""
    origin = facts.config.get("zoo", {}).get("origin", "")
    words = " ".join(filter(None, [what[0] if what else "", f"{classes} classes.{trained}", origin]))
    return f"# {facts.name}\n\n{words}"


def _usage(facts: Facts) -> str:
    labels = facts.config.get("label_names")
    named = '\nprint(model.pretrained_cfg["label_names"][top.indices[0, 0]])' if labels else ""
    return f"""## Use

The network is a model of the package `timm-attention-zoo`; `import zoo` makes it known to timm.

```python
import timm, torch, zoo
from PIL import Image

name = "hf-hub:{facts.repo}"
model = timm.create_model(name, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
image = transform(Image.open("image.jpg").convert("RGB")).unsqueeze(0)

top = model(image).softmax(1).topk({min(5, facts.config["num_classes"])}){named}

maps = timm.create_model(name, pretrained=True, features_only=True)(image)  # (1, C, H, W) each
embedding = timm.create_model(name, pretrained=True, num_classes=0)(image)  # (1, C)
```

`num_classes=7` gives the network a new head for other classes. From a shell:
`zoo predict hf-hub:{facts.repo} image.jpg`."""


def _results(facts: Facts) -> str:
    result = _result(facts)
    if "top1" not in result:
        return "## Results\n\nNot measured by this project."
    recipe = _recipe(facts)
    rows = [("this file", f"{result['top1']:.2f}", _percent(result, "top5"), "1" if recipe else "")]
    seeds, baseline = result.get("top1_of_seeds", {}), result.get("baseline", {})
    if seeds:
        rows.append(("same recipe, several seeds", _spread(seeds), "", str(len(seeds))))
    if baseline:
        of_seeds = baseline["top1_of_seeds"]
        rows.append(
            (f"`{baseline['model']}`, without attention, same recipe", _spread(of_seeds), "", str(len(of_seeds)))
        )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    said = [f"Data: `{_data(facts)}`" if _data(facts) else "", result.get("split", "")]
    said += [f"n = {result['n']} images" if "n" in result else ""]
    notes = []
    if not seeds and recipe:
        seed = f" ({recipe['seed']})" if "seed" in recipe else ""
        notes.append(f"One seed{seed}, so nothing is known of the spread between seeds.")
    if not baseline:
        notes.append(
            "The plain network was not trained with this recipe, so this says nothing of what the attention adds."
            if recipe
            else "The plain network was not measured beside it."
        )
    elif seeds:
        notes.append(_verdict(seeds, baseline["top1_of_seeds"]))
    return f"""## Results

| | top-1, % | top-5, % | seeds |
|---|---|---|---|
{table}

{", ".join(filter(None, said))}. {_protocol(facts)} {" ".join(notes)}"""


def _percent(result: Mapping[str, Any], key: str) -> str:
    return f"{result[key]:.2f}" if key in result else ""


def _spread(of_seeds: Mapping[str, float]) -> str:
    values = list(of_seeds.values())
    return f"{mean(values):.2f} ± {stdev(values):.2f} (sd)" if len(values) > 1 else f"{values[0]:.2f}"


def _verdict(ours: Mapping[str, float], plain: Mapping[str, float]) -> str:
    gain = mean(ours.values()) - mean(plain.values())
    said = f"Difference of the means to the plain network: {gain:+.2f} points"
    if len(plain) > 1 and abs(gain) < max(stdev(ours.values()), stdev(plain.values())):
        return f"{said}, less than one standard deviation between seeds: no difference was shown."
    return f"{said}."


def _protocol(facts: Facts) -> str:
    cfg = facts.config["pretrained_cfg"]
    size = " x ".join(map(str, cfg["input_size"][1:]))
    return f"Single crop, {size} pixels, crop {cfg['crop_pct']}, {cfg['interpolation']}."


def _training(facts: Facts) -> str:
    recipe, result = _recipe(facts), _result(facts)
    if not recipe:
        return ""
    figures = {
        "epochs": "{} epochs",
        "seconds": "{:.0f} seconds",
        "images_per_second": "{:.0f} training images a second",
        "hardware": "on {}",
        "torch": "torch {}",
        "timm": "timm {}",
        "date": "{}",
    }
    said = ", ".join(words.format(result[key]) for key, words in figures.items() if key in result)
    cost = f"\n\nThat took: {said}." if "seconds" in result else (f"\n\n{said}." if said else "")
    usual = json.loads(json.dumps(asdict(Recipe(model="", data=""))))  # as config.json would have it
    always = ("model", "data", "epochs", "seed")
    chosen = {key: value for key, value in recipe.items() if key in always or value != usual.get(key)}
    return (
        "## Training\n\nBy this recipe (`zoo train recipe.toml`; that file has all fields, here are those that differ "
        f"from the defaults):\n\n```toml\n{_toml(chosen)}```{cost}"
    )


def _toml(recipe: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in recipe.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _details(facts: Facts) -> str:
    cfg = facts.config["pretrained_cfg"]
    size = tuple(cfg["input_size"])
    params, multiply_accumulates = _cost(facts.config["architecture"], json.dumps(_arguments(facts.config)), size)
    labels = facts.config.get("label_names") or ()
    rows = [
        ("parameters", f"{params / 1e6:.3f} M"),
        (
            "multiply-accumulates",
            f"{multiply_accumulates / 1e9:.4f} G (convolutions and linear layers, {size[1]} pixels)",
        ),
        ("input", f"{' x '.join(map(str, size))}, {cfg['interpolation']}, crop {cfg['crop_pct']}"),
        ("mean, std", f"{_numbers(cfg['mean'])}; {_numbers(cfg['std'])}"),
        ("classes", f"{facts.config['num_classes']}{': ' + _some(labels) if labels else ''}"),
    ]
    return "## Model\n\n| what | how much |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows)


@cache
def _cost(architecture: str, arguments: str, size: tuple[int, ...]) -> tuple[int, int]:
    with torch.device("meta"):
        network: Any = timm.create_model(architecture, **json.loads(arguments))
    return parameters(network), macs(network, size)


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"num_classes": config["num_classes"], **config.get("model_args", {})}


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _some(labels: Sequence[str], at_most: int = 12) -> str:
    return ", ".join(labels[:at_most]) + (", ..." if len(labels) > at_most else "")


def _terms(facts: Facts) -> str:
    data = _data(facts)
    weights = facts.config["pretrained_cfg"].get("license") or "not stated by the publisher"
    lines = [f"- Weights: {weights}"]
    if data:
        lines.append(f"- Data (`{data}`): {DATA_LICENSES.get(data_name(data), 'ask the owner of the data')}")
    return "## Licence\n\n" + "\n".join(lines)


def _limits(facts: Facts) -> str:
    size, classes = facts.config["pretrained_cfg"]["input_size"][1], facts.config["num_classes"]
    labels = facts.config.get("label_names") or ()
    known = f"one of its {classes} classes" + (f" ({_some(labels, 5)})" if labels else "")
    measured = (
        f"It was measured on images like those it was trained on, at {size} pixels; other cameras, other sizes and "
        "other crops were not measured, nor was how it treats groups of people."
        if "top1" in _result(facts)
        else "How well it does was not measured by this project, on no images at all."
    )
    return (
        f"## Limits\n\nIt answers with {known} for every image, also for one that shows none of them. {measured} "
        "Decide nothing of weight by it without measuring it on your own images (`zoo eval`)."
    )


def _integrity(facts: Facts) -> str:
    return f"""## Checksum

`model.safetensors`: {facts.size} bytes, sha256 `{facts.sha256}` (`zoo verify {facts.repo}` compares)."""


def _pictures(facts: Facts) -> str:
    shown = [f"![{Path(name).stem.replace('_', ' ')}]({name})" for name in facts.pictures]
    return "## Pictures\n\n" + "\n\n".join(shown) if shown else ""


def _citation(facts: Facts) -> str:
    parts = facts.config["architecture"].split("_")
    papers = [paper for key, paper in PAPERS.items() if any(_is(part, key) for part in parts)]
    listed = "\n".join(f"- {paper}" for paper in papers)
    return (
        f"## Citation\n\n{listed}\n- The attention zoo: `CITATION.cff` of the package `timm-attention-zoo`"
        if papers
        else ""
    )


def _is(part: str, key: str) -> bool:
    return part.rstrip("0123456789") == key or part == key
