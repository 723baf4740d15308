"""The model card: README.md of a release, in Markdown, with the figures that were measured and no others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import timm

from zoo.inference.seeds import difference, spread
from zoo.release.data_terms import data_license
from zoo.release.facts import Facts
from zoo.release.front_matter import front_matter
from zoo.release.markdown import block, code, plain, row
from zoo.release.papers import papers
from zoo.release.words import WORDS
from zoo.training.recipe import Recipe
from zoo.training.recipe_file import dump_toml
from zoo.training.run_directory import kept_words


def release_card(facts: Facts) -> str:
    """README.md of a release: YAML front matter for the Hub, then what a reader wants to know, in their order."""
    parts = [_intro, _usage, _results, _training, _details, _terms, _limits, _integrity, _pictures, _citation]
    return "\n\n".join([front_matter(facts), *filter(None, (part(facts) for part in parts))]) + "\n"


def some(names: Sequence[str], at_most: int = 12) -> str:
    """The first of many names of classes, whoever gave them."""
    return ", ".join(map(code, names[:at_most])) + (", ..." if len(names) > at_most else "")


def _intro(facts: Facts) -> str:
    what = (timm.model_entrypoint(facts.architecture).__doc__ or "").strip().splitlines()
    if facts.attached:
        backbone, attention = (code(facts.attached[key]) for key in ("backbone", "attention"))
        where = code(f"where={facts.attached['where']!r}")
        what = [f"timm's {backbone} with attention {attention} put into it ({where})."]
    data = facts.recipe.get("data", "")
    teacher = facts.recipe.get("teacher", "")
    taught = f", with {code(teacher)} as its teacher" if teacher else ""
    trained = f" Trained on {code(data)}{taught}." if data else ""
    said = " ".join(filter(None, [what[0] if what else "", f"{facts.classes} classes.{trained}", plain(facts.origin)]))
    return f"# {facts.name}\n\n{said}"


def _usage(facts: Facts) -> str:
    words, shape = WORDS[facts.input.kind.name], facts.input.shape
    size = ", ".join(map(str, shape))
    lines = words.usage.format(repo=facts.repo, file=words.file, top=min(5, facts.classes), size=size)
    if facts.labels and "top =" in lines:
        lines += 'print(model.pretrained_cfg["label_names"][top.indices[0, 0]])\n'
    sides = ", ".join("CDHW"[-len(facts.input.size) :])
    return f"""## Use

The network is a model of the package `timm-attention-zoo`; `import zoo` makes it known to timm.

```python
{lines}
maps = timm.create_model(name, pretrained=True, features_only=True).eval()(x)  # (1, C, {sides}) each
embedding = timm.create_model(name, pretrained=True, num_classes=0).eval()(x)  # (1, C)
```

`num_classes=7` gives the network a new head for other classes. From a shell:
`zoo predict hf-hub:{facts.repo} {words.file}`."""


def _results(facts: Facts) -> str:
    result = facts.result
    if "top1" not in result:
        return "## Results\n\nNot measured by this project."
    seeds, baseline = result.get("top1_of_seeds", {}), result.get("baseline", {})
    rows = [("this file", f"{result['top1']:.2f}", _percent(result, "top5"), "1" if facts.recipe else "")]
    if seeds:
        rows.append(("same recipe, mean ± sd of seeds", spread(seeds.values()), "", str(len(seeds))))
    if baseline:
        without = baseline["top1_of_seeds"].values()
        rows.append(
            (f"{code(baseline['model'])}, without attention, same recipe", spread(without), "", str(len(without)))
        )
    table = "\n".join(map(row, rows))
    measured_on = [
        f"Data: {code(facts.data)}" if facts.data else "",
        plain(result.get("split", "")),
        f"n = {result['n']} {facts.input.kind.many}" if "n" in result else "",
    ]
    return f"""## Results

| | top-1, % | top-5, % | seeds |
|---|---|---|---|
{table}

{", ".join(filter(None, measured_on))}. {_protocol(facts)} {_caveats(facts)}"""


def _caveats(facts: Facts) -> str:
    """What the figures do not say, or what they say of the attention."""
    recipe, seeds, baseline = facts.recipe, facts.result.get("top1_of_seeds", {}), facts.result.get("baseline", {})
    notes = []
    if not seeds and recipe:
        seed = f" ({plain(recipe['seed'])})" if "seed" in recipe else ""
        notes.append(f"One seed{seed}, so nothing is known of the spread between seeds.")
    if facts.attends and not baseline:
        notes.append(
            "The plain network was not trained with this recipe, so this says nothing of what the attention adds."
            if recipe
            else "The plain network was not measured beside it."
        )
    if baseline and seeds:
        gain, lost = difference(seeds.values(), baseline["top1_of_seeds"].values())
        verdict = ", less than one standard deviation between seeds: no difference was shown" if lost else ""
        notes.append(f"Difference of the means to the plain network: {gain:+.2f} points{verdict}.")
    if facts.gates:
        notes.append(f"On {plain(facts.gates['n'])} held-out images of its run: {plain(facts.gates['sentence'])}")
    return " ".join(notes)


def _percent(result: Mapping[str, float], key: str) -> str:
    return f"{result[key]:.2f}" if key in result else ""


def _protocol(facts: Facts) -> str:
    words = WORDS[facts.input.kind.name]
    return f"{words.protocol}, {_sides(facts)}, {words.fitting.format(**facts.cfg)}."


def _sides(facts: Facts) -> str:
    return f"{' x '.join(map(str, facts.input.size))} {facts.input.kind.unit}"


def _training(facts: Facts) -> str:
    recipe, result = facts.recipe, facts.result
    if not recipe:
        return ""
    figures = {
        "epochs": "{} epochs",
        "seconds": "{:.0f} seconds",
        "images_per_second": f"{{:.0f}} training {facts.input.kind.many} a second",
        "hardware": "on {}",
        "torch": "torch {}",
        "timm": "timm {}",
        "date": "{}",
    }
    said = ", ".join(words.format(_shown(result[key])) for key, words in figures.items() if key in result)
    cost = f"\n\nThat took: {said}." if "seconds" in result else (f"\n\n{said}." if said else "")
    kept = f"\n\nKept: {plain(kept_words(result, recipe))}." if "epochs" in result else ""
    changes = "".join(f" {plain(note)}" for note in result.get("changes", []))
    usual = json.loads(json.dumps(asdict(Recipe(model="", data=""))))  # as config.json would have it
    always = ("model", "data", "epochs", "seed")
    chosen = {key: recipe[key] for key in usual if key in recipe and (key in always or recipe[key] != usual[key])}
    return (
        "## Training\n\nBy this recipe (`zoo train recipe.toml`; that file has all fields, here are those that differ "
        f"from the defaults):\n\n{block(dump_toml(chosen), 'toml')}{cost}{kept}{changes}"
    )


def _shown(value: Any) -> Any:
    return plain(value) if isinstance(value, str) else value


def _details(facts: Facts) -> str:
    cfg, words = facts.cfg, WORDS[facts.input.kind.name]
    rows = {
        "parameters": f"{facts.parameters / 1e6:.3f} M",
        "multiply-accumulates": f"{facts.macs / 1e9:.4f} G (convolutions and linear layers, {_sides(facts)})",
        "input": f"{' x '.join(map(str, facts.input.shape))}, {words.fitting.format(**cfg)}",
        "mean, std": f"{_numbers(cfg['mean'])}; {_numbers(cfg['std'])}",
        "classes": f"{facts.classes}{': ' + some(facts.labels) if facts.labels else ''}",
    }
    if facts.switches:
        gates = "start at one" if facts.switches["neutral"] else "as published: not divided by what they start at"
        rows["gates"] = f"{gates} ({code(', '.join(f'{key}={value!r}' for key, value in facts.switches.items()))})"
    table = "\n".join(map(row, rows.items()))
    return f"## Model\n\n| what | how much |\n|---|---|\n{table}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _terms(facts: Facts) -> str:
    lines = [f"- Weights: {plain(facts.cfg.get('license') or 'not stated by the publisher')}"]
    if facts.data:
        lines.append(f"- Data ({code(facts.data)}): {data_license(facts.data)}")
    return "## Licence\n\n" + "\n".join(lines)


def _limits(facts: Facts) -> str:
    kind = facts.input.kind
    known = f"one of its {facts.classes} classes" + (f" ({some(facts.labels, 5)})" if facts.labels else "")
    measured = (
        f"It was measured on {kind.many} like those it was trained on, at {_sides(facts)}; other "
        "cameras or scanners, other sizes and other crops were not measured, nor was how it treats groups of people."
        if "top1" in facts.result
        else f"How well it does was not measured by this project, on no {kind.many} at all."
    )
    return (
        f"## Limits\n\nIt answers with {known} for every {kind.one}, also for one that shows none of them. {measured} "
        f"Decide nothing of weight by it without measuring it on your own {kind.many} (`zoo eval`)."
    )


def _integrity(facts: Facts) -> str:
    return f"""## Checksum

`model.safetensors`: {facts.size} bytes, sha256 `{facts.sha256}` (`zoo verify {facts.repo}` compares)."""


def _pictures(facts: Facts) -> str:
    shown = [f"![{plain(Path(name).stem.replace('_', ' '))}]({quote(name)})" for name in facts.pictures]
    return "## Pictures\n\n" + "\n\n".join(shown) if shown else ""


def _citation(facts: Facts) -> str:
    listed = "\n".join(f"- {paper}" for paper in papers(facts.architecture, facts.attached))
    own = "- The attention zoo: `CITATION.cff` of the package `timm-attention-zoo`"
    return f"## Citation\n\n{listed}\n{own}" if listed else ""
