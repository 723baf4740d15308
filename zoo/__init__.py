"""The attention zoo: importing it registers SE, CBAM and BAM ResNets and MobileNets with timm.

import timm, zoo
model = timm.create_model("cbam_resnet50", pretrained=True, num_classes=12)
"""

from typing import TYPE_CHECKING, Any

from zoo.registration import register_with_timm

if TYPE_CHECKING:
    from zoo.models.head import quiet_head
    from zoo.models.warm_start import WarmStartError, warm_start

__all__ = ["WarmStartError", "quiet_head", "warm_start"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The names that need timm, when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from zoo.models import head, warm_start

    return getattr(head if name == "quiet_head" else warm_start, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_timm()
