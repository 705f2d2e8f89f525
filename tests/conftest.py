"""Shared by all tests: the command line in a subprocess, logs to feed it, and what was read from a log."""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cityscapes_roots import write_pair
from hypothesis import HealthCheck, settings
from simulated_device import environment, require_simulated_device

from emacheck.cli import invoke
from emacheck.data.cityscapes import DatasetSummary
from emacheck.data.synthetic import make_dataset
from emacheck.logs import read_log

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "references"
SMOKE = "emanet_r50-d8_smoke/cpu-fp32"
# The smoke preset with a quarter of its channels, where an audit of all of them would take the longest part of a test.
SLIM = (
    "model.backbone.stem_channels=16",
    "model.backbone.base_channels=16",
    "model.decode_head.in_channels=512",
    "model.decode_head.channels=64",
    "model.decode_head.ema_channels=128",
    "model.auxiliary_head.in_channels=256",
    "model.auxiliary_head.channels=64",
)
# A busy machine is no defect.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
# Programs that tests start, and the simulated device, which must not be imported into the tests' own process.
collect_ignore = ["programs", "simulated_device"]


def emacheck_process(*arguments, cwd, env=None, **options):
    """Start the real command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "emacheck", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        preexec_fn=hear_signals,  # noqa: PLW1509 - no threads here
        **options,
    )


def hear_signals():
    """Ignore no signal: a background job of a shell ignores Ctrl-C, under nohup SIGHUP, and so would what it starts."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def finished(*arguments, cwd, env=None, timeout=240):
    """Run the real command line to its end; a traceback fails the test, unless it is quoted from a process."""
    process = emacheck_process(*arguments, cwd=cwd, env=env)
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in re.sub(r"^  \| .*$", "", err, flags=re.MULTILINE), err
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def free_port():
    """Return the number of a port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def wait_until(condition):
    """Wait half a minute for a condition to hold, and return whether it does."""
    deadline = time.monotonic() + 30
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


def wait_for_iterations(record, count, process, *, seconds=200):
    """Wait until the record of a running training holds some iterations."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if record.exists() and record.read_text(encoding="utf-8").count("\n") >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail(f"{record} never held {count} iterations")


class Done:
    """What a finished command line left behind."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    @property
    def last_line(self):
        return self.out.rstrip("\n").rpartition("\n")[2]


@pytest.fixture
def emacheck_cli(tmp_path):
    """Run the command line in an empty directory and return what it left behind; a traceback fails the test."""

    def call(*arguments, env=None, cwd=tmp_path, timeout=240):
        process = emacheck_process(*arguments, cwd=cwd, env=env)
        out, err = process.communicate(timeout=timeout)
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    return call


@pytest.fixture
def emacheck_here(tmp_path, monkeypatch, capsys):
    """Do the same without a process of its own, where the command alone is asked and not what starts and ends it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # before which the command puts its own each time

    def call(*arguments):
        words = [str(each) for each in arguments]
        monkeypatch.setattr(sys, "argv", ["emacheck", *words])  # of which the command is made that a verdict shows
        done = Done(invoke(words), *capsys.readouterr())
        assert "Traceback" not in done.err, done
        return done

    return call


def falling(n=100, *, off=0.0):
    """Return a plausible loss curve, multiplied by 1 + off."""
    return [(4.0 * math.exp(-i / 80) + 0.5) * (1 + off) for i in range(n)]


def write_scalars(path, losses, *, first=1):
    """Write losses as mmengine's scalars.json has them."""
    lines = [
        json.dumps({"lr": 0.01, "loss": loss, "time": 0.4, "iter": i, "memory": 0, "step": i})
        for i, loss in enumerate(losses, first)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def points(record, metric="loss", *, validation=False):
    """Return the pairs of iteration and value of one curve."""
    curve = (record.validation if validation else record.curves)[metric]
    return list(zip(curve.iterations.tolist(), curve.values.tolist(), strict=True))


def said(record):
    """Return what was remarked about a log, one text each."""
    return [str(oddity) for oddity in record.oddities]


def remarks(record):
    """Return what was remarked about a log as one text."""
    return "\n".join(said(record))


@pytest.fixture
def log(tmp_path):
    """Write a log under a name that says nothing and read it."""

    def read(content, **options):
        path = tmp_path / "some.file"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_log(path, **options)

    return read


@pytest.fixture
def logs(tmp_path):
    """Two good logs, and one that is 39 % too low."""
    write_scalars(tmp_path / "reference.json", falling())
    write_scalars(tmp_path / "good.json", falling(off=0.001))
    write_scalars(tmp_path / "low.json", falling(off=-0.39))
    return tmp_path


@pytest.fixture(scope="session")
def simulated_device():
    """Return what makes the environment of a program that finds the simulated device sdaa; built on first use."""
    require_simulated_device()
    return environment


@pytest.fixture(scope="session", autouse=True)
def shared(tmp_path_factory):
    """A directory of all workers of these tests; the cache in it is everybody's, and no user's is touched."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    place.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMACHECK_CACHE", str(place / "cache"))
        yield place


@pytest.fixture(scope="session")
def references(shared):
    """Stored references of three iterations of one process, with all channels and with few: the first worker trains."""
    import fcntl  # only where processes are started is it needed, and not everywhere is it there

    with (shared / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list((shared / "references").glob("*/*/bundle.json")):
            making = ("reference", "make", "--iters", 3, "--threads", 1, "--into", shared / "references")
            for channels in ((), ("--cfg-options", *SLIM)):
                done = finished(*making, *channels, cwd=shared)
                assert done.returncode == 0, done.stderr
    return shared / "references"


@pytest.fixture(scope="module")
def workshop(references, shared, tmp_path_factory):
    """A directory in which commands find what was trained once."""
    place = tmp_path_factory.mktemp("workshop")
    (place / "cache").symlink_to(shared / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMACHECK_REFERENCES", str(references))
        yield place


@pytest.fixture(scope="module")
def subject():
    """The small network in a live state, with what it is trained with; tests that need another one make their own."""
    from small_network import trained_net  # imports torch, which is not everywhere

    return trained_net()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> DatasetSummary:
    """Seed 0, shared by every test; nobody may write into it."""
    return make_dataset(tmp_path_factory.mktemp("data") / "made")


@pytest.fixture
def copy(made: DatasetSummary, tmp_path: Path) -> Path:
    """A copy of seed 0 to spoil."""
    return Path(shutil.copytree(made.root, tmp_path / "copy"))


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A tiny root with the names of the real Cityscapes."""
    root = tmp_path / "real"
    for frame in range(6):
        write_pair(root, "train", f"aachen/aachen_000000_{frame:06d}", label=frame)
    write_pair(root, "val", "frankfurt/frankfurt_000000_000294", label=255)
    return root
