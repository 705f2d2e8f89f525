"""torch's own elastic launcher, called so that it says in a file which process failed first.

Started as ``python -m emacheck.train.launching.elastic RUN_DIRECTORY ARGUMENTS``, where the arguments are those of
``python -m torch.distributed.run``, which does all the work.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from emacheck.train.launching.deaths import Failure, first_to_blame, lost_another

if TYPE_CHECKING:
    from emacheck.train.launching.nodes import OtherNodes

PORT_IN_USE = "EADDRINUSE"
ONE_NODE = "--nnodes=1"


def main(arguments: list[str]) -> int:
    """Run torch's launcher.

    Args:
        arguments: The run directory, then the launcher's own arguments.

    Returns:
        0 when every process ended well; otherwise 1, and ``failure.json`` says what is known.
    """
    from emacheck.train.launching.parent import end_with_parent

    # Before torch is loaded, which takes seconds.
    end_with_parent()
    from torch.distributed.elastic.multiprocessing.api import SignalException

    from emacheck.train.launching.nodes import OtherNodes

    run_directory = Path(arguments[0])
    others = OtherNodes(run_directory)
    if ONE_NODE not in arguments:
        others.listen()
    try:
        return _run(run_directory, arguments[1:], others)
    except SignalException:
        if not others.ended_us:
            others.tell("the command there was ended from outside, as by Ctrl-C or after its --timeout.")
            raise
    return 1


def _run(run_directory: Path, arguments: list[str], others: "OtherNodes") -> int:
    import torch.distributed
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.run import main as run

    try:
        run(arguments)
        others.finished()
    except ChildFailedError as error:
        first = first_to_blame(error.failures, run_directory)
        code = error.failures[first].exitcode
        Failure(rank=first, code=code).write(run_directory)
        sys.stderr.write(f"{error}\n")
        others.tell_of_rank(first, code, lost_another=lost_another(run_directory, first))
        return 1
    except (RuntimeError, RendezvousError) as error:
        unmet = (RendezvousError, torch.distributed.DistError)
        Failure(port_in_use=PORT_IN_USE in str(error), unmet=isinstance(error, unmet)).write(run_directory)
        raise
    return 0


if __name__ == "__main__":
    from emacheck.train.launching.program import leave_with

    # A thread waits in the store, and an interpreter that takes itself apart under it aborts.
    leave_with(main)
