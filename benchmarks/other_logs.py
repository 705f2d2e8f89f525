"""A recorded run as other logs would hold it: without fingerprints, or as mmengine prints it."""

from dataclasses import replace

from emacheck.curve import Curve
from emacheck.record import Record

WINDOW, QUANTUM = 10, 1e-4


def bare(record: Record) -> Record:
    """Return a run as a log without fingerprints holds it."""
    return replace(record, initial_state=None, batches=(), provenance={})


def printed(record: Record) -> Record:
    """Return a run as mmengine prints it by default: means of ten iterations, every ten, four decimals."""

    def means(curve: Curve) -> Curve:
        whole = len(curve) // WINDOW * WINDOW
        values = curve.values[:whole].reshape(-1, WINDOW).mean(axis=1).round(4)
        return Curve(
            name=curve.name,
            iterations=curve.iterations[WINDOW - 1 : whole : WINDOW],
            values=values,
            window=WINDOW,
            quantum=QUANTUM,
        )

    return replace(bare(record), curves={name: means(curve) for name, curve in record.curves.items()})
