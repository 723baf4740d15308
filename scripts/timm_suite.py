"""Run timm's own model tests over the zoo's models.

    python scripts/timm_suite.py                                   every model and every test, 21 minutes of a core
    python scripts/timm_suite.py "cbam_*" "bam_resnet50"           some models
    python scripts/timm_suite.py --shard 1/4                       every fourth model
    python scripts/timm_suite.py se_resnet18 -- -k backward        arguments of pytest behind --

Downloads the source distribution of the installed timm (for its tests/test_models.py) into `--cache`. Where a test
wants pretrained weights, the weights that the Hub would send are generated: a random checkpoint of the network that
the model's `pretrained_cfg` points to. Networks for volumes, which timm's tests do not know, have a contract test of
their own (tests/test_volume.py).
"""

import argparse
import fnmatch
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.models._builder as builder
import timm.models._registry as registry
import torch

import zoo  # noqa: F401
from zoo.attention import kernels
from zoo.models import catalog
from zoo.models.backbones import BACKBONES
from zoo.models.variants import VARIANTS


def fetch_tests(cache: Path) -> Path:
    """Path of tests/test_models.py of the installed timm, downloaded by pip unless it is in `cache`."""
    name = f"timm-{timm.__version__}"
    tests = cache / name / "tests" / "test_models.py"
    if not tests.exists():
        cache.mkdir(parents=True, exist_ok=True)
        wanted = ["--no-deps", "--no-binary", "timm", "-d", str(cache), f"timm=={timm.__version__}"]
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", *wanted], check=True)
        with tarfile.open(cache / f"{name}.tar.gz") as archive:
            archive.extractall(cache, filter="data")
    return tests


def restrict_listings(models: set[str]) -> None:
    """Make timm list `models` only, whatever module a test asks for; test_models.py asks while it is imported."""
    list_all, list_with_weights = registry.list_models, registry.list_pretrained

    def list_models(*args: Any, **kwargs: Any) -> list[str]:
        kwargs.pop("module", None)
        return [name for name in list_all(*args, **kwargs) if name.split(".")[0] in models]

    def list_pretrained(*args: Any, **kwargs: Any) -> list[str]:
        return [name for name in list_with_weights(*args, **kwargs) if name.split(".")[0] in models]

    for module in (timm, timm.models, registry):
        setattr(module, "list_models", list_models)  # noqa: B010 (pyright knows these as functions of a module)
        setattr(module, "list_pretrained", list_pretrained)  # noqa: B010


def generate_weights() -> None:
    """Answer each download from the Hub by random weights of the network it names."""

    def load_state_dict_from_hf(hub_id: str, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        return timm.create_model(hub_id.split("/")[1].split(".")[0]).state_dict()

    builder.load_state_dict_from_hf = load_state_dict_from_hf
    catalog.pinned_source = lambda *args: {}  # so the Hub is not asked for its commit


class OwnTestsOnly:
    """Leave out timm's tests of timm's own models, those that are not parametrised by a listing."""

    def __init__(self, models: set[str]) -> None:
        self.models = models

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep the tests whose `model_name` is one of ours."""

        def ours(item: pytest.Item) -> bool:
            parameters = getattr(getattr(item, "callspec", None), "params", {})
            return str(parameters.get("model_name")).split(".")[0] in self.models

        kept = [item for item in items if ours(item)]
        config.hook.pytest_deselected(items=[item for item in items if not ours(item)])
        items[:] = kept

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Compare a traced network, which is eager, with an eager one.

        Rounding grows through random weights: cbam_mobilenetv2_100_cifar in fp32 is 2e-4 off fp64 by kernels and by
        eager attention alike, in different places, and timm allows 1e-5 between the two.
        """
        with kernels("off" if "_fx" in item.name else "auto"):
            return (yield)


def main() -> int:
    """Parse the command line, run, return pytest's exit code."""
    own, _, pytest_arguments = "\0".join(sys.argv[1:]).partition("\0--\0")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["*"], metavar="MODEL", help="names or patterns; default all")
    parser.add_argument("--shard", default="1/1", metavar="K/N", help="the K-th of N parts of the models")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "timm-source")
    options = parser.parse_args(own.split("\0") if own else [])

    images = [v.name for v in VARIANTS if BACKBONES[v.backbone].dims == 2]
    names = [name for name in images if any(fnmatch.fnmatch(name, pattern) for pattern in options.models)]
    shard, shards = (int(number) for number in options.shard.split("/"))
    models = set(names[shard - 1 :: shards])
    if not models:
        parser.error(
            f"no model of the zoo for images matches {' '.join(options.models)}; `zoo list` prints their names"
        )

    os.environ.pop("GITHUB_ACTIONS", None)  # timm leaves tests out there
    tests = fetch_tests(options.cache)
    restrict_listings(models)
    generate_weights()
    # timm's settings, which lie beside its tests, hold the markers; a fresh machine has no other.
    arguments = ["-q", "-p", "no:cacheprovider", "-c", str(tests.parents[1] / "pyproject.toml"), str(tests)]
    return pytest.main([*arguments, *filter(None, pytest_arguments.split("\0"))], plugins=[OwnTestsOnly(models)])


if __name__ == "__main__":
    sys.exit(main())
