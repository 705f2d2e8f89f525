"""The type of options that take seconds."""

from __future__ import annotations

import math
from typing import Any

import click


class Seconds(click.FloatRange):
    """At least one second; inf is no limit, and what is no number is refused, although it is below no bound."""

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number of seconds."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(
                f"{value!r} is not a number, expected seconds, at least 1, such as 600, or inf for no limit.",
                param,
                ctx,
            )
        return seconds
