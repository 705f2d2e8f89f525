"""The columns of a chart that Weights & Biases exported: ``RUN - METRIC``, each with its least and its largest."""

from collections.abc import Sequence

LEAST, LARGEST = "__MIN", "__MAX"
_BETWEEN = " - "


def ranges(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return, for each column that has them, the columns of the least and the largest value behind each of its points.

    Example:
        >>> ranges(["Step", "a - loss", "a - loss__MIN", "a - loss__MAX", "lr__MIN"])
        [(2, 3)]
    """
    at = {name: column for column, name in enumerate(names)}
    ends = ((name + LEAST, name + LARGEST) for name in names if _BETWEEN in name)
    return [(at[least], at[largest]) for least, largest in ends if least in at and largest in at]


def without_run(names: Sequence[str]) -> list[str]:
    """Return the names of a chart without that of the run, if all with a range are of one run.

    Example:
        >>> without_run(["Step", "brave-sun-1 - train/loss", "brave-sun-1 - train/loss__MIN",
        ...              "brave-sun-1 - train/loss__MAX"])
        ['Step', 'train/loss', 'train/loss__MIN', 'train/loss__MAX']
    """
    runs = {names[least].rpartition(_BETWEEN)[0] for least, _ in ranges(names)}
    if len(runs) != 1:
        return list(names)
    return [name.removeprefix(next(iter(runs)) + _BETWEEN) for name in names]
