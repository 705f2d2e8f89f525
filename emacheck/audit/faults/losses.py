"""Faults in the loss."""

from typing import Any

import torch

from emacheck.audit.faults.places import Place, rounded, with_attribute
from emacheck.audit.faults.registry import NotApplicableError, fault
from emacheck.audit.iteration.subject import Candidate


def _loss(candidate: Candidate, attribute: str = "loss_weight") -> Place:
    """Return the first loss module, which is one that carries a weight of its own."""
    name, module = with_attribute(candidate.model, "loss_weight")
    if not hasattr(module, attribute):
        raise NotApplicableError(f"the loss has no {attribute}")
    return name, module


@fault(kind="loss")
def ignored_label_counted(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """Pixels without a label count as the first class."""
    name, module = _loss(candidate)

    def count(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        logits, label, *others = inputs
        return (logits, torch.where(label == 255, torch.zeros_like(label), label), *others)

    module.register_forward_pre_hook(count)
    return name


@fault(kind="loss", imitates="https://github.com/open-mmlab/mmsegmentation/issues/886")
def mean_over_the_wrong_count(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The loss is averaged over pixels that have a label instead of all."""
    name, module = _loss(candidate, "avg_non_ignore")
    module.avg_non_ignore = not module.avg_non_ignore
    return name


@fault(kind="loss", severities=(1.01, 2.0), unit="weight")
def class_weighted(candidate: Candidate, severity: float) -> str:
    """One class counts more than the others."""
    name, module = _loss(candidate, "class_weight")
    if module.class_weight is not None:
        module.class_weight = None
        return name
    head = candidate.model.get_submodule(name.rpartition(".")[0])
    classes = getattr(head, "num_classes", None)
    if classes is None:
        raise NotApplicableError("the number of classes is not known")
    # The mean is taken over the sum of the weights, and the first class occurs in every scene.
    module.class_weight = [severity] + [1.0] * (classes - 1)
    return name


@fault(kind="loss", severities=(1.001, 1.25), unit="times")
def loss_weight_off(candidate: Candidate, severity: float) -> str:
    """One loss has another weight."""
    name, module = _loss(candidate)
    module.loss_weight *= severity
    return name


# Autocast resizes logits in float32, so that this is a fault in every precision.
@fault(kind="loss")
def loss_in_bfloat16(candidate: Candidate, severity: float) -> str:  # noqa: ARG001
    """The loss is computed from logits in bfloat16."""
    name, module = _loss(candidate)
    module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]), *inputs[1:]))
    return name


@fault(kind="loss")
def auxiliary_loss_dropped(candidate: Candidate, severity: float) -> None:  # noqa: ARG001
    """The last of several losses is left out of the sum."""
    own = candidate.loss

    def shorter(model: torch.nn.Module, batch: Any) -> Any:
        losses = own(model, batch)
        if not isinstance(losses, dict) or len(losses) < 2:
            return losses
        last = list(losses)[-1]
        return {name: value * (0 if name == last else 1) for name, value in losses.items()}

    candidate.loss = shorter
