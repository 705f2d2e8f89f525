"""Hugging Face's ``trainer_state.json``: one document whose ``log_history`` lists training and evaluation records."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from emacheck.curve import Curve
from emacheck.errors import LogError
from emacheck.logs.formats.json_lines import unique
from emacheck.logs.gathering import Gathering
from emacheck.logs.lines import Lines
from emacheck.logs.values import measured, parse_iteration
from emacheck.oddity import OddityKind
from emacheck.printed import unit_if_rounded
from emacheck.record import Record

NAME = "Hugging Face trainer state"
NOT_METRICS = frozenset({"step", "epoch"})
DECIMALS = 4


def recognises(head: str) -> bool:
    """Tell whether the text starts as an object that has a ``log_history``."""
    return head.lstrip().startswith("{") and '"log_history"' in head


def read(lines: Lines, name: str, rank: int | None = None) -> Record:
    """Read the curves; ``eval_loss`` is the ``loss`` of the validation."""
    gathering = Gathering(format=NAME, name=name, rank=rank)
    state = _document(lines, name)
    gathering.lines = 1
    summaries = 0
    for at, row in enumerate(state["log_history"], 1):
        iteration = parse_iteration(row.get("step")) if isinstance(row, dict) else None
        if iteration is None:
            gathering.skip("entries of log_history without a step", at)
            continue
        values = {key: value for key, value in row.items() if key not in NOT_METRICS}
        metrics = {key: number for key, value in values.items() if (number := measured(value)) is not None}
        if "train_runtime" in metrics:
            summaries += 1
        elif any(key.startswith(("eval_", "test_")) for key in metrics):
            gathering.add_validation(metrics, at, iteration=iteration)
        elif metrics or "loss" in row:
            gathering.add(iteration, gathering.numbers(values, at), at)
    if summaries:
        gathering.remark(OddityKind.LEFT_OUT, f"summaries of the whole training are left out: {summaries}")
    gathering.header.put_all("config", {key: value for key, value in state.items() if key != "log_history"})
    return gathering.record(_stated(gathering.curves(), state, gathering))


def _document(lines: Lines, name: str) -> dict[str, Any]:
    try:
        state = json.loads(lines.document(name).removeprefix("\ufeff"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise LogError(
            f"{name}: this begins like a trainer_state.json, but it is no whole JSON document ({error}). Perhaps it "
            "was cut off: take the one of an earlier checkpoint."
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise LogError(f"{name}: expected a JSON object with a list log_history at its top.")
    return state


def _stated(curves: Mapping[str, Curve], state: Mapping[str, Any], gathering: Gathering) -> dict[str, Curve]:
    """Return the curves with the window that the document states: the loss is a mean since the last record."""
    if "loss" not in curves:
        return dict(curves)
    window = parse_iteration(state.get("logging_steps")) or gathering.interval
    window = window if 0 < window <= 2**31 else 0
    if window != 1:
        message = f"the loss is a mean of {window or 'several'} iterations, as the Trainer logs it"
        gathering.remark(OddityKind.AVERAGED, message)
    loss = curves["loss"]
    return {**curves, "loss": replace(loss, window=window, quantum=unit_if_rounded(loss.values, DECIMALS))}
