"""A record: what one run wrote down, whoever wrote it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from emacheck.curve import Curve, Integers
from emacheck.errors import UsageError
from emacheck.oddity import Oddity
from emacheck.printable import printable

SHOWN_CURVES = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
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
        batches: Hash of the input batch of each iteration, if recorded; None for one whose hash is not known.
        blank: Iterations at which there is a training record, but nothing in it that can be read; increasing.
        complete: False when the run is known to have ended before its time.
        oddities: What a reader should know about this record, and what each of it means for a verdict.

    Raises:
        UsageError: If the curves are no mapping of names to curves, or the batches no sequence of hashes.

    Example:
        >>> loss = Curve(name="loss", iterations=[1, 2, 3], values=[4.1, 4.0, 3.9])
        >>> Record(name="cuda", format="my own loop", curves={"loss": loss})
        <Record 'cuda' (my own loop): loss (3)>
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
    batches: tuple[str | None, ...] = ()
    blank: Integers = field(default_factory=lambda: np.zeros(0, np.int64))
    complete: bool = True
    oddities: tuple[Oddity, ...] = ()

    def __post_init__(self) -> None:
        self._require_curves("curves", self.curves)
        self._require_curves("validation", self.validation)
        if isinstance(self.batches, str):
            raise UsageError(f"record {self.name!r}: batches is a string, expected a sequence of one hash each.")
        for name in ("batches", "oddities"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("curves", "validation", "header", "provenance"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        ranks = {rank: MappingProxyType(dict(curves)) for rank, curves in self.of_ranks.items()}
        object.__setattr__(self, "of_ranks", MappingProxyType(ranks))

    def _require_curves(self, what: str, found: Any) -> None:
        at = f"record {self.name!r}: {what}"
        if not isinstance(found, Mapping):
            raise UsageError(f"{at} is a {type(found).__name__}, expected a mapping such as {{'loss': curve}}.")
        for name, curve in found.items():
            if not isinstance(name, str) or not isinstance(curve, Curve):
                raise UsageError(
                    f"{at} has a {type(curve).__name__} under {name!r}, expected a Curve under a name: "
                    "emacheck.Curve(name=..., iterations=..., values=...)."
                )

    def __repr__(self) -> str:
        """Say what it holds; the curves hold the numbers."""
        shown = [f"{name} ({len(curve)})" for name, curve in self.curves.items()]
        more = [f"{len(shown) - SHOWN_CURVES} more"] if len(shown) > SHOWN_CURVES else []
        held = ", ".join(shown[:SHOWN_CURVES] + more) or "no curves"
        return printable(f"<Record {self.name!r} ({self.format}): {held}>", length=None)

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be pickled, nor copied deeply: with this, records may come from other processes.
        return _made, ({each.name: _plain(getattr(self, each.name)) for each in fields(self)},)

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

    def from_one(self) -> "Record":
        """Return the record with every iteration one later if it counts them from 0, else the record itself.

        Example:
            >>> loss = Curve(name="loss", iterations=[0, 1], values=[4.5, 4.25])
            >>> Record(name="cuda", format="my own loop", curves={"loss": loss}).from_one().curves["loss"].iterations
            array([1, 2])
        """
        if not any(len(curve) and curve.iterations[0] == 0 for curve in self.curves.values()):
            return self
        return replace(
            self,
            curves=_one_later(self.curves),
            validation=_one_later(self.validation),
            of_ranks={rank: _one_later(curves) for rank, curves in self.of_ranks.items()},
            blank=self.blank + 1,
        )

    def of_rank(self, rank: int) -> "Record":
        """Return the record that one of several ranks wrote."""
        return replace(self, curves=self.of_ranks[rank], of_ranks={})


def _one_later(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    return {name: replace(curve, iterations=curve.iterations + 1) for name, curve in curves.items()}


def _made(held: dict[str, Any]) -> Record:
    return Record(**held)


def _plain(value: Any) -> Any:
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, MappingProxyType) else value


def hash_of_samples(samples: Sequence[str]) -> str:
    """Return the hash of a batch from the hashes of its samples, in order.

    Example:
        >>> hash_of_samples(["a", "b"]) == hash_of_samples(["b", "a"])
        False
    """
    return hashlib.sha256("\n".join(samples).encode()).hexdigest()
