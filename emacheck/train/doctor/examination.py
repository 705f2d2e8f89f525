"""Look at everything, one line after the other; whatever the device does, the examination goes on."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from emacheck.errors import UsageError
from emacheck.module_path import own_process
from emacheck.train.device.devices import AUTO, parse_device
from emacheck.train.device.precision import keep_float32
from emacheck.train.doctor.host import (
    data_line,
    disk_line,
    package_lines,
    reference_line,
    shared_memory_lines,
    torch_line,
)
from emacheck.train.doctor.line import REPAIR, Line, Status, error
from emacheck.train.launching.hints import is_broken_import

STAGE_NAMES = ("device", "communication", "precisions", "training", "dropout")
POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0
LAST_WORDS = 3


def examine(device: str, *, data_root: Path | None, timeout: float) -> Iterator[Line]:
    """Yield one line per thing looked at, as soon as it is known.

    Args:
        device: What the user wrote, such as ``sdaa:1`` or ``auto``.
        data_root: A Cityscapes to look at, or None for the synthetic one.
        timeout: Seconds that one stage on the device may take.
    """
    yield from package_lines()
    yield data_line(data_root)
    yield reference_line()
    yield disk_line()
    yield from shared_memory_lines()
    if torch_line().status is not Status.ERROR:
        yield from device_lines(device, timeout=timeout)


def device_lines(device: str, *, timeout: float) -> Iterator[Line]:
    """Yield what a process of its own finds about a device; when it dies, another one goes on behind."""
    try:
        name = str(parse_device(device))
    except UsageError as problem:
        again = "Name the device, or look at the rest with --device cpu."
        advice = again if device == AUTO else "See docs/devices.md."
        yield error("device", str(problem), REPAIR if is_broken_import(str(problem)) else advice)
        return
    remaining = list(STAGE_NAMES)
    while remaining:
        for lines in _tried(name, tuple(remaining), timeout):
            yield from lines
            stage = remaining.pop(0)
            # Without a device there is nothing to try.
            if stage == "device" and any(line.status is Status.ERROR for line in lines):
                return


def _tried(device: str, stages: tuple[str, ...], timeout: float) -> Iterator[list[Line]]:
    """Yield the lines of each stage until all are done or one ended the process, which is then its line."""
    with tempfile.TemporaryDirectory(prefix="emacheck-doctor-") as folder:
        results, log = Path(folder) / "results.jsonl", Path(folder) / "log"
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **own_process(), **os.environ}
        keep_float32(parse_device(device), "fp32", environment)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "emacheck.train.doctor.probe", device, str(results), *stages],
                # It ends when this pipe closes, however this process ends.
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        try:
            done = 0
            for lines in _followed(process, results, timeout):
                done += 1
                yield lines
                if done == len(stages):
                    return
            hung = process.poll() is None
        finally:
            _end(process)
        if done < len(stages):
            yield [_broken(stages[done], process.returncode, hung, timeout, _last_words(log))]


def _followed(process: "subprocess.Popen[bytes]", results: Path, timeout: float) -> Iterator[list[Line]]:
    """Yield the stages' lines as they are written, until the process ends or a stage takes too long."""
    read, since = 0, time.monotonic()
    while True:
        ended = process.poll() is not None
        text = results.read_text(encoding="utf-8") if results.exists() else ""
        for record in text[: text.rfind("\n") + 1].splitlines()[read:]:
            read, since = read + 1, time.monotonic()
            yield [Line.from_dict(fields) for fields in json.loads(record)]
        if ended or time.monotonic() - since > timeout:
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and everything it started; it leads a process group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # One that waits within a driver does not end, whatever it is sent.
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    if process.stdin is not None:
        process.stdin.close()


def _broken(stage: str, code: int, hung: bool, timeout: float, words: str) -> Line:
    if hung:
        return error(
            stage,
            f"hung: no answer for {timeout:g} s, so its process was ended. {words}",
            "Reset the device, look for other programs on it; a slower device needs a longer --timeout.",
        )
    names = {number.value: number.name for number in signal.Signals}
    how = f"ended with exit code {code}" if code >= 0 else f"was ended by {names.get(-code, f'signal {-code}')}"
    advice = REPAIR if is_broken_import(words) else "Look at the system's and the driver's log; ask the vendor."
    return error(stage, f"crashed: its process {how}. {words}", advice)


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"Its last words: {' | '.join(lines[-LAST_WORDS:])}" if lines else "It said nothing."
