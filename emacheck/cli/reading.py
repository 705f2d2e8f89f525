"""How far the reading of a log is, on a terminal: a line on standard error that is gone at the end."""

import shutil
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from emacheck.printable import printable

if TYPE_CHECKING:
    from emacheck.record import Record

AFTER, EVERY = 1.5, 0.5
"""Seconds until the line is shown, and from one to the next."""


def read_shown(log: str, **reading: Any) -> "Record":
    """Read a log as ``emacheck.read_log`` does, and show on a terminal how far that is, unless it is done at once."""
    from emacheck.logs import read_log  # here, so that `emacheck --help` stays fast

    if not sys.stderr.isatty():
        return read_log(log, **reading)
    line = _Line(log)
    try:
        return read_log(log, progress=line.note, **reading)
    finally:
        line.erase()


class _Line:
    """The line, written by a thread of its own, because a document is read at once and then takes its time."""

    def __init__(self, log: str) -> None:
        self._log, self._far, self._shown = printable(log), "", 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def note(self, taken: int, size: int | None) -> None:
        """Take how many bytes were read, and of how many."""
        self._far = f"{100 * taken // size} %" if size else f"{taken / 1e6:.0f} MB"

    def erase(self) -> None:
        """Show nothing any more."""
        self._done.set()
        self._thread.join()
        if self._shown:
            self._write("")

    def _show(self) -> None:
        wait = AFTER
        while not self._done.wait(wait):
            columns = shutil.get_terminal_size((80, 24)).columns
            self._write(f"Reading {self._log}: {self._far}"[-columns + 1 :])
            wait = EVERY

    def _write(self, text: str) -> None:
        end = "" if text else "\r"
        with suppress(OSError):  # a terminal that is gone says nothing about the log
            sys.stderr.write(f"\r{text.ljust(self._shown)}{end}")
            sys.stderr.flush()
        self._shown = len(text)
