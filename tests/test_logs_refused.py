"""What is refused instead of read, and that nothing else is ever raised."""

import io
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from log_lines import FAST, ITER, refuses_or_reads, tcap

from emacheck.errors import LogError
from emacheck.logs import read_log
from emacheck.logs.lines import LONGEST
from emacheck.logs.reading import READERS
from emacheck.oddity import OddityKind

# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(LogError, match=r"nowhere.log: there is no such file or directory, expected a log"):
        read_log(tmp_path / "nowhere.log")


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_an_impossible_path_is_refused(path):
    with pytest.raises(LogError):
        read_log(path)


def test_a_device_is_refused():
    with pytest.raises(LogError, match="this is a device or a socket, expected a file"):
        read_log("/dev/zero")


@pytest.mark.parametrize(("content", "words"), [("", "the file is empty"), (" \n\n", "nothing but blanks")])
def test_an_empty_file_is_refused(log, content, words):
    with pytest.raises(LogError, match=words):
        log(content)


def test_a_binary_file_is_refused(log):
    with pytest.raises(LogError, match="found NUL bytes"):
        log(b"\x89PNG\r\n\0\0\x01")


def test_a_foreign_file_is_refused_with_the_formats_that_are_read(log):
    with pytest.raises(LogError, match=r"It starts with 'Dear diary,'") as caught:
        log("Dear diary,\ntoday loss was 4.5\n")
    assert all(reader.NAME in str(caught.value) for reader in READERS)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    path.write_text(tcap(0, 4.5))

    def refuse(*args: object, **options: object) -> io.BytesIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(LogError, match="secret: permission denied"):
        read_log(path)


def test_a_disk_that_fails_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "broken"
    path.write_text(tcap(0, 4.5))

    def fail(*args: object, **options: object) -> io.BytesIO:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(LogError, match="broken: it cannot be read: Input/output error"):
        read_log(path)


@pytest.mark.parametrize(
    ("content", "format_name"),
    [
        ('{"mIoU": 5.0, "step": 1}\n', "mmengine JSON"),
        (ITER.format(1, "loss: 2.5").replace("train", "val"), "mmengine text"),
        ('{"mode": "val", "epoch": 1, "iter": 7, "mIoU": 0.5}\n', "mmcv JSON"),
        ('TCAPPDLL {"type": "METADATA"}\n', "TCAPPDLL JSON"),
        ("iteration,loss\n", "CSV"),
    ],
)
def test_a_log_without_a_training_record_is_refused_with_what_was_seen(log, content, format_name):
    with pytest.raises(LogError, match=f"format '{format_name}', but it holds no training record: found 1 line and"):
        log(content)


def test_a_log_whose_lines_are_all_too_long_is_refused_with_the_reason(log):
    with pytest.raises(LogError, match="lines longer than 1 MiB: 1 skipped, the first on line 2"):
        log('TCAPPDLL {"type": "METADATA"}\n' + "x" * 2 * LONGEST)


FRAGMENTS = st.sampled_from(
    [
        *[
            "TCAPPDLL ",
            "Epoch: ",
            "Iteration: ",
            " rank : ",
            " train.loss : ",
            "nan",
            "1e+05",
            "-",
            "0",
            "17",
            "9" * 30,
        ],
        *["Iter(train) [", "Epoch(train) [1][", "/100]", "]", "  loss: ", "  lr: ", " - mmengine - ", "Iter(val) ["],
        *[
            '{"step": ',
            '{"mode": "train", ',
            '"iter": ',
            '"epoch": ',
            '"loss": ',
            "NaN",
            "Infinity",
            "}",
            "{",
            "[",
            '"',
        ],
        *[
            "iteration,loss\n",
            "iter;loss\n",
            "step\tloss\n",
            ",",
            ";",
            "\t",
            ".",
            "\n",
            "\r",
            "\r\n",
            " ",
            ":",
            "\0",
            "é",
        ],
    ]
)


@FAST
@given(content=st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_log_error(tmp_path, content):
    path = tmp_path / "bytes"
    path.write_bytes(content)
    refuses_or_reads(path)


@settings(FAST, max_examples=600)
@given(parts=st.lists(st.one_of(FRAGMENTS, st.text(max_size=3)), max_size=40))
def test_no_text_that_resembles_a_log_raises_anything_but_a_log_error(tmp_path, parts):
    path = tmp_path / "text"
    path.write_bytes("".join(parts).encode("utf-8", "replace"))
    refuses_or_reads(path)


@settings(FAST, max_examples=400)
@given(rows=st.lists(st.text(alphabet='01.,"; \r\t\\ne-', max_size=20), max_size=5))
@example(rows=["1,0", "0,1"])
@example(rows=["1,0", "0,"])
def test_the_first_row_of_a_table_is_read_whatever_follows_unless_a_second_run_begins(tmp_path, rows):
    path = tmp_path / "table"
    path.write_bytes("\n".join(["iteration,loss", "1,4.5", *rows]).encode())
    try:
        read = read_log(path)
    except LogError as error:
        # Of a second run, the last one is read, and this one holds nothing.
        assert "runs in one file" in str(error)  # noqa: PT017 - most tables are read
    else:
        several = {OddityKind.SEVERAL_RUNS, OddityKind.SHORT_LAST_RUN}
        assert 1 in read.curves["loss"].iterations or several & {each.kind for each in read.oddities}


@FAST
@given(header=st.text(max_size=60), rows=st.lists(st.text(max_size=60), max_size=4))
def test_no_run_directory_raises_anything_but_a_log_error(tmp_path, header, rows):
    (tmp_path / "run.json").write_bytes(header.encode("utf-8", "replace"))
    (tmp_path / "iterations.jsonl").write_bytes("\n".join(rows).encode("utf-8", "replace"))
    refuses_or_reads(tmp_path)
