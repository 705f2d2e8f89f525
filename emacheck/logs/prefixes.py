"""What launchers and containers put before each line: the rank that wrote it, a time stamp, the name of a service."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from emacheck.logs.lines import Bytes

LOOKED_AT = 2000
MOST_LAYERS = 3
ENOUGH = 0.9
_TIME = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,12})?(?:Z|[+-]\d\d:?\d\d)"
KINDS: dict[str, re.Pattern[bytes]] = {
    "torchrun": re.compile(rb"(?m)^\[[a-z]{1,20}(\d{1,6})\]:[ ]?"),
    "mpirun": re.compile(rb"(?m)^\[\d{1,9},(\d{1,6})\](?:<std(?:out|err)>)?:[ ]?"),
    "srun -l": re.compile(rb"(?m)^[ ]{0,5}(\d{1,6}): "),
    "Ray": re.compile(rb"(?m)^\((?:[\w.]{1,60} )?(?:pid|rank)=(\d{1,9})(?:, ip=[\d.]{7,15})?\)[ ]?"),
    "time stamps": re.compile(rb"(?m)^" + _TIME + rb" (?:std(?:out|err) [FP] )?"),
    "Compose": re.compile(rb"(?m)^[A-Za-z][\w.-]{0,60}-\d{1,4}[ ]{1,40}\| "),
    "kubectl": re.compile(rb"(?m)^\[pod/[\w./-]{1,200}\] "),
}
_PLACE = re.compile(rb"iter|step|epoch|batch|\{\"", re.IGNORECASE)
_PLAIN_RANKS = frozenset({"srun -l", "Ray", "mpirun", "torchrun"})


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prefix that nearly all lines have.

    Attributes:
        kind: Who puts it there.
        ranks: The numbers in it, if they are ranks: those found at the head of the log.
    """

    kind: str
    ranks: frozenset[int] = frozenset()

    @property
    def pattern(self) -> re.Pattern[bytes]:
        """What the prefix looks like at the start of a line."""
        return KINDS[self.kind]


def prefixes(head: bytes) -> tuple[Prefix, ...]:
    r"""Return the prefixes that nearly all of the first lines have, the outermost first.

    Example:
        >>> [each.kind for each in prefixes(b"2031-01-01T00:00:00Z [rank0]: iter 1 loss 4.5\n")]
        ['time stamps', 'torchrun']
    """
    lines = [line for line in islice(io.BytesIO(head), LOOKED_AT) if line.strip()]
    found: list[Prefix] = []
    while len(found) < MOST_LAYERS and (prefix := _outermost(lines)) is not None:
        found.append(prefix)
        lines = [line for each in lines if (line := prefix.pattern.sub(b"", each, count=1)).strip()]
    return tuple(found)


def _outermost(lines: list[bytes]) -> Prefix | None:
    for kind, pattern in KINDS.items():
        matches = [found for line in lines if (found := pattern.match(line))]
        if not matches or len(matches) < ENOUGH * len(lines):
            continue
        if kind not in _PLAIN_RANKS:
            return Prefix(kind)
        numbers = [int(found[1]) for found in matches]
        if kind != "srun -l" or _are_ranks(numbers, matches):
            return Prefix(kind, frozenset(numbers))
    return None


def _are_ranks(numbers: list[int], matches: list[re.Match[bytes]]) -> bool:
    """Tell ranks from iterations: they recur, and the lines name the iteration elsewhere."""
    says = any(_PLACE.search(found.string, found.end()) for found in matches)
    return says and (len(numbers) >= 2 * len({*numbers}) or {*numbers} == {0})


class Stripped:
    """A stream without the prefixes of its lines."""

    def __init__(self, stream: Bytes, found: tuple[Prefix, ...]) -> None:
        self._stream, self._patterns = stream, [each.pattern for each in found]
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Return about ``size`` bytes; none only at the end."""
        while piece := self._stream.read(size):
            whole = self._rest + piece
            end = whole.rfind(b"\n") + 1
            if not end and len(whole) > 2 * size:
                end = len(whole)  # a line without an end: its prefix, if any, is at its start
            self._rest = whole[end:]
            if text := self._without(whole[:end]):
                return text
        text, self._rest = self._without(self._rest), b""
        return text

    def _without(self, text: bytes) -> bytes:
        for pattern in self._patterns:
            text = pattern.sub(b"", text)
        return text


def of_each_rank(stream: Bytes, found: tuple[Prefix, ...]) -> Iterator[tuple[int | None, bytes]]:
    """Return the lines without their prefixes, each with the rank that wrote it; None if the line does not say."""
    rest = b""
    while piece := stream.read(1 << 16):
        whole = rest + piece
        end = whole.rfind(b"\n") + 1
        if len(whole) - end > 1 << 20:
            end = len(whole)
        rest = whole[end:]
        for line in io.BytesIO(whole[:end]):
            yield _parted(line, found)
    if rest:
        yield _parted(rest, found)


def _parted(line: bytes, found: tuple[Prefix, ...]) -> tuple[int | None, bytes]:
    rank = None
    for prefix in found:
        match = prefix.pattern.match(line)
        if match is not None:
            rank = int(match[1]) if prefix.ranks else rank
            line = line[match.end() :]
    return rank, line
