"""Blocks of lines that all look like one: only the numbers in them differ.

The marks ``:`` and ``[`` cut a line into pieces. In a line that looks like the sample, each number stands between the
same two marks, at the same distance behind the first and before the second, with the same text on both sides.

The numbers are those of the line-by-line way, bit by bit. The numbers of all lines that are printed in one manner
(short, long, with an exponent) are read together. So a log is slower where a metric is printed now in this manner, now
in that, where more lines differ than look alike, and where iterations have more than nine digits. Messages in between
cost little.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from emacheck.curve import Floats, Integers
from emacheck.logs.formats.bulk_numbers import MARGIN, NO_POWER, Text, floats, integers
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import Lines, numbered, texts
from emacheck.logs.values import parse_number, printed_unit

_LONGEST_NUMBER = 24
_SMALL = 1 << 15
_TRIED = 20
_ALL = 2**64 - 1


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
    """Lines of a block that look like the sample, or lines one after the other that do not.

    Attributes:
        lines: Their numbers within the block, increasing.
        text: The lines, if they do not look like the sample.
        integers: The integers of each line by name; none if the lines do not look like the sample.
        numbers: The other numbers by name.
        powers: The power of ten of the last printed digit of each, the smallest and the largest one, by name.
    """

    lines: Integers
    text: bytes = b""
    integers: dict[str, Integers] = field(default_factory=dict)
    numbers: dict[str, Floats] = field(default_factory=dict)
    powers: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many lines there are."""
        return len(self.lines)

    def part(self, first: int, behind: int) -> "Stretch":
        """Return the lines from one on up to another, both counted within the stretch."""
        if first == 0 and behind == len(self.lines):
            return self
        integers = {name: values[first:behind] for name, values in self.integers.items()}
        numbers = {name: values[first:behind] for name, values in self.numbers.items()}
        return Stretch(self.lines[first:behind], self.text, integers, numbers, self.powers)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Numbers of a line that are read together: behind which fence each is, and how far from those at both sides."""

    names: tuple[str, ...]
    fences: Integers
    left: Integers
    right: Integers

    @classmethod
    def of(cls, places: Sequence[tuple[str, int, int, int]]) -> "_Numbers":
        table = np.array([place[1:] for place in places], np.int64).reshape(-1, 3)
        return cls(tuple(place[0] for place in places), table[:, 0], table[:, 1:2], table[:, 2:])

    def between(self, fences: Integers) -> tuple[Integers, Integers, npt.NDArray[np.bool_]]:
        """Return where the numbers of all lines start and end, one row for each number, and in which lines they do."""
        begin = fences[self.fences]
        begin += self.left
        end = fences[self.fences + 1]
        end -= self.right
        length = end - begin
        wrong = (length < 1) | (length > _LONGEST_NUMBER)
        if np.any(wrong):
            begin[wrong], end[wrong] = MARGIN, MARGIN + 1
        return begin, end, ~np.any(wrong, axis=0)


class _Texts:
    """The texts of a line that must be what they are in the sample, each at a distance from a fence."""

    def __init__(self) -> None:
        self._texts: list[tuple[int, int, list[tuple[int, int]]]] = []

    def add(self, fence: int, distance: int, expected: bytes) -> None:
        """Expect a text at a distance from a fence."""
        pieces = [expected[begin : begin + 8] for begin in range(0, len(expected), 8)]
        words = [(2 ** (8 * len(piece)) - 1, int.from_bytes(piece, "little")) for piece in pieces]
        if words:
            self._texts.append((fence, distance, words))

    def are_here(self, text: Text, fences: Integers) -> npt.NDArray[np.bool_]:
        """Tell in which lines all of the texts stand."""
        same = np.ones(fences.shape[1], np.bool_)
        for fence, distance, words in self._texts:
            found = text.several(fences[fence] + distance, len(words))
            for column, (keep, word) in zip(found.T, words, strict=True):
                same &= (column & np.uint64(keep) if keep < _ALL else column) == np.uint64(word)
        return same


class Template:
    """What the lines of a log look like, learned from one.

    The fences of a line are its start, its marks, and its end.
    """

    def __init__(self, sample: bytes, fields: Sequence[Field]) -> None:
        marks = [at for at, byte in enumerate(sample) if byte in b":["]
        self._marks = len(marks)
        self._brackets = b"[" in sample
        self._truths = np.empty((3, 0), np.bool_)
        self._margin = b" " * (len(sample) + MARGIN)
        fences = [0, *marks, len(sample)]
        groups: dict[str, list[tuple[str, int, int, int]]] = {"integer": [], "short": [], "long": [], "scaled": []}
        before = {at + 1: _tail(sample[left:right]) for at, (left, right) in enumerate(itertools.pairwise(fences[:-1]))}
        behind = dict[int, bytes]()
        for each in fields:
            fence = sum(mark < each.start for mark in marks)
            prefix, suffix = sample[fences[fence] : each.start], sample[each.end : fences[fence + 1]]
            if each.integer and prefix.startswith(b"["):
                prefix = prefix.rstrip(b" ")  # a number in brackets is padded, by fewer blanks as it grows
            behind[fence], before[fence + 1] = prefix, suffix
            # The whole name, for one may hold digits: other lines could have another name that ends alike.
            before[fence] = max(before[fence], _last_word(sample[fences[fence - 1] : fences[fence]]), key=len)
            groups[_kind(sample, each)].append((each.name, fence, len(prefix), len(suffix)))
        self._texts = _Texts()
        self._texts.add(0, 0, sample[: min(8, marks[0])])
        for fence in range(1, len(fences)):
            text = before.get(fence, b"")
            self._texts.add(fence, -len(text), text + behind.get(fence, b""))
        self._names = [each.name for each in fields if not each.integer]
        self._integers = _Numbers.of(groups.pop("integer"))
        self._floats = [_Numbers.of(group) for group in groups.values() if group]

    @staticmethod
    def possible(sample: bytes, fields: Sequence[Field]) -> bool:
        """Tell whether each number stands alone between two marks."""
        marks = [at for at, byte in enumerate(sample) if byte in b":["]
        places = [sum(mark < each.start for mark in marks) for each in fields]
        inside = any(byte in b":[" for each in fields for byte in sample[each.start : each.end])
        return bool(places) and 0 not in places and len({*places}) == len(places) and not inside

    def stretches(self, block: bytes, telling: tuple[bytes, ...] = (b"",)) -> Iterator[Stretch]:
        """Cut a block of whole lines into stretches.

        Args:
            block: The lines.
            telling: Of unlike lines, those that hold one of these keep their place among the others. What holds none is
                given at once, so that it does not cut a stretch in two.
        """
        content = b"".join((self._margin, block, self._margin))
        text = Text(content)
        lines, starts, ends, fences = self._fences(text)
        sound = self._texts.are_here(text, fences)
        whole, numbers, powers = self._numbers(text, fences, sound)
        alike = Stretch(lines if np.all(sound) else lines[sound], b"", whole, numbers, powers)
        good = np.zeros(len(ends), np.bool_)
        good[alike.lines] = True
        turns = np.flatnonzero(np.diff(good, prepend=True, append=True)).reshape(-1, 2)
        given = 0
        for first, behind in turns.tolist():
            piece = content[starts[first] : ends[behind - 1] + 1]
            row = int(np.searchsorted(alike.lines, first))
            if row > given and any(word in piece for word in telling):
                yield alike.part(given, row)
                given = row
            yield Stretch(np.arange(first, behind), piece)
        if given < alike.count:
            yield alike.part(given, alike.count)

    def _room(self, size: int) -> npt.NDArray[np.bool_]:
        """Return memory for three truths about each byte, the same again and again."""
        if self._truths.shape[1] < size:
            self._truths = np.empty((3, size + size // 8), np.bool_)
        return self._truths[:, :size]

    def _fences(self, text: Text) -> tuple[Integers, Integers, Integers, Integers]:
        """Find the lines, and in those that have as many marks as the sample the fences.

        Returns:
            The lines that have as many marks, the starts and ends of all lines, and one row for each fence.
        """
        line_ends, found, spare = self._room(len(text.bytes))
        np.equal(text.bytes, 10, out=line_ends)
        np.equal(text.bytes, 58, out=found)
        found |= line_ends
        if self._brackets:
            found |= np.equal(text.bytes, 91, out=spare)
        table: Integers = np.flatnonzero(found)
        regular = line_ends[table[self._marks :: self._marks + 1]]
        count = int(np.count_nonzero(line_ends))
        if len(table) == count * (self._marks + 1) and np.all(regular):
            table = table.reshape(count, -1).T
            lines, ends = np.arange(count), table[-1].copy()
        else:
            rows = np.flatnonzero(line_ends[table])
            ends = table[rows]
            lines = np.flatnonzero(np.diff(rows, prepend=-1) == self._marks + 1)
            table = table[rows[lines] + np.arange(-self._marks, 1)[:, None]]
        starts = np.concatenate(([len(self._margin)], ends[:-1] + 1))
        fences = np.empty((self._marks + 2, len(lines)), np.int64)
        fences[0], fences[1:] = starts[lines], table
        return lines, starts, ends, fences

    def _numbers(
        self, text: Text, fences: Integers, sound: npt.NDArray[np.bool_]
    ) -> tuple[dict[str, Integers], dict[str, Floats], dict[str, tuple[int, int]]]:
        """Return the numbers of the lines that are sound, and note which are not."""
        begin, end, fit = self._integers.between(fences)
        whole, right_ones = integers(text, begin.ravel(), end.ravel())
        sound &= fit & right_ones.reshape(begin.shape).all(axis=0)
        found = dict(zip(self._integers.names, whole.reshape(begin.shape), strict=True))
        numbers, exponents = dict[str, Floats](), dict[str, Integers]()
        for group in self._floats:
            begin, end, fit = group.between(fences)
            sound &= fit
            values, power = _floats(text, begin, end, sound)
            numbers |= zip(group.names, values, strict=True)
            exponents |= zip(group.names, power, strict=True)
        if not np.all(sound):
            found = {name: values[sound] for name, values in found.items()}
            numbers = {name: values[sound] for name, values in numbers.items()}
            exponents = {name: power[sound] for name, power in exponents.items()}
        powers = {name: _ends(power) for name, power in exponents.items()}
        return found, {name: numbers[name] for name in self._names}, powers


def _tail(piece: bytes) -> bytes:
    """Return a text from its last digit on."""
    return piece[max((place + 1 for place, byte in enumerate(piece) if chr(byte).isdigit()), default=0) :]


def _last_word(piece: bytes) -> bytes:
    """Return a text from its last word on."""
    return piece[piece.rstrip().rfind(b" ") + 1 :]


def _kind(sample: bytes, field: Field) -> str:
    """Return which numbers a number is read with, for those of one kind are read fastest."""
    if field.integer:
        return "integer"
    if b"e" in sample[field.start : field.end]:
        return "scaled"
    return "short" if field.end - field.start <= 8 else "long"


def _floats(text: Text, begin: Integers, end: Integers, sound: npt.NDArray[np.bool_]) -> tuple[Floats, Integers]:
    """Return numbers and their powers, one row for each number of a line, and note which lines are not sound."""
    begin_each, end_each = begin.ravel(), end.ravel()
    values, power, right_ones = floats(text, begin_each, end_each)
    for each in np.flatnonzero(~right_ones).tolist():
        at = each % begin.shape[1]
        if sound[at]:
            piece = text.bytes[begin_each[each] : end_each[each]].tobytes()
            sound[at], values[each], power[each] = _unusual(piece)
    return values.reshape(begin.shape), power.reshape(begin.shape)


def read_blocks(
    lines: Lines,
    gathering: Gathering,
    *,
    sample: Callable[[str], list[Field]],
    one: Callable[[str], object],
    many: Callable[[Stretch, Integers], object],
    telling: tuple[bytes, ...],
) -> str:
    """Read a log in blocks, those lines that look alike all at once.

    Args:
        lines: The log.
        gathering: Is told which line is read.
        sample: Returns the numbers in a line that others may look like, or none.
        one: Reads one line.
        many: Reads a stretch of lines that look alike, given their numbers.
        telling: What a line must hold one of for its place among the records to matter.

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
        for stretch in template.stretches(block, telling) if whole and template is not None else [_unlike(block)]:
            numbers = stretch.lines + first
            if stretch.integers:
                alike += stretch.count
                gathering.lines, line = max(gathering.lines, int(numbers[-1])), "\n"
                many(stretch, numbers)
                continue
            unlike += stretch.count
            for number, line in numbered(texts(stretch.text)):
                gathering.lines = int(numbers[0]) + number - 1
                one(line)
        if alike < unlike:
            template = None
    return line


def _unlike(block: bytes) -> Stretch:
    return Stretch(np.zeros(1, np.int64), block)


def _learned(block: bytes, sample: Callable[[str], list[Field]]) -> Template | None:
    """Learn from the first line of the block that can be learned from, among those in its middle and at its end."""
    pieces = block[len(block) // 2 :].split(b"\n", _TRIED + 1)[1:-1]
    for piece in pieces:
        fields = sample(piece.decode("ascii")) if piece.isascii() else []
        if fields and Template.possible(piece, fields):
            return Template(piece, fields)
    return None


def _ends(power: Integers) -> tuple[int, int]:
    """Return the smallest and the largest power that tells something."""
    known = power if power.min(initial=0) > NO_POWER else power[power > NO_POWER]
    return (int(known.min()), int(known.max())) if len(known) else (NO_POWER, NO_POWER)


def _unusual(piece: bytes) -> tuple[bool, float, int]:
    """Return whether a text is a number, the number, and the power of ten of its last printed digit."""
    text = piece.decode("latin-1")
    value = parse_number(text)
    if value is None:
        return False, 0.0, NO_POWER
    unit = printed_unit(text) if math.isfinite(value) else 0.0
    return True, value, round(math.log10(unit)) if unit else NO_POWER
