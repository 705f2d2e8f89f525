"""A record: what one run wrote down, whoever wrote it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from emacheck.curve import Curve, Integers
from emacheck.oddity import Oddity


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """Curves, provenance and fingerprints of one run.

    Attributes:
        name: What the user calls it: a path, or the name of a reference bundle.
        format: The format it was read from, such as ``emacheck run`` or ``mmengine text``.
        curves: The training curves by metric name.
        validation: The validation curves by metric name; never mixed with the training curves.
        header: What the log's header says of the run (seed, versions, configuration), by dotted name.
        ranks: How many ranks wrote into the log.
        of_ranks: The training curves of each rank by metric name, where ``curves`` are the means of several ranks.
        provenance: What is known about how the run was made; empty for a bare log.
        initial_state: Hash of the weights and buffers before the first iteration, if recorded.
        batches: Hash of the input batch of each iteration, if recorded.
        blank: Iterations at which there is a training record, but nothing in it that can be read; increasing.
        complete: False when the run is known to have ended before its time.
        oddities: What a reader should know about this record, and what each of it means for a verdict.
    """

    name: str
    format: str
    curves: Mapping[str, Curve]
    validation: Mapping[str, Curve] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)
    ranks: int = 1
    of_ranks: Mapping[int, Mapping[str, Curve]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    initial_state: str | None = None
    batches: tuple[str, ...] = ()
    blank: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    complete: bool = True
    oddities: tuple[Oddity, ...] = ()

    def __post_init__(self) -> None:
        for name in ("curves", "validation", "header", "provenance"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        ranks = {rank: MappingProxyType(dict(curves)) for rank, curves in self.of_ranks.items()}
        object.__setattr__(self, "of_ranks", MappingProxyType(ranks))

    def until(self, iteration: int) -> "Record":
        """Return the record of the iterations up to and including ``iteration``."""
        return replace(
            self,
            curves={name: curve.until(iteration) for name, curve in self.curves.items()},
            validation={name: curve.until(iteration) for name, curve in self.validation.items()},
            of_ranks={
                rank: {name: curve.until(iteration) for name, curve in curves.items()}
                for rank, curves in self.of_ranks.items()
            },
            batches=self.batches[:iteration],
        )

    def of_rank(self, rank: int) -> "Record":
        """Return the record that one of several ranks wrote."""
        return replace(self, curves=self.of_ranks[rank], of_ranks={})


def hash_of_samples(samples: Sequence[str]) -> str:
    """Return the hash of a batch from the hashes of its samples, in order.

    Example:
        >>> hash_of_samples(["a", "b"]) == hash_of_samples(["b", "a"])
        False
    """
    return hashlib.sha256("\n".join(samples).encode()).hexdigest()
