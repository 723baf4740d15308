"""The attention zoo: importing it registers SE, CBAM and BAM ResNets and MobileNets with timm.

import timm, zoo
model = timm.create_model("cbam_resnet50", pretrained=True, num_classes=12)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.registration import register_with_timm

if TYPE_CHECKING:
    from zoo.explain.gate_report import gate_report
    from zoo.explain.maps import attention_maps
    from zoo.export.fuse import fuse_for_inference
    from zoo.models.attach import attach, detach
    from zoo.models.head import quiet_head
    from zoo.models.mounting import AttachError
    from zoo.models.warm_start import WarmStartError, warm_start

__all__ = [
    "AttachError",
    "WarmStartError",
    "attach",
    "attention_maps",
    "detach",
    "fuse_for_inference",
    "gate_report",
    "quiet_head",
    "warm_start",
]
HOMES = {
    "AttachError": "zoo.models.mounting",
    "WarmStartError": "zoo.models.warm_start",
    "attach": "zoo.models.attach",
    "attention_maps": "zoo.explain.maps",
    "detach": "zoo.models.attach",
    "fuse_for_inference": "zoo.export.fuse",
    "gate_report": "zoo.explain.gate_report",
    "quiet_head": "zoo.models.head",
    "warm_start": "zoo.models.warm_start",
}
"""Where the names live that need timm; they are imported when they are asked for."""
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_timm()
