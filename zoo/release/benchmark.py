"""A result for the leaderboard of a data set, where the Hub says that the data set is a Benchmark.

Such a data set has a tag, and an `eval.yaml` that names its tasks; a result is read only if it names one of them
(https://huggingface.co/docs/hub/eval-results). All other figures are in the front matter of the card.
"""

import tempfile
from pathlib import Path
from typing import Any

import yaml  # the Hub's client brings it
from huggingface_hub import EvalResultEntry, HfApi, eval_result_entries_to_yaml, hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError

from zoo.release.data_terms import hub_dataset
from zoo.release.publishable import RESULTS
from zoo.release.staging import Staged
from zoo.weights.hub_requests import SECONDS, ask


def add_benchmark_result(staged: Staged) -> None:
    """Write the top-1 of a staged release for the leaderboard of its data, if that has one. Raises HubError."""
    facts = staged.config.get("zoo", {})
    result = facts.get("result", {})
    dataset = hub_dataset(result.get("data") or facts.get("recipe", {}).get("data", ""))
    if "top1" not in result or not dataset or not (task := benchmark_task(dataset)):
        return
    notes = ", ".join(f"{key} {result[key]}" for key in ("n", "split") if key in result)
    top1 = round(result["top1"], 4)
    entry = EvalResultEntry(dataset, task, top1, date=result.get("date"), notes=notes or None)
    text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
    (staged.folder / RESULTS).parent.mkdir()
    (staged.folder / RESULTS).write_text(text, encoding="utf-8")


def benchmark_task(dataset: str) -> str:
    """The one task of a Benchmark on the Hub; empty for every other data set, and for one with several."""
    what = f"look whether {dataset} is a Benchmark"

    def tags() -> list[str]:
        try:
            return HfApi().dataset_info(dataset, timeout=SECONDS).tags or []
        except RepositoryNotFoundError:
            return []

    if not any(tag.startswith("benchmark:") for tag in ask(tags, what, first=True)):
        return ""
    with tempfile.TemporaryDirectory() as cache:
        path = ask(lambda: hf_hub_download(dataset, "eval.yaml", repo_type="dataset", cache_dir=cache), what)
        try:
            said: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (ValueError, yaml.YAMLError):
            return ""
    tasks = said.get("tasks") if isinstance(said, dict) else None
    named = [task["id"] for task in tasks or () if isinstance(task, dict) and isinstance(task.get("id"), str)]
    return named[0] if len(named) == 1 else ""
