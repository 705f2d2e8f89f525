"""The files of a run directory: what describes the run, and the iterations of each of its processes."""

import re
from pathlib import Path

RUN_FILE = "run.json"
FORMAT_VERSION = 1
_NAME = re.compile(r"iterations(?:\.rank([1-9]\d{0,8}))?\.jsonl")


def rank_file(rank: int) -> str:
    """Return the name of the file into which a rank writes its iterations.

    Example:
        >>> rank_file(0), rank_file(3)
        ('iterations.jsonl', 'iterations.rank3.jsonl')
    """
    return "iterations.jsonl" if rank == 0 else f"iterations.rank{rank}.jsonl"


def rank_files(folder: Path) -> dict[int, Path]:
    """Return the files of iterations that a directory holds, by rank in ascending order."""
    found = {int(match[1] or 0): path for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))
