"""Random integers that are the same on every machine: SplitMix64.

Source: G. L. Steele Jr., D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
doi:10.1145/2714064.2660195; constants as in S. Vigna's public-domain ``splitmix64.c``
(https://prng.di.unimi.it/splitmix64.c). The k-th output is a hash of ``state + k * GAMMA``, so an array of outputs
needs no loop.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB
_MASK = 2**64 - 1

T = TypeVar("T")


def mix(word: int) -> int:
    """Scramble one 64-bit word (the output function of SplitMix64, a bijection)."""
    word = ((word ^ (word >> 30)) * _MULTIPLIER_1) & _MASK
    word = ((word ^ (word >> 27)) * _MULTIPLIER_2) & _MASK
    return word ^ (word >> 31)


class SplitMix64:
    """A stream of random integers.

    Args:
        state: The seed of the published generator, 0 to 2**64 - 1.

    Example:
        >>> SplitMix64(1234567).word()
        6457827717110365317
    """

    def __init__(self, state: int) -> None:
        self._state = state & _MASK

    @classmethod
    def derive(cls, *key: int) -> "SplitMix64":
        """Return a stream of its own for a key such as (seed, split, index)."""
        state = 0
        for part in key:
            state = mix((state + GAMMA) & _MASK ^ mix(part & _MASK))
        return cls(state)

    def word(self) -> int:
        """Return the next 64-bit output."""
        self._state = (self._state + GAMMA) & _MASK
        return mix(self._state)

    def between(self, low: int, high: int) -> int:
        """Return an integer in low..high, both ends included.

        The upper 32 bits are scaled by a multiplication; for spans below 2**16 the bias is under 2**-16.
        """
        return low + ((self.word() >> 32) * (high - low + 1) >> 32)

    def chance(self, percent: int) -> bool:
        """Return True in ``percent`` of 100 cases."""
        return self.between(0, 99) < percent

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices."""
        return choices[self.between(0, len(choices) - 1)]

    def octets(self, count: int) -> NDArray[np.uint8]:
        """Return the next ``count`` random bytes: the words in order, each lowest byte first."""
        words = -(-count // 8)
        z = np.arange(1, words + 1, dtype=np.uint64) * np.uint64(GAMMA) + np.uint64(self._state)
        self._state = (self._state + words * GAMMA) & _MASK
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MULTIPLIER_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MULTIPLIER_2)
        z ^= z >> np.uint64(31)
        return z.astype("<u8").view(np.uint8)[:count]  # "<u8": the same bytes on a big-endian machine
