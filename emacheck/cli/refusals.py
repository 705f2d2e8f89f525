"""What one of several nodes refuses before it has met the others: they would wait for it, and are told."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from emacheck.cli import TROUBLE, say
from emacheck.errors import EmacheckError
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
        click.echo(f"The other nodes are told as soon as they come, for which they have {timeout:g} s ...", err=True)
        if not tell_other_nodes(str(error), program, processes, request(), timeout=timeout):
            click.echo("They were not reached, and one that waits for this node does so until its --timeout.", err=True)
        raise click.exceptions.Exit(TROUBLE) from error
