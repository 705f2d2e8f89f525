"""Many printed numbers at once: exactly what ``float`` makes of each, or no answer for the few that are unusual.

Eight digits are eight bytes of one integer, and three multiplications turn them into a number (D. Lemire, "Number
parsing at a gigabyte per second", Software: Practice and Experience 51, 2021, section 3). The decimal point is taken
out, so that a number is an integer divided by a power of ten. Both are exact, so the quotient is rounded once, and
rightly: in double precision as long as the integer has at most 53 bits (W. D. Clinger, "How to read floating point
numbers accurately", PLDI 1990); else in extended precision, where the processor has it, and then once more, unless that
lies half-way between two doubles.
"""

import numpy as np
import numpy.typing as npt

from emacheck.curve import Floats, Integers

Words = npt.NDArray[np.uint64]
Truths = npt.NDArray[np.bool_]

MARGIN = 24
"""Bytes that a buffer must have before the first number."""
NO_POWER = -400
"""The power of ten of the last printed digit of an integer, which is printed in full."""
_ZEROS, _HIGH, _SIXES = (np.uint64(int(pair * 8, 16)) for pair in ("30", "f0", "06"))
_POWERS = 10.0 ** np.arange(23)
_INTEGER_POWERS = 10 ** np.arange(19, dtype=np.uint64)
_EXTENDED = np.finfo(np.longdouble).nmant == 63 and np.dtype(np.longdouble).itemsize == 16
_KEEP = np.array([0, *(2**64 - 2 ** (64 - 8 * n) for n in range(1, 9))], dtype=np.uint64)
_MOST_DIGITS = 19


class Text:
    """A text as bytes, and as the eight bytes from each position on.

    Attributes:
        bytes: The bytes.
        words: The little-endian integer of the eight bytes that start at each position.
    """

    def __init__(self, content: bytes) -> None:
        self.bytes = np.frombuffer(content, np.uint8)
        self.words: Words = np.ndarray((max(len(content) - 7, 0),), "<u8", content, 0, (1,))


def integers(text: Text, starts: Integers, ends: Integers) -> tuple[Integers, Truths]:
    """Return the integers of at most eight digits, perhaps behind blanks, and which of them really are."""
    length = ends - starts
    sound = (length > 0) & (length <= 8)
    kept = _KEEP[np.where(sound, length, 0)]
    words = text.words[ends - 8]
    blank = (words ^ np.uint64(0x2020202020202020)) & kept
    # Blanks may only lead: what is before the first digit is made zero.
    zero = ((blank | ~kept) - np.uint64(0x0101010101010101)) & ~(blank | ~kept) & np.uint64(0x8080808080808080)
    if np.any(zero):
        for at in np.flatnonzero(zero).tolist():
            piece = text.bytes[starts[at] : ends[at]].tobytes().lstrip(b" ")
            kept[at] = _KEEP[len(piece) if sound[at] and piece else 0]
    sound &= kept != 0
    return _digits(words, kept, sound).astype(np.int64), sound


def floats(text: Text, starts: Integers, ends: Integers) -> tuple[Floats, npt.NDArray[np.int64], Truths]:
    """Return the numbers, the power of ten of the last printed digit of each, and which of them really are.

    Read are digits with at most one point, a minus, and an exponent of two digits.
    """
    here = text.bytes
    negative = here[starts] == 45
    starts = starts + negative
    scaled = here[ends - 4] == 101
    exponent = np.zeros(len(starts), np.int64)
    sound = np.ones(len(starts), np.bool_)
    if np.any(scaled):
        exponent, fits = _exponents(here, ends)
        sound &= ~scaled | fits
        exponent[~scaled] = 0
        ends = ends - 4 * scaled
    whole = _point(here, starts, ends)
    decimals = np.maximum(ends - starts - whole - 1, 0)
    sound &= (whole > 0) & (whole <= 8) & (whole + decimals <= _MOST_DIGITS)
    whole, decimals = np.where(sound, whole, 1), np.where(sound, decimals, 1)
    first = here[starts] - np.uint8(48)
    if np.all(whole == 1):
        sound &= first < 10
        mantissa = first * _INTEGER_POWERS[decimals]
    else:
        mantissa = _digits(text.words[starts + whole - 8], _KEEP[whole], sound) * _INTEGER_POWERS[decimals]
    for at in range(3):
        kept = np.clip(decimals - 8 * at, 0, 8)
        if at and not np.any(kept):
            break
        part = _digits(text.words[ends - 8 * (at + 1)], _KEEP[kept], sound)
        mantissa += part * _INTEGER_POWERS[8 * at]
    values, rounded = _quotients(mantissa, exponent - decimals)
    sound &= rounded
    power = np.where((exponent == 0) & (decimals == 0), NO_POWER, exponent - decimals)
    return np.where(negative, -values, values), power, sound


def _digits(words: Words, kept: Words, sound: Truths) -> Words:
    """Return the numbers of the digits in the kept bytes; where something else is among them, it is not sound."""
    words = (words & kept) | (_ZEROS & ~kept)
    sound &= ((words & _HIGH) == _ZEROS) & (((words + _SIXES) & _HIGH) == _ZEROS)
    words = words - _ZEROS
    words = (words * np.uint64(2561)) >> np.uint64(8)
    words = ((words & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601)) >> np.uint64(16)
    return ((words & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001)) >> np.uint64(32)


def _exponents(here: npt.NDArray[np.uint8], ends: Integers) -> tuple[Integers, Truths]:
    tens, ones, sign = here[ends - 2] - 48, here[ends - 1] - 48, here[ends - 3]
    exponent = tens.astype(np.int64) * 10 + ones
    fits = (tens < 10) & (ones < 10) & ((sign == 43) | (sign == 45))
    return np.where(sign == 45, -exponent, exponent), fits


def _point(here: npt.NDArray[np.uint8], starts: Integers, ends: Integers) -> Integers:
    """Return the number of digits before the point; all of them if there is none."""
    whole = np.where(here[starts + 1] == 46, 1, 0)
    for at in range(2, 8):
        open_ones = whole == 0
        if not np.any(open_ones):
            return whole
        whole[open_ones & (here[starts + at] == 46)] = at
    length = ends - starts
    return np.where((whole == 0) | (whole >= length), length, whole)


def _quotients(mantissa: Words, power: Integers) -> tuple[Floats, Truths]:
    """Return mantissa times ten to the power, and where that is rounded rightly."""
    size = np.minimum(np.abs(power), 22)
    sound = (np.abs(power) <= 22) & (mantissa < np.uint64(2**53))
    plain = mantissa.astype(np.float64)
    values = np.where(power < 0, plain / _POWERS[size], plain * _POWERS[size])
    long = np.flatnonzero(~sound & (power < 0) & (power >= -22))
    if len(long) and _EXTENDED:
        quotient = mantissa[long].astype(np.longdouble) / _POWERS[size[long]].astype(np.longdouble)
        values[long] = quotient.astype(np.float64)
        low = quotient.view(np.uint64)[::2] & np.uint64(0x7FF)
        sound[long] = low != np.uint64(0x400)
    return values, sound
