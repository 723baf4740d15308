"""Batch norms that bear a batch with one value a channel.

A gate's summary of one image is one value a channel. One value has no variance: PyTorch raises there, which stops the
official BAM from training with one image on a device. These norms then take their running statistics.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


# A whole trace sees the choice as one leaf, so torch.fx can follow the module in training mode too.
@torch.fx.wrap
def _batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    batches: Tensor,
    training: bool,
    momentum: float | None,
    eps: float,
) -> Tensor:
    if training and (torch.jit.is_tracing() or x.numel() > x.shape[1]):  # a traced size is no number to compare
        batches.add_(1)
        share = 1 / batches.item() if momentum is None else momentum  # None: of all batches alike
        return F.batch_norm(x, running_mean, running_var, weight, bias, True, share, eps)
    return F.batch_norm(x, running_mean, running_var, weight, bias, False, 0.0, eps)


class _TolerantBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Normalises over all axes but axis 1."""

    def forward(self, input: Tensor) -> Tensor:
        return _batch_norm(
            input,
            self.running_mean,  # pyright: ignore[reportArgumentType]  there, as gates always track statistics
            self.running_var,  # pyright: ignore[reportArgumentType]
            self.weight,
            self.bias,
            self.num_batches_tracked,  # pyright: ignore[reportArgumentType]
            self.training,
            self.momentum,
            self.eps,
        )


class GateBatchNorm1d(_TolerantBatchNorm, nn.BatchNorm1d):
    """For features (B, C), or a sequence (B, C, L)."""


class GateBatchNorm2d(_TolerantBatchNorm, nn.BatchNorm2d):
    """For (B, C, H, W)."""


class GateBatchNorm3d(_TolerantBatchNorm, nn.BatchNorm3d):
    """For (B, C, D, H, W)."""
