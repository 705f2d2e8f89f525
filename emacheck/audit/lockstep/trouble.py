"""What a device says when it cannot run something, turned into a finding."""

import re

from emacheck.audit.findings.result import ModuleFinding
from emacheck.audit.iteration.draws import ForeignDrawError
from emacheck.audit.lockstep.played import CallMismatchError
from emacheck.judge.verdict import Outcome

# The last is how cuBLAS and cuDNN say it, which allocate by themselves.
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "memoryerror", "status_alloc_failed")
# The last is how torch says that cuDNN has no algorithm for a convolution (ATen/native/cudnn/Conv_v8.cpp).
_MISSING = (
    *("could not run 'aten::", "not implemented for", "not currently implemented"),
    *("no kernel", "unable to find an engine"),
)
# What torch says of an optimizer that is to be captured in a graph of a device.
_CAPTURABLE = "capturable=True"
# How CUDA says that a build of torch holds no code for the card.
_NOT_BUILT = "no kernel image"
# How torch says what to set for an error of a device that runs behind the host (c10/cuda/CUDAException.cpp).
_LATE = re.compile(r"asynchronously reported.*?passing (\w+=\w+)", re.DOTALL)


def unable(error: Exception, *, module: str, kind: str) -> ModuleFinding:
    """Return the finding that stands for what the reference or the arbiter cannot compute: nothing can be held to it.

    Args:
        error: What was raised.
        module: Where.
        kind: The module's class.

    Example:
        >>> unable(TypeError("expected Float"), module="head", kind="Head").message[:76]
        'head (Head) was not compared: the CPU cannot repeat it (TypeError: expected '
    """
    first = next(iter(str(error).strip().splitlines()), "")
    why = (
        f"the CPU cannot repeat it ({type(error).__name__}: {first}). It has to run in float64, so constants and casts "
        "must follow the type of its inputs, and what it returns must be tensors in lists, tuples, mappings or objects "
        "that hold them as attributes"
    )
    if isinstance(error, CallMismatchError):
        why = (
            f"alone it calls other modules than in the iteration ({error}); a module that calls itself cannot be "
            "repeated alone"
        )
    elif isinstance(error, ForeignDrawError):
        why = f"it draws with {error}, whose numbers cannot be given to every side; draw with torch.rand or dropout"
    elif _CAPTURABLE in first:
        why = f"torch steps on no CPU with {_CAPTURABLE}. Set it to False in every group of the optimizer for the audit"
    return ModuleFinding(
        module=module,
        kind=kind,
        outcome=Outcome.INCONCLUSIVE,
        phase="forward",
        introduced=True,
        message=f"{module} ({kind}) was not compared: {why}",
    )


def trouble(error: Exception, *, module: str, kind: str, phase: str, device: str) -> ModuleFinding:
    """Return the finding that an exception on the candidate stands for.

    The reference ran the same thing, so an exception is a difference: FAIL. A missing operator and a lack of memory say
    nothing about numbers: INCONCLUSIVE.

    Args:
        error: What was raised.
        module: Where.
        kind: The module's class.
        phase: The phase of the iteration.
        device: The candidate device.

    Example:
        >>> trouble(RuntimeError("out of memory"), module="conv1", kind="Conv2d", phase="forward", device="x").outcome
        <Outcome.INCONCLUSIVE: 'INCONCLUSIVE'>
    """
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    outcome, message = Outcome.FAIL, f"{module} ({kind}) fails on {device} and runs on the reference: {first}"
    if late := _LATE.search(text):
        message += (
            f" ({device} says so late, and often answers nothing more after it: look at the first module of which this "
            f"is said, with {late[1]})"
        )
    if isinstance(error, CallMismatchError):
        message = f"{module} ({kind}) does other things than the reference: {first}"
    elif isinstance(error, ForeignDrawError):
        outcome = Outcome.INCONCLUSIVE
        message = (
            f"{module} ({kind}) draws from the generator of {device} ({first}), so it cannot be compared; set the rate "
            "of its dropout to 0"
        )
    elif any(sign in text.lower() for sign in _MEMORY):
        outcome = Outcome.INCONCLUSIVE
        message = (
            f"{module} ({kind}) needs more memory than {device} has: use a smaller batch (--cfg-options "
            "train_dataloader.batch_size=1), a smaller crop (--preset smoke has the smallest), or no whole iteration "
            f"(--no-end-to-end). It says: {first}"
        )
    elif isinstance(error, NotImplementedError) or any(sign in text.lower() for sign in _MISSING):
        outcome = Outcome.INCONCLUSIVE
        found = re.search(r"aten::[\w.]+", text) or re.search(r'"(\w+)" not implemented', text)
        message = f"{module} ({kind}) cannot run on {device}, so it was not compared: {first}"
        if found:
            message = (
                f"{module} ({kind}) needs {found.group(found.lastindex or 0)}, which {device} lacks; the module was "
                "not compared (--cpu-fallback lets the CPU run it)"
            )
        elif _NOT_BUILT in text.lower():
            message += ". This torch was not built for the card: install a build that was"
    return ModuleFinding(module=module, kind=kind, outcome=outcome, phase=phase, introduced=True, message=message)
