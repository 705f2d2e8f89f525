"""What the words of a process that ended badly suggest, and what to do about it."""

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from emacheck.train.launching.last_words import end_of

# Less does not even hold a header and some last words.
FULL_BYTES = 1 << 20
# The last is how cuBLAS and cuDNN say it, which allocate by themselves.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "memoryerror", "status_alloc_failed")
# How torch says that a batch found no room, and that a process which loads data was killed for that.
# The last is Python's, where shared memory is missing or may not be written to.
NO_SHARED_MEMORY = ("unable to allocate shared memory", "out of shared memory", "_multiprocessing.semlock(")
# How Python, OpenBLAS, OpenMP and C++ say that the system starts no further thread or process. OpenBLAS then interrupts
# its own process as Ctrl-C would (driver/others/blas_server.c), so that its words stand before the last lines.
NO_THREADS = (
    "can't start new thread",
    "pthread_create failed",
    "thread creation failed",
    "what():  resource temporarily unavailable",
    "blockingioerror: [errno 11]",
)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the place itself
# How platformdirs says so, which mmengine's yapf asks.
NO_HOME = "could not determine the home directory"
# How Python and the dynamic linker say that a package is there and cannot be imported.
BROKEN_IMPORT = ("modulenotfounderror:", "importerror:", "cannot open shared object file", "undefined symbol")


def hint_of(words: str, *logs: Path) -> str:
    """Return what the last lines suggest, or what stands before them in the logs, as a line of its own, or nothing."""
    if lacking := shared_memory_is_full(*logs):
        return lacking
    if _is_printed(NO_THREADS, logs):
        return (
            "\nThe system let it start no further thread or process. Allow more (ulimit -u, docker run --pids-limit, "
            "the limit of the pod), or start fewer: OPENBLAS_NUM_THREADS=1 in the environment."
        )
    if any(sign in words.lower() for sign in OUT_OF_MEMORY):
        return "\nIt ran out of memory."
    if NO_HOME in words.lower():
        return (
            "\nNeither HOME nor the system's list of users says where the home directory is. Set HOME to a directory."
        )
    if is_broken_import(words):
        return "\nSomething that is needed cannot be imported here: emacheck doctor says what is missing or broken."
    return ""


def shared_memory_is_full(*logs: Path) -> str:
    """Return that processes which load data found no shared memory, as a line of its own, or nothing.

    What they print stands before the last lines, which are those of the training that has lost them.
    """
    if not _is_printed(NO_SHARED_MEMORY, logs):
        return ""
    found = ""
    with contextlib.suppress(OSError):
        found = f" ({SHARED_MEMORY} has {shutil.disk_usage(SHARED_MEMORY).total >> 20} MiB)"
    return (
        f"\nThe processes that load data found no room in shared memory{found}. Give the container more, such as "
        "docker run --shm-size 8g, or load without them: --cfg-options train_dataloader.num_workers=0 "
        "train_dataloader.persistent_workers=False, likewise val_dataloader."
    )


def _is_printed(signs: tuple[str, ...], logs: Iterable[Path]) -> bool:
    printed = "\n".join(line for log in logs for line in end_of(log)).lower()
    return any(sign in printed for sign in signs)


def is_broken_import(words: str) -> bool:
    """Tell whether words speak of a package, or a library of it, that cannot be imported.

    Example:
        >>> is_broken_import("OSError: libcudart.so.12: cannot open shared object file: No such file or directory")
        True
    """
    return any(sign in words.lower() for sign in BROKEN_IMPORT)


def disk_is_full(run_directory: Path) -> str:
    """Return that the disk of a directory is full, as a line of its own, or nothing."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(run_directory).free
        if free < FULL_BYTES:
            return (
                f"\nThe disk of {run_directory} is full: found {free} bytes free there, so what was to be written "
                "may be missing, last words among it. Free some space, or choose another place."
            )
    return ""
