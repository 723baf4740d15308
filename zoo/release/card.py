"""The model card: README.md of a model folder, with the figures that were measured and no others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import timm
import torch
import yaml  # the Hub's client brings it
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from zoo.models.catalog import ATTENTIONS, VARIANTS
from zoo.models.count import input_size, macs, parameters
from zoo.training.recipe import Recipe, dump_recipe

IMAGENET = (
    "ImageNet's terms of access: research and education only, without commercial use (https://image-net.org/download)"
)
DATA_LICENSES = {
    "digits": "CC BY 4.0 (https://archive.ics.uci.edu/dataset/80, the test part, as scikit-learn has it)",
    "cifar10": "none stated by its authors (https://www.cs.toronto.edu/~kriz/cifar.html)",
    "cifar100": "none stated by its authors (https://www.cs.toronto.edu/~kriz/cifar.html)",
    "imagenet": IMAGENET,
    "imagenet-1k": IMAGENET,
    "modelnet10_32.npz": "academic research only, the shapes are their authors' (https://modelnet.cs.princeton.edu)",
    "adrenalmnist3d.npz": "CC BY 4.0 (https://medmnist.com)",
}
"""By the last part of a recipe's `data`."""

PAPERS = {
    "hacnn": "Li, Zhu, Gong: Harmonious Attention Network for Person Re-Identification. CVPR 2018. arXiv:1802.08122",
    "r3d": "Tran et al.: A Closer Look at Spatiotemporal Convolutions. CVPR 2018. arXiv:1711.11248",
    "r2plus1d": "Tran et al.: A Closer Look at Spatiotemporal Convolutions. CVPR 2018. arXiv:1711.11248",
    "resnet": "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385",
    "resnext": "Xie et al.: Aggregated Residual Transformations for Deep Neural Networks. CVPR 2017. arXiv:1611.05431",
    "wide": "Zagoruyko, Komodakis: Wide Residual Networks. BMVC 2016. arXiv:1605.07146",
    "mobilenetv1": "Howard et al.: MobileNets. 2017. arXiv:1704.04861",
    "mobilenetv2": "Sandler et al.: MobileNetV2. CVPR 2018. arXiv:1801.04381",
    "mobilenetv3": "Howard et al.: Searching for MobileNetV3. ICCV 2019. arXiv:1905.02244",
}
"""Of plain networks, by a part of a model's name or its beginning; an attention's is at the head of its file."""


IMAGE_USAGE = """import timm, torch, zoo
from PIL import Image

name = "hf-hub:{repo}"
model = timm.create_model(name, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
x = transform(Image.open("{file}").convert("RGB")).unsqueeze(0)

top = model(x).softmax(1).topk({top})
"""
VOLUME_USAGE = """import timm, torch, zoo
from pathlib import Path
from zoo.inference.trained import load_trained
from zoo.inference.prediction import predict

name = "hf-hub:{repo}"
trained = load_trained(name)  # trained.network is timm's model
# uint8 (D, H, W) or (D, H, W, C), or a folder of frames
(said,) = predict(trained, [Path("{file}")], {top})
print(said.classes)

x = torch.rand(1, {size})
"""


@dataclass(frozen=True)
class Form:
    """The words of a card for what its network takes."""

    task: str
    pipeline: str | None
    """The Hub's name of the task; it has none for volumes."""
    one: str
    many: str
    unit: str
    protocol: str
    """What was measured of an input."""
    fitting: str
    """How an input is brought to the network's size."""
    file: str
    usage: str


FORMS = {
    3: Form(
        task="image-classification",
        pipeline="image-classification",
        one="image",
        many="images",
        unit="pixels",
        protocol="Single crop",
        fitting="{interpolation}, crop {crop_pct}",
        file="image.jpg",
        usage=IMAGE_USAGE,
    ),
    4: Form(
        task="volume-classification",
        pipeline=None,
        one="volume",
        many="volumes",
        unit="voxels",
        protocol="Whole volumes",
        fitting="averaged to that size",
        file="volume.npy",
        usage=VOLUME_USAGE,
    ),
}
"""By the axes of an input: (C, H, W) or (C, D, H, W)."""


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
    """Bytes of the weights."""
    pictures: tuple[str, ...] = ()

    @cached_property
    def network(self) -> Any:
        """Without its values."""
        with torch.device("meta"):
            arguments = {"num_classes": self.config["num_classes"], **self.config.get("model_args", {})}
            return timm.create_model(self.config["architecture"], **arguments)

    @property
    def input_size(self) -> tuple[int, ...]:
        """(C, H, W), or (C, D, H, W) of a network for volumes."""
        channels, height, width = self.config["pretrained_cfg"]["input_size"]
        return (channels, *input_size(self.network)[1:-2], height, width)

    @property
    def form(self) -> Form:
        """What the network takes, in words."""
        return FORMS[len(self.input_size)]


def model_card(recipe: Recipe, size: tuple[int, ...], classes: Sequence[str], split: str, n: int, top1: float) -> str:
    """README.md of a run's model directory; what `zoo publish` writes in its place is `release_card`.

    `size` is that of the network's input, (C, H, W) or (C, D, H, W).
    """
    form = FORMS[len(size)]
    names = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
    return f"""---
library_name: timm
{f"pipeline_tag: {form.pipeline}" if form.pipeline else "# the Hub has no pipeline for volumes"}
tags: [{form.task}, timm, attention]
---

# {recipe.model}, trained on {recipe.data}

    import timm, zoo
    model = timm.create_model("local-dir:PATH-OF-THIS-FOLDER", pretrained=True)

Top-1 {top1:.2f} % on held-out {form.many} (n = {n}: {split}), last epoch, one seed ({recipe.seed}).
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
        facts.form.task.replace("-", "_"),
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
    attention = [key for key in ATTENTIONS if facts.name.startswith(f"{key}_")]
    measured = [
        EvalResult(
            task_type=facts.form.task,
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
        pipeline_tag=facts.form.pipeline,
        tags=[facts.form.task, "timm", "timm-attention-zoo", *attention],
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
    form, sides = facts.form, ", ".join("CDHW"[-len(facts.input_size) + 1 :])
    top, size = min(5, facts.config["num_classes"]), ", ".join(map(str, facts.input_size))
    code = form.usage.format(repo=facts.repo, file=form.file, top=top, size=size)
    if facts.config.get("label_names") and "top =" in code:
        code += 'print(model.pretrained_cfg["label_names"][top.indices[0, 0]])\n'
    return f"""## Use

The network is a model of the package `timm-attention-zoo`; `import zoo` makes it known to timm.

```python
{code}
maps = timm.create_model(name, pretrained=True, features_only=True).eval()(x)  # (1, C, {sides}) each
embedding = timm.create_model(name, pretrained=True, num_classes=0).eval()(x)  # (1, C)
```

`num_classes=7` gives the network a new head for other classes. From a shell:
`zoo predict hf-hub:{facts.repo} {form.file}`."""


def _results(facts: Facts) -> str:
    result = _result(facts)
    if "top1" not in result:
        return "## Results\n\nNot measured by this project."
    recipe = _recipe(facts)
    rows = [("this file", f"{result['top1']:.2f}", _percent(result, "top5"), "1" if recipe else "")]
    seeds, baseline = result.get("top1_of_seeds", {}), result.get("baseline", {})
    if seeds:
        rows.append(("same recipe, mean ± sd of seeds", spread([*seeds.values()]), "", str(len(seeds))))
    if baseline:
        of_seeds = baseline["top1_of_seeds"]
        rows.append(
            (
                f"`{baseline['model']}`, without attention, same recipe",
                spread([*of_seeds.values()]),
                "",
                str(len(of_seeds)),
            )
        )
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    said = [f"Data: `{_data(facts)}`" if _data(facts) else "", result.get("split", "")]
    said += [f"n = {result['n']} {facts.form.many}" if "n" in result else ""]
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


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, as all tables here have them."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def _verdict(ours: Mapping[str, float], plain: Mapping[str, float]) -> str:
    gain = mean(ours.values()) - mean(plain.values())
    said = f"Difference of the means to the plain network: {gain:+.2f} points"
    if len(plain) > 1 and abs(gain) < max(stdev(ours.values()), stdev(plain.values())):
        return f"{said}, less than one standard deviation between seeds: no difference was shown."
    return f"{said}."


def _protocol(facts: Facts) -> str:
    cfg = facts.config["pretrained_cfg"]
    said = f"{_sides(facts)}, {facts.form.fitting.format(**cfg)}"
    return f"{facts.form.protocol}, {said}."


def _sides(facts: Facts) -> str:
    return f"{' x '.join(map(str, facts.input_size[1:]))} {facts.form.unit}"


def _training(facts: Facts) -> str:
    recipe, result = _recipe(facts), _result(facts)
    if not recipe:
        return ""
    figures = {
        "epochs": "{} epochs",
        "seconds": "{:.0f} seconds",
        "images_per_second": f"{{:.0f}} training {facts.form.many} a second",
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
    params, multiply_accumulates = parameters(facts.network), macs(facts.network, facts.input_size)
    labels = facts.config.get("label_names") or ()
    rows = [
        ("parameters", f"{params / 1e6:.3f} M"),
        (
            "multiply-accumulates",
            f"{multiply_accumulates / 1e9:.4f} G (convolutions and linear layers, {_sides(facts)})",
        ),
        ("input", f"{' x '.join(map(str, facts.input_size))}, {facts.form.fitting.format(**cfg)}"),
        ("mean, std", f"{_numbers(cfg['mean'])}; {_numbers(cfg['std'])}"),
        ("classes", f"{facts.config['num_classes']}{': ' + _some(labels) if labels else ''}"),
    ]
    return "## Model\n\n| what | how much |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows)


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
    form, classes = facts.form, facts.config["num_classes"]
    labels = facts.config.get("label_names") or ()
    known = f"one of its {classes} classes" + (f" ({_some(labels, 5)})" if labels else "")
    measured = (
        f"It was measured on {form.many} like those it was trained on, at {_sides(facts)}; other "
        "cameras or scanners, other sizes and other crops were not measured, nor was how it treats groups of people."
        if "top1" in _result(facts)
        else f"How well it does was not measured by this project, on no {form.many} at all."
    )
    return (
        f"## Limits\n\nIt answers with {known} for every {form.one}, also for one that shows none of them. {measured} "
        f"Decide nothing of weight by it without measuring it on your own {form.many} (`zoo eval`)."
    )


def _integrity(facts: Facts) -> str:
    return f"""## Checksum

`model.safetensors`: {facts.size} bytes, sha256 `{facts.sha256}` (`zoo verify {facts.repo}` compares)."""


def _pictures(facts: Facts) -> str:
    shown = [f"![{Path(name).stem.replace('_', ' ')}]({name})" for name in facts.pictures]
    return "## Pictures\n\n" + "\n\n".join(shown) if shown else ""


def _citation(facts: Facts) -> str:
    architecture = facts.config["architecture"]
    variant = next((variant for variant in VARIANTS if variant.name == architecture), None)
    papers = [ATTENTIONS[variant.attention].paper] if variant and variant.attention else []
    papers += [paper for key, paper in PAPERS.items() if any(_is(part, key) for part in architecture.split("_"))]
    listed = "\n".join(f"- {paper}" for paper in papers)
    return (
        f"## Citation\n\n{listed}\n- The attention zoo: `CITATION.cff` of the package `timm-attention-zoo`"
        if papers
        else ""
    )


def _is(part: str, key: str) -> bool:
    return part.rstrip("0123456789") == key or part == key
