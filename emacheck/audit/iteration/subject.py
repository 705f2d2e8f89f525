"""What is audited: a model, its optimizer and its loss, in one shared state."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from types import CellType, FunctionType
from typing import Any

import torch

from emacheck.audit.arithmetic.measure import counterpart
from emacheck.audit.iteration.attributes import bring
from emacheck.audit.iteration.capture import LossFunction
from emacheck.audit.iteration.nested import replaced, tensors
from emacheck.errors import UsageError

Context = Callable[[], AbstractContextManager[Any]]
# A module, a name in it, and the weight or buffer that it has under this name.
Slot = tuple[torch.nn.Module, str, torch.Tensor]
_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


@dataclass(slots=True, kw_only=True, eq=False)
class Subject:
    """A model on the CPU, its optimizer and its loss, in the state from which every side starts.

    Attributes:
        model: The network.
        optimizer: The optimizer over the network's parameters, with its state; None if only gradients are audited.
        loss: Returns a scalar, or a mapping of scalars, from model and batch.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer | None
    loss: LossFunction

    def twin(self) -> "Candidate":
        """Return a copy that shares nothing with this subject, in the same state."""
        model, optimizer = copied(self.model, self.optimizer)
        return Candidate(model=model, optimizer=optimizer, loss=self.loss)


@dataclass(slots=True, kw_only=True, eq=False)
class Candidate:
    """A copy of the subject that runs on the candidate device; a fault changes it in place.

    Attributes:
        model: The network; its modules may be changed or hooked.
        optimizer: The optimizer over this network's parameters.
        loss: The loss function, called with model and batch.
        change_batch: Applied to the batch before it is used, or None.
        before_step: Called with the candidate after the backward pass, before the optimizer's step, or None.
        around: Context managers entered while anything of the candidate computes, for faults in kernels.
        mark_step: Lets a lazy device compute what it has put off, before results are looked at; None for any other.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer | None
    loss: LossFunction
    change_batch: Callable[[Any], Any] | None = None
    before_step: Callable[["Candidate"], None] | None = None
    around: list[Context] = field(default_factory=list)
    mark_step: Callable[[], Any] | None = None

    def patch(self, owner: Any, name: str, value: Any) -> None:
        """Replace an attribute of anything, such as ``torch.nn.functional.softmax``, while the candidate computes."""

        @contextmanager
        def patched() -> Iterator[None]:
            before = getattr(owner, name)
            setattr(owner, name, value)
            try:
                yield
            finally:
                setattr(owner, name, before)

        self.around.append(patched)


def copied(model: torch.nn.Module, *others: Any) -> Any:
    """Return a deep copy of a model and what points into it, such as an optimizer, with hooks and attributes.

    What a module keeps as an attribute from its last call may carry gradient history, which torch refuses to copy: the
    weight that ``torch.nn.utils.weight_norm`` computes, for one. The copy has its numbers.

    Raises:
        UsageError: If what hangs on a weight or on an optimizer cannot be copied, or would act on the original.
    """
    kept = {
        id(tensor): tensor.detach().clone()
        for module in model.modules()
        for _, tensor in tensors(vars(module))
        if not tensor.is_leaf
    }
    # A scripted module copies itself, and its copy would send its gradients to the original.
    with torch.no_grad():
        same, *other_copies = copy.deepcopy((model, *others), kept)
    weights = dict(model.named_parameters())
    for name, copied_weight in same.named_parameters():
        copied_weight.requires_grad_(weights[name].requires_grad)
    # torch copies neither what hangs on a weight nor what hangs on an optimizer.
    for name, weight in model.named_parameters():
        _copy_what_hangs(weight, kept, name, model)
    for other, its_copy in zip(others, other_copies, strict=True):
        if isinstance(other, torch.optim.Optimizer):
            _complete(other, its_copy, kept)
    return (same, *other_copies) if others else same


def _copy_what_hangs(weight: torch.nn.Parameter, copies: dict[int, Any], name: str, model: torch.nn.Module) -> None:
    """Give the copy of a weight copies of its attributes and of its hooks."""
    new, what = copies.get(id(weight)), f"parameter {name}"
    if new is None:  # of a scripted module, which copies itself
        return
    for key, value in vars(weight).items():
        vars(new)[key] = _copy_of(value, copies, f"attribute {key} of {what}")
    for kind in _HOOKS:
        hooks = getattr(weight, kind, None)
        if hooks:
            _require_own_of_copies(hooks, (weight, model), f"a hook of {what}")
            setattr(new, kind, _copy_of(hooks, copies, f"a hook of {what}"))


def _complete(optimizer: torch.optim.Optimizer, same: torch.optim.Optimizer, copies: dict[int, Any]) -> None:
    """Give the copy of an optimizer copies of what torch leaves out: its hooks and its own attributes."""
    name = type(optimizer).__name__
    for key, value in vars(optimizer).items():
        hooks = key.startswith("_optimizer_")
        if key in vars(same) and not hooks:
            continue
        if isinstance(value, FunctionType) and hasattr(type(optimizer), key):
            # A learning rate schedule only counts the steps that way.
            if hasattr(value, "_wrapped_by_lr_sched"):
                continue
            raise UsageError(
                f"found {key} of optimizer {name} replaced by a function, which would act on the original and not on a "
                "copy, expected a method of its class; or audit all but the step with optimizer=None."
            )
        if hooks:
            _require_own_of_copies(value, (optimizer, *parameters_of(optimizer)), f"a hook of optimizer {name}")
        vars(same)[key] = _copy_of(value, copies, f"attribute {key} of optimizer {name}")


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """Return all that an optimizer changes, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _copy_of(value: Any, copies: dict[int, Any], what: str) -> Any:
    try:
        return copy.deepcopy(value, copies)
    except Exception as error:  # of the user's classes, so it can be anything
        raise UsageError(
            f"found {what}, which cannot be copied ({type(error).__name__}: {error}), expected something that "
            "copy.deepcopy copies, because every side needs its own; remove it for the audit."
        ) from error


def _require_own_of_copies(hooks: Mapping[Any, Any], originals: Iterable[Any], what: str) -> None:
    """Complain about a hook that is a function around one of the originals: on a copy it would act on that."""
    known = {id(each) for each in originals}
    for hook in hooks.values():
        cells = (cell.cell_contents for cell in getattr(hook, "__closure__", None) or () if _filled(cell))
        held = next((each for each in cells if id(each) in known), None)
        if held is not None:
            raise UsageError(
                f"found {what} ({getattr(hook, '__qualname__', hook)}) that holds the original {type(held).__name__}, "
                "so that it would act on that and not on a copy; expected one that uses what it is called with."
            )


def _filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises if there is none
    except ValueError:
        return False
    return True


def to_accuracy(model: torch.nn.Module, accuracy: torch.dtype) -> torch.nn.Module:
    """Bring a model into a precision, complex weights and buffers as well, of which torch would drop a half."""
    same: torch.nn.Module = model._apply(lambda tensor: tensor.to(counterpart(tensor.dtype, accuracy)))  # type: ignore[no-untyped-call]
    bring(same.modules(), dtype=accuracy)
    return same


def named_tensors(model: torch.nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every parameter and buffer of a model with its name, or with each of its names."""
    yield from model.named_parameters(remove_duplicate=remove_duplicate)
    yield from model.named_buffers(remove_duplicate=remove_duplicate)


def slots(model: torch.nn.Module) -> list[Slot]:
    """Return every place of a model that holds a weight."""
    return [
        (each, k, weight) for each in model.modules() for k, weight in each._parameters.items() if weight is not None
    ]


def buffer_slots(model: torch.nn.Module) -> list[Slot]:
    """Return every place of a model that holds a buffer."""
    return [(each, k, buffer) for each in model.modules() for k, buffer in each._buffers.items() if buffer is not None]


def reunite(before: list[Slot]) -> None:
    """Make weights and buffers that moved shared again where they were shared, and give them what hung on them.

    A moved buffer is a new object, one for each module that holds it, without hooks and attributes, and so is on some
    devices a moved weight.

    Args:
        before: The places as they were before.
    """
    first: dict[int, torch.Tensor] = {}
    for holder, key, old in before:
        now = getattr(holder, key)
        if now is None:
            continue
        if first.setdefault(id(old), now) is not now:
            setattr(holder, key, first[id(old)])
        elif now is not old:
            _hang(old, now)


def _hang(old: torch.Tensor, new: torch.Tensor) -> None:
    """Give a weight or buffer the attributes and hooks of another one."""
    vars(new).update(vars(old))
    for hooks in _HOOKS:
        if getattr(old, hooks, None):
            setattr(new, hooks, getattr(old, hooks))


def relink(optimizer: torch.optim.Optimizer, before: list[torch.nn.Parameter], after: list[torch.nn.Parameter]) -> None:
    """Make an optimizer point at a model's parameters after they moved, and move its state along.

    Args:
        optimizer: The optimizer.
        before: The parameters as it knows them.
        after: The same parameters in the same order, perhaps on another device or in another precision.
    """
    new = {id(old): now for old, now in zip(before, after, strict=True)}
    for group in optimizer.param_groups:
        group["params"] = [new.get(id(parameter), parameter) for parameter in group["params"]]
    for key, value in vars(optimizer).items():
        if key not in ("state", "param_groups") and any(id(tensor) in new for _, tensor in tensors(value)):
            vars(optimizer)[key] = replaced(value, lambda _, tensor: new.get(id(tensor), tensor))
    state = {new.get(id(parameter), parameter): values for parameter, values in optimizer.state.items()}
    read_there = {
        id(parameter)
        for group in optimizer.param_groups
        if group.get("fused") or group.get("capturable")
        for parameter in group["params"]
    }
    optimizer.state.clear()
    for parameter, values in state.items():
        counts_there = id(parameter) in read_there
        optimizer.state[parameter] = {
            name: _follow(name, value, parameter, counts_there=counts_there) for name, value in values.items()
        }


def _follow(name: str, value: Any, parameter: torch.Tensor, *, counts_there: bool) -> Any:
    def follow(_: str, tensor: torch.Tensor) -> torch.Tensor:
        # A step counter keeps its precision, and stays on the CPU unless a kernel reads it, as torch itself does.
        if name == "step":
            return tensor.to(device=parameter.device) if counts_there else tensor
        return tensor.to(device=parameter.device, dtype=counterpart(tensor.dtype, parameter.real.dtype))

    return replaced(value, follow)


def move(candidate: Candidate, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
    """Move a candidate's model and optimizer to a device or into a precision; what is shared stays shared."""
    model = candidate.model
    before = list(model.parameters())
    places = [*slots(model), *buffer_slots(model)]
    if device is not None:
        model.to(device=device)
        bring(model.modules(), device=device)
    if dtype is not None:
        to_accuracy(model, dtype)
    reunite(places)
    if candidate.optimizer is not None:
        relink(candidate.optimizer, before, list(model.parameters()))
