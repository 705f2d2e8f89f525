"""Processes that load data end where they cannot hand over what they loaded; else the training waits for ever.

A batch goes to the training through shared memory, of which a container often has 64 MB. Where it does not fit, a
thread of Python's queue prints the error and drops the batch (multiprocessing/queues.py,
``Queue._on_queue_feeder_error``). Nobody tells the training, which waits. Of a process that has ended, torch's data
loader knows within seconds.
"""

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.queues import Queue

LOST_BATCH = 1
"""Exit code of a process that could not hand over a batch."""


@dataclass(frozen=True, slots=True)
class EndingWithItsBatch:
    """What a process that loads data does first: nothing but what it was to do, and the above.

    Args:
        initialise: What it was to do, called with the number of the process; None for nothing.
    """

    initialise: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        """Prepare the process."""
        Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]
        if self.initialise is not None:
            self.initialise(worker)


def _end(error: BaseException, batch: object) -> None:  # noqa: ARG001
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(LOST_BATCH)
