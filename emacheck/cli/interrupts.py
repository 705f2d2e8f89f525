"""What ends a command from outside: SIGTERM of a scheduler and SIGHUP of a closed terminal, like Ctrl-C."""

import math
import signal
import time
from types import FrameType

NUMBERS = (signal.SIGTERM, signal.SIGHUP)
# As long as processes are given to end; a terminal that closes sends SIGHUP more than once.
QUIET_SECONDS = 20.0


def heed_signals() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt; one that is ignored, as under nohup, stays ignored."""
    last = -math.inf

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal last
        # What is being ended and removed after the first signal must not be interrupted by the next.
        if time.monotonic() - last > QUIET_SECONDS:
            last = time.monotonic()
            raise KeyboardInterrupt

    for number in NUMBERS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)
