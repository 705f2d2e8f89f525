"""SyncBatchNorm on a CPU: torch's own, and its DistributedDataParallel, refuse it there, though gloo could carry it."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm


class HostSyncBatchNorm(_BatchNorm):
    """Normalise by mean and variance over the batches of all ranks, as SyncBatchNorm does on accelerators.

    With x of all ranks together, n values per channel: y = (x - mean) / sqrt(var + eps) * weight + bias, var the biased
    variance; running_var gets n / (n - 1) var. In one process, and in evaluation, it is the usual BatchNorm.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:  # noqa: A002 - torch's name
        if input.dim() < 2:
            raise ValueError(f"found an input of {input.dim()} dimensions, expected at least 2")

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """Normalise a batch of shape (N, C, ...)."""
        if not self.training:
            return super().forward(input)
        momentum = self.momentum if self.momentum is not None else 0.0
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        if dist.get_world_size() == 1:
            arguments = (self.weight, self.bias, True, momentum, self.eps)
            return torch.nn.functional.batch_norm(input, self.running_mean, self.running_var, *arguments)
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        return output  # type: ignore[no-any-return]


SYNCHRONISED: tuple[type[_BatchNorm], ...] = (SyncBatchNorm, HostSyncBatchNorm)


class _Normalise(torch.autograd.Function):
    """Forward needs mean and variance over all ranks, backward two more sums; all are added in float64."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> Any:
        ctx.dtype, x = x.dtype, x.to(weight.dtype)  # under autocast a batch has fewer bits than the weights
        axes = [0, *range(2, x.dim())]
        count = x.numel() / x.size(1)
        mean = x.mean(axes, dtype=torch.float64)
        centred = x - _along(mean.to(x.dtype), x)
        squares = (centred * centred).sum(axes, dtype=torch.float64)
        parts = _gathered(torch.cat([mean, squares, mean.new_tensor([count])]))
        means, squares, counts = parts[:, : len(mean)], parts[:, len(mean) : -1], parts[:, -1:]
        total = float(counts.sum())
        mean = (counts * means).sum(0) / total
        # The parallel form of Chan, Golub, LeVeque: no difference of large squares.
        variance = (squares + counts * (means - mean) ** 2).sum(0) / total
        scale = torch.rsqrt(variance + eps)
        mean, variance, scale = (each.to(x.dtype) for each in (mean, variance, scale))
        normal = (x - _along(mean, x)) * _along(scale, x)
        ctx.save_for_backward(normal, weight, scale)
        ctx.total = total
        ctx.mark_non_differentiable(mean, variance)
        return (normal * _along(weight, x) + _along(bias, x)).to(ctx.dtype), mean, variance, total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> Any:
        normal, weight, scale = ctx.saved_tensors
        grad = grad.to(weight.dtype)
        axes = [0, *range(2, grad.dim())]
        own = torch.stack([grad.sum(axes, dtype=torch.float64), (grad * normal).sum(axes, dtype=torch.float64)])
        sums = own.clone()
        dist.all_reduce(sums)
        mean_grad, mean_product = ((each / ctx.total).to(grad.dtype) for each in sums)
        inner = grad - _along(mean_grad, grad) - normal * _along(mean_product, grad)
        bias, product = own.to(weight.dtype)
        return (inner * _along(scale * weight, grad)).to(ctx.dtype), product, bias, None


def _along(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Shape one value per channel so that it applies to a batch."""
    return values.view(1, -1, *[1] * (like.dim() - 2))


def _gathered(values: torch.Tensor) -> torch.Tensor:
    """Return the values of all ranks, one row each; every rank gets them in the same order, so all sum alike."""
    rows = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, values)
    return torch.stack(rows)


def synchronise_on_host(model: torch.nn.Module) -> int:
    """Make every SyncBatchNorm of a model work on the CPU, keeping its tensors.

    Args:
        model: The network; its layers are changed in place.

    Returns:
        How many layers were changed.
    """
    # mmengine has a subclass of its own, so that any of them is meant.
    layers = [module for module in model.modules() if isinstance(module, SyncBatchNorm)]
    for layer in layers:
        layer.__class__ = HostSyncBatchNorm  # type: ignore[assignment]
    return len(layers)
