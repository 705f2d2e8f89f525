"""Whether a directory can be made and written to, told before anything long begins."""

import os
from pathlib import Path


def obstacle(directory: Path) -> str | None:
    """Return what keeps files from being written into a directory, or it from being made; None if nothing does.

    Args:
        directory: It need not exist; nothing is written.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".log") as file:
        ...     obstacle(Path(file.name, "below")).endswith(".log, which is no directory")
        True
    """
    there = next((each for each in (directory, *directory.absolute().parents) if os.path.lexists(each)), Path("/"))
    if not there.is_dir():
        return f"{there}, which is no directory"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there}, which may not be written to"
