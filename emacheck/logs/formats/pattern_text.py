"""Any text, by a regular expression of the user's with named groups, bounded in time.

The search runs in a process of its own, because nothing else stops a regular expression that backtracks for ever
without another package, on every thread and system.
"""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emacheck.errors import LogError, UsageError
from emacheck.logs.gathering import Gathering, averaged
from emacheck.logs.lines import Lines, numbered, texts
from emacheck.logs.naming import LONGEST_NAME
from emacheck.logs.values import parse_iteration, parse_number, printed_unit
from emacheck.record import Record

NAME = "pattern"
LONGEST_PATTERN = 2000
SECONDS = 2.0
"""How long the search may take for a batch of lines, or the start of the process may take beyond :data:`START`."""
START = 10.0
BATCH = 64 << 10
_POSITIONS = ("iteration", "epoch", "rank")
_WORKER = Path(__file__).with_name("pattern_worker.py")


def read(lines: Lines, name: str, rank: int | None, pattern: str) -> Record:
    """Read the curves: one per named group that is not the iteration, the epoch or the rank."""
    if len(pattern) > LONGEST_PATTERN:
        raise UsageError(f"the pattern has {len(pattern)} characters, expected at most {LONGEST_PATTERN}.")
    gathering = Gathering(format=NAME, name=name, rank=rank)
    with _worker() as worker:
        trouble = _asked(worker, pattern, START + SECONDS, "the pattern itself takes too long to compile.")
        if trouble:
            raise UsageError(f"the pattern {pattern!r} {trouble}.")
        for batch in _batches(lines):
            gathering.lines = batch[-1][0]
            message = (
                f"{name}: the pattern {pattern!r} searched the lines {batch[0][0]} to {batch[-1][0]} for more than "
                f"{SECONDS:g} s and was stopped: it tries too many ways to match. Avoid nested repetitions such as "
                "(a+)+, and say what may not stand between the parts, as in [^,]* instead of .*"
            )
            for at, groups in _asked(worker, [text for _, text in batch], SECONDS, message):
                _take(groups, batch[at][0], gathering)
    curves = gathering.curves()
    gathering.remark_interval()
    return gathering.record(averaged(curves, 0))


def _take(groups: Mapping[str, str | None], number: int, gathering: Gathering) -> None:
    iteration, epoch, rank = (parse_iteration(groups.get(key) or "0") for key in _POSITIONS)
    if iteration is None or epoch is None or rank is None or groups["iteration"] is None:
        gathering.skip("matches whose iteration, epoch or rank is not an integer of 64 bits", number)
        return
    found = {key: text.strip() for key, text in groups.items() if key not in _POSITIONS and text is not None}
    numbers = {key: parse_number(text.rstrip(",;")) for key, text in found.items() if len(key) <= LONGEST_NAME}
    metrics = {key: value for key, value in numbers.items() if value is not None}
    for key, text in found.items():
        if key not in metrics:
            gathering.unreadable(key, text, number)
    for key in metrics:
        gathering.rounded_to(key, printed_unit(found[key].rstrip(",;")))
    if metrics or found:
        gathering.add(iteration, metrics, number, epoch=epoch, rank=rank)


def _batches(lines: Lines) -> Iterator[list[tuple[int, str]]]:
    batch: list[tuple[int, str]] = []
    size = 0
    for first, block in lines.blocks():
        for number, line in numbered(texts(block)):
            batch.append((first + number - 1, line.rstrip("\r\n")))
            size += len(line)
            if size >= BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


@contextmanager
def _worker() -> "Iterator[subprocess.Popen[str]]":
    worker = subprocess.Popen(
        [sys.executable, "-I", "-X", "utf8", str(_WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _asked(worker: "subprocess.Popen[str]", question: object, seconds: float, message: str) -> Any:
    """Return the worker's answer; stop the worker if there is none in time."""
    late = threading.Timer(seconds, worker.kill)
    late.start()
    try:
        if worker.stdin is None or worker.stdout is None:
            raise LogError(message)
        worker.stdin.write(json.dumps(question) + "\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
    except BrokenPipeError:
        answer = ""
    finally:
        late.cancel()
    if not answer.endswith("\n"):
        raise LogError(message)
    return json.loads(answer)
