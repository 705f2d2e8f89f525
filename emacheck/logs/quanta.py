"""What one unit of the last printed digit of each metric is worth, as far as a log shows it."""

from emacheck.curve import Floats
from emacheck.printed import few_digits, unit_of

# Metrics whose values are cut in logs of plain numbers; a learning rate may be a round number at full precision.
_CUT = ("loss", "norm")


class Quanta:
    """The finest and the coarsest rounding of each metric, of the validation or not, where it is known.

    Example:
        >>> quanta = Quanta()
        >>> quanta.add((True, "mIoU"), 0.01)
        >>> quanta.of_validation("mIoU"), quanta.of_validation("mAcc")
        (0.01, 0.0)
    """

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: dict[tuple[bool, str], tuple[float, float]] = {}

    def add(self, key: tuple[bool, str], unit: float) -> None:
        """Note the unit of the last printed digit of a metric, of the validation or not; 0 tells nothing."""
        if unit:
            finest, coarsest = self._ends.get(key, (unit, unit))
            self._ends[key] = min(finest, unit), max(coarsest, unit)

    def rename(self, name: str, other: str) -> None:
        """Call a training metric by another name."""
        if (False, name) in self._ends:
            self._ends[False, other] = self._ends.pop((False, name))

    def of_training(self, name: str, values: Floats, *, exact: bool) -> float:
        """Return the unit of the last digit that a training metric is printed with, 0 at full precision.

        Args:
            name: The metric.
            values: Its values, which tell where nothing is noted of how they are printed, or different things are.
            exact: They are known to be at full precision, however few digits they need.
        """
        finest, coarsest = self._ends.get((False, name), (0.0, 0.0))
        if finest < coarsest:
            return unit_of(values) or finest
        if finest or exact or not any(word in name.lower() for word in _CUT):
            return finest
        return few_digits(values)

    def of_validation(self, name: str) -> float:
        """Return the coarsest unit that a metric of the validation is printed with, 0 if none is known."""
        return self._ends.get((True, name), (0.0, 0.0))[1]
