"""Whether this host has the memory that an audit takes, asked before it takes it."""

from collections.abc import Sequence
from typing import Any

from emacheck.errors import UsageError
from emacheck.train.host_memory import held, host_memory

# For EMANet-R50-D8 in fp32; a test holds them to what benchmarks/audit_memory.py measured. Other networks differ.
BASE, PER_PIXEL = 2.9 * 2**30, 50 * 2**10
# Of one process with the joined batch of several.
JOINED_BASE, PER_JOINED_PIXEL = 3.4 * 2**30, 12 * 2**10
CHANNELS = 3


def memory_needed(batches: Sequence[Any], processes: int | None = None) -> float:
    """Return about how many bytes the audit of one of these batches takes: 2.9 GiB + 50 KiB for each pixel.

    Args:
        batches: Batches of images of three channels.
        processes: How many processes are audited as well, None for none; their joined batches come after these, with
            3.4 GiB + 12 KiB for each pixel.

    Example:
        >>> import torch
        >>> round(memory_needed([{"inputs": [torch.zeros(3, 512, 1024)] * 2}]) / 2**30, 1)
        52.9
    """
    from emacheck.audit.iteration.nested import tensors

    elements = max((sum(tensor.numel() for _, tensor in tensors(batch)) for batch in batches), default=0)
    pixels = elements / CHANNELS
    alone = BASE + PER_PIXEL * pixels
    return alone if processes is None else max(alone, JOINED_BASE + PER_JOINED_PIXEL * processes * pixels)


def refuse_too_large(batches: Sequence[Any], processes: int | None = None) -> None:
    """Refuse an audit that would take more memory than this host has left.

    Args:
        batches: Batches of images of three channels.
        processes: How many processes are audited as well, None for none.

    Raises:
        UsageError: If so.
    """
    memory, needed = host_memory(), memory_needed(batches, processes)
    if memory is None:
        return
    # What is needed includes what this process has taken so far.
    left = memory.available + held()
    if needed > left:
        within = " within the limit of this container or job" if memory.limited else ""
        raise UsageError(
            f"the audit of these batches takes about {needed / 2**30:.1f} GiB of the host's memory, and "
            f"{left / 2**30:.1f} GiB are available{within}. Audit a smaller crop or batch (--preset smoke, or "
            "--cfg-options train_dataloader.batch_size=1), or some modules: emacheck audit --modules 'decode_head*' "
            "--no-end-to-end. --modules '*' tries nevertheless."
        )
