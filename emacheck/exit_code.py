"""How a process ended, in words."""

import signal


def how_it_ended(code: int) -> str:
    """Return an exit code in words.

    Example:
        >>> how_it_ended(-9)
        'was ended by SIGKILL (often the system out of memory)'
    """
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
    hint = " (often the system out of memory)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"
