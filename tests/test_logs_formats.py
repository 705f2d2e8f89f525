"""Formats beyond the first six, transport, ranks, validation, headers, and remarks about the course of a run."""

import bz2
import contextlib
import gzip
import io
import json
import lzma
import subprocess
import sys

import numpy as np
import pytest
from conftest import points, remarks, said

from emacheck.errors import LogError, MissingExtraError, UsageError
from emacheck.logs import pattern_text, read_log, transport
from emacheck.logs.lines import without_escapes
from emacheck.logs.reading import reader_names


def tcap(iteration, loss, *, rank=0, epoch=0):
    return (
        f"TCAPPDLL 2031-02-03 04:05:06.7 - Epoch: {epoch} Iteration: {iteration}  rank : {rank}  train.loss : {loss}\n"
    )


# --- mmcv text -------------------------------------------------------------------------------------------------------

MMCV = "2031-02-03 04:05:06,789 - {} - INFO - {}\tlr: 9.746e-03, eta: 1 day, 5:14:00, time: 0.718, memory: 317, {}\n"


@pytest.mark.parametrize("logger", ["mmseg", "mmdet", "mmocr"])
def test_mmcv_text_by_iteration(log, logger):
    record = log(
        MMCV.format(logger, "Iter [50/800]", "decode.loss_ce: 1.5000, loss: 2.5000")
        + MMCV.format(logger, "Iter [100/800]", "decode.loss_ce: 1.2500, loss: nan")
    )
    assert record.format == "mmcv text"
    assert points(record, "decode.loss_ce") == [(50, 1.5), (100, 1.25)]
    assert points(record)[0] == (50, 2.5)
    assert np.isnan(record.curves["loss"].values[1])
    assert set(record.curves) == {"lr", "time", "decode.loss_ce", "loss"}
    assert (record.curves["loss"].window, record.curves["loss"].quantum) == (50, 1e-4)
    assert (record.curves["lr"].window, record.curves["lr"].quantum) == (1, 1e-6)
    assert "line 2: loss is NaN once, the first at iteration 100" in said(record)


def test_mmcv_text_by_epoch_has_one_global_iteration(log):
    record = log("".join(MMCV.format("mmdet", f"Epoch [{e}][{i}/120]", "loss: 2.5") for e in (1, 2) for i in (50, 100)))
    assert record.curves["loss"].iterations.tolist() == [50, 100, 170, 220]


def test_mmcv_text_keeps_the_validation_of_the_same_line_and_of_its_own_apart(log):
    record = log(
        MMCV.format("mmseg", "Iter [50/800]", "loss: 2.5000, decode.loss_ce_val: 0.5, loss_val: 2.7000")
        + "2031-02-03 04:05:06,789 - mmseg - INFO - Iter(val) [16]\taAcc: 0.5000, mIoU: 0.2500\n"
        + MMCV.format("mmseg", "Iter [100/800]", "loss: 2.4000")
    )
    assert points(record) == [(50, 2.5), (100, 2.4)]
    assert points(record, validation=True) == [(50, 2.7)]
    assert points(record, "mIoU", validation=True) == [(50, 0.25)]
    assert "loss_val" not in record.curves


def test_mmcv_text_joins_a_record_that_is_split_over_lines(log):
    first, second = MMCV.format("mmseg", "Iter [50/800]", "loss: 2.5000").split("time:")
    record = log(first.rstrip() + "\n time:" + second + MMCV.format("mmseg", "Iter [100/800]", "loss: 2.4000"))
    assert points(record) == [(50, 2.5), (100, 2.4)]
    assert points(record, "time") == [(50, 0.718), (100, 0.718)]


def test_a_validation_that_is_labelled_as_training_is_a_validation(log):
    record = log(
        MMCV.format("mmseg", "Iter [50/800]", "loss: 2.5000")
        + MMCV.format("mmseg", "Iter [60/800]", "mIoU: 0.25, aAcc: 0.5")
    )
    assert points(record) == [(50, 2.5)]
    assert points(record, "mIoU", validation=True) == [(60, 0.25)]
    assert "labelled as training: 1 taken as validation, the first on line 2" in remarks(record)


def test_a_log_without_a_total_loss_says_so(log):
    record = log(MMCV.format("mmseg", "Iter [50/800]", "a.loss: 1, b.loss: 2"))
    assert "no metric is called loss; there are lr" in remarks(record)


# --- TCAPPDLL JSON ---------------------------------------------------------------------------------------------------


def tcap_json(step, data, *, mark="TCAPPDLL", kind="LOG"):
    return f"{mark} {json.dumps({'timestamp': '1.5', 'type': kind, 'step': step, 'data': data})}\n"


def test_tcap_json_with_its_data_as_python_or_as_an_object(log):
    record = log(
        'TCAPPDLL {"type": "METADATA", "metric": "train.loss", "metadata": {"unit": "", "GOAL": "MINIMIZE"}}\n'
        + tcap_json("PARAMETER", {"lr": 0.1})
        + tcap_json([0, 0], "{'rank': '0', 'train.loss': '4.5', 'train.ips': '12.5 imgs/s'}")
        + tcap_json([0, 1], {"train.loss": 4.25})
        + tcap_json([0, 3], "{'val.loss': '9.0'}")
        + tcap_json([0, 2], "{'train.loss': 'nan'}")
    )
    assert record.format == "TCAPPDLL JSON"
    assert points(record)[:2] == [(0, 4.5), (1, 4.25)]
    assert points(record, "ips") == [(0, 12.5)]
    assert points(record, validation=True) == [(1, 9.0)]
    assert record.header["metadata.train.loss.GOAL"] == "MINIMIZE"
    assert record.header["config.lr"] == "0.1"


def test_tcap_json_averages_ranks_and_counts_epochs_on(log):
    rows = [([e, i], f"{{'rank': '{r}', 'train.loss': '{e + r}'}}") for e in (0, 1) for i in (0, 1) for r in (0, 1)]
    record = log("".join(tcap_json(step, data) for step, data in rows))
    assert points(record) == [(0, 0.5), (1, 0.5), (2, 1.5), (3, 1.5)]
    assert record.ranks == 2


def test_dllogger_without_the_prefix_is_read_as_well(log):
    assert points(log(tcap_json(7, {"loss": 4.5}, mark="DLLL"))) == [(7, 4.5)]


@pytest.mark.parametrize(
    "data", ["{'train.loss': __import__('os')}", "[1]", "{'a': " + "[" * 5000, "x" * 70_000, None, 5, "{1: 2}"]
)
def test_tcap_json_never_evaluates_and_skips_what_is_no_data(log, data):
    assert points(log(tcap_json([0, 0], {"train.loss": 1.5}) + tcap_json([0, 1], data)))[0] == (0, 1.5)


# --- Hugging Face ----------------------------------------------------------------------------------------------------


def trainer_state(*rows, **state):
    return json.dumps({"best_metric": None, "log_history": rows, "logging_steps": 10, **state}, indent=2)


def test_trainer_state_keeps_training_evaluation_and_summary_apart(log):
    record = log(
        trainer_state(
            {"epoch": 0.1, "loss": 7.3816, "grad_norm": 126.740283, "step": 10},
            {"epoch": 0.2, "loss": 1.6274, "step": 20},
            {"epoch": 0.2, "eval_loss": 1.75, "step": 20},
            {"epoch": 0.2, "train_loss": 4.9, "train_runtime": 12.5, "step": 20},
            max_steps=20,
        )
    )
    assert record.format == "Hugging Face trainer state"
    assert points(record) == [(10, 7.3816), (20, 1.6274)]
    assert points(record, validation=True) == [(20, 1.75)]
    assert (record.curves["loss"].window, record.curves["loss"].quantum) == (10, 1e-4)
    assert record.curves["grad_norm"].quantum == 0
    assert record.header["config.max_steps"] == "20"
    assert "summaries of the whole training are left out: 1" in said(record)


@pytest.mark.parametrize("content", ['{"log_history": [', '{"log_history": 5}', '{"log_history": ' + "[" * 10**6])
def test_a_damaged_trainer_state_is_refused(log, content):
    with pytest.raises(LogError):
        log(content)


# --- tables, JSON lines, arrays, free text ---------------------------------------------------------------------------


def test_whitespace_columns_with_names(log):
    record = log("# iter   loss    val_loss\n  1   4.500  5.0\n  2   4.250  nan\n\nnonsense\n")
    assert record.format == "whitespace columns"
    assert points(record) == [(1, 4.5), (2, 4.25)]
    assert points(record, validation=True)[0] == (1, 5.0)
    assert record.curves["loss"].quantum == 1e-3
    assert "lines that are no row of the table: 1 skipped, the first on line 5" in said(record)


def test_whitespace_columns_without_names(log):
    record = log("10 4.5 0.1\n20 4.25 0.1\n30 4.0 0.1\n")
    assert points(record, "column 2") == [(10, 4.5), (20, 4.25), (30, 4.0)]
    assert "the columns have no names: the first is taken for the iteration" in said(record)


def test_json_lines_of_anybody(log):
    record = log(
        '{"iteration": 1, "train": {"loss": 4.5}, "note": "x"}\n{"iteration": 2, "train": {"loss": 4.25}, "lr": 1}\n'
    )
    assert record.format == "JSON lines"
    assert points(record) == [(1, 4.5), (2, 4.25)]


def test_json_lines_by_epoch_tell_training_from_validation(log):
    record = log("".join(json.dumps({"epoch": e, "train_loss": 4.5 - e, "val_loss": 5.0 - e}) + "\n" for e in (1, 2)))
    assert points(record) == [(1, 3.5), (2, 2.5)]
    assert points(record, validation=True) == [(1, 4.0), (2, 3.0)]
    assert "there is no iteration: the epoch is taken for it" in said(record)


def test_arrays_under_titles_are_picked_by_name(tmp_path):
    path = tmp_path / "two.txt"
    path.write_text(
        "=== GPU ===\n4.500000 4.250000\n4.000000\n\n=== NPU ===\n4.400000 4.300000 4.1\n\n=== END ===\nMean: 0.1\n"
    )
    record = read_log(path)
    assert record.format == "arrays of numbers"
    assert list(record.curves) == ["GPU", "NPU"]
    assert "2 arrays are in one file: GPU, NPU" in remarks(record)
    picked = read_log(f"{path}#NPU")
    assert points(picked) == [(1, 4.4), (2, 4.3), (3, 4.1)]
    assert picked.curves["loss"].quantum == 0.1
    with pytest.raises(LogError, match="there is no array 'TPU'"):
        read_log(f"{path}#TPU")


def test_one_array_is_the_loss(log):
    assert points(log("4.5\n4.25\n4.0\n")) == [(1, 4.5), (2, 4.25), (3, 4.0)]


def test_free_text_by_epoch_tells_what_stands_behind_the_validation(log):
    record = log(
        "==== Epoch 0/2 ====\nEpoch[0]: train_loss 4.11 acc1 6.5 | val_loss 4.03 acc1 7.25 lr 0.100\n"
        "==== Epoch 1/2 ====\nEpoch[1]: train_loss 3.37 acc1 17.0 | val_loss 3.48 acc1 15.5 lr 0.100\n"
        "Best val acc1: 15.5\n"
    )
    assert record.format == "free text"
    assert points(record) == [(0, 4.11), (1, 3.37)]
    assert points(record, "acc1") == [(0, 6.5), (1, 17.0)]
    assert points(record, validation=True) == [(0, 4.03), (1, 3.48)]
    assert points(record, "acc1", validation=True) == [(0, 7.25), (1, 15.5)]
    assert (record.curves["loss"].quantum, record.curves["loss"].window) == (0.01, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Loss: 4.5\nLoss: 4.25\n", [(1, 4.5), (2, 4.25)]),
        ("iter 0: loss 4.5, time 3ms\niter 10: loss 4.25, time 3ms\n", [(0, 4.5), (10, 4.25)]),
        ("step=1 train/loss=4.5\nstep=2 train/loss=nan\n", [(1, 4.5), (2, None)]),
        (
            "Epoch: [0][0/5]\tTime 1.0 (1.0)\tLoss 4.5 (4.4)\nEpoch: [1][3/5]\tTime 1.0 (1.0)\tLoss 4.25 (4.4)\n",
            [(0, 4.5), (8, 4.25)],
        ),
        ("Train Epoch: 1 [0/64 (0%)]\tLoss: 4.5\nTrain Epoch: 2 [0/64 (0%)]\tLoss: 4.25\n", [(0, 4.5), (64, 4.25)]),
        (
            "Epoch 1/2\n 9/9 [===] - 3s - loss: 4.5 - val_loss: 5.0\nEpoch 2/2\n 9/9 [===] - 3s - loss: 4.25\n",
            [(1, 4.5), (2, 4.25)],
        ),
        ("epoch 3 iteration 7 training loss: 4.5e0\n", [(7, 4.5)]),
    ],
)
def test_free_text_patterns(log, text, expected):
    found = points(log(text))
    assert [at for at, _ in found] == [at for at, _ in expected]
    assert all(value is None or value == got for (_, value), (_, got) in zip(expected, found, strict=True))


def test_free_text_means_of_an_epoch_are_no_iterations(log):
    record = log("Epoch 1 iter 1 loss 4.5\nEpoch 1 iter 2 loss 4.0\nEpoch 1 done, train_loss 4.25, val_loss 5.5\n")
    assert points(record) == [(1, 4.5), (2, 4.0)]
    assert points(record, validation=True) == [(2, 5.5)]
    assert "are left out: 1" in remarks(record)


def test_prose_about_a_loss_is_no_log(log):
    with pytest.raises(LogError, match="format of this file is not known"):
        log("We were at a loss 3 times.\n")


# --- pattern ---------------------------------------------------------------------------------------------------------


def test_a_pattern_reads_what_no_reader_knows(log):
    text = "it<1> L<4.50> r<1>\nnoise\nit<1> L<4.00> r<0>\nit<2> L<nan> r<0>\nit<2> L<x> r<1>\n"
    pattern = r"it<(?P<iteration>\d+)> L<(?P<loss>[^>]+)> r<(?P<rank>\d)>"
    record = log(text, pattern=pattern)
    assert record.format == "pattern"
    assert points(record) == [(1, 4.25)]
    assert points(log(text, pattern=pattern, rank=0))[0] == (1, 4.0)
    assert record.curves["loss"].quantum == 0.01
    assert "matches with a metric that is not a number: 1 skipped, the first on line 5" in said(record)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "is not valid"),
        (r"(?P<loss>\d+)", "no named group"),
        (r"(?P<iteration>\d+)", "no named group"),
        ("a" * 3000, "2000"),
    ],
)
def test_a_wrong_pattern_is_wrong_usage(log, pattern, words):
    with pytest.raises(UsageError, match=words):
        log("iteration 1 loss 2.5\n", pattern=pattern)


def test_a_catastrophic_pattern_is_stopped(log, monkeypatch):
    monkeypatch.setattr(pattern_text, "SECONDS", 0.5)
    with pytest.raises(LogError, match=r"searched the lines 1 to 2 for more than 0.5 s and was stopped"):
        log("first\n" + "a" * 60 + "!\n", pattern=r"(?P<iteration>\d+)?(?P<loss>(a+)+)$")


# --- readers by name -------------------------------------------------------------------------------------------------


def test_a_reader_is_taken_by_name(log):
    text = MMCV.format("mmseg", "Iter [50/800]", "loss: 2.5")
    assert log(text, reader="mmcv-text").format == "mmcv text"
    with pytest.raises(LogError, match="holds no training record"):
        log(text, reader="tcappdll-text")
    with pytest.raises(UsageError, match=r"there is no reader 'nonsense'. There are: tcappdll-text, "):
        log(text, reader="nonsense")
    with pytest.raises(UsageError, match="not both"):
        log(text, reader="mmcv-text", pattern="x")
    assert "free-text" in reader_names()


# --- transport -------------------------------------------------------------------------------------------------------


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


# --- TensorBoard -----------------------------------------------------------------------------------------------------


def event_file(path, scalars):
    event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(event_pb2.Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())
        for tag, step, value in scalars:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.write(event_pb2.Event(wall_time=1.0, step=step, summary=summary).SerializeToString())
        writer.flush()
    return path


def test_tensorboard_events_are_read(tmp_path):
    scalars = [("train/loss", 1, 4.5), ("train/loss", 2, 4.25), ("val/loss", 2, 5.5), ("lr", 1, 0.5), ("lr", 2, 0.25)]
    path = event_file(tmp_path / "events", scalars)
    record = read_log(path)
    assert record.format == "TensorBoard events"
    assert points(record) == [(1, 4.5), (2, 4.25)]
    assert points(record, "lr") == [(1, 0.5), (2, 0.25)]
    assert points(record, validation=True) == [(2, 5.5)]


@pytest.mark.parametrize("cut", [30, 60, 70, 90, 110])
def test_damaged_tensorboard_events_are_read_up_to_there(tmp_path, cut):
    path = event_file(tmp_path / "events", [("loss", step, 4.5) for step in range(1, 9)])
    data = bytearray(path.read_bytes())
    data[cut : cut + 8] = b"\xff" * 8
    path.write_bytes(data)
    with contextlib.suppress(LogError):
        assert len(read_log(path).curves["loss"]) < 8


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    path = event_file(tmp_path / "events", [("loss", 1, 4.5)])
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_file_loader", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'emacheck\[tensorboard\]'"):
        read_log(path)


# --- the course of a run ---------------------------------------------------------------------------------------------


def test_a_resume_is_remarked_with_its_line_and_the_later_record_wins(log):
    record = log("".join(tcap(i, n) for n, i in enumerate([0, 1, 2, 3, 2, 3, 4])))
    assert points(record) == [(0, 0.0), (1, 1.0), (2, 4.0), (3, 5.0), (4, 6.0)]
    assert "line 5: the iteration goes back from 3 to 2, as after a resume" in said(record)
    assert "later record is used: 2, the first is 2" in remarks(record)


def test_of_two_runs_in_one_file_the_last_is_read(log):
    record = log("".join(tcap(i, n) for n, i in enumerate([0, 1, 2, 3, 0, 1])))
    assert points(record) == [(0, 4.0), (1, 5.0)]
    assert (
        "line 5: two runs in one file, for the iteration starts again at 0: the last one, from line 5 on, is read"
        in said(record)
    )


def test_the_validation_of_the_first_run_is_not_that_of_the_last(log):
    record = log(
        "Iter 1 loss 4.5\nIter 2 loss 4.4 val_loss 9.5\nIter 3 loss 4.0\nIter 1 loss 3.5\nIter 2 loss 3.4\n"
        "Iter 3 loss 3.3 val_loss 8.5\n"
    )
    assert points(record) == [(1, 3.5), (2, 3.4), (3, 3.3)]
    assert points(record, validation=True) == [(3, 8.5)]


def test_gaps_and_missing_losses_are_remarked(log):
    record = log("iteration,loss,acc\n1,4.5,1\n2,,1\n3,4.0,1\n6,3.5,1\n7,3.5,1\n8,3.5,1\n")
    assert "line 5: records are missing between the iterations 3 and 6" in said(record)
    assert "line 3: records without a loss: 1, the first is iteration 2" in said(record)


def test_the_logging_interval_is_remarked(log):
    assert "recorded every 10 iterations" in remarks(log("iter,loss\n10,4.5\n20,4.0\n30,3.5\n"))


# --- header ----------------------------------------------------------------------------------------------------------

ENVIRONMENT = """2031/02/03 04:05:06 - mmengine - INFO -
------------------------------------------------------------
System environment:
    sys.platform: linux
    PyTorch: 9.8.7
    PyTorch compiling details: PyTorch built with:
  - GCC 1.2

Runtime environment:
    seed: 4711
------------------------------------------------------------

2031/02/03 04:05:06 - mmengine - INFO - Config:
crop_size = (
    512,
    118.925,
)
model = dict(
    backbone=dict(depth=50, type='ResNet'),
    heads=[
        dict(channels=8),
    ])
optim_wrapper = dict(optimizer=dict(lr=0.01, betas=(0.9, 0.99)))
danger = __import__('os').system('true')
2031/02/03 04:05:07 - mmengine - INFO - Iter(train) [ 1/20]  loss: 4.5000
"""


def test_the_header_of_mmengine_is_read_and_never_evaluated(log):
    header = log(ENVIRONMENT).header
    assert header["seed"] == "4711"
    assert header["versions.PyTorch"] == "9.8.7"
    assert header["environment.sys.platform"] == "linux"
    assert header["config.model.backbone.type"] == "ResNet"
    assert header["config.model.heads.0.channels"] == "8"
    assert header["config.optim_wrapper.optimizer.lr"] == "0.01"
    assert header["config.crop_size"] == "(512, 118.925)"
    assert header["config.danger"].startswith("__import__")


def test_banners_seeds_and_arguments_are_header(log):
    banner = "------+------\n Host IP | 1.2.3.4\n PyTorch      | 2.4.0\n------+------\n"
    text = (
        banner + "Set random seed to 5, deterministic: False\nNamespace(lr=0.1, name='x')\nresumed epoch 3, iter 77\n"
    )
    header = log(text + tcap(0, 4.5)).header
    assert header["versions.PyTorch"] == "2.4.0"
    assert (header["seed"], header["config.lr"], header["config.name"]) == ("5", "0.1", "x")
    assert header["resumed"] == "resumed epoch 3, iter 77"


def test_the_header_of_mmcv_json_is_read(log):
    first = {"env_info": "sys.platform: linux\nPyTorch: 1.9", "seed": 3, "config": "lr = 0.5\nmodel = dict(a=1)\n"}
    header = log(json.dumps(first) + '\n{"mode": "train", "epoch": 1, "iter": 1, "loss": 4.5}\n').header
    assert header == {
        "environment.sys.platform": "linux",
        "versions.PyTorch": "1.9",
        "seed": "3",
        "config.lr": "0.5",
        "config.model.a": "1",
    }


def test_a_header_is_bounded(log):
    text = "2031/02/03 04:05:06 - mmengine - INFO - Config:\n" + "".join(f"a{i} = '{'x' * 90}'\n" for i in range(2500))
    header = log(text + "2031/02/03 04:05:07 - mmengine - INFO - Iter(train) [ 1/20]  loss: 4.5000\n").header
    assert len(header) == 2000
    assert all(len(value) <= 300 for value in header.values())


def test_reading_rooms_import_neither_pandas_nor_scipy(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("iteration,loss\n1,4.5\n")
    code = (
        "import sys; from emacheck import read_log; read_log(sys.argv[1]); "
        "print({'pandas', 'scipy', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
