"""A container or a job may have less memory than its host: what its control group leaves counts."""

import pytest

from emacheck.train import host_memory
from emacheck.train.host_memory import HostMemory

NEW = {"limit": "memory.max", "usage": "memory.current", "prefix": ""}
OLD = {"limit": "memory.limit_in_bytes", "usage": "memory.usage_in_bytes", "prefix": "total_"}


@pytest.mark.parametrize(
    ("entries", "place", "names"),
    [
        ("0::/", "", NEW),
        ("0::/job/step", "job", NEW),
        ("0::/../../elsewhere", "", NEW),
        ("4:memory:/docker/7f", "memory", OLD),
        ("9:name=systemd:/\n4:cpu,memory:/job\n0::/", "memory/job", OLD),
    ],
)
def test_the_limit_of_a_control_group_counts_where_it_leaves_less(monkeypatch, tmp_path, entries, place, names):
    monkeypatch.setattr(host_memory, "ROOT", tmp_path)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text(f"{entries}\n")
    group, prefix = tmp_path / "sys/fs/cgroup" / place, names["prefix"]
    group.mkdir(parents=True)
    (group / "memory.stat").write_text(f"inactive_file 7\n{prefix}inactive_file 1000\n{prefix}active_file 500\n")
    (group / names["usage"]).write_text("300000\n")
    (group / names["limit"]).write_text(f"{2 << 30}\n")
    left = (2 << 30) - 300_000 + 1500
    assert host_memory.host_memory() == HostMemory(available=left, total=2 << 30, limited=True)
    for unlimited in ("max", "9223372036854771712"):
        (group / names["limit"]).write_text(f"{unlimited}\n")
        whole = HostMemory(available=8_000_000 << 10, total=9_000_000 << 10, limited=False)
        assert host_memory.host_memory() == whole


def test_a_system_that_does_not_say_how_much_memory_it_has_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(host_memory, "ROOT", tmp_path)
    assert host_memory.host_memory() is None
    assert host_memory.held() == 0
