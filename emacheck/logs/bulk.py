"""Blocks of lines that all look like one: only the numbers in them differ.

The marks ``:`` and ``[`` cut a line into pieces. In a line that looks like the sample, each number stands between the
same two marks, at the same distance behind the first and before the second, with the same text on both sides.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emacheck.curve import Floats, Integers
from emacheck.logs.bulk_numbers import MARGIN, NO_POWER, Text, floats, integers
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import Lines, numbered, texts
from emacheck.logs.values import parse_number, printed_unit

_LONGEST_NUMBER = 24
_SMALL = 1 << 15
_TRIED = 20


@dataclass(frozen=True, slots=True)
class Field:
    """A number in the sample line.

    Attributes:
        name: What it is called.
        start: Position of its first character.
        end: Position behind its last character.
        integer: Whether it must be an integer.
    """

    name: str
    start: int
    end: int
    integer: bool = False


@dataclass(frozen=True, slots=True)
class Stretch:
    """Lines of a block, one after the other, that look like the sample or do not.

    Attributes:
        first: Number of the first line within the block.
        count: How many lines there are.
        text: The lines, if they do not look like the sample.
        integers: The integers of each line by name; none if the lines do not look like the sample.
        numbers: The other numbers by name.
        powers: The power of ten of the last printed digit of each, the largest one, by name.
    """

    first: int
    count: int
    text: bytes
    integers: dict[str, Integers]
    numbers: dict[str, Floats]
    powers: dict[str, int]


class Template:
    """What the lines of a log look like, learned from one."""

    def __init__(self, sample: bytes, fields: Sequence[Field]) -> None:
        self._sample = sample
        self._marks = [at for at, byte in enumerate(sample) if byte in b":["]
        self._fields = []
        for field in fields:
            before = sum(mark < field.start for mark in self._marks)
            self._fields.append((field, before, *self._around(field, before)))
        self._start = sample[: min(8, self._marks[0])]
        self._margin = b" " * (len(sample) + MARGIN)
        known = {before for _, before, *_ in self._fields}
        self._tails = [(at, self._tail(at)) for at in range(len(self._marks)) if at not in known and self._tail(at)]

    def _around(self, field: Field, before: int) -> tuple[int, int, bytes, bytes]:
        """Return the distances to the marks at both sides of a number, and the text up to them."""
        left = self._marks[before - 1]
        right = self._marks[before] if before < len(self._marks) else len(self._sample)
        prefix, suffix = self._sample[left : field.start], self._sample[field.end : right]
        return len(prefix), len(suffix), prefix, suffix

    def _tail(self, at: int) -> bytes:
        """Return the text before a mark, from the last digit on."""
        piece = self._sample[self._marks[at - 1] + 1 if at else 0 : self._marks[at]]
        return piece[max((place + 1 for place, byte in enumerate(piece) if chr(byte).isdigit()), default=0) :]

    @staticmethod
    def possible(sample: bytes, fields: Sequence[Field]) -> bool:
        """Tell whether each number stands alone between two marks."""
        marks = [at for at, byte in enumerate(sample) if byte in b":["]
        places = [sum(mark < field.start for mark in marks) for field in fields]
        inside = any(byte in b":[" for field in fields for byte in sample[field.start : field.end])
        return bool(places) and 0 not in places and len({*places}) == len(places) and not inside

    def stretches(self, block: bytes) -> Iterator[Stretch]:
        """Cut a block of whole lines into stretches."""
        content = self._margin + block + self._margin
        text = Text(content)
        here = text.bytes
        ends = np.flatnonzero(here == 10)
        starts = np.concatenate(([len(self._margin)], ends[:-1] + 1))
        marks = np.flatnonzero((here == 58) | (here == 91))
        last = np.searchsorted(marks, ends)
        counts = np.diff(last, prepend=0)
        alike = counts == len(self._marks)
        lines = np.flatnonzero(alike)
        if len(lines) < len(ends):
            marks = marks[: last[-1]][np.repeat(alike, counts)]
        of_lines = np.ascontiguousarray(marks[: len(lines) * len(self._marks)].reshape(len(lines), -1).T)
        sound = _is_here(text, starts[lines], self._start)
        for at, tail in self._tails:
            sound &= _is_here(text, of_lines[at] - len(tail), tail)
        whole, numbers, powers = self._numbers(text, of_lines, ends[lines], sound)
        good = np.zeros(len(ends), np.bool_)
        good[lines[sound]] = True
        rows = np.cumsum(sound) - 1
        row_of_line = np.zeros(len(ends), np.int64)
        row_of_line[lines] = rows
        turns = np.flatnonzero(np.diff(good)) + 1
        for first, behind in zip([0, *turns.tolist()], [*turns.tolist(), len(ends)], strict=True):
            if first == behind:
                continue
            if not good[first]:
                yield Stretch(first, behind - first, content[starts[first] : ends[behind - 1] + 1], {}, {}, {})
                continue
            of = slice(int(row_of_line[first]), int(row_of_line[first]) + behind - first)
            integers_of = {name: values[of] for name, values in whole.items()}
            yield Stretch(first, behind - first, b"", integers_of, {n: v[of] for n, v in numbers.items()}, powers)

    def _numbers(
        self, text: Text, marks: Integers, line_ends: Integers, sound: npt.NDArray[np.bool_]
    ) -> tuple[dict[str, Integers], dict[str, Floats], dict[str, int]]:
        whole, numbers, powers, exponents = {}, {}, {}, {}
        for field, before, left, right, prefix, suffix in self._fields:
            begin = marks[before - 1] + left
            end = (marks[before] if before < len(marks) else line_ends) - right
            fits = (end > begin) & (end - begin <= _LONGEST_NUMBER)
            nowhere = len(self._margin)
            begin, end = np.where(fits, begin, nowhere), np.where(fits, end, nowhere + 1)
            fits &= _is_here(text, begin - len(prefix), prefix) & _is_here(text, end, suffix)
            if field.integer:
                whole[field.name], right_ones = integers(text, begin, end)
                sound &= fits & right_ones
                continue
            values, power, right_ones = floats(text, begin, end)
            for at in np.flatnonzero(fits & ~right_ones).tolist():
                fits[at], values[at], power[at] = _unusual(text.bytes[begin[at] : end[at]].tobytes())
            sound &= fits
            numbers[field.name], exponents[field.name] = values, power
        if not np.all(sound):
            whole = {name: values[sound] for name, values in whole.items()}
            numbers = {name: values[sound] for name, values in numbers.items()}
            exponents = {name: power[sound] for name, power in exponents.items()}
        powers = {name: int(power.max(initial=NO_POWER)) for name, power in exponents.items()}
        return whole, numbers, powers


def read_blocks(
    lines: Lines,
    gathering: Gathering,
    *,
    sample: Callable[[str], list[Field]],
    one: Callable[[str], object],
    many: Callable[[Stretch, Integers], object],
) -> str:
    """Read a log in blocks, those lines that look alike all at once.

    Args:
        lines: The log.
        gathering: Is told which line is read.
        sample: Returns the numbers in a line that others may look like, or none.
        one: Reads one line.
        many: Reads a stretch of lines that look alike, given their numbers.

    Returns:
        The last line, with its line break if it has one.
    """
    template: Template | None = None
    line = ""
    for first, block in lines.blocks():
        block = block.replace(b"\r\n", b"\n") if b"\r" in block else block  # noqa: PLW2901 - one kind of line break
        whole = block.endswith(b"\n") and b"\r" not in block and len(block) > _SMALL
        if whole and template is None:
            template = _learned(block, sample)
        alike, unlike = 0, 0
        for stretch in template.stretches(block) if whole and template is not None else [_unlike(block)]:
            start = first + stretch.first
            if stretch.integers:
                alike += stretch.count
                gathering.lines, line = start + stretch.count - 1, "\n"
                many(stretch, np.arange(start, start + stretch.count))
                continue
            unlike += stretch.count
            for number, line in numbered(texts(stretch.text)):
                gathering.lines = start + number - 1
                one(line)
        if alike < unlike:
            template = None
    return line


def _unlike(block: bytes) -> Stretch:
    return Stretch(0, 1, block, {}, {}, {})


def _learned(block: bytes, sample: Callable[[str], list[Field]]) -> Template | None:
    """Learn from the first line of the block that can be learned from, among those in its middle and at its end."""
    pieces = block[len(block) // 2 :].split(b"\n", _TRIED + 1)[1:-1]
    for piece in pieces:
        fields = sample(piece.decode("ascii")) if piece.isascii() else []
        if fields and Template.possible(piece, fields):
            return Template(piece, fields)
    return None


def _unusual(piece: bytes) -> tuple[bool, float, int]:
    """Return whether a text is a number, the number, and the power of ten of its last printed digit."""
    text = piece.decode("latin-1")
    value = parse_number(text)
    if value is None:
        return False, 0.0, NO_POWER
    unit = printed_unit(text) if math.isfinite(value) else 0.0
    return True, value, round(math.log10(unit)) if unit else NO_POWER


def _is_here(text: Text, at: Integers, expected: bytes) -> npt.NDArray[np.bool_]:
    """Tell at which of the positions the expected text stands."""
    same = np.ones(len(at), np.bool_)
    for begin in range(0, len(expected), 8):
        piece = expected[begin : begin + 8]
        keep = np.uint64(2 ** (8 * len(piece)) - 1)
        word = np.uint64(int.from_bytes(piece, "little"))
        same &= (text.words[at + begin] & keep) == word
    return same
