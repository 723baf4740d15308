"""The attention zoo: importing it registers SE, CBAM and BAM ResNets and MobileNets with timm.

import timm, zoo
model = timm.create_model("cbam_resnet50", pretrained=True, num_classes=12)
"""

from zoo.models import catalog as _catalog  # noqa: F401 (registers the models)
from zoo.models.warm_start import WarmStartError, warm_start

__all__ = ["WarmStartError", "warm_start"]
__version__ = "0.1.0"
