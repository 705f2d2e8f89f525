"""What ends a command from outside: SIGTERM of a scheduler and SIGHUP of a closed terminal, like Ctrl-C."""

import math
import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING

from emacheck.uninterrupted import INTERRUPTS

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

# Windows has no SIGHUP.
NUMBERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
# As long as processes are given to end; a terminal that closes sends SIGHUP more than once.
QUIET_SECONDS = 20.0
AGAIN_SECONDS = 0.05


def heed_signals() -> None:
    """Let SIGTERM and SIGHUP interrupt like Ctrl-C, and the first alone; one that is ignored, as under nohup, stays."""
    last = -math.inf

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal last
        # What is being ended and removed after the first signal must not be interrupted by the next, nor by a second
        # Ctrl-C of somebody who is impatient.
        if time.monotonic() - last > QUIET_SECONDS:
            last = time.monotonic()
            raise KeyboardInterrupt

    for number in (signal.SIGINT, *NUMBERS):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, interrupt)
    _heed_what_was_lost()


def heed_no_more() -> None:
    """Let no signal change the exit code of a command that has ended: a second Ctrl-C would end it by SIGINT."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    # Python as well ends it by SIGINT if a KeyboardInterrupt, though caught, left the exec of a string, as a dataclass
    # is made by (CPython, Python/pythonrun.c, run_eval_code_obj); the next such exec makes it forget.
    exec("")  # noqa: S102 - a constant


def _heed_what_was_lost() -> None:
    """Raise KeyboardInterrupt again where Python dropped it, as it does when a signal comes while objects are freed."""
    others = sys.unraisablehook

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    def dropped(what: "UnraisableHookArgs") -> None:
        if what.exc_type is KeyboardInterrupt and hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, interrupt)
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            others(what)

    sys.unraisablehook = dropped
