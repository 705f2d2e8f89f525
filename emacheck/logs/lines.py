"""Lines of a log, one at a time or in blocks, whatever its size."""

import io
import re
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from emacheck.errors import LogError
from emacheck.oddity import Oddity, OddityKind, oddity

LONGEST = 1 << 20
BLOCK = 1 << 20
LARGEST_DOCUMENT = 64 << 20
# Colours and cursor movements (CSI), window titles (OSC), and the short escapes of a terminal.
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)?|[ -/]*[0-Z\\^-~])")


class Bytes(Protocol):
    """What lines are read from: a stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""


class Lines:
    r"""The lines of a log with their line breaks, without the escapes of a terminal; read once.

    A line longer than 1 MiB comes out empty and is counted. A progress bar's ``\r`` ends a line too, so that a bar
    redrawn a million times is a million short lines. Bytes that are not UTF-8 are replaced.
    """

    def __init__(self, stream: Bytes) -> None:
        self._stream = stream
        self._too_long = 0
        self._first_too_long = 0

    @property
    def remarks(self) -> tuple[Oddity, ...]:
        """What to say about the lines longer than 1 MiB, if any were met so far."""
        if not self._too_long:
            return ()
        message = f"lines longer than 1 MiB: {self._too_long} skipped, the first on line {self._first_too_long}"
        return (oddity(OddityKind.SKIPPED, message, line=self._first_too_long),)

    def __iter__(self) -> Iterator[str]:
        for _, block in self.blocks():
            yield from texts(block)

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Return the number of the first line of each block, and the block: whole lines, about a mebibyte of them."""
        number, rest, skipping = 1, b"", False
        while piece := self._stream.read(BLOCK):
            block = rest + piece
            if skipping or (rest and _first_break(block) > LONGEST):
                at = _first_break(block)
                if not skipping:
                    self._count(number)
                skipping = at == len(block)
                block = block[at:]  # the break of the line stays, so that it counts
            end = block.rfind(b"\n") + 1 or block.rfind(b"\r", 0, -1) + 1
            block, rest = block[:end], block[end:]
            if len(rest) > LONGEST:
                self._count(number + block.count(b"\n"))
                rest, skipping = b"", True
            if block and not block.isspace():  # blank lines without end are not worth a look at each
                yield number, without_escapes(block)
            if block:
                number += int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))  # faster than count
        if rest:
            yield number, without_escapes(rest)

    def document(self, name: str) -> str:
        """Return all of the text.

        Args:
            name: What the log is called in messages.

        Raises:
            LogError: If it is larger than 64 MiB.
        """
        pieces, size = [], 0
        while piece := self._stream.read(BLOCK):
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST_DOCUMENT:
                raise LogError(
                    f"{name}: this is one JSON document of more than {LARGEST_DOCUMENT >> 20} MiB, which would have to "
                    "be held in memory as a whole. Write the records to a file of JSON lines."
                )
        return b"".join(pieces).decode("utf-8", "replace")

    def _count(self, number: int) -> None:
        self._too_long += 1
        self._first_too_long = self._first_too_long or number


def texts(block: bytes) -> Iterator[str]:
    r"""Return the lines of a block with their breaks; ``\n``, ``\r\n`` and ``\r`` end a line, nothing else does."""
    return iter(io.StringIO(block.decode("utf-8", "replace"), newline=""))


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


def without_escapes(text: bytes) -> bytes:
    r"""Return the text without the escapes that colour a terminal or move its cursor.

    Example:
        >>> without_escapes(b"\x1b[32mloss\x1b[0m: 4.1")
        b'loss: 4.1'
    """
    return _ESCAPES.sub(b"", text) if b"\x1b" in text else text


def _first_break(block: bytes) -> int:
    end = block.find(b"\n")
    at = block.find(b"\r", 0, end if end >= 0 else len(block))
    return at if at >= 0 else end if end >= 0 else len(block)
