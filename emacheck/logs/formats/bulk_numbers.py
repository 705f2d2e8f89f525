"""Many printed numbers at once: exactly what ``float`` makes of each, or no answer for the few that are unusual.

Eight digits are eight bytes of one integer, and three multiplications turn them into a number (D. Lemire, "Number
parsing at a gigabyte per second", Software: Practice and Experience 51, 2021, section 3). The decimal point is taken
out, so that a number is an integer divided by a power of ten. Both are exact, so the quotient is rounded once, and
rightly: in double precision as long as the integer has at most 53 bits (W. D. Clinger, "How to read floating point
numbers accurately", PLDI 1990); else in extended precision, where the processor has it, and then once more, unless that
lies half-way between two doubles.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from emacheck.curve import Floats, Integers

Words = npt.NDArray[np.uint64]
Truths = npt.NDArray[np.bool_]
Found = tuple[Floats, Integers, Truths]

MARGIN = 24
"""Bytes that a buffer must have before the first number."""
NO_POWER = -400
"""The power of ten of the last printed digit of an integer, which is printed in full."""
_ZEROS, _ONES, _SIXES, _BLANKS = (np.uint64(int(pair * 8, 16)) for pair in ("30", "01", "06", "10"))
_HIGH, _SIGNS = (np.uint64(int(pair * 8, 16)) for pair in ("f0", "80"))
_POINTS = np.uint64(int("1e" * 8, 16))
_ONE, _BYTE, _NIBBLE, _TOP = (np.uint64(number) for number in (1, 8, 4, 60))
_MOST_POWER = 22
_POWERS = 10.0 ** np.arange(_MOST_POWER + 1)
_EXTENDED_POWERS = _POWERS.astype(np.longdouble)
_EXACT, _LOWEST = np.uint64(2**53), np.uint64(0xFF)
_INTEGER_POWERS = 10 ** np.arange(20, dtype=np.uint64)
_EXTENDED = np.finfo(np.longdouble).nmant == 63 and np.dtype(np.longdouble).itemsize == 16
_MOST_DIGITS = 19
_WORTHWHILE = 32


class Text:
    """A text as bytes, and as the eight bytes from each position on.

    Attributes:
        bytes: The bytes.
        words: The little-endian integer of the eight bytes that start at each position.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.bytes = np.frombuffer(content, np.uint8)
        self.words: Words = np.ndarray((max(len(content) - 7, 0),), "<u8", content, 0, (1,))

    def several(self, at: Integers, count: int) -> Words:
        """Return so many words one after the other from each position on, one row for each position."""
        if count == 1:
            return self.words[at][:, None]
        size = 8 * count  # as one item, several words are found in the time of one
        items = np.ndarray((max(len(self._content) - size + 1, 0),), f"V{size}", self._content, 0, (1,))
        return items[at].view("<u8").reshape(-1, count)


def integers(text: Text, starts: Integers, ends: Integers) -> tuple[Integers, Truths]:
    """Return the integers of at most nine digits, perhaps behind blanks, and which of them really are."""
    length = ends - starts
    while np.any(wide := length > 8) and np.any(wide := wide & (text.bytes[ends - length] == 32)):
        length = length - wide
    sound = (length > 0) & (length <= 9)
    unused = _bits_outside(np.minimum(length, 8))
    digits = text.words[ends - 8]
    digits ^= _ZEROS
    digits >>= unused
    digits <<= unused
    blank = digits & _BLANKS
    if np.any(blank):
        pure = (digits & (blank - (blank >> _NIBBLE))) == 0
        inside = (_BLANKS >> unused) << unused
        leading = ((blank >> _BYTE) & inside & ~blank) == 0
        sound &= pure & leading & ((blank >> _TOP) == 0) & ((blank == 0) | (length <= 8))
        digits ^= blank
    sound &= _are_digits(digits)
    values = _number(digits).view(np.int64)
    if np.any(nine := length == 9):
        first = text.bytes[ends - 9] - np.uint8(48)
        sound &= ~nine | (first < 10)
        values += np.where(nine, first, 0).astype(np.int64) * 10**8
    return values, sound


def floats(text: Text, starts: Integers, ends: Integers) -> Found:
    """Return the numbers, the power of ten of the last printed digit of each, and which of them really are.

    Read are digits with at most one point, a minus, and an exponent of two digits. A handful of numbers that are
    written in another way than most may be left over.
    """
    ways: list[Callable[[Text, Integers, Integers], Found]] = [_short, _long, _scaled]
    if len(starts) and 2 * np.count_nonzero(text.bytes[ends - 4] == 101) > len(starts):
        ways = [_scaled, _short, _long]
    elif 2 * np.count_nonzero(ends - starts <= 8) < len(starts):
        ways = [_long, _scaled]
    values, power, sound = ways[0](text, starts, ends)
    for way in ways[1:]:
        left = np.flatnonzero(~sound)
        if len(left) < _WORTHWHILE:
            break
        values[left], power[left], sound[left] = way(text, starts[left], ends[left])
    return values, power, sound


def _short(text: Text, starts: Integers, ends: Integers) -> Found:
    """Read numbers of at most eight characters with a point."""
    starts, negative = _unsigned(text, starts)
    mantissa, decimals, sound = _short_mantissa(text, starts, ends)
    values = mantissa.astype(np.float64)
    values /= _POWERS[decimals]
    if negative is not None:
        np.negative(values, out=values, where=negative)
    return values, np.broadcast_to(-decimals, values.shape).copy(), sound


def _short_mantissa(text: Text, starts: Integers, ends: Integers) -> tuple[Words, Integers, Truths]:
    """Return the digits without the point, how many are behind it (perhaps one number for all), and what is sound."""
    length = ends - starts
    digits = text.words[starts]
    digits ^= _ZEROS
    digits <<= _bits_outside(length)
    point = _lowest_point(digits)
    if np.all(point == point[:1]):
        point = point[:1]
    behind: Words = ~((point << _ONE) - _ONE)
    ahead = ~behind
    digits = (digits & behind) | ((digits << _BYTE) & ahead)
    decimals = 7 - _byte_of(point)
    sound = _are_digits(digits)
    sound &= length <= 8
    sound &= (point != 0) & (decimals > 0)
    return _number(digits), np.clip(decimals, 0, 7), sound


def _long(text: Text, starts: Integers, ends: Integers) -> Found:
    """Read numbers of at most 19 digits, 8 of them before the point."""
    starts, negative = _unsigned(text, starts)
    mantissa, decimals, sound = _long_mantissa(text, starts, ends)
    values = _quotients(mantissa, decimals, sound)
    if negative is not None:
        np.negative(values, out=values, where=negative)
    return values, np.where(decimals == 0, NO_POWER, -decimals), sound


def _long_mantissa(text: Text, starts: Integers, ends: Integers) -> tuple[Words, Integers, Truths]:
    """Return the digits without the point, how many are behind it, and what is sound."""
    length = ends - starts
    digits = text.words[starts]
    digits ^= _ZEROS
    point = _lowest_point(digits)
    whole = _byte_of(point)
    with_point = (point != 0) & (whole < length)
    if not np.all(with_point):
        whole = np.where(with_point, whole, length)
    decimals = length - whole - with_point
    small = (digits & _LOWEST) == 0  # the only digit before the point is a zero
    sound = (whole > 0) & (whole <= 8) & (whole + decimals <= _MOST_DIGITS + small) & (with_point == (decimals > 0))
    if not np.all(sound):
        whole, decimals = np.where(sound, whole, 1), np.where(sound, decimals, 8)
    digits <<= _bits_outside(whole)
    sound &= _are_digits(digits)
    mantissa = _number(digits) * _INTEGER_POWERS[decimals]
    for at, further in enumerate((None, decimals > 8, decimals > 16)):
        of: slice | Integers = slice(None)
        count = len(starts) if further is None else np.count_nonzero(further)
        if not count:
            break
        if further is not None and 2 * count < len(starts):
            of = np.flatnonzero(further)
        digits = text.words[ends[of] - 8 * (at + 1)]
        digits ^= _ZEROS
        if at or np.any(decimals < 8):
            unused = _bits_outside(np.clip(decimals[of] - 8 * at, 0, 8))
            digits >>= unused
            digits <<= unused
        sound[of] &= _are_digits(digits)
        part = _number(digits)
        if at:
            part *= _INTEGER_POWERS[8 * at]
        mantissa[of] += part
    return mantissa, decimals, sound


def _scaled(text: Text, starts: Integers, ends: Integers) -> Found:
    """Read numbers with an exponent of two digits."""
    here = text.bytes
    tens, ones, sign = here[ends - 2] - np.uint8(48), here[ends - 1] - np.uint8(48), here[ends - 3]
    fits = (tens < 10) & (ones < 10) & ((sign == 43) | (sign == 45)) & (here[ends - 4] == 101)
    exponent = tens.astype(np.int64) * 10 + ones
    exponent = np.where(sign == 45, -exponent, exponent)
    starts, negative = _unsigned(text, starts)
    ends = ends - 4
    way = _short_mantissa if 2 * np.count_nonzero(ends - starts <= 8) > len(starts) else _long_mantissa
    mantissa, decimals, sound = way(text, starts, ends)
    left = np.flatnonzero(~sound & (ends > starts)) if way is _short_mantissa else np.zeros(0, np.int64)
    if len(left):
        decimals = np.broadcast_to(decimals, sound.shape).copy()
        mantissa[left], decimals[left], sound[left] = _long_mantissa(text, starts[left], ends[left])
    power = exponent - decimals
    sound &= fits & (np.abs(power) <= _MOST_POWER)
    values = _quotients(mantissa, np.clip(-power, 0, _MOST_POWER), sound)
    if np.any(power > 0):
        values *= _POWERS[np.clip(power, 0, _MOST_POWER)]
        sound &= (power <= 0) | (mantissa < _EXACT)
    if negative is not None:
        np.negative(values, out=values, where=negative)
    return values, power, sound


def _unsigned(text: Text, starts: Integers) -> tuple[Integers, Truths | None]:
    """Return where the digits start, and what is negative if anything is."""
    negative = text.bytes[starts] == 45
    return (starts + negative, negative) if np.any(negative) else (starts, None)


def _bits_outside(length: Integers) -> Words:
    """Return how many of 64 bits are not used by so many bytes; more than 64, as all of them, if it is not 0 to 8."""
    bits = length * -8
    bits += 64
    return bits.view(np.uint64)


def _lowest_point(digits: Words) -> Words:
    """Return the highest bit of the first byte that is a decimal point, or zero."""
    other = digits ^ _POINTS
    points = (other - _ONES) & ~other
    points &= _SIGNS
    return points & (~points + _ONE)


def _byte_of(bit: Words) -> Integers:
    """Return in which byte, counted from the lowest, the only bit is; something negative if there is none."""
    return ((bit.astype(np.float64).view(np.int64) >> 52) - 1023) >> 3


def _are_digits(digits: Words) -> Truths:
    """Tell whether all eight bytes are digits from 0 to 9."""
    high = digits + _SIXES
    high |= digits
    high &= _HIGH
    none: Truths = high == 0
    return none


def _number(digits: Words) -> Words:
    """Return the number that eight digits are."""
    words = digits * np.uint64(2561)
    words >>= np.uint64(8)
    words &= np.uint64(0x00FF00FF00FF00FF)
    words *= np.uint64(6553601)
    words >>= np.uint64(16)
    words &= np.uint64(0x0000FFFF0000FFFF)
    words *= np.uint64(42949672960001)
    words >>= np.uint64(32)
    return words


def _quotients(mantissa: Words, decimals: Integers, sound: Truths) -> Floats:
    """Return integers divided by ten to the power of ``decimals``, and note which may be rounded wrongly."""
    values = mantissa.astype(np.float64)
    values /= _POWERS[decimals]
    long = np.flatnonzero(mantissa >= _EXACT)
    if not len(long):
        return values
    if not _EXTENDED:
        sound[long] = False
        return values
    quotient = mantissa[long].astype(np.longdouble)
    quotient /= _EXTENDED_POWERS[decimals[long]]
    values[long] = quotient
    sound[long] &= (quotient.view(np.uint64)[::2] & np.uint64(0x7FF)) != np.uint64(0x400)
    return values
