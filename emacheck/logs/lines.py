"""Lines of a text file, one at a time, whatever its size."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 1 << 20


class Lines:
    r"""The lines of an open text file with their line breaks; a line longer than 1 MiB comes out empty and is counted.

    A progress bar's ``\r`` ends a line too, so that a bar redrawn a million times is a million short lines. The file
    must have been opened with ``newline=""``.
    """

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self._too_long = 0
        self._first_too_long = 0

    @property
    def remarks(self) -> tuple[str, ...]:
        """A sentence about the lines longer than 1 MiB, if any were met so far."""
        if not self._too_long:
            return ()
        return (f"lines longer than 1 MiB: {self._too_long} skipped, the first on line {self._first_too_long}",)

    def __iter__(self) -> Iterator[str]:
        number = 1
        while line := self._file.readline(LONGEST):
            if len(line) == LONGEST and not line.endswith(("\n", "\r")):
                line = self._skip_rest()
                self._too_long += 1
                self._first_too_long = self._first_too_long or number
            yield line
            number += line.endswith("\n")

    def _skip_rest(self) -> str:
        """Read up to the end of the line and return its line break."""
        while (rest := self._file.readline(LONGEST)) and not rest.endswith(("\n", "\r")):
            pass
        return "\r" if rest.endswith("\r") else "\n"


def numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    r"""Pair each line with its number as an editor counts it: what ends in ``\r`` is not a line of its own.

    Example:
        >>> list(numbered(["10 %\r", "20 %\n", "done\n"]))
        [(1, '10 %\r'), (1, '20 %\n'), (2, 'done\n')]
    """
    number = 1
    for line in lines:
        yield number, line
        number += not line.endswith("\r")


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    """Open a text file for reading line by line: UTF-8 with or without a mark, undecodable bytes replaced."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        yield Lines(file)
