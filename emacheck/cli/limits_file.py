"""The TOML file in which a repository keeps the limits of its rules, and says which of them it requires."""

import sys
from pathlib import Path
from typing import Any

from emacheck.errors import UsageError

Limits = dict[str, dict[str, Any]]
REQUIRED = "required"


def read_limits(path: Path) -> tuple[Limits, tuple[str, ...]]:
    """Return the limits that a file sets, by rule, and the rules that it requires."""
    from emacheck.judge import make_rules

    content = _read_tables(path)
    limits = {rule: {name: fields[name] for name in fields if name != REQUIRED} for rule, fields in content.items()}
    try:
        make_rules(tuple(content), limits)  # a misspelt rule is an error even if it is not in use
    except UsageError as error:
        raise UsageError(f"--limits {path}: {error}") from error
    for rule, fields in content.items():
        if not isinstance(fields.get(REQUIRED, False), bool):
            raise UsageError(
                f"--limits {path}: rule {rule!r}: {REQUIRED} must be true or false, found {fields[REQUIRED]!r}."
            )
    required = tuple(rule for rule, fields in content.items() if fields.get(REQUIRED))
    return {rule: set_ for rule, set_ in limits.items() if set_}, required


def _read_tables(path: Path) -> Limits:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors write the mark
    except OSError as error:
        raise UsageError(f"--limits {path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UsageError(f"--limits {path}: not a TOML file: {error}.") from error
    except RecursionError as error:
        raise UsageError(
            f"--limits {path}: nested too deeply, expected a table for each rule, such as [bias] with limit = 0.01."
        ) from error
    wrong = [name for name, fields in content.items() if not isinstance(fields, dict)]
    if wrong:
        raise UsageError(f"--limits {path}: expected a table for each rule, such as [{wrong[0]}] with limit = 0.01.")
    return content
