"""Plain networks that timm lacks: for 32x32 images, MobileNetV1, HA-CNN, volumes."""
