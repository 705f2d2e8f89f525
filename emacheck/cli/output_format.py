"""The option that says how a command prints its result."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
_AS_JSON = "emacheck.as_json"


def format_option(*formats: str) -> Callable[[Command], Command]:
    """Add ``--format``, which a command receives as ``output_format``; ``--json`` is short for ``--format json``.

    Args:
        formats: The formats, ``json`` among them; the first is the default.
    """
    chosen = click.option(
        "--format",
        "output_format",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        callback=lambda context, _, given: "json" if context.meta.get(_AS_JSON) else given,
        help="json prints one object and nothing else.",
    )
    short = click.option("--json", is_flag=True, hidden=True, is_eager=True, expose_value=False, callback=_note)
    return lambda command: chosen(short(command))


def _note(context: click.Context, _: click.Parameter, given: bool) -> None:
    context.meta[_AS_JSON] = given
