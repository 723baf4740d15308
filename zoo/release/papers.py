"""The papers that a model stands on."""

from collections.abc import Mapping
from typing import Any

from zoo.models.attentions import ATTENTIONS
from zoo.models.variants import VARIANTS

PAPERS = {
    "hacnn": "Li, Zhu, Gong: Harmonious Attention Network for Person Re-Identification. CVPR 2018. arXiv:1802.08122",
    "r3d": "Tran et al.: A Closer Look at Spatiotemporal Convolutions. CVPR 2018. arXiv:1711.11248",
    "r2plus1d": "Tran et al.: A Closer Look at Spatiotemporal Convolutions. CVPR 2018. arXiv:1711.11248",
    "resnet": "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385",
    "resnext": "Xie et al.: Aggregated Residual Transformations for Deep Neural Networks. CVPR 2017. arXiv:1611.05431",
    "wide": "Zagoruyko, Komodakis: Wide Residual Networks. BMVC 2016. arXiv:1605.07146",
    "mobilenetv1": "Howard et al.: MobileNets. 2017. arXiv:1704.04861",
    "mobilenetv2": "Sandler et al.: MobileNetV2. CVPR 2018. arXiv:1801.04381",
    "mobilenetv3": "Howard et al.: Searching for MobileNetV3. ICCV 2019. arXiv:1905.02244",
    "mobilenetv4": "Qin et al.: MobileNetV4. ECCV 2024. arXiv:2404.10518",
    "efficientnet": "Tan, Le: EfficientNet. ICML 2019. arXiv:1905.11946",
    "convnext": "Liu et al.: A ConvNet for the 2020s. CVPR 2022. arXiv:2201.03545",
    "densenet": "Huang et al.: Densely Connected Convolutional Networks. CVPR 2017. arXiv:1608.06993",
}
"""Of networks, by a part of a model's name without the digits (and D) behind it; attentions name their own paper."""


def papers(architecture: str, attached: Mapping[str, Any] | None = None) -> list[str]:
    """Of the attention of a model of the zoo, then of its backbone; empty for a network that is not listed here.

    `attached` says the `backbone` and the `attention` of a network that attention was attached to.
    """
    attentions = [variant.attention for variant in VARIANTS if variant.name == architecture and variant.attention]
    if attached:
        attentions, architecture = [attached["attention"]], attached["backbone"].split(".")[0]
    parts = {part for word in architecture.split("_") for part in (word, word.rstrip("d").rstrip("0123456789"))}
    return [ATTENTIONS[key].gate.paper for key in attentions] + [paper for key, paper in PAPERS.items() if key in parts]
