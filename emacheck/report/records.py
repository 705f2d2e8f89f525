"""What is known about a record or a machine, as plain text that tables show."""

from collections.abc import Mapping
from typing import Any

from emacheck.printable import printable
from emacheck.record import Record


def extent(record: Record, metric: str) -> str:
    """Return how many iterations of a metric a record holds, and which.

    Example:
        >>> extent(Record(name="cpu", format="example", curves={}), "loss")
        'none'
    """
    curve = record.curves.get(metric)
    if curve is None or not len(curve):
        return "none"
    return f"{len(curve)}, from {curve.iterations[0]} to {curve.iterations[-1]}"


def scalars(known: Mapping[str, Any]) -> dict[str, str]:
    """Return the plain values at the top, then those of the device, the experiment and so on; deeper is JSON.

    Example:
        >>> scalars({"seed": 0, "device": {"type": "sdaa"}, "losses": [4.0]})
        {'seed': '0', 'device type': 'sdaa'}
    """
    nested: dict[str, Any] = {}
    shapes = {"device": "device {}", "experiment": "{}", "observed": "observed {}", "versions": "{} version"}
    for name, shape in shapes.items():
        values = known.get(name)
        if isinstance(values, Mapping):
            nested |= {shape.format(key): value for key, value in values.items()}
    return {
        str(key): printable(str(value))
        for key, value in {**known, **nested}.items()
        if isinstance(value, str | int | float)
    }
