"""Imports go down only (the layout in README.md), and timm is used by its public names."""

import ast
import sys
from pathlib import Path

import zoo

ROOT = Path(zoo.__file__).parent
LEVELS = [
    {"files"},
    {"attention"},
    {"placement", "cifar", "hacnn", "inflate", "manifest", "remote"},
    {"volume"},
    {"warmstart"},
    {"catalog"},
    {"count", "loading", "recipe", "data", "distributed", "checkpoint"},
    {"evaluate", "predict", "explain", "report", "export", "card", "convert", "bench"},
    {"schedule", "parameters", "objective", "rundir", "staging"},
    {"job", "publish", "verify"},
    {"train"},
    {"finetune"},
    {"cli", "run"},
    {"__main__"},
]
KNOW_NO_MODELS = {"recipe", "data", "distributed", "checkpoint"}
KNOW_ONLY_TORCH = {"attention"}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def unit(path: Path) -> str:
    """The file or package right below zoo that a path belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def test_every_file_has_a_level() -> None:
    assert {unit(path) for path in FILES} <= set(LEVEL)


def test_imports_go_down_only() -> None:
    for path in FILES:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "zoo" or len(parts) == 1 or parts[1] == unit(path) or parts[1] not in LEVEL:
                continue
            assert LEVEL[parts[1]] < LEVEL[unit(path)], f"{path.name} imports {name}"
            if unit(path) in KNOW_NO_MODELS:
                assert parts[1] not in ("catalog", "attention", "placement", "warmstart"), f"{path.name}: {name}"


def test_attention_knows_torch_only() -> None:
    for path in (ROOT / "attention").rglob("*.py"):
        for name in imports(path):
            known = name.startswith(("torch", "zoo.attention")) or name.split(".")[0] in sys.stdlib_module_names
            assert known, f"{path.name} imports {name}"


def test_timms_private_modules_are_left_alone() -> None:
    for path in FILES:
        for name in imports(path):
            assert not (name.startswith("timm.") and "._" in name), f"{path.name} imports {name}"
