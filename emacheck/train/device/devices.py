"""The table of devices: one row says all that differs between them. Nothing here imports torch.

A device that is not in the table comes in through an entry point of the group ``emacheck.devices`` whose name is the
device type and whose value is a DeviceKind (docs/devices.md).
"""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import IO, Any

from emacheck.errors import UsageError
from emacheck.exit_code import how_it_ended
from emacheck.module_path import is_own_process, own_process

ENTRY_POINTS = "emacheck.devices"
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
AUTO = "auto"
OPTION = "--device"
MOST_DIGITS = 6
PROBE = "emacheck.train.device.probe"
PROBE_SECONDS = 300.0
GRACE_SECONDS = 5.0
REFUSED = 4
MARK = "emacheck refuses: "
DESCRIBED = "emacheck's row: "


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKind:
    """One row of the table.

    Seeding, selecting and peak memory go through ``torch.get_device_module(type)``, whose functions have the same names
    for every vendor, so that no row needs to name them.

    Attributes:
        type: What torch calls the device, such as ``sdaa`` in ``torch.device("sdaa:1")``.
        title: What a person calls it.
        module: The module that must be imported before torch knows the device, or None if torch brings it.
        backend: Its communication backend in torch.distributed, or None if several processes cannot use it.
        precisions: The precisions that it may be asked for, out of fp32, tf32, bf16 and fp16.
        amp: The precision that ``--amp`` means.
        tf32_switches: Boolean attributes, as dotted names from ``torch`` on, that let the device compute float32 with
            fewer bits. All are switched off for fp32 and on for tf32; one that is not there is left out.
        versions: Dotted names, from a module on, of the versions of driver and libraries, or functions that say them.
        variables: How the names of the environment variables begin that the device's module reads.
        fallback_variables: Those of them that let the CPU run operators in the place of the device, unseen.
        float32_variables: Those of them that keep the device, if they are 1, from computing float32 with fewer bits.
        lowering_variables: Those of them that let the device, if they are set, compute float32 with fewer bits; the
            device is then refused.
        mark_step: For a lazy device, which puts off what it is told: the dotted name, from a module on, of the function
            that lets it compute all of that, such as ``torch_xla.sync``. It is called without arguments, where a
            training of such a device calls it.
    """

    type: str
    title: str
    module: str | None = None
    backend: str | None = None
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    amp: str = "fp16"
    tf32_switches: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    fallback_variables: tuple[str, ...] = ()
    float32_variables: tuple[str, ...] = ()
    lowering_variables: tuple[str, ...] = ()
    mark_step: str | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in (*self.precisions, self.amp) if name not in PRECISIONS]
        if unknown or not self.type.isidentifier() or self.amp not in self.precisions:
            raise ValueError(
                f"DeviceKind {self.type!r}: found precisions {self.precisions} and amp {self.amp!r}, expected a type "
                f"that is an identifier, precisions out of {PRECISIONS}, and an amp that is one of them."
            )


KINDS: dict[str, DeviceKind] = {
    kind.type: kind
    for kind in (
        DeviceKind(type="cpu", title="CPU", backend="gloo", amp="bf16"),
        DeviceKind(
            type="cuda",
            title="NVIDIA CUDA or AMD ROCm",
            backend="nccl",
            precisions=PRECISIONS,
            # Convolutions use TF32 by default.
            tf32_switches=("torch.backends.cuda.matmul.allow_tf32", "torch.backends.cudnn.allow_tf32"),
            versions=("torch.version.cuda", "torch.version.hip", "torch.backends.cudnn.version"),
        ),
        DeviceKind(
            type="sdaa",
            title="Tecorigin SDAA",
            module="torch_sdaa",
            backend="tccl",
            variables=("TORCH_SDAA_",),
            fallback_variables=("TORCH_SDAA_FALLBACK_OPS", "TORCH_SDAA_RUNTIME_AUTOFALLBACK"),
            # Convolutions compute float32 in float16 by default: docs/devices.md has the sources.
            float32_variables=("TORCH_SDAA_CONV_USE_FP32", "TORCH_SDAA_CONV2D_BACKWARD_USE_FP32"),
        ),
        DeviceKind(
            type="npu",
            title="Huawei Ascend",
            module="torch_npu",
            backend="hccl",
            # HF32 is a format of its own, so it is no --precision here; convolutions use it by default.
            tf32_switches=("torch.npu.matmul.allow_hf32", "torch.npu.conv.allow_hf32"),
            versions=("torch.version.cann",),
        ),
        DeviceKind(
            type="mlu",
            title="Cambricon MLU",
            module="torch_mlu",
            backend="cncl",
            precisions=PRECISIONS,
            tf32_switches=("torch.backends.mlu.matmul.allow_tf32", "torch.backends.cnnl.allow_tf32"),
        ),
        DeviceKind(
            type="musa",
            title="Moore Threads MUSA",
            module="torch_musa",
            backend="mccl",
            precisions=PRECISIONS,
            tf32_switches=("torch.backends.mudnn.allow_tf32",),
        ),
        DeviceKind(
            type="xpu",
            title="Intel XPU",
            backend="xccl",
            tf32_switches=("torch.backends.mkldnn.allow_tf32",),
            versions=("torch.version.xpu",),
        ),
        DeviceKind(type="mps", title="Apple MPS", precisions=("fp32", "fp16")),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device: a row of the table and, where there are several, which one.

    Attributes:
        kind: The row.
        index: Which one, None for the first.
        option: The option that the user named it with, for messages.
    """

    kind: DeviceKind
    index: int | None = None
    option: str = field(default=OPTION, compare=False, repr=False)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    @property
    def type(self) -> str:
        """What torch calls it, without the index."""
        return self.kind.type

    @property
    def is_cpu(self) -> bool:
        """Whether it is the host itself."""
        return self.type == "cpu"

    @property
    def communication(self) -> str:
        """The backend to give to torch.distributed: gloo for tensors of the host, the device's own for its tensors.

        Example:
            >>> parse_device("sdaa").communication
            'cpu:gloo,sdaa:tccl'
        """
        if self.kind.backend is None:
            raise UsageError(
                f"{self.option} {self}: no communication backend is known for {self.kind.title}, so it trains in one "
                "process. Use --nproc-per-node 1."
            )
        return self.kind.backend if self.is_cpu else f"cpu:gloo,{self.type}:{self.kind.backend}"

    def for_rank(self, local_rank: int) -> "Device":
        """Return the device of a process: the one with the number of its local rank, unless one was named.

        The CPU has no number, and only a process that is alone may be told one.
        """
        return self if self.is_cpu or self.index is not None else replace(self, index=local_rank)


def parse_device(text: str, option: str = OPTION) -> Device:
    """Parse ``cpu``, ``cuda:1``, ``sdaa`` or ``auto``.

    Args:
        text: What the user wrote. ``auto`` asks torch, in a process of its own.
        option: The option that it was written for, which messages name.

    Returns:
        The device; whether it is there is not looked at.

    Raises:
        UsageError: If there is no such row in the table and no such entry point, or the index is no number.

    Example:
        >>> device = parse_device("sdaa:1")
        >>> str(device), device.kind.module, device.kind.backend
        ('sdaa:1', 'torch_sdaa', 'tccl')
    """
    if text == AUTO:
        return parse_device(_detect(option), option)
    name, colon, index = text.partition(":")
    # Digits of other scripts are decimal as well, and int() reads them; it refuses thousands of digits.
    numbered = index.isascii() and index.isdecimal() and len(index) <= MOST_DIGITS
    if bool(colon) != numbered or (colon and name in ("cpu", AUTO)):
        raise UsageError(
            f"{option} {text}: expected NAME or NAME:NUMBER, such as sdaa or sdaa:1, with the digits 0 to 9, at most "
            f"{MOST_DIGITS} of them; cpu and {AUTO} take no number."
        )
    return Device(kind=_kind(name, option), index=int(index) if index else None, option=option)


def device_names() -> list[str]:
    """Return every device type that can be asked for: the table, then the entry points."""
    return [*KINDS, *(entry.name for entry in _entries() if entry.name not in KINDS)]


def _kind(name: str, option: str) -> DeviceKind:
    if name in KINDS:
        return KINDS[name]
    entry = next((entry for entry in _entries() if entry.name == name), None)
    if entry is None:
        raise UsageError(
            f"{option} {name}: found no such device, expected one of {', '.join(device_names())} or auto. "
            f"Another one needs a row of its own, given by an entry point of the group {ENTRY_POINTS} "
            "(docs/devices.md). Logs from any device can be judged with: emacheck compare LOG_A LOG_B"
        )
    # Our own processes import the vendor's module anyhow.
    return _loaded(entry, option) if is_own_process() else _described(name, option)


@functools.cache
def _described(name: str, option: str) -> DeviceKind:
    """Ask a process of its own for what an entry point describes, because the vendor's package may come with it.

    What that prints, does to signals or does at exit, such as ending with a code of its own, it does not do to us.
    """
    said = _ask(f"{option} {name}: its entry point could not be loaded", option, name).splitlines()
    # What the vendor's module prints may stand before it and behind it.
    row: dict[str, Any] = json.loads(next(each for each in said if each.startswith(DESCRIBED)).removeprefix(DESCRIBED))
    row = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return DeviceKind(**row)


def description(name: str, option: str) -> str:
    """Load the entry point of a device in this process, and return its row as one line, behind a mark the JSON.

    Raises:
        UsageError: If it cannot be loaded, or is no row of this name.
    """
    return DESCRIBED + json.dumps(asdict(_loaded(next(entry for entry in _entries() if entry.name == name), option)))


def _loaded(entry: EntryPoint, option: str) -> DeviceKind:
    try:
        kind = entry.load()
    except Exception as error:
        raise UsageError(
            f"{option} {entry.name}: the entry point {entry.value} of the group {ENTRY_POINTS} cannot be loaded "
            f"({type(error).__name__}: {error}). Repair or uninstall the package that provides it."
        ) from error
    if not isinstance(kind, DeviceKind) or kind.type != entry.name:
        raise UsageError(
            f"{option} {entry.name}: the entry point {entry.value} of the group {ENTRY_POINTS} is {kind!r}, expected a "
            f"DeviceKind(type={entry.name!r}, ...). Repair or uninstall the package that provides it."
        )
    return kind


def _entries() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=ENTRY_POINTS))


def require_module(device: Device) -> None:
    """See, without importing anything, that the module of a device is installed where our processes look for it.

    Raises:
        UsageError: If it is not.
    """
    # Looking for a part of a package would import the package.
    package = (device.kind.module or "").partition(".")[0]
    # A process that is started with -m also looks into the working directory.
    if package and find_spec(package) is None and PathFinder.find_spec(package, [os.getcwd()]) is None:  # noqa: PTH109
        raise without_module(device.kind, device.option, "is not installed here")


def without_module(kind: DeviceKind, option: str, found: str) -> UsageError:
    """Return the refusal of a device whose module cannot be used.

    Args:
        kind: The device's row.
        option: The option that the user named it with.
        found: What is wrong with the module, as the end of a sentence.
    """
    return UsageError(
        f"{option} {kind.type}: {kind.title} needs the module {kind.module}, which {found}. Run on the vendor's "
        "image, which brings it with the torch that it was built for, and install emacheck there without torch: "
        "docs/devices.md"
    )


def probe(device: Device, processes: int = 1) -> None:
    """See that a device is there before anything is announced or written, in a process of its own.

    Args:
        device: The device.
        processes: How many processes take one of these devices each.

    Raises:
        UsageError: If it is not, or there are fewer than processes.
    """
    if not device.is_cpu:
        trouble = f"{device.option} {device}: it could not be opened"
        _ask(trouble, device.option, str(device), str(processes))


def _detect(option: str) -> str:
    lines = _ask(f"{option} auto: torch could not be asked for its accelerator; name the device", option).split()
    if not lines:
        raise UsageError(f"{option} auto: torch gave no answer. Name the device: one of {', '.join(device_names())}.")
    # A vendor's module may print before us.
    return lines[-1]


def _ask(trouble: str, *arguments: str) -> str:
    """Open devices in a process of its own: a driver that crashes or hangs must not take us along."""
    command = [sys.executable, "-m", PROBE, *arguments]
    # Files and no pipes: what a vendor's module has started may keep a pipe open for ever.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        probing = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            env={**own_process(), **os.environ},
        )
        try:
            code = probing.wait(PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            raise UsageError(
                f"{trouble} (no answer for {PROBE_SECONDS:g} s, and the process that asked was ended). Reset the "
                "device, and look for other programs on it and at its driver's log."
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(probing.pid, signal.SIGKILL)
            # One that waits within a driver does not end, whatever it is sent.
            with contextlib.suppress(subprocess.TimeoutExpired):
                probing.wait(GRACE_SECONDS)
        said, complained = (_text(file) for file in (out, err))
    if code == REFUSED:
        raise UsageError(complained.strip().rpartition(MARK)[2])
    if code != 0:
        words = complained.strip().splitlines() or ["no output"]
        raise UsageError(f"{trouble} (what asked {how_it_ended(code)}: {words[-1]}). emacheck doctor says more.")
    return said


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
