"""What every process of several does around its work: end with its parent, answer when asked, refuse, and leave."""

import contextlib
import faulthandler
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from emacheck.errors import EmacheckError
from emacheck.module_path import with_working_directory_last
from emacheck.train.launching.deaths import note_death
from emacheck.train.launching.last_words import QUESTION
from emacheck.train.launching.meeting import note_meeting
from emacheck.train.launching.parent import end_with_parent
from emacheck.train.request import REFUSAL_FILE

REFUSED = 4
Main = Callable[[list[str]], int]


def watched_over(work: Callable[[Path], None], run_directory: Path) -> int:
    """Do a process's work.

    Args:
        work: Called with the run directory.
        run_directory: The run directory.

    Returns:
        0 when the work is done, 4 when it was refused (the reason is in ``refusal.txt``).
    """
    with_working_directory_last()
    end_with_parent()
    note_meeting(run_directory)
    # Asked where it hangs, a process answers with a traceback on standard error.
    faulthandler.register(QUESTION, all_threads=False)
    try:
        work(run_directory)
    except EmacheckError as error:
        # Of several processes that refuse the first one speaks.
        with contextlib.suppress(FileExistsError), (run_directory / REFUSAL_FILE).open("x", encoding="utf-8") as file:
            file.write(f"{error}\n")
        return REFUSED
    except BaseException as error:
        note_death(run_directory, error)
        raise
    return 0


def leave_with(main: Main) -> NoReturn:
    """Run a program's main function with the command line's arguments and end this process with its exit code."""
    exit_code = 1
    try:
        exit_code = main(sys.argv[1:])
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of gloo are still at work; an interpreter that takes itself apart under them aborts now and then.
    os._exit(exit_code)
