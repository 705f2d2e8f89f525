"""How logs arrive: through pipes, with the prefixes of launchers and containers, and with the course of a run."""

import gzip
import io
import os
import subprocess
import sys
import threading

import pytest
from conftest import points, remarks

from emacheck.errors import LogError
from emacheck.logs import read_log, several_ranks
from emacheck.logs.prefixes import Stripped, prefixes


def lines(*losses, first=1):
    return "".join(f"Iter {i} loss: {loss}\n" for i, loss in enumerate(losses, first))


# --- pipes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_pipe_is_read_whatever_pieces_it_gives(tmp_path, compress):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = compress(lines(2.5, 2.25).encode())

    def write():
        with path.open("wb", buffering=0) as file:
            for at in range(0, len(content), 3):
                file.write(content[at : at + 3])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert points(read_log(path)) == [(1, 2.5), (2, 2.25)]
    finally:
        writer.join()


def test_compare_reads_what_a_shell_pipes_into_it(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(lines(*(4 - i / 10 for i in range(20))).encode()))
    command = f"{sys.executable} -m emacheck compare <(zcat a.gz) <(zcat b.gz)"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "20 common iterations" in done.stdout, done
    assert done.returncode in (0, 3)


def test_a_pipe_that_must_be_read_twice_is_refused_before_it_is_found_empty(tmp_path):
    ranked = "".join(f"rank {rank} iter {i} loss {i + rank}.5\n" for i in (1, 2) for rank in (0, 1))
    (tmp_path / "a").write_text(ranked)
    command = f"{sys.executable} -m emacheck compare --scoreboard <(cat a) a"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "cannot be read twice: add --rank 0" in done.stderr


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom"])
def test_a_device_is_refused_without_reading_it(device):
    with pytest.raises(LogError, match=r"this is a device or a socket, expected a file, a pipe or a run directory"):
        read_log(device)


# --- prefixes --------------------------------------------------------------------------------------------------------

MMENGINE = "2031/02/03 04:05:06 - mmengine - INFO - Iter(train) [{i}/9]  lr: 1.0e-02  loss: {loss}\n"
TCAP = "TCAPPDLL 2031-02-03 04:05:06.7 - Epoch: 0 Iteration: {i}  rank : {rank}  train.loss : {loss}\n"


@pytest.mark.parametrize(
    "prefix",
    [
        "[rank{rank}]: ",
        "[rank{rank}]:",
        "[default{rank}]:",
        "[1,{rank}]<stdout>:",
        "[7,{rank}]: ",
        "{rank}: ",
        " {rank}: ",
    ],
)
@pytest.mark.parametrize("line", ["iter {i} loss: {loss}\n", MMENGINE, '{{"step": {i}, "train_loss": {loss}}}\n'])
def test_ranks_that_a_launcher_marked_are_read_one_by_one_and_averaged(log, prefix, line):
    text = "".join(
        (prefix + line).format(i=i, rank=rank, loss=float(i + rank))
        for i in (1, 2, 3)
        for rank in ((0, 1) if i < 3 else (1, 0))
    )
    record = log(text)
    assert (record.ranks, points(record)) == (2, [(1, 1.5), (2, 2.5), (3, 3.5)])
    assert "2 ranks are in the log; their mean is shown" in remarks(record)
    assert points(log(text, rank=1)) == [(1, 2.0), (2, 3.0), (3, 4.0)]
    with pytest.raises(LogError, match="found lines of rank 0, 1, expected rank 7"):
        log(text, rank=7)


def test_what_a_record_says_of_its_rank_beats_the_prefix(log):
    text = "".join("[rank0]: " + TCAP.format(i=i, rank=rank, loss=i + rank) for i in (1, 2) for rank in (0, 1))
    assert (log(text).ranks, points(log(text))) == (2, [(1, 1.5), (2, 2.5)])


def test_ranks_without_a_record_do_not_count(log):
    text = "[rank1]: hello\n[rank0]: iter 1 loss: 2.5\n[rank1]: warning: slow\n[rank0]: iter 2 loss: 2.0\n"
    record = log(text)
    assert (record.ranks, points(record)) == (1, [(1, 2.5), (2, 2.0)])
    assert "2 ranks are in the log; rank 0 alone has records" in remarks(record)


def test_a_rank_that_lacks_iterations_limits_the_mean_to_the_common_ones(log):
    text = "".join(f"[rank{rank}]: iter {i} loss: {i}.5\n" for i in (1, 2, 3) for rank in (0, 1) if (i, rank) != (2, 1))
    record = log(text)
    assert points(record) == [(1, 1.5), (3, 3.5)]
    assert "1 that some ranks lack are left out" in remarks(record)


def test_too_many_ranks_are_refused(log, monkeypatch):
    monkeypatch.setattr(several_ranks, "MOST", 3)
    with pytest.raises(LogError, match="more than 3 ranks"):
        log("".join(f"[rank{rank}]: iter 1 loss: 2.5\n" for rank in range(5)))
    with pytest.raises(LogError, match="found 5000 ranks, expected at most 4096"):
        log("".join(f"rank {rank} iter 1 loss: 2.5\n" for rank in range(5000)))


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        ("2031-01-01T00:00:00.123456789Z ", "time stamps"),
        ("2031-01-01T00:00:00+01:00 stdout F ", "time stamps"),
        ("trainer-1  | ", "Compose"),
        ("[pod/train-0/main] ", "kubectl"),
        ("2031-01-01T00:00:00Z [rank0]: ", "time stamps, torchrun"),
    ],
)
@pytest.mark.parametrize(
    "text", ["step,loss\n1,2.5\n2,2.25\n", '{"iter": 1, "loss": 2.5}\n{"iter": 2, "loss": 2.25}\n']
)
def test_prefixes_that_name_no_rank_are_taken_off(log, prefix, kind, text):
    record = log("".join(prefix + line for line in text.splitlines(keepends=True)))
    assert points(record) == [(1, 2.5), (2, 2.25)]
    assert f"a prefix before each line was taken off: {kind}" in remarks(record)


@pytest.mark.parametrize(
    "text",
    [
        "1: loss 2.5\n2: loss 2.25\n3: loss 2.0\n",
        "1: epoch 0 loss 2.5\n2: epoch 0 loss 2.25\n3: epoch 0 loss 2.0\n",
        "[0]\ttrain-loss:2.5\n[1]\ttrain-loss:2.25\n[2]\ttrain-loss:2.0\n",
    ],
)
def test_numbers_that_count_on_are_no_ranks(log, text):
    record = log(text)
    assert record.ranks == 1
    assert record.curves["loss"].values.tolist() == [2.5, 2.25, 2.0]


def test_a_stream_without_prefixes_is_what_it_is_without_them():
    content = b"".join(b"[rank0]: line %d\n" % i for i in range(9999)) + b"[rank0]: torn"
    stripped = Stripped(io.BytesIO(content), prefixes(content))
    pieces = []
    while piece := stripped.read(100):
        pieces.append(piece)
    assert b"".join(pieces) == content.replace(b"[rank0]: ", b"")


# --- the course of a run ---------------------------------------------------------------------------------------------


def test_iterations_that_start_again_in_every_epoch_nobody_names_are_counted_on(log):
    text = "".join(f"Step {i}/3 loss: {9 - epoch - i / 10}\n" for epoch in range(3) for i in (1, 2, 3))
    record = log(text.replace("Step 3/3 loss: 7.7\n", "Step 3/3 loss: 7.7\nval loss: 7.5\n"))
    assert record.curves["loss"].iterations.tolist() == list(range(1, 10))
    assert points(record, validation=True) == [(6, 7.5)]
    assert "the iteration starts again in every epoch" in remarks(record)


def test_three_runs_in_one_file_are_no_epochs(log):
    record = log(lines(9.0, 5.0, 3.0) * 3)
    assert points(record) == [(1, 9.0), (2, 5.0), (3, 3.0)]
    assert "3 runs in one file" in remarks(record)


def test_a_resume_that_goes_back_within_an_epoch_replaces_what_was_before(log):
    before = "".join(f"Epoch {e} iter {i} loss {9 - e - i / 10}\n" for e in (1, 2) for i in (1, 2, 3))
    after = "".join(f"Epoch {e} iter {i} loss {8 - e - i / 10}\n" for e in (2, 3) for i in (1, 2, 3))
    record = log(before + "Resuming from epoch 2\n" + after)
    assert record.curves["loss"].values.tolist() == pytest.approx([7.9, 7.8, 7.7, 5.9, 5.8, 5.7, 4.9, 4.8, 4.7])
    assert "the iteration goes back from 6 to 4, as after a resume" in remarks(record)
    assert "with other values than before: 3" in remarks(record)


def test_lines_that_are_written_twice_are_one_record(log):
    record = log("".join(f"Iter {i} loss: {i}.5\n" * 2 for i in (1, 2, 3)))
    assert points(record) == [(1, 1.5), (2, 2.5), (3, 3.5)]
    assert "all values are the same each time" in remarks(record)


def test_the_same_loss_twice_is_two_records_where_nothing_counts_them(log):
    assert points(log("loss: 2.5\nloss: 2.5\nloss: 2.0\n")) == [(1, 2.5), (2, 2.5), (3, 2.0)]


def test_epochs_that_are_written_twice_are_two_runs_and_not_several_records_of_an_epoch(log):
    record = log("".join(f"Epoch {e} loss {9 - e}.5\n" for e in (1, 2, 3)) * 2)
    assert points(record) == [(1, 8.5), (2, 7.5), (3, 6.5)]
    assert "two runs in one file" in remarks(record)


# --- the loss by another name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("total_loss", "loss_cls"), "total_loss"),
        (("lm loss", "grad norm"), "lm loss"),
        (("loss_ce",), "loss_ce"),
        (("loss_ce", "loss_scale"), "loss_ce"),
        (("loss_a", "loss_b"), None),
    ],
)
def test_the_loss_is_found_by_another_name_or_not_at_all(log, names, taken):
    record = log("".join(f"iter {i} | " + " | ".join(f"{name}: {i}.5" for name in names) + "\n" for i in (1, 2)))
    assert ("loss" in record.curves) == (taken is not None)
    if taken is not None:
        assert points(record) == points(record, taken)
        assert f"no metric is called loss: {taken} is taken for it" in remarks(record)


def test_too_many_metrics_are_left_out(log):
    record = log("".join(f'{{"iteration": {i}, "loss": 2.5, "m{i}": 1}}\n' for i in range(10_050)))
    assert len(record.curves) == 10_000
    assert "values of metrics beyond the first 10000: 51 left out" in remarks(record)
