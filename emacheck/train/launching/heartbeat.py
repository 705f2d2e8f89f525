"""The heartbeat of a training: the record that each of its processes writes, followed while it grows."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from emacheck.rank_files import rank_files

Progress = Callable[[int, float], None]


@dataclass(slots=True, kw_only=True)
class RecordTail:
    """Follows one growing record and reports each complete line once."""

    path: Path
    recorded: int = 0
    _at: int = 0

    def advance(self, progress: Progress) -> bool:
        """Report new iterations; return True if there were any."""
        with self.path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        end = new.rfind(b"\n") + 1
        self._at += end
        for line in new[:end].splitlines():
            self.recorded += 1
            loss = json.loads(line)["metrics"].get("loss", "NaN")
            progress(self.recorded, float(loss))
        return end > 0


@dataclass(slots=True, kw_only=True)
class Heartbeat:
    """Follows the records of all processes of a run directory.

    Attributes:
        run_directory: Where they write.
        last: When the latest new iteration of any process was seen, on the monotonic clock in seconds.
    """

    run_directory: Path
    last: float = field(default_factory=time.monotonic)
    _tails: dict[int, RecordTail] = field(default_factory=dict)

    def advance(self, progress: Progress) -> None:
        """Look for new iterations; those of the lowest rank are reported."""
        for rank, path in rank_files(self.run_directory).items():
            self._tails.setdefault(rank, RecordTail(path=path))
        for rank, tail in self._tails.items():
            if tail.advance(progress if rank == min(self._tails) else _ignore):
                self.last = time.monotonic()

    def recorded(self, rank: int | None = None) -> int:
        """Return how many iterations a rank has recorded, or the slowest of all."""
        if rank is None:
            return min((tail.recorded for tail in self._tails.values()), default=0)
        return self._tails[rank].recorded if rank in self._tails else 0

    def ranks(self) -> list[int]:
        """Return the ranks that have begun to record."""
        return sorted(self._tails)


def _ignore(iteration: int, loss: float) -> None:
    pass
