"""``emacheck run`` with several real processes, for the tests: the options, and which processes are there."""

import contextlib
import os
from pathlib import Path

from conftest import wait_for_iterations, wait_until

ITERATIONS = 3
SHORT = ("--iters", ITERATIONS, "--limit", f"coverage.minimum={ITERATIONS}", "--threads", 1, "--no-audit")
TWO = ("--nproc-per-node", 2)
# The joined batch of the smoke preset is two images.
ONE_EACH = ("--cfg-options", "train_dataloader.batch_size=1")
AUDITED = ("--audit", "--audit-batches", 1)


def processes_of(run_directory):
    """Return every process whose command line names a run directory, with the rank it was given."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command, variables = ((place / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
            if os.fsencode(run_directory) in command and b"emacheck.train.worker" in command:
                found[int(place.name)] = next((int(each[5:]) for each in variables if each.startswith(b"RANK=")), None)
    return found


def nothing_is_left_of(run_directory):
    return wait_until(lambda: not processes_of(run_directory))


def wait_for_iteration(run_directory, count, process):
    wait_for_iterations(run_directory / "iterations.rank1.jsonl", count, process)


def process_of_rank(run_directory, rank):
    """Return the process that trains as a rank; those that load its data are in its session."""
    ranks = processes_of(run_directory)
    (found,) = (process for process in ranks if ranks[process] == rank and os.getsid(process) == process)
    return found
