"""How a gate hangs in a network that knows nothing of it: put in, and taken out without a trace.

No module of the network is renamed or replaced, so its parameters keep their names. The gate is one more child of a
module that is there: of a Sequential the last one, elsewhere one that a forward hook calls. The hooks are plain
functions that find the gate by the module they are called with, so copies, pickles and replicas of the network have
gates of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from zoo.attention import Attention
from zoo.errors import UserError
from zoo.models.placement import Network, Site

OWN, OF_CONTAINER = "attached", "attached_behind_all"
"""Names of the child that is a gate: of the module whose map it weighs, and of the last one in a container."""
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class AttachError(UserError, ValueError):
    """Attention that cannot be attached as asked, or not so that the network computes what it did."""


class ChannelsLast(nn.Module):
    """A gate for maps whose channels are the last axis, (B, H, W, C)."""

    def __init__(self, gate: Attention) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        return self.gate(x.movedim(-1, 1)).movedim(1, -1)


def _refuse_torchscript() -> None:
    raise AttachError(
        "TorchScript does not know the hooks that call attached gates; use torch.export, torch.compile or ONNX, or a "
        "model of the catalogue"
    )


def _output_through_own(module: Any, args: Any, output: Any) -> Any:
    return module.attached(output)


def _output_through_last(module: Any, args: Any, output: Any) -> Any:
    return _last(module).attached_behind_all(output)


def _input_through_own(module: Any, args: Any) -> Any:
    return (module.attached(args[0]), *args[1:])


HOOKS: dict[str, tuple[Callable[..., Any], str]] = {
    "output": (_output_through_own, "_forward_hooks"),
    "output of all": (_output_through_last, "_forward_hooks"),
    "input": (_input_through_own, "_forward_pre_hooks"),
}
"""What calls a gate, and where torch keeps it."""


@dataclass(frozen=True)
class Mount:
    """Where a gate hangs, and what calls it there."""

    place: str
    """Module behind which, or in front of which, the gate stands."""
    keeper: str
    """Module that has the gate as its child; often the place itself."""
    child: str
    """Name of that child."""
    hook: str = ""
    """Key of HOOKS; empty where the keeper calls all its children, or has a slot for this one."""
    slot: bool = False
    """Whether the child takes the place of one that does nothing."""
    empty: bool = False
    """Whether the place holds no module without a gate."""

    @property
    def name(self) -> str:
        """Module name of the child."""
        return f"{self.keeper}.{self.child}"

    def make_room(self, model: Network) -> None:
        """See to it that there is a module at the place, which is called."""
        if self.empty:
            _set(model, self.place, nn.Identity())

    def put(self, model: Network, child: nn.Module) -> None:
        """Hang a gate into the network, where room was made for it."""
        setattr(model.get_submodule(self.keeper), self.child, child)
        if self.hook:
            vars(child)["__prepare_scriptable__"] = _refuse_torchscript  # what torch.jit.script asks first
            call, _ = HOOKS[self.hook]
            module = model.get_submodule(self.place)
            register = module.register_forward_pre_hook if self.hook == "input" else module.register_forward_hook
            register(call)

    def take(self, model: Network) -> None:
        """Take the gate out again, if it is there, and what made room for it."""
        if hasattr(model.get_submodule(self.keeper), self.child):
            delattr(model.get_submodule(self.keeper), self.child)
        if self.hook:
            call, kept = HOOKS[self.hook]
            hooks = getattr(model.get_submodule(self.place), kept)
            for key in [key for key, hook in hooks.items() if hook is call]:
                del hooks[key]
        if self.slot or self.empty:
            _set(model, self.place, None if self.empty else nn.Identity())


@dataclass(frozen=True)
class AttachedSite(Site):
    """A gate that was attached to a network that was there."""

    mount: Mount | None = None


def behind(model: Network, name: str) -> Mount:
    """The mount behind a module. Raises AttachError where a gate would be lost, or stands already."""
    module = model.get_submodule(name)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        raise AttachError(
            f"{name} is a batch norm: synchronising, freezing or fusing it puts another module in its place, and a "
            f"gate on it would be lost without a word; take the module around it, or the one behind it"
        )
    if type(module).forward is nn.Sequential.forward and len(module):
        return Mount(name, name, _free(module))
    if not isinstance(module, CONTAINERS):
        return Mount(name, name, OWN, "output")
    keeper = name
    for child in _way_to_last(module):
        keeper = f"{keeper}.{child}"
    return Mount(name, keeper, OF_CONTAINER, "output of all")


def before(model: Network, block: str, attribute: str) -> Mount:
    """The mount in front of a part of a block that takes one map; the part may be missing."""
    missing = getattr(model.get_submodule(block), attribute) is None
    return Mount(f"{block}.{attribute}", f"{block}.{attribute}", OWN, "input", empty=missing)


def in_slot(model: Network, block: str, slot: str) -> Mount:
    """The mount in a slot that a block has for attention; behind what stands there, if that does something."""
    there = getattr(model.get_submodule(block), slot)
    if there is None or type(there) is nn.Identity:
        return Mount(f"{block}.{slot}", block, slot, slot=True, empty=there is None)
    return behind(model, f"{block}.{slot}")


def _set(model: Network, name: str, value: nn.Module | None) -> None:
    """Let a module have this attribute: one that is None is no module of its, as torch has it."""
    parent, _, attribute = name.rpartition(".")
    block = model.get_submodule(parent)
    if hasattr(block, attribute):
        delattr(block, attribute)
    setattr(block, attribute, value)


def _way_to_last(module: nn.Module) -> list[str]:
    """Names of the children that lead to the last module in a container, which is none itself."""
    way = list[str]()
    while isinstance(module, CONTAINERS) and len(module):
        *_, (name, module) = module.named_children()
        way.append(name)
    return way


def _last(module: Any) -> Any:
    """The module at the end of that way, by what torch.compile follows."""
    while isinstance(module, CONTAINERS):
        module = list(module.children())[-1]
    return module


def _free(stage: nn.Sequential) -> str:
    number = len(stage)
    while hasattr(stage, str(number)):
        number += 1
    return str(number)
