"""What holds for every text log: names, encodings, long lines, memory."""

import os
import tracemalloc
from pathlib import Path

import pytest
from conftest import points, remarks, said
from log_lines import tcap

from emacheck.errors import LogError
from emacheck.logs import read_log
from emacheck.logs.lines import LONGEST
from emacheck.logs.transport import HEAD


def test_the_name_is_the_path_unless_another_is_given(tmp_path):
    path = tmp_path / "misleading.json"
    path.write_text("iteration,loss\n1,4.5\n")
    assert read_log(path).name == str(path)
    assert read_log(str(path), name="reference").name == "reference"


def test_byte_order_mark_windows_line_ends_and_broken_encoding_do_no_harm(log):
    record = log(b'\xef\xbb\xbf{"loss": 4.5, "step": 1}\r\n\xff\xfe\r\n{"loss": 4.0, "step": 2}\r\n')
    assert points(record) == [(1, 4.5), (2, 4.0)]
    assert "1 skipped, the first on line 2" in remarks(record)


def test_a_line_longer_than_a_mebibyte_is_skipped_and_remarked(log):
    record = log(tcap(0, 4.5) + "\n" + "x" * 3 * LONGEST + tcap(1, 4.0) + "\n" + tcap(2, 3.5) + "\n")
    assert points(record) == [(0, 4.5), (2, 3.5)]
    assert "lines longer than 1 MiB: 1 skipped, the first on line 2" in said(record)


def test_a_progress_bar_of_many_mebibytes_is_no_long_line(log):
    record = log("\r 5%|#   | loss=297" * 200_000 + tcap(0, 4.5) + "\n")
    assert points(record) == [(0, 4.5)]
    assert "longer" not in remarks(record)


def test_memory_does_not_grow_with_the_length_of_the_log(tmp_path):
    path = tmp_path / "long"
    with path.open("w") as file:
        for _ in range(100):
            file.write((4000 * "nothing " + "\n") * 13)
        file.write(tcap(0, 4.5) + "\n")
        file.seek(0)
        file.write(tcap(0, 4.5) + "\n")
    tracemalloc.start()
    try:
        read_log(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 40e6
    assert peak < 6 * HEAD


def read_so_far():
    """Return how many bytes this process has read by system calls."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts what a process reads")
def test_a_foreign_file_of_gigabytes_is_refused_after_its_head(tmp_path):
    path = tmp_path / "huge"
    path.write_text("once upon a time\n" * (HEAD // 10))
    os.truncate(path, 5 << 30)
    before = read_so_far()
    with pytest.raises(LogError, match="format of this file is not known"):
        read_log(path)
    assert read_so_far() - before < 64 << 20
