"""Importing zoo registers its models with timm, and costs next to nothing where timm is not used.

Where timm is imported already, registration happens at once. Where it is not, it happens the moment that timm is
imported, by whatever statement: a finder at the head of sys.meta_path runs the catalogue after timm's own code. So
`zoo --help` and `zoo --version` need neither timm nor torch, which take seconds to import.
"""

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def register_with_timm() -> None:
    """Register the models now if timm is imported, else as soon as it is. Raises what the catalogue raises."""
    if "timm" in sys.modules:
        import zoo.models.catalog  # noqa: F401  (registers the models)
    elif FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)


class Finder:
    """Finds timm and the files of zoo as the other finders do, and has the catalogue imported once timm is.

    The files of zoo are watched too, since many of them import timm: the catalogue imports those files in turn, and
    would find half of one there if it did not wait until the outermost of them is complete.
    """

    def __init__(self) -> None:
        self.under_way = threading.local()
        """`depth` is the number of watched modules that this thread is importing, each for the one before it."""
        self.timm_is_complete = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The other finders' answer, with a loader that registers; None for modules that are not watched."""
        if name != "timm" and not name.startswith("zoo."):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = Loader(spec.loader, self)  # type: ignore[assignment] (as importlib asks of one)
                return spec
        return None

    def execute(self, loader: Any, module: ModuleType) -> None:
        """Run the module's code, and then the catalogue's if timm is there and no file of zoo is half read."""
        self.under_way.depth = getattr(self.under_way, "depth", 0) + 1
        try:
            loader.exec_module(module)
            self.timm_is_complete |= module.__name__ == "timm"
        finally:
            self.under_way.depth -= 1
            if not self.under_way.depth and self.timm_is_complete and self in sys.meta_path:
                self.register()

    def register(self) -> None:
        """Import the catalogue. If that fails, the import of timm does too, this time and the next."""
        sys.meta_path.remove(self)
        try:
            import zoo.models.catalog  # noqa: F401
        except BaseException as error:
            sys.meta_path.insert(0, self)
            error.add_note("(importing timm registers the zoo's models, as zoo is imported too)")
            raise


class Loader:
    """Another loader, whose module is executed by the finder; it gives way to the other one when that begins."""

    def __init__(self, loader: Any, finder: Finder) -> None:
        self.loader = loader
        self.finder = finder

    def __getattr__(self, name: str) -> Any:
        """What else a loader can do (source, resources), for those who ask for the spec and do not import."""
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.finder.execute(self.loader, module)


FINDER = Finder()
