"""Holds operators of PyTorch/XLA, one by one, against what PyTorch says that they do, and prints what they do.

PJRT_DEVICE=CPU python benchmarks/pytorch_xla/probe.py
"""

import torch
import torch_xla
from torch.nn import functional

MEANS = (0.0, 3.0, 10.0, 30.0, 100.0)
DEVICE = torch_xla.device()


def running_variance(device: torch.device | str) -> torch.Tensor:
    """Return the running variance after one batch, with a momentum of 1: the variance that went into it."""
    mean, variance = torch.zeros(8, device=device), torch.ones(8, device=device)
    functional.batch_norm(batch(0.0).to(device), mean, variance, training=True, momentum=1.0)
    return variance.cpu().double()


def batch(mean: float) -> torch.Tensor:
    """Return numbers with a variance of one around a mean: 2 images, 8 channels, 32 places."""
    return torch.randn(2, 8, 4, 8, generator=torch.Generator().manual_seed(0)) + mean


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return ||one - other|| / ||other||."""
    return float((one.double() - other).norm() / other.norm())


def mean_of_squares(values: torch.Tensor) -> torch.Tensor:
    """Normalise in float32 with var = mean(x^2) - mean(x)^2."""
    dims = (0, 2, 3)
    mean = values.mean(dims, keepdim=True)
    variance = (values * values).mean(dims, keepdim=True) - mean * mean
    return (values - mean) * (variance + 1e-5).rsqrt()


def normalised(values: torch.Tensor) -> torch.Tensor:
    """Normalise by PyTorch's operator."""
    return functional.batch_norm(values, None, None, training=True)


def one_after_the_other(values: torch.Tensor) -> torch.Tensor:
    """Sum each channel of a batch in bfloat16, rounded to bfloat16 after each addition."""
    total = torch.zeros(values.shape[1], dtype=torch.bfloat16)
    for place in values.permute(0, 2, 3, 1).flatten(0, 2):
        total = total + place
    return total


def main() -> None:
    """Print what is found."""
    channels = batch(0.0).double().transpose(0, 1).reshape(8, -1)
    for device in ("cpu", DEVICE):
        found = running_variance(device)
        near = {
            f"divided by {name}": apart(found, channels.var(1, unbiased=name == "n - 1")) for name in ("n - 1", "n")
        }
        print(f"{device}: the running variance differs from the variance {near}")
    with_nan = batch(0.0)
    with_nan[0, 0, 2, 2] = torch.nan
    for device in ("cpu", DEVICE):
        pooled = functional.max_pool2d(with_nan.to(device), 3, 2, 1).cpu()
        print(
            f"{device}: one NaN before a max pooling leaves {int(pooled.isnan().sum())} behind it, {with_nan.to(device).max().item()} as the largest of all"
        )
    for mean in MEANS:
        values = batch(mean)
        exact = normalised(values.double())
        here, there = normalised(values), normalised(values.to(DEVICE)).cpu()
        print(
            f"batch norm at mean / deviation {mean:g}: relative error on the cpu {apart(here, exact):.1e}, on {DEVICE} {apart(there, exact):.1e}, "
            f"of mean(x^2) - mean(x)^2 on the cpu {apart(mean_of_squares(values), exact):.1e}"
        )
    short = batch(0.3).bfloat16()
    for device in ("cpu", DEVICE):
        total = short.to(device).sum((0, 2, 3)).cpu()
        equal = torch.equal(total, one_after_the_other(short))
        print(
            f"{device}: sums of 64 numbers of bfloat16 are off by {apart(total, short.double().sum((0, 2, 3))):.1e}, "
            f"{'as' if equal else 'not as'} if rounded after each addition"
        )
    image = torch.ones(1, 1, 2, 2).to(DEVICE)
    with torch.autocast("xla", dtype=torch.bfloat16):
        larger = functional.interpolate(functional.conv2d(image, image), scale_factor=2, mode="bilinear")
    print(f"{DEVICE}: autocast upsamples in {larger.dtype}")


if __name__ == "__main__":
    main()
