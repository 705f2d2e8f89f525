"""Which trials of the zoo count as what, and how many of them, as the page says it."""

from collections.abc import Iterable
from typing import Any

from emacheck.audit.selftest.confidence import clopper_pearson
from zoo.networks import ZOO

Row = dict[str, Any]


def of_networks(trials: list[Row]) -> list[str]:
    """Return the networks that were tried, in the order of the zoo."""
    tried = {row["network"] for row in trials}
    return [name for name in ZOO if name in tried]


def part(trials: list[Row], *names: str) -> list[Row]:
    """Return the trials of some parts."""
    return [row for row in trials if row["part"] in names]


def unfit(trials: list[Row]) -> list[Row]:
    """Return the faults that only raise: they are not made for the network, and that they are noticed proves nothing."""
    return [row for row in part(trials, "fault") if "fails on" in row["raised"]]


def counted(trials: list[Row]) -> list[Row]:
    """Return the faults that changed something."""
    return [row for row in part(trials, "fault") if row["changed"] and "fails on" not in row["raised"]]


def failed(trials: Iterable[Row]) -> list[Row]:
    """Return the trials in which the audit says FAIL."""
    return [row for row in trials if row["outcome"] == "FAIL"]


def rate(count: int, trials: int) -> str:
    """Return a count with its exact interval."""
    return f"{count} of {trials} (exact 95 % interval {interval(count, trials)})"


def states(trials: list[Row]) -> set[tuple[str, int]]:
    """Return the states that trials start from."""
    return {(row["network"], row["seed"]) for row in trials}


def interval(count: int, trials: int) -> str:
    """Return an exact interval."""
    low, high = clopper_pearson(count, trials)
    return f"{low:.2%} to {high:.2%}"


def failed_cells(trials: list[Row]) -> str:
    """Return the cells of how many trials fail, with the exact interval."""
    wrong = len(failed(trials))
    return f"{wrong} of {len(trials)} | {interval(wrong, len(trials))}"


def healthy_cells(benign: list[Row], limit: float) -> str:
    """Return the cells of healthy candidates: false alarms with their interval, the worst alone and the worst whole."""
    alone, whole = (max(row[level] for row in benign) for level in ("alone", "whole"))
    return f"{failed_cells(benign)} | {limit * alone:.3g} | {whole:.2g}"


def placed(trials: list[Row]) -> list[Row]:
    """Return the faults that were found and sit in one module."""
    return [row for row in failed(counted(trials)) if row["sits_in"] is not None]


def smallest(trials: list[Row], limit: float) -> str:
    """Return the smallest ratio alone among the faults that were found alone."""
    found = [row["alone"] for row in failed(counted(trials)) if row["alone"] > 1]
    return f"{limit * min(found):.4g}" if found else ""


def by_fault(rows: list[Row]) -> str:
    """Return faults by name, each with the networks in which it was tried."""
    where: dict[str, list[str]] = {}
    for row in rows:
        where.setdefault(row["name"], []).append(row["network"])
    return ", ".join(f"`{name}` ({', '.join(dict.fromkeys(where[name]))})" for name in sorted(where)) or "none"
