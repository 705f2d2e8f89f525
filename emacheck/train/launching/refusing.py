"""A node that refuses before it has met the others meets them all the same, to refuse where they hear it.

Started by torch's launcher as ``python -m emacheck.train.launching.refusing DIRECTORY``.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from emacheck.errors import TrainingError, UsageError
from emacheck.train.launching.processes import Processes
from emacheck.train.launching.program import leave_with, watched_over
from emacheck.train.launching.supervision import Program, run_program
from emacheck.train.request import TrainingRequest

MODULE = "emacheck.train.launching.refusing"
REASON_FILE = "refused_before.txt"


def tell_other_nodes(
    refusal: str, program: Program, processes: Processes, request: TrainingRequest, *, timeout: float
) -> bool:
    """Meet the other nodes in the place of a program, and refuse there.

    Args:
        refusal: What this node refuses, and why.
        program: What was to run.
        processes: Those in which it was to run.
        request: The training that it is about, as far as the options tell; by it a rendezvous knows who is to meet.
        timeout: How many seconds the others have to come.

    Returns:
        Whether they came.

    Raises:
        KeyboardInterrupt: If the user does not want to wait for them.
    """
    try:
        # Not in the run directory: it may be what was refused, and stays as it is.
        with tempfile.TemporaryDirectory(prefix="emacheck-refusal-") as place:
            (Path(place) / REASON_FILE).write_text(refusal, encoding="utf-8")
            run_program(
                replace(program, module=MODULE),
                Path(place),
                progress=lambda number, loss: None,  # noqa: ARG005
                timeout=timeout,
                processes=processes,
                request=request,
                iterations=0,
            )
    except UsageError:
        return True
    except (TrainingError, OSError):
        pass
    return False


def main(arguments: list[str]) -> int:
    """Refuse for the reason that the directory has."""
    return watched_over(_refuse, Path(arguments[0]))


def _refuse(directory: Path) -> None:
    raise UsageError((directory / REASON_FILE).read_text(encoding="utf-8"))


if __name__ == "__main__":
    leave_with(main)
