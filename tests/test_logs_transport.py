"""How a log arrives: compressed, from standard input, in other encodings."""

import bz2
import gzip
import io
import lzma
import sys

import pytest
from conftest import points, remarks
from log_lines import tcap_line as tcap

from emacheck.errors import LogError, MissingExtraError
from emacheck.logs import read_log, transport
from emacheck.logs.lines import without_escapes


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_a_compressed_log_is_read_and_a_torn_one_up_to_there(log, compress):
    text = "".join(tcap(i, 4.5 + i / 7) for i in range(50_000)).encode()
    data = compress(text)
    assert len(log(data).curves["loss"]) == 50_000
    torn = log(data[: len(data) * 3 // 4])
    assert 0 < len(torn.curves["loss"]) < 50_000
    assert "damaged or cut off" in remarks(torn)


def test_zstd_is_read_or_its_extra_is_named(log, monkeypatch):
    zstd = pytest.importorskip("backports.zstd")
    data = zstd.compress(tcap(0, 4.5).encode())
    assert points(log(data)) == [(0, 4.5)]
    monkeypatch.setattr(transport, "_zstd", lambda: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'emacheck\[zstd\]'"):
        log(data)


def test_a_compressed_bomb_is_stopped(log, monkeypatch):
    monkeypatch.setattr(transport, "RATIO_FROM", 1 << 20)
    with pytest.raises(LogError, match=r"stopped after .* is no log"):
        log(gzip.compress(tcap(0, 4.5).encode() + b" " * (16 << 20)))
    monkeypatch.setattr(transport, "MOST", 1 << 10)
    with pytest.raises(LogError, match="stopped after"):
        log(gzip.compress(b"".join(tcap(i, i * 0.7).encode() for i in range(100))))


def test_standard_input_is_read(monkeypatch):
    class Standard:
        buffer = io.BytesIO(gzip.compress(tcap(0, 4.5).encode()))

    monkeypatch.setattr(sys, "stdin", Standard)
    record = read_log("-")
    assert (record.name, points(record)) == ("-", [(0, 4.5)])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_utf_16_and_marks_are_read(log, encoding):
    assert points(log((tcap(0, 4.5) + tcap(1, 4.25)).replace("\n", "\r\n").encode(encoding))) == [(0, 4.5), (1, 4.25)]


def test_escapes_of_a_terminal_are_stripped(log):
    assert without_escapes(b"\x1b]0;title\x07a\x1b[1;32mb\x1b[0m\x1b(Bc") == b"abc"
    assert points(log("\x1b[32mEpoch 1\x1b[0m \x1b[1mloss:\x1b[0m 4.5\n")) == [(1, 4.5)]


def test_nul_bytes_at_the_end_of_a_log_do_no_harm(log):
    assert points(log(tcap(0, 4.5).encode() + b"\0" * 4096)) == [(0, 4.5)]
