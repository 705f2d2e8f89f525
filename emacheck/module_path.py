"""Where processes of our own look for modules: in the working directory last, for it may be anybody's."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_SAFE = "PYTHONSAFEPATH"


def safe_path(source: Path | None = None) -> Mapping[str, str]:
    """Return the variables of a process in which no ``random.py`` of the working directory hides Python's own.

    ``python -m`` looks there first, and a checkout under test lies there. Python 3.10 does not know the variable.

    Args:
        source: The directory that this package is imported from; found if None. If it is the working directory itself,
            someone works on the package, and it would not be found.

    Source: https://docs.python.org/3/using/cmdline.html#envvar-PYTHONSAFEPATH

    Example:
        >>> dict(safe_path(Path("/usr/lib/python3/dist-packages"))), dict(safe_path(Path.cwd()))
        ({'PYTHONSAFEPATH': '1'}, {})
    """
    source = Path(__file__).resolve().parent.parent if source is None else source
    return {} if source == Path.cwd() else {_SAFE: "1"}


def with_working_directory_last() -> None:
    """Let a configuration import what lies beside it, as long as nothing that is installed has that name."""
    if getattr(sys.flags, "safe_path", False):
        sys.path.append(os.getcwd())  # noqa: PTH109 - an entry of sys.path is a text
