"""The progress of a training, on standard error: a bar on a terminal, a line now and then elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

LINE_EVERY = 10


@contextmanager
def show_progress(title: str, iterations: int) -> Iterator[Callable[[int, float], None]]:
    """Show iteration, loss and remaining time.

    Args:
        title: What is being trained.
        iterations: How many iterations there will be.

    Yields:
        A function to call with each iteration's number and loss.
    """
    if not sys.stderr.isatty():
        click.echo(f"{title} ...", err=True)

        def line(iteration: int, loss: float) -> None:
            if iteration % LINE_EVERY == 0 or iteration == iterations:
                click.echo(f"  iteration {iteration}/{iterations}  loss {loss:.4f}", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}", markup=False),
        TextColumn("ETA", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=iterations, loss="-")

        def advance(iteration: int, loss: float) -> None:
            bar.update(task, completed=iteration, loss=f"{loss:.4f}")

        yield advance
