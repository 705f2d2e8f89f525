"""How much of the host's memory is left for this process: a container or a job may have less than the host has."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Memory of the host, in bytes.

    Attributes:
        available: What a new program may take.
        total: What there is.
        limited: Whether it is the limit of a control group, such as a container's or a job's, that leaves so little.
    """

    available: int
    total: int
    limited: bool


def host_memory() -> HostMemory | None:
    """Return the memory of the host, or of the control group that leaves less; None where the system does not say."""
    try:
        lines = (ROOT / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        kibibytes = {name: int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
        available, total = 1024 * kibibytes["MemAvailable"], 1024 * kibibytes["MemTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return None
    host = HostMemory(available=available, total=total, limited=False)
    # Neither the kernel's /proc/meminfo nor Docker's says what a container may take.
    return min((host, *_limits()), key=lambda memory: memory.available)


def held() -> int:
    """Return how many bytes this process holds already, pages of files apart; 0 where the system does not say."""
    with suppress(OSError):
        for line in (ROOT / "proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    return 0


def _limits() -> Iterator[HostMemory]:
    """Yield what each control group above this process leaves (the kernel's cgroup-v2.rst, cgroup-v1/memory.rst)."""
    groups, entries = ROOT / "sys/fs/cgroup", []
    with suppress(OSError):
        entries = (ROOT / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    for entry in entries:
        _, controllers, name = entry.split(":", 2)
        if not controllers:
            base, files = groups, ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            base, files = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        # A container may see its own group as the topmost one, whatever the path says.
        path = Path(name.lstrip("/"))
        for place in (path, *path.parents):
            with suppress(OSError, ValueError, KeyError):
                yield _limit(base / place, *files)


def _limit(group: Path, limit: str, usage: str, prefix: str) -> HostMemory:
    """Return what a group leaves; a group without a limit says ``max``, which is no number."""
    total, used = (int((group / name).read_text(encoding="utf-8")) for name in (limit, usage))
    lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    stat = {name: int(size) for name, size in (line.split() for line in lines)}
    # Pages of files are given back when memory is needed; MemAvailable counts them too.
    files = stat[f"{prefix}inactive_file"] + stat[f"{prefix}active_file"]
    return HostMemory(available=max(0, total - used + files), total=total, limited=True)
