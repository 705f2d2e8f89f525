"""Parts of a call: which of its tensors is compared, and what it is to the module."""

from typing import NamedTuple

import torch


class Part(NamedTuple):
    """Which tensor of a call: what it is to the module, and its path or name.

    ``kind`` is ``output``, ``input of`` (of a module it calls), ``input gradient``, ``gradient at`` (the output of a
    module it calls), ``gradient`` or ``weight`` (a parameter), ``buffer``, ``update`` (of a parameter) or ``state``
    (of the optimizer), ``start of buffer`` (as it arrived on the device) or ``gradient history of output`` (only where
    it is other than the reference's).
    """

    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}".rstrip()


# What is not computed, but only carried to the device.
COPIED = frozenset({"weight", "start of buffer"})
# What only some implementations of a module make: whether one works in place is its own business.
OPTIONAL = frozenset({"input after the call"})

Results = dict[Part, torch.Tensor]
