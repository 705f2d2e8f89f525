"""What the audit said of one candidate of the zoo, and how it is stored: a line each, without what is as by default."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from emacheck.strict_json import decode_value, strict


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooTrial:
    """What the audit said of one candidate.

    Attributes:
        network: The network's name.
        seed: Seed of its state and its batch.
        precision: The accepted precision.
        part: ``step`` for :func:`emacheck.audit_step` itself, ``benign`` or ``fault``.
        name: The variation, or the fault.
        kind: The fault's class.
        severity: The fault's severity.
        unit: What it counts.
        outcome: What the audit says.
        sits_in: The module in which the fault sits, None if in no single one.
        named: The module that is blamed first.
        rightly: Whether the fault sits there, or in a weight that this module shares.
        blamed: All modules that are blamed.
        phase: The phase that broke first.
        tensor: The tensor that is the most over its limit, or the closest to it.
        measure: How that one is measured.
        alone: Worst ratio of a tensor of a module alone, over its limit.
        whole: The same of a whole iteration.
        changed: Whether any tensor differs from what it is without a fault.
        raised: What could not run.
        notes: The notes of the audit.
        seconds: How long it took.
    """

    network: str
    seed: int
    precision: str
    part: str
    name: str
    kind: str = ""
    severity: float = 1.0
    unit: str = ""
    outcome: str
    sits_in: str | None = None
    named: str | None = None
    rightly: bool = True
    blamed: tuple[str, ...] = ()
    phase: str | None = None
    tensor: str = ""
    measure: str = ""
    alone: float = 0.0
    whole: float = 0.0
    changed: bool = True
    raised: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


NUMBERS = ("severity", "alone", "whole")
LISTS = ("blamed", "notes")


def text(machine: dict[str, Any], trials: list[ZooTrial]) -> str:
    """Return the machine and all trials as strict JSON, a trial a line."""
    defaults = {field.name: field.default for field in fields(ZooTrial)}
    lines = [
        json.dumps(strict({name: value for name, value in asdict(trial).items() if value != defaults[name]}))
        for trial in trials
    ]
    return f'{{"machine": {json.dumps(machine)},\n"trials": [\n' + ",\n".join(lines) + "\n]}\n"


def read(file: Path) -> tuple[dict[str, Any], list[ZooTrial]]:
    """Return the machine and the trials that are stored in a file."""
    stored = json.loads(file.read_text(encoding="utf-8"))
    return stored["machine"], [_trial(row) for row in stored["trials"]]


def _trial(row: dict[str, Any]) -> ZooTrial:
    numbers = {name: decode_value(row[name]) for name in NUMBERS if name in row}
    lists = {name: tuple(row[name]) for name in LISTS if name in row}
    return ZooTrial(**{**row, **numbers, **lists})
