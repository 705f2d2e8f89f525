"""What the reference must offer on a batch before anything can be held to it: finite numbers, and gradients."""

from collections.abc import Iterable, Mapping

import torch

from emacheck.audit.arithmetic.measure import real
from emacheck.audit.findings.result import ITERATION, PROCESSES, ModuleFinding
from emacheck.audit.iteration.calls import LOSS, OPTIMIZER
from emacheck.audit.iteration.nested import tensors
from emacheck.audit.iteration.subject import Subject
from emacheck.audit.judging.reference import Reference, Whole
from emacheck.judge.verdict import Outcome

STEP = "numbers after the step: look at the learning rate and the other settings of the optimizer, such as its epsilon"


def find_unfit(reference: Reference) -> ModuleFinding | None:
    """Return a finding if the reference's own iteration can show nothing.

    NaN is NaN and zero is zero on any device, so a loss that is NaN, or gradients that are all zero, would pass.

    Args:
        reference: The reference of one batch.
    """
    captured, state = reference.capture, _state(reference.subject)
    losses = {f"loss {name}": value for name, value in captured.losses.items()}
    gradients = {f"gradient of {name}": value for name, value in captured.gradients.items()}
    return _unfit({**state, **losses}, gradients, module=LOSS, batch=f"batch {reference.number}")


def find_unfit_together(whole: Whole, number: int) -> ModuleFinding | None:
    """Return a finding if the joined batch of several processes can show nothing, for the same reasons.

    Args:
        whole: What one process with the joined batch does.
        number: Number of the batch.
    """
    losses = {f"loss {path}": value for (_, path), value in _of_kind(whole, "output").items()}
    gradients = {f"gradient of {module}.{path}": value for (module, path), value in _of_kind(whole, "gradient").items()}
    batch = f"joined batch {number}"
    return _unfit(losses, gradients, module=PROCESSES, batch=batch) or _unfit_updates(whole, PROCESSES, batch)


def find_unfit_step(whole: Whole, number: int) -> ModuleFinding | None:
    """Return a finding if the optimizer's step makes weights that are no numbers in the arbiter itself.

    Args:
        whole: What the step should give.
        number: Number of the batch.
    """
    return _unfit_updates(whole, OPTIMIZER, f"batch {number}")


def find_unfit_afterwards(reference: Reference) -> ModuleFinding | None:
    """Return a finding if the reference's own iteration leaves what no iteration may leave.

    Args:
        reference: The reference of one batch, whose whole iteration has run.
    """
    if not reference.broken:
        return None
    found = f"batch {reference.number}: after one iteration of the reference itself, {reference.broken}"
    of_buffer = "buffer" in reference.broken
    expected = "what any iteration leaves: look at the state from which it starts" if of_buffer else STEP
    return _finding(ITERATION, found, expected, phase="buffers" if of_buffer else "optimizer")


def _of_kind(whole: Whole, kind: str) -> dict[tuple[str, str], torch.Tensor]:
    return {(module, part.path): true.tensor for (module, part), true in whole.truth.items() if part.kind == kind}


def _unfit_updates(whole: Whole, module: str, batch: str) -> ModuleFinding | None:
    odd = _first_not_finite(
        {f"update of {name}.{path}": each for (name, path), each in _of_kind(whole, "update").items()}
    )
    if odd is None:
        return None
    return _finding(module, f"{batch}: {odd} is not finite in the reference itself", STEP, phase="optimizer")


def _state(subject: Subject) -> dict[str, torch.Tensor]:
    """Return by name what must be finite of the state from which an iteration starts."""
    model = subject.model
    found: dict[str, torch.Tensor] = {}
    kept = {} if subject.optimizer is None else subject.optimizer.state
    for name, parameter in model.named_parameters():
        found[f"parameter {name}"] = parameter
        found |= {f"{path} of {name} in the optimizer": each for path, each in tensors(kept.get(parameter, {}))}
    # Nothing of these reaches the loss in training mode, and in evaluation mode every number behind them is NaN.
    statistics = ("running_mean", "running_var")
    return found | {f"buffer {name}": each for name, each in model.named_buffers() if name.endswith(statistics)}


def _unfit(
    numbers: Mapping[str, torch.Tensor], gradients: Mapping[str, torch.Tensor], *, module: str, batch: str
) -> ModuleFinding | None:
    odd = _first_not_finite({**numbers, **gradients})
    if odd is not None:
        return _finding(
            module,
            f"{batch}: {odd} is not finite in the reference itself",
            "all of them finite: look for labels that are all ignored, a state that has diverged, or an overflow",
        )
    if not _any(gradients.values()):
        return _finding(
            module,
            f"{batch}: every gradient of the reference is exactly zero",
            "a batch and a state from which something is learnt: look for labels that are all ignored",
        )
    return None


def _first_not_finite(numbers: Mapping[str, torch.Tensor]) -> str | None:
    return next((name for name, each in numbers.items() if not bool(torch.isfinite(real(each.detach())).all())), None)


def _any(found: Iterable[torch.Tensor]) -> bool:
    return any(bool(real(tensor).any()) for tensor in found)


def _finding(module: str, found: str, expected: str, *, phase: str = "loss") -> ModuleFinding:
    return ModuleFinding(
        module=module,
        kind="reference",
        outcome=Outcome.INCONCLUSIVE,
        phase=phase,
        introduced=True,
        message=f"{found}, so nothing can be held to it; expected {expected}",
    )
