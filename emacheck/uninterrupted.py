"""A moment in which no signal interrupts: what it does is done whole, and the signal comes after it."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# The last stands for one that Python dropped, which the command line sends itself again. Windows lacks two of them.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")
INTERRUPTS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP wait until we have ended; only the main thread hears them.

    Example:
        >>> with uninterrupted():
        ...     whole = "done"
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        heard.append(number)

    previous = {number: signal.getsignal(number) for number in INTERRUPTS}
    # None stands for a handler that was not installed from Python and could not be put back.
    previous = {number: handler for number, handler in previous.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in previous:
            signal.signal(number, note)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])
