"""Imports go down only, over their whole reach, by room; and timm is used by its public names."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import zoo

ROOT = Path(zoo.__file__).parent
FLOORS = [
    {"errors", "printable", "hardware"},
    {"files", "processes", "data", "attention"},
    {"networks"},
    {"weights"},
    {"models"},
    {"inference"},
    {"export"},
    {"training", "explain", "bench"},
    {"release", "demo", "report"},
    {"cli", "run", "registration"},
    {"__main__"},
]
"""The rooms of zoo/, lowest floor first; a room imports from the floors below."""
NEIGHBOURS = {("data", "files"), ("data", "processes")}
"""On the ground, who may import whom."""
CATALOGUE = ("zoo.models.catalog", "zoo.models.variants", "zoo.models.backbones", "zoo.models.attentions")
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def files(root: Path) -> dict[str, Path]:
    """Module name -> file, of a package `zoo` at `root`; its own front door aside, through which all come in."""
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if name := ".".join(parts[:-1] if parts[-1] == "__init__" else parts):
            found[f"zoo.{name}"] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """Names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    return module.split(".")[1]


class House:
    """The files of a package `zoo` and what each of them imports, straight or through others."""

    def __init__(self, root: Path) -> None:
        self.files = files(root)
        self.straight = {module: set(self._modules(path)) - {module} for module, path in self.files.items()}
        self.reach = cache(self._reach)

    def _modules(self, path: Path) -> Iterator[str]:
        """A module's import runs the packages above it, too."""
        for name in imported(path):
            parts = name.split(".")
            yield from (found for k in range(2, len(parts) + 1) if (found := ".".join(parts[:k])) in self.files)

    def _reach(self, module: str) -> frozenset[str]:
        found, waiting = set[str](), [module]
        while waiting:
            new = self.straight[waiting.pop()] - found
            found |= new
            waiting += new
        return frozenset(found)

    def arrows_up(self) -> list[str]:
        """`A reaches B` for each file that reaches a room which is not below its own."""
        return [
            f"{module} reaches {other}"
            for module in sorted(self.files)
            for other in sorted(self.reach(module))
            if room(other) != room(module)
            and not FLOOR[room(other)] < FLOOR[room(module)]
            and (room(module), room(other)) not in NEIGHBOURS
        ]


HOUSE = House(ROOT)


def test_every_file_has_a_room() -> None:
    assert {room(module) for module in HOUSE.files} <= set(FLOOR)


def test_imports_go_down_only() -> None:
    assert HOUSE.arrows_up() == []


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        (
            "training/planted.py",
            "from zoo.release.card import model_card",
            "zoo.training.planted reaches zoo.release.card",
        ),
        ("attention/planted.py", "import zoo.models.catalog", "zoo.attention.planted reaches zoo.models.catalog"),
        ("explain/planted.py", "from zoo import training", "zoo.explain.planted reaches zoo.training"),
        ("data/planted.py", "def f():\n    import zoo.networks.cifar", "zoo.data.planted reaches zoo.networks.cifar"),
        ("networks/planted.py", "import zoo.data.planted", "zoo.networks.planted reaches zoo.models.planted"),
    ],
)
def test_a_planted_arrow_up_is_found(file: str, line: str, says: str, tmp_path: Path) -> None:
    """Straight, inside a function, or through another file."""
    house = {file: line}
    house |= {"data/planted.py": "import zoo.models.planted"} if "networks" in file else {}
    targets = ("release/card", "models/catalog", "models/planted", "training/__init__", "networks/cifar")
    for name, text in {**{f"{target}.py": "" for target in targets}, **house}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert says in House(tmp_path).arrows_up()


def test_training_reaches_no_table_of_models() -> None:
    for module in HOUSE.files:
        if room(module) in ("training", "inference"):
            assert not HOUSE.reach(module) & set(CATALOGUE), module


def test_attention_knows_torch_only() -> None:
    """Its kernels, besides, what they are made with."""
    for module, path in HOUSE.files.items():
        if room(module) == "attention":
            makers = ("numba", "llvmlite", "numpy", "triton") if module.startswith("zoo.attention.kernels.") else ()
            for name in imported(path):
                package = name.split(".")[0]
                known = name.startswith("zoo.attention") or package in {"torch", *makers, *sys.stdlib_module_names}
                assert known, f"{module} imports {name}"


def test_timms_private_modules_are_left_alone() -> None:
    for module, path in HOUSE.files.items():
        for name in imported(path):
            assert not (name.startswith("timm.") and "._" in name), f"{module} imports {name}"
