"""Faults in the data between the loader and the network."""

import copy
from collections.abc import Callable
from typing import Any

import torch

from emacheck.audit.faults.places import with_attribute
from emacheck.audit.faults.registry import NotApplicableError, fault
from emacheck.audit.iteration.nested import replaced, tensors
from emacheck.audit.iteration.subject import Candidate


@fault(kind="data", imitates="https://github.com/open-mmlab/mmselfsup/issues/212")
def channels_not_swapped(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The image keeps BGR where the network expects RGB."""
    # What mmengine's ImgDataPreprocessor keeps of its bgr_to_rgb.
    name, module = with_attribute(candidate.model, "_channel_conversion")
    module._channel_conversion = not module._channel_conversion
    return name


@fault(kind="data", severities=(0.01, 1.0), unit="grey levels")
def mean_of_the_normalisation_off(candidate: Candidate, severity: float) -> str:
    """The image is normalised by another mean."""
    name, module = _preprocessor(candidate)
    module.mean += severity
    return name


@fault(kind="data", imitates="https://github.com/PaddlePaddle/PaddleOCR/issues/1713")
def constants_in_the_wrong_order(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The constants of the normalisation are for the other order of channels."""
    name, module = _preprocessor(candidate)
    module.mean, module.std = module.mean.flip(0), module.std.flip(0)
    return name


def _preprocessor(candidate: Candidate) -> tuple[str, Any]:
    for name, module in candidate.model.named_modules():
        if isinstance(getattr(module, "mean", None), torch.Tensor) and hasattr(module, "std"):
            return name, module
    raise NotApplicableError("the model does not normalise images")


@fault(kind="data")
def image_shifted(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Images are shifted by one pixel against their labels."""
    candidate.change_batch = lambda batch: _images(batch, lambda image: torch.roll(image, 1, -1))


@fault(kind="data")
def first_image_repeated(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Every image of a batch is the first one."""

    def repeat(batch: Any) -> Any:
        first = next(tensor for _, tensor in tensors(batch) if tensor.dim() in (3, 4))
        if first.dim() == 4:
            return _images(batch, lambda images: images[:1].expand_as(images))
        return _images(batch, lambda image: first if image.shape == first.shape else image)

    candidate.change_batch = repeat


@fault(kind="data", shows_at=2)
def batch_of_the_previous_iteration(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """From the second iteration on the loader hands out the batch before: a stale buffer."""
    last: list[Any] = []

    def stale(batch: Any) -> Any:
        last.append(batch)
        return last.pop(0) if len(last) > 1 else batch

    candidate.change_batch = stale


@fault(kind="data", severities=(0.001, 0.1), unit="share of the pixels")
def decoding_off_by_one(candidate: Candidate, severity: float) -> None:
    """Some pixels are one grey level too bright."""

    def brighten(image: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        brighter = torch.rand(image.shape, generator=generator) < severity
        return torch.where(brighter.to(image.device), (image.float() + 1).clamp(max=255).to(image.dtype), image)

    candidate.change_batch = lambda batch: _images(batch, brighten)


@fault(kind="data")
def label_shifted(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Labels are shifted by one pixel against their images."""
    candidate.change_batch = lambda batch: _labels(batch, lambda label: torch.roll(label, 1, -1))


@fault(kind="data")
def label_of_the_next_class(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """Classes are counted from one instead of zero; the last becomes the first."""

    def count(label: torch.Tensor) -> torch.Tensor:
        known = label != 255
        return torch.where(known, (label + 1) % 19, label)

    candidate.change_batch = lambda batch: _labels(batch, count)


def _images(batch: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    return replaced(batch, lambda _, tensor: change(tensor) if tensor.dim() >= 3 else tensor)


def _labels(batch: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return the batch with the label maps of its samples changed."""

    def other(item: Any) -> Any:
        label = getattr(item, "gt_sem_seg", None)
        if label is None:
            return item
        same = copy.deepcopy(item)
        same.gt_sem_seg.data = change(same.gt_sem_seg.data)
        return same

    found = replaced(batch, lambda _, tensor: tensor, other)
    if not any(hasattr(item, "gt_sem_seg") for item in _objects(batch)):
        raise NotApplicableError("the batch holds no label maps")
    return found


def _objects(batch: Any) -> list[Any]:
    seen: list[Any] = []
    replaced(batch, lambda _, tensor: tensor, lambda item: seen.append(item) or item)  # type: ignore[func-returns-value]
    return seen
