"""Whether what is copied to a device and back is what it was: operators are judged by what was copied."""

import torch

_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64)


def miscopied(device: torch.device) -> bool:
    """Return whether numbers come back from a device otherwise than they went; a type that it lacks is passed over.

    Example:
        >>> miscopied(torch.device("cpu"))
        False
    """
    numbers = torch.arange(-96, 96).reshape(12, 16)
    for dtype in _TYPES:
        for value in (numbers.to(dtype), numbers.to(dtype).t()):
            try:
                back = value.to(device).to("cpu")
            except (RuntimeError, NotImplementedError, TypeError):
                continue
            if not torch.equal(back, value):
                return True
    return False
