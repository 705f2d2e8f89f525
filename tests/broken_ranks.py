"""Ranks that are audited with one fault after the other: ``python -m broken_ranks DIRECTORY``, by torch's launcher.

Most of what a rank takes is its start, so it starts once for all of them; each has a directory of its own.
"""

from dataclasses import replace
from pathlib import Path

from emacheck.audit.faults.loading import process_faults
from emacheck.cli.audit.job import read_job
from emacheck.cli.audit.rank import JOB_FILE, RankJob, audit_rank
from emacheck.train import ranks
from emacheck.train.launching.program import leave_with, watched_over


def audit_broken(directory):
    job = read_job(RankJob, directory / JOB_FILE)
    for fault in process_faults():
        place = directory / fault
        place.mkdir(exist_ok=True)
        audit_rank(replace(job, fault=fault), place)
        # They have joined, and are asked for the same.
        ranks.agree = lambda task: None  # noqa: ARG005
        ranks.open_device_of_rank = lambda device, backend: device  # noqa: ARG005


if __name__ == "__main__":
    leave_with(lambda arguments: watched_over(audit_broken, Path(arguments[0])))
