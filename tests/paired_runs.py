"""Paired runs as the tests of their rules judge them: a reference, and records of one or several metrics."""

import numpy as np

from emacheck import Curve, Record

LENGTH = 60
REFERENCE = 4.0 * np.exp(-np.arange(LENGTH) / 40) + 0.5


def run(values, *, name="run", first=1, quantum=0.0, window=1, **fields):
    """A record of the loss, or of several metrics given as a mapping."""
    metrics = values if isinstance(values, dict) else {"loss": values}
    curves = {
        metric: Curve(
            name=metric, iterations=np.arange(first, first + len(v)), values=v, quantum=quantum, window=window
        )
        for metric, v in metrics.items()
    }
    return Record(name=name, format="test", curves=curves, **fields)
