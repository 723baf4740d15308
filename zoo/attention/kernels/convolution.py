"""The convolution of CBAM's spatial gate, of two planes to one, forward and backward.

PyTorch's is made for many channels: its gradient costs more than all passes over a small map. Here an image's planes
lie in a frame of zeros, row behind row, so that every tap of the kernel is one long product. Volumes go PyTorch's way.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.attention.kernels.compiled import compiled
from zoo.attention.kernels.maps import numbers
from zoo.attention.kernels.scalars import narrow, widen

STRETCH = 1024
"""So many places at a time, which with their neighbours stay in the nearest cache."""


def taps_of(kernel: Tensor) -> Any:
    """(2, k, k); None for volumes, which go PyTorch's way."""
    return numbers(kernel.contiguous())[0] if kernel.ndim == 4 else None


def convolve(planes: Tensor, kernel: Tensor) -> Tensor:
    """PyTorch's way: (2, B, D, H, W) -> (B, 1, D, H, W)."""
    return torch.convolution(planes.transpose(0, 1), kernel, None, *unit_stride(kernel)).contiguous()


def gradient_of_planes(slope: Tensor, planes: Tensor, kernel: Tensor) -> Tensor:
    """From that of what the convolution returned: of volumes PyTorch's way, of images empty as yet."""
    if kernel.ndim == 4:
        return torch.empty_like(planes)
    needed = [True, False, False]
    return (
        _backward(slope, planes.transpose(0, 1), kernel, None, *unit_stride(kernel), needed)[0]
        .transpose(0, 1)
        .contiguous()
    )


def gradient_of_kernel(of_images: Tensor, slope: Tensor, planes: Tensor, kernel: Tensor, step: int = 1) -> Tensor:
    """From those of each image, which are empty for volumes; `planes` are (planes, B, H, W)."""
    if kernel.ndim == 4:
        found = of_images.new_empty(kernel.shape)
        if add_kernels(numbers(of_images).reshape(len(of_images), -1), numbers(found).reshape(-1)):
            return found  # else the frame's zeros times infinity are NaN, where PyTorch has no frame
    maps = (each.to(kernel.dtype) for each in (slope, planes.transpose(0, 1)))
    return _backward(*maps, kernel, None, *unit_stride(kernel, step), [False, True, False])[1]


_backward = torch.ops.aten.convolution_backward


def unit_stride(kernel: Tensor, step: int = 1) -> tuple[Any, ...]:
    """Stride 1, taps `step` places apart, as much padding as keeps the size, nothing else."""
    axes = kernel.ndim - 2
    return [1] * axes, [step * (size // 2) for size in kernel.shape[2:]], [step] * axes, False, [0] * axes, 1


@compiled
def add_kernels(of_images, found):
    """Sum (images, taps), and say whether all sums are finite."""
    sums = np.zeros(len(found))
    for image in of_images:
        sums += image
    found[:] = sums
    return np.isfinite(found).all()


@compiled
def frame_size(height, width, margin):
    """Numbers of a frame whose rows are so wide; behind the last the last tap sees twice the margin."""
    return width * (height + 2 * margin) + 2 * margin


@compiled
def frame(plane, margin, framed):
    """Lay a plane (H, W) into the frame, whose rows are wider by a margin on both sides; the zeros are there."""
    height, width = plane.shape
    for y in range(height):
        row = framed[(y + margin) * (width + 2 * margin) + margin :]
        for x in range(width):
            row[x] = widen(plane[y, x])


@compiled
def take_off(wide, width, plane):
    """A plane (H, W) without the frame's margins."""
    for y in range(len(plane)):
        row = wide[y * width :]
        for x in range(plane.shape[1]):
            plane[y, x] = narrow(row[x], plane[y, x])


@compiled
def add_taps(framed, taps, width, step, first, sums):
    """Add to `sums` what the taps (k, k), `step` places apart, see from each place of a stretch from `first` on.

    Seven a row, as CBAM has, and three, as BAM, are added at once, so that a sum is read and written once a row.
    """
    size, _ = taps.shape
    for i in range(size):
        row, seen = taps[i], framed[first + i * step * width :]
        if size == 7 and step == 1:
            a, b, c, d, e, f, g = row[0], row[1], row[2], row[3], row[4], row[5], row[6]
            for q in range(len(sums)):
                near = a * seen[q] + b * seen[q + 1] + c * seen[q + 2] + d * seen[q + 3]
                sums[q] += near + e * seen[q + 4] + f * seen[q + 5] + g * seen[q + 6]
        elif size == 3:
            a, b, c = row[0], row[1], row[2]
            for q in range(len(sums)):
                sums[q] += a * seen[q] + b * seen[q + step] + c * seen[q + 2 * step]
        else:
            for j in range(size):
                for q in range(len(sums)):
                    sums[q] += row[j] * seen[q + j * step]


@compiled
def gradients_of_taps(slopes, seen, width, step, places, d_taps):
    """From `slopes` and the frame that the taps (k, k) saw, rows of seven and three at once here, too."""
    size, _ = d_taps.shape
    none = slopes.dtype.type(0)
    for i in range(size):
        row, there = d_taps[i], seen[i * step * width :]
        if size == 7 and step == 1:
            a, b, c, d, e, f, g = none, none, none, none, none, none, none
            for q in range(places):
                slope = slopes[q]
                a += slope * there[q]
                b += slope * there[q + 1]
                c += slope * there[q + 2]
                d += slope * there[q + 3]
                e += slope * there[q + 4]
                f += slope * there[q + 5]
                g += slope * there[q + 6]
            row[0], row[1], row[2], row[3], row[4], row[5], row[6] = a, b, c, d, e, f, g
        elif size == 3:
            a, b, c = none, none, none
            for q in range(places):
                slope = slopes[q]
                a += slope * there[q]
                b += slope * there[q + step]
                c += slope * there[q + 2 * step]
            row[0], row[1], row[2] = a, b, c
        else:
            for j in range(size):
                total = none
                for q in range(places):
                    total += slopes[q] * there[q + j * step]
                row[j] = total


@compiled
def goes_back(slopes, seen, turned, width, step, wide, d_plane, d_taps):
    """The gradients of a plane and of its taps, from the frames of slopes and plane and the taps `turned` around."""
    for first in range(0, len(wide), STRETCH):
        sums = wide[first : first + STRETCH]
        sums[:] = 0
        add_taps(slopes, turned, width, step, first, sums)
    take_off(wide, width, d_plane)
    inner = slopes[step * (len(turned) // 2) * (width + 1) :]
    gradients_of_taps(inner, seen, width, step, len(wide), d_taps)


@compiled
def slide(start, stop, out, planes, taps):
    """`out` (images, H, W) from `planes` (2, images, H, W) and `taps` (2, k, k)."""
    _, _, height, rows = planes.shape
    margin = taps.shape[1] // 2
    width = rows + 2 * margin
    framed = np.zeros((2, frame_size(height, width, margin)), planes.dtype)
    wide = np.empty(width * height, planes.dtype)
    for n in range(start, stop):
        for k in range(2):
            frame(planes[k, n], margin, framed[k])
        for first in range(0, len(wide), STRETCH):
            sums = wide[first : first + STRETCH]
            sums[:] = 0
            for k in range(2):
                add_taps(framed[k], taps[k], width, 1, first, sums)
        take_off(wide, width, out[n])


@compiled
def slide_back(start, stop, slopes, planes, taps, d_planes, d_taps):
    """The gradients of `planes` and, for each image, of `taps`: (images, 2, k, k)."""
    _, _, height, rows = planes.shape
    size = taps.shape[1]
    margin = size // 2
    width = rows + 2 * margin
    framed = np.zeros(frame_size(height, width, margin), planes.dtype)
    seen = np.zeros_like(framed)
    wide = np.empty(width * height, planes.dtype)
    turned = taps[:, ::-1, ::-1].copy()
    for n in range(start, stop):
        frame(slopes[n], margin, framed)
        for k in range(2):
            frame(planes[k, n], margin, seen)
            goes_back(framed, seen, turned[k], width, 1, wide, d_planes[k, n], d_taps[n, k])
