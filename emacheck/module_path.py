"""Processes of our own: how they know that they are, and that they look for modules in the working directory last."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_SAFE = "PYTHONSAFEPATH"
_OWN = "EMACHECK_OWN_PROCESS"


def own_process(source: Path | None = None) -> Mapping[str, str]:
    """Return the variables of a process of our own, in which no ``random.py`` of the working directory hides Python's.

    ``python -m`` looks there first, and a checkout under test lies there. Python 3.10 does not know that variable.

    Args:
        source: The directory that this package is imported from; found if None. If it is the working directory itself,
            someone works on the package, and it would not be found.

    Source: https://docs.python.org/3/using/cmdline.html#envvar-PYTHONSAFEPATH

    Example:
        >>> dict(own_process(Path("/usr/lib/python3/dist-packages")))
        {'EMACHECK_OWN_PROCESS': '1', 'PYTHONSAFEPATH': '1'}
        >>> dict(own_process(Path.cwd()))
        {'EMACHECK_OWN_PROCESS': '1'}
    """
    source = Path(__file__).resolve().parent.parent if source is None else source
    return {_OWN: "1"} if source == Path.cwd() else {_OWN: "1", _SAFE: "1"}


def is_own_process() -> bool:
    """Tell whether this process was started with :func:`own_process`, and is neither the command nor a program."""
    return _OWN in os.environ


def with_working_directory_last() -> None:
    """Let a configuration import what lies beside it, as long as nothing that is installed has that name."""
    if getattr(sys.flags, "safe_path", False):
        sys.path.append(os.getcwd())  # noqa: PTH109 - an entry of sys.path is a text
