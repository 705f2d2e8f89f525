"""What one of several nodes refuses before it has met the others: they would wait for it, and are told."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from emacheck.cli import TROUBLE, say
from emacheck.errors import EmacheckError
from emacheck.printable import printable
from emacheck.train.launching.refusing import tell_other_nodes

if TYPE_CHECKING:
    from emacheck.train.launching.processes import Processes
    from emacheck.train.launching.supervision import Program
    from emacheck.train.request import TrainingRequest


@contextlib.contextmanager
def heard_by_other_nodes(
    program: "Program", processes: "Processes", request: "Callable[[], TrainingRequest]", *, timeout: float
) -> Iterator[None]:
    """Let the other nodes, if there are any, hear what is refused within, which is before they are met.

    Args:
        program: What will run in the processes.
        processes: The processes.
        request: Returns the training that it is about, as far as the options tell.
        timeout: How many seconds the nodes wait for each other.

    Raises:
        Exit: If anything was refused; it has been said then.
    """
    try:
        yield
    except EmacheckError as error:
        if processes.nnodes == 1:
            raise
        say(error)
        _tell(str(error), program, processes, request, timeout)
        raise click.exceptions.Exit(TROUBLE) from error
    except (click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        # What the system refused, or a bug; whoever called says more of it here, after the others have heard.
        if processes.nnodes > 1:
            ended = f"ended with {type(error).__name__}: {error}"
            click.echo(f"emacheck: {printable(ended, length=None)}", err=True)
            _tell(f"the command there {ended}", program, processes, request, timeout)
        raise


def _tell(
    said: str, program: "Program", processes: "Processes", request: "Callable[[], TrainingRequest]", timeout: float
) -> None:
    click.echo(f"The other nodes are told as soon as they come, for which they have {timeout:g} s ...", err=True)
    if not tell_other_nodes(said, program, processes, request(), timeout=timeout):
        click.echo("They were not reached, and one that waits for this node does so until its --timeout.", err=True)
