"""Reading logs: what each format yields, what is remarked, and how what cannot be read is refused."""

import csv
import io
import json
import math
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import points, remarks, said
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emacheck.errors import LogError
from emacheck.logs import csv_table, read_log
from emacheck.logs.lines import LONGEST
from emacheck.logs.reading import READERS
from emacheck.logs.transport import HEAD
from emacheck.strict_json import encode_value

FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FLOATS = st.floats(allow_nan=True, allow_infinity=True)


def bits(values) -> list[bytes]:
    return [b"nan" if math.isnan(value) else struct.pack("<d", value) for value in values]


# --- mmengine JSON ---------------------------------------------------------------------------------------------------


def scalars(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_mmengine_json_gives_one_curve_per_numeric_key(log):
    record = log(
        scalars(
            {"lr": 0.01, "loss": 4.5, "decode.loss_ce": 3.0, "time": 0.3, "iter": 1, "memory": 900, "step": 1},
            {"lr": 0.009, "loss": 4.25, "decode.loss_ce": 2.5, "time": 0.2, "iter": 2, "memory": 901, "step": 2},
        )
    )
    assert record.format == "mmengine JSON"
    assert set(record.curves) == {"lr", "loss", "decode.loss_ce", "time"}
    assert points(record) == [(1, 4.5), (2, 4.25)]
    assert record.complete


def test_mmengine_json_keeps_validation_rows_out_and_counts_them(log):
    record = log(scalars({"loss": 4.5, "iter": 1, "step": 1}, {"mIoU": 12.5, "aAcc": 50.0, "step": 1}))
    assert "mIoU" not in record.curves
    assert "validation records are kept apart from the training curves: 1" in said(record)


def test_mmengine_json_keeps_nan_and_infinity_as_values(log):
    record = log('{"loss": NaN, "step": 1}\n{"loss": -Infinity, "step": 2}\n{"loss": 1e999, "step": 3}\n')
    values = record.curves["loss"].values
    assert np.isnan(values[0])
    assert values[1:].tolist() == [-math.inf, math.inf]


def test_mmengine_json_at_an_interval_has_an_unknown_window(log):
    record = log(scalars({"loss": 4.5, "step": 50}, {"loss": 4.25, "step": 100}, {"loss": 4.0, "step": 150}))
    assert record.curves["loss"].window == 0
    assert "recorded every 50 iterations" in remarks(record)


def test_mmengine_json_of_a_single_late_record_has_an_unknown_window(log):
    assert log(scalars({"loss": 4.5, "step": 100})).curves["loss"].window == 0


def test_mmengine_json_of_every_iteration_in_single_precision_is_raw(log):
    record = log(scalars(*({"loss": float(np.float32(4.1) / np.float32(n)), "step": n} for n in range(1, 9))))
    assert record.curves["loss"].window == 1
    assert record.oddities == ()


def test_mmengine_json_of_every_iteration_that_is_a_running_mean_has_an_unknown_window(log):
    raw = [float(np.float32(4.1) / np.float32(n)) for n in range(1, 9)]
    record = log(scalars(*({"loss": sum(raw[:n]) / n, "step": n} for n in range(1, 9))))
    assert record.curves["loss"].window == 0
    assert "no single-precision numbers" in remarks(record)


def test_torn_and_invalid_json_lines_are_skipped_with_the_first_line_number(log):
    record = log('{"loss": 4.5, "step": 1}\nTraceback\n{"loss": 4.0, "st\n[1]\n{"loss": 3.5, "step": 2}\n{"loss": 3')
    assert points(record) == [(1, 4.5), (2, 3.5)]
    assert "lines that are not a valid JSON object: 3 skipped, the first on line 2" in said(record)
    assert "the last line, 6, is torn and was dropped" in said(record)


def test_deep_nesting_and_enormous_integers_are_skipped_lines(log):
    deep = "[" * 100_000
    record = log(f'{{"loss": 4.5, "step": 1}}\n{deep}\n{{"a":{deep}\n{{"loss": {"9" * 5000}, "step": 2}}\n')
    assert points(record) == [(1, 4.5)]
    assert "3 skipped, the first on line 2" in remarks(record)


def test_an_integer_beyond_every_float_becomes_infinite(log):
    assert points(log(f'{{"loss": -{"9" * 400}, "step": 1}}\n')) == [(1, -math.inf)]


@pytest.mark.parametrize("step", ["9223372036854775808", "-1e30", "1.5", '"x"', "null", "true", "NaN"])
def test_iterations_that_are_no_64_bit_integer_are_skipped(log, step):
    record = log(f'{{"loss": 4.5, "step": 1}}\n{{"loss": 4.0, "step": {step}}}\n')
    assert points(record) == [(1, 4.5)]
    assert "rows whose step is not an integer of 64 bits: 1 skipped, the first on line 2" in said(record)


def test_of_a_repeated_iteration_the_later_record_is_used(log):
    record = log(scalars(*({"loss": float(n), "step": step} for n, step in enumerate([1, 2, 3, 2, 3]))))
    assert points(record) == [(1, 0.0), (2, 3.0), (3, 4.0)]
    assert "more than once, of which the later record is used: 2, the first is 2" in remarks(record)


def test_a_metric_name_that_cannot_be_encoded_is_made_printable(log):
    record = log('{"loss\\ud800": 4.5, "loss": 4.5, "step": 1}\n')
    assert "loss?" in record.curves


# --- mmengine text ---------------------------------------------------------------------------------------------------

ITER = "2031/02/03 04:05:06 - mmengine - INFO - Iter(train) [{:>5}/20000]  {}\n"


def test_mmengine_text_by_iteration(log):
    record = log(
        ITER.format(50, "lr: 9.7312e-03  eta: 1 day, 11:42:09  time: 0.3100  memory: 57  loss: 2.5000  acc: 61.0000")
        + ITER.format(100, "lr: 9.4625e-03  eta: 0:52:17  time: 0.3107  memory: 57  loss: 2.2504  acc: 62.1000")
    )
    assert record.format == "mmengine text"
    assert set(record.curves) == {"lr", "time", "loss", "acc"}
    assert points(record) == [(50, 2.5), (100, 2.2504)]
    assert record.curves["loss"].window == 0
    assert "recorded every 50 iterations" in remarks(record)


def test_mmengine_text_carries_the_quantum_of_its_decimals(log):
    record = log(
        ITER.format(1, "lr: 9.7312e-03  loss: 2.5000  grad_norm: nan")
        + ITER.format(2, "lr: 9.7312e-05  loss: inf  grad_norm: 12")
    )
    assert record.curves["loss"].quantum == 1e-4
    assert record.curves["lr"].quantum == 1e-7
    assert record.curves["grad_norm"].quantum == 0.0


def test_mmengine_text_by_epoch_counts_the_iteration_on(log):
    line = "07/26 07:57:35 - mmengine - INFO - Epoch(train)  [{}][{:>3}/120]  lr: 1.0000e-02  loss: {}\n"
    record = log(line.format(1, 60, "3.0") + line.format(1, 120, "nan") + line.format(12, 60, "-inf"))
    assert record.curves["loss"].iterations.tolist() == [60, 120, 11 * 120 + 60]
    assert np.isnan(record.curves["loss"].values[1])
    assert record.curves["loss"].values[2] == -math.inf


def test_mmengine_text_with_two_learning_rates(log):
    record = log(ITER.format(50, "base_lr: 1.5000e-06 lr: 3.0000e-06  eta: 2:48:05  loss: 0.2340"))
    assert points(record, "base_lr") == [(50, 1.5e-06)]
    assert points(record, "lr") == [(50, 3e-06)]


def test_mmengine_text_keeps_validation_out(log):
    validation = "2031/02/03 04:05:06 - mmengine - INFO - Iter(val) [{}/20]    {}\n"
    record = log(
        ITER.format(50, "loss: 2.5000")
        + validation.format(10, "eta: 0:00:19  time: 0.0273  data_time: 0.0012  memory: 615  ")
        + validation.format(20, "eta: 0:00:00  time: 0.0273  data_time: 0.0012  memory: 615  ")
        + validation.format(20, "aAcc: 42.0  mIoU: 5.2  loss: 9.0  data_time: 0.0012  time: 0.0271")
    )
    assert points(record) == [(50, 2.5)]
    assert "mIoU" not in record.curves
    assert "validation records are kept apart from the training curves: 1" in said(record)


def test_mmengine_text_is_found_inside_other_text(log):
    record = log(
        "pip says hello: 5\nstep | 12 | " + ITER.format(50, "loss: 2.5000").strip() + " - mmengine - loss: 7.0\nbye\n"
    )
    assert points(record) == [(50, 2.5)]


def test_two_mmengine_records_on_one_line_are_two(log):
    record = log(ITER.format(50, "loss: 2.5000").strip() + " " + ITER.format(100, "loss: 2.0000"))
    assert points(record) == [(50, 2.5), (100, 2.0)]


@pytest.mark.parametrize("number", ["99999999999999999999", "9" * 6000])
def test_mmengine_text_skips_iterations_beyond_64_bits(log, number):
    record = log(ITER.format(50, "loss: 2.5000") + ITER.format(number, "loss: 2.0000"))
    assert points(record) == [(50, 2.5)]
    assert "1 skipped, the first on line 2" in remarks(record)


def test_a_record_that_the_end_of_the_file_cuts_off_is_dropped(log):
    record = log(
        ITER.format(50, "loss: 2.5000  acc: 61.0000") + ITER.format(100, "loss: 2.2504  acc: 61.").split(" acc")[0]
    )
    assert points(record) == [(50, 2.5)]
    assert "the file ends inside the record of iteration 100, which was dropped" in said(record)


# --- mmcv JSON -------------------------------------------------------------------------------------------------------


def mmcv(mode: str, epoch: int, iteration: int, **metrics: float) -> dict:
    return {"mode": mode, "epoch": epoch, "iter": iteration, "memory": 5, **metrics}


def test_mmcv_json_of_an_iteration_based_run_is_taken_as_it_is(log):
    record = log(
        scalars(
            {"env_info": "sys.platform: linux", "seed": 3},
            {},
            mmcv("train", 1, 50, loss=2.5, lr=0.01),
            mmcv("train", 2, 100, loss=2.25, lr=0.01),
            mmcv("val", 2, 7, mIoU=0.25),
        )
    )
    assert record.format == "mmcv JSON"
    assert points(record) == [(50, 2.5), (100, 2.25)]
    assert set(record.curves) == {"loss", "lr"}
    assert "validation records are kept apart from the training curves: 1" in said(record)


def test_mmcv_json_of_an_epoch_based_run_counts_the_iteration_on(log):
    rows = [mmcv("train", epoch, i, loss=float(epoch * i)) for epoch in (1, 2, 3) for i in (50, 100, 117)]
    record = log(scalars(*rows, mmcv("train", 4, 50, loss=9.0)))
    assert record.curves["loss"].iterations.tolist() == [50, 100, 117, 167, 217, 234, 284, 334, 351, 401]
    assert "117 iterations" in remarks(record)


def test_mmcv_json_states_its_window_and_its_five_decimals(log):
    record = log(scalars(mmcv("train", 1, 50, loss=2.51234, lr=0.01), mmcv("train", 1, 100, loss=2.25, lr=0.01)))
    assert (record.curves["loss"].window, record.curves["loss"].quantum) == (50, 1e-5)
    assert record.curves["lr"].window == 1
    assert "mmcv averages each value over all of them" in remarks(record)


def test_mmcv_json_with_more_decimals_is_not_taken_for_rounded(log):
    assert log(scalars(mmcv("train", 1, 1, loss=2.5123456789))).curves["loss"].quantum == 0.0


def test_mmcv_json_with_an_absurd_epoch_loses_that_row_only(log):
    rows = [mmcv("train", 1, 1, loss=3.0), mmcv("train", 2, 1, loss=2.0), mmcv("train", 2**62, 8, loss=1.0)]
    record = log(scalars(*rows))
    assert points(record) == [(1, 3.0), (9, 2.0)]
    assert "rows whose epoch is no epoch of a training: 1 skipped" in said(record)


# --- TCAPPDLL text ---------------------------------------------------------------------------------------------------


def tcap(iteration: object, loss: object, *, rank: int = 0, epoch: int = 0, spelling: str = " : ") -> str:
    return (
        f"TCAPPDLL 2031-02-03 04:05:06.000007 - Epoch: {epoch} Iteration: {iteration}  rank{spelling}{rank}  "
        f"train.loss : {loss}  train.ips : 12.5 imgs/s train.total_time : 0.125 "
    )


def test_tcap_text_gives_the_training_metrics_and_keeps_iterations_from_zero(log):
    record = log(tcap(0, 4.5) + "\n" + tcap(1, 4.25, spelling=": ") + "\n")
    assert record.format == "TCAPPDLL text"
    assert list(record.curves) == ["loss", "ips", "total_time"]
    assert points(record) == [(0, 4.5), (1, 4.25)]
    assert (record.curves["loss"].window, record.curves["loss"].quantum) == (1, 0.0)


def test_tcap_text_of_several_ranks_is_their_mean_or_the_one_that_is_picked(log):
    text = "\n".join(tcap(i, 10 * i + 2 * rank, rank=rank) for i in range(3) for rank in (2, 0, 1)) + "\n"
    record = log(text)
    assert points(record) == [(0, 2.0), (1, 12.0), (2, 22.0)]
    assert record.ranks == 3
    assert "3 ranks are in the log; their mean is shown, at the iterations all have" in said(record)
    picked = log(text, rank=0)
    assert points(picked) == [(0, 0.0), (1, 10.0), (2, 20.0)]
    assert "3 ranks are in the log; rank 0 is shown" in said(picked)


def test_a_mean_is_taken_at_the_iterations_that_all_ranks_have(log):
    rows = [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (3, 0), (3, 1)]
    record = log("\n".join(tcap(i, i + rank, rank=rank) for i, rank in rows) + "\n")
    assert points(record) == [(0, 0.5), (1, 1.5), (3, 3.5)]
    assert "1 that some ranks lack are left out" in remarks(record)


def test_ranks_without_a_common_iteration_have_no_mean(log):
    text = tcap(0, 4.5, rank=3) + "\n" + tcap(1, 4.5, rank=1)
    with pytest.raises(LogError, match="2 ranks that have no iteration in common"):
        log(text)
    assert points(log(text, rank=3)) == [(0, 4.5)]


def test_a_rank_that_is_not_in_the_log_is_refused(log):
    with pytest.raises(LogError, match="found records of rank 1, 3, expected rank 0"):
        log(tcap(0, 4.5, rank=3) + "\n" + tcap(0, 4.5, rank=1), rank=0)


def test_two_tcap_records_on_one_line_are_two(log):
    text = tcap(0, 4.5, rank=2) + tcap(0, 4.0) + "\n\n" + tcap(1, 3.5).rstrip() + tcap(1, 3.0, rank=2) + "\n"
    record = log(text, rank=0)
    assert points(record) == [(0, 4.0), (1, 3.5)]


@pytest.mark.parametrize(
    "bar", [" 28%|##  | 56/200 [05:58<00:24, 5.87it/s, loss=297]", "\r 1%, loss: 9\r 2%, loss: 8\r"]
)
def test_a_tcap_record_at_the_end_of_a_progress_bar_is_found(log, bar):
    assert points(log(bar * 3 + tcap(0, 4.5) + "\n" + tcap(1, 4.25) + " 29%|### | loss=150\n")) == [(0, 4.5), (1, 4.25)]


@pytest.mark.parametrize(
    ("text", "value"),
    [("nan", math.nan), ("inf", math.inf), ("-inf", -math.inf), ("1e+05", 1e5), ("-2.5E-07", -2.5e-7)],
)
def test_tcap_text_reads_every_way_to_write_a_float(log, text, value):
    assert log(tcap(0, text) + "\n").curves["loss"].values.tolist() == pytest.approx([value], nan_ok=True, rel=0)


def test_a_tcap_log_with_mmengine_records_is_tcap_and_leaves_those_out(log):
    record = log(ITER.format(50, "loss: 9.0000") + tcap(49, 4.5) + "\n" + tcap(50, 4.25) + "\n")
    assert record.format == "TCAPPDLL text"
    assert points(record) == [(49, 4.5), (50, 4.25)]
    assert (
        "training records of mmengine, which are means of several iterations, are not part of the curves: 1 left out"
        in said(record)
    )


def test_a_tcap_log_is_known_behind_a_long_preamble(log):
    preamble = "2031/02/03 04:05:06 - mmengine - INFO - conv.weight - torch.Size([64, 3, 7, 7])\n" * 3000
    assert log(preamble + tcap(0, 4.5) + "\n").format == "TCAPPDLL text"


def test_tcap_iterations_that_start_again_in_every_epoch_are_counted_on(log):
    record = log("\n".join(tcap(i, epoch + i / 10, epoch=epoch) for epoch in (0, 1) for i in range(3)) + "\n")
    assert points(record) == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 1.0), (4, 1.1), (5, 1.2)]
    assert "the iteration starts again in every epoch" in remarks(record)


def test_tcap_metadata_and_metrics_that_are_no_number_are_remarked(log):
    record = log('TCAPPDLL {"type": "METADATA"}\n' + tcap(0, "None") + "\n" + tcap(1, 4.5) + "\n" + tcap("x", 1) + "\n")
    assert points(record) == [(1, 4.5)]
    assert len(record.curves["ips"]) == 2
    assert "values that are no number: 1 left out, the first on line 2" in said(record)
    assert "is not an integer of 64 bits: 1 skipped, the first on line 4" in remarks(record)


# --- CSV -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["iteration", "iter", "Step", "GLOBAL_STEP"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_takes_its_iterations_from_a_column_of_that_name(log, column, separator):
    rows = [["loss", column, "lr"], ["4.5", "1", "0.01"], ["4.25", "2", "1e-2"]]
    record = log("\n".join(separator.join(row) for row in rows) + "\n")
    assert record.format == "CSV"
    assert points(record) == [(1, 4.5), (2, 4.25)]
    assert points(record, "lr") == [(1, 0.01), (2, 0.01)]


def test_csv_tells_an_empty_cell_from_nan(log):
    record = log("iteration,loss,acc\n1,4.5,\n2,nan,50\n3,,51\n4,NaN,52\n5,-inf,1e999\n")
    assert record.curves["loss"].iterations.tolist() == [1, 2, 4, 5]
    assert np.isnan(record.curves["loss"].values[1:3]).all()
    assert points(record, "acc") == [(2, 50.0), (3, 51.0), (4, 52.0), (5, math.inf)]


def test_csv_names_its_columns_of_text_and_its_stray_texts(log):
    record = log("iteration,loss,phase\n1,4.5,train\n2,NA,train\n3,4.0,train\n")
    assert set(record.curves) == {"loss"}
    assert points(record) == [(1, 4.5), (3, 4.0)]
    assert "columns without a number are not read: phase" in said(record)
    assert "cells of column loss that are not a number: 1 left out, the first on line 3" in said(record)


def test_csv_without_a_column_of_iterations_is_refused_with_its_columns(log):
    with pytest.raises(LogError, match=r"no column of iterations. Its columns are: time, speed. Expected one of: iter"):
        log("time,speed\n1,4.5\n")


def test_csv_lines_of_another_width_are_skipped(log):
    record = log('iteration,loss,acc\n1,4.5,1\n2,4.0\n3,3.5,1,1\n4,"3.0\n\n5,"2.5",1\n')
    assert points(record) == [(1, 4.5), (5, 2.5)]
    assert "lines that have not as many cells as the header: 3 skipped, the first on line 3" in said(record)


def test_csv_lines_with_nul_characters_are_skipped():
    record = csv_table.read(["iteration,loss\n", "1,4.5\n", "2,\0\0\n", "3,4.0\n"], "table")
    assert points(record) == [(1, 4.5), (3, 4.0)]


def test_csv_with_quotes_spaces_marks_and_carriage_returns(log):
    record = log('\ufeff"Step", "run, a - loss"\r\n1, 4.5\r\n"2","4.25"\r\n')
    assert points(record, "run, a - loss") == [(1, 4.5), (2, 4.25)]


def test_csv_joins_the_rows_of_one_iteration_that_complement_each_other(log):
    record = log("step,train_loss,val_loss\n49,4.5,\n49,,5.5\n99,4.0,\n99,3.5,\n")
    assert points(record) == [(49, 4.5), (99, 3.5)]
    assert record.validation["loss"].values.tolist() == [5.5]
    assert record.validation["loss"].iterations.tolist() == [49]
    assert "later record is used: 1, the first is 99" in remarks(record)


def test_csv_columns_of_the_same_or_no_name_are_told_apart(log):
    record = log(",iteration,loss,loss\n0,1,4.5,4.25\n")
    assert list(record.curves) == ["column 1", "loss", "loss (column 4)"]


def test_a_table_of_a_million_columns_is_refused_at_once(log):
    with pytest.raises(LogError, match="format of this file is not known"):
        log("iteration,loss" + "," * 1_000_000 + "\n1,2" + "," * 1_000_000 + "\n")


def test_csv_skips_iterations_that_are_no_integer(log):
    record = log("iteration,loss\n1,4.5\n2.5,4\n99999999999999999999,4\n,4\n3.0,4.0\n")
    assert points(record) == [(1, 4.5), (3, 4.0)]
    assert "rows whose iteration is not an integer of 64 bits: 3 skipped, the first on line 3" in said(record)


@FAST
@given(values=st.lists(FLOATS, min_size=1, max_size=30))
def test_csv_keeps_every_bit(tmp_path, values):
    path = tmp_path / "table"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["iteration", "loss"], *enumerate(map(repr, values), 1)])
    assert bits(read_log(path).curves["loss"].values) == bits(values)


# --- run directory ---------------------------------------------------------------------------------------------------


def make_run(folder: Path, rows: list[dict], **header: object) -> Path:
    described = {"format_version": 1, "complete": True, "provenance": {"device": "cpu"}, "initial_state": "ab" * 32}
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**described, "iterations": len(rows), **header}))
    (folder / "iterations.jsonl").write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    return folder


def iteration(number: int, *, batch: str | None = None, **metrics: float) -> dict:
    return {"iteration": number, "batch": batch, "metrics": {k: encode_value(v) for k, v in metrics.items()}}


def test_run_directory_is_read_with_provenance_and_fingerprints(tmp_path):
    rows = [iteration(1, batch="aa", loss=4.5, grad_norm=math.nan), iteration(2, batch="bb", loss=math.inf)]
    record = read_log(make_run(tmp_path / "run", rows))
    assert record.format == "emacheck run"
    assert record.name == str(tmp_path / "run")
    assert points(record) == [(1, 4.5), (2, math.inf)]
    assert np.isnan(record.curves["grad_norm"].values[0])
    assert record.provenance == {"device": "cpu"}
    assert record.initial_state == "ab" * 32
    assert record.batches == ("aa", "bb")
    assert record.complete
    assert tuple(map(str, record.oddities)) == (
        "line 2: loss is infinite once, the first at iteration 2",
        "line 1: grad_norm is NaN once, the first at iteration 1",
    )


def test_run_directory_that_says_so_is_not_complete(tmp_path):
    record = read_log(make_run(tmp_path, [iteration(1, loss=4.5)], complete=False, initial_state=None))
    assert not record.complete
    assert record.initial_state is None
    assert tuple(map(str, record.oddities)) == ("the run ended before its time",)


def test_run_directory_without_its_header_is_not_complete(tmp_path):
    make_run(tmp_path, [iteration(1, loss=4.5)])
    (tmp_path / "run.json").unlink()
    record = read_log(tmp_path)
    assert not record.complete
    assert "run.json is missing" in remarks(record)


def test_run_directory_with_fewer_iterations_than_it_counts_is_not_complete(tmp_path):
    record = read_log(make_run(tmp_path, [iteration(1, loss=4.5)], iterations=2))
    assert not record.complete
    assert tuple(map(str, record.oddities)) == ("run.json counts 2 iterations, iterations.jsonl holds 1",)


def test_run_directory_drops_a_torn_last_line_and_skips_a_broken_one(tmp_path):
    make_run(tmp_path, [iteration(1, loss=4.5), iteration(2, loss=4.0), iteration(3, loss=3.5)], complete=False)
    lines = (tmp_path / "iterations.jsonl").read_text().splitlines()
    (tmp_path / "iterations.jsonl").write_text(f'{lines[0]}\n{{"metrics": NaN}}\n{lines[1]}\n{lines[2][:-9]}')
    record = read_log(tmp_path)
    assert points(record) == [(1, 4.5), (2, 4.0)]
    assert "the last line, 4, is torn and was dropped" in said(record)
    assert "lines that are not the JSON object of an iteration: 1 skipped, the first on line 2" in said(record)


def test_run_directory_with_a_batch_that_has_no_hash_has_no_batches(tmp_path):
    assert read_log(make_run(tmp_path, [iteration(1, batch="aa", loss=4.5), iteration(2, loss=4.0)])).batches == ()


def test_run_directory_of_another_format_version_is_refused(tmp_path):
    make_run(tmp_path, [iteration(1, loss=4.5)], format_version=2)
    with pytest.raises(LogError, match=r"run.json: found format_version 2, expected 1. Use the version"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("complete", "yes"), ("provenance", []), ("initial_state", 5), ("iterations", None)]
)
def test_run_directory_with_a_damaged_header_is_refused(tmp_path, key, value):
    make_run(tmp_path, [iteration(1, loss=4.5)], **{key: value})
    with pytest.raises(LogError, match=rf"run.json: {key}: found"):
        read_log(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"format_version": ' + "1" * 5000 + "}"])
def test_run_directory_with_a_header_that_is_no_json_is_refused(tmp_path, content):
    make_run(tmp_path, [iteration(1, loss=4.5)])
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(LogError, match="expected the description of a run"):
        read_log(tmp_path)


def test_run_directory_without_an_iteration_is_refused(tmp_path):
    with pytest.raises(LogError, match="it holds no training record"):
        read_log(make_run(tmp_path, []))
    (tmp_path / "iterations.jsonl").unlink()
    with pytest.raises(LogError, match=r"found run.json but no iterations.jsonl"):
        read_log(tmp_path)


def test_the_iterations_file_alone_leads_to_its_directory(tmp_path):
    make_run(tmp_path, [iteration(1, loss=4.5)])
    with pytest.raises(LogError, match="give the directory that it is in"):
        read_log(tmp_path / "iterations.jsonl")


def test_a_directory_that_is_no_run_is_refused_with_what_it_holds(tmp_path):
    with pytest.raises(LogError, match=r"expected run.json and iterations.jsonl, found nothing"):
        read_log(tmp_path)
    (tmp_path / "notes.txt").touch()
    make_run(tmp_path / "candidate", [iteration(1, loss=4.5)])
    with pytest.raises(LogError, match=r"found candidate/, notes.txt") as caught:
        read_log(tmp_path)
    assert f"Perhaps you mean {tmp_path / 'candidate'}" in str(caught.value)


def test_a_work_directory_of_mmengine_leads_to_its_scalars(tmp_path):
    scalars_file = tmp_path / "20310203" / "vis_data" / "scalars.json"
    scalars_file.parent.mkdir(parents=True)
    scalars_file.touch()
    with pytest.raises(LogError, match="Perhaps you mean") as caught:
        read_log(tmp_path)
    assert str(scalars_file) in str(caught.value)


@FAST
@given(values=st.lists(FLOATS, min_size=1, max_size=30))
def test_run_directory_keeps_every_bit(tmp_path, values):
    record = read_log(make_run(tmp_path, [iteration(at, loss=value) for at, value in enumerate(values, 1)]))
    assert bits(record.curves["loss"].values) == bits(values)


@pytest.mark.parametrize("value", ['"nan"', "null", "true", "[1.0]", "9" * 400])
def test_run_directory_skips_values_that_stand_for_no_number(tmp_path, value):
    make_run(tmp_path, [iteration(1, loss=4.5)], iterations=2)
    with (tmp_path / "iterations.jsonl").open("a") as file:
        file.write(f'{{"iteration": 2, "batch": null, "metrics": {{"loss": {value}, "lr": 0.5}}}}\n')
    record = read_log(tmp_path)
    assert points(record) == [(1, 4.5)]
    assert points(record, "lr") == [(2, 0.5)]
    assert "values of loss that are not a number: 1 skipped, the first on line 2" in said(record)


# --- every text ------------------------------------------------------------------------------------------------------


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
    assert points(log("\r 5%|#   | loss=297" * 200_000 + tcap(0, 4.5) + "\n")) == [(0, 4.5)]


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


def test_reading_room_is_cheap_to_enter():
    code = "import sys, emacheck.logs; print([m for m in ('pandas', 'torch', 'matplotlib') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "[]\n"


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
    with pytest.raises(LogError, match=f"format '{format_name}', but it holds no training record: found 1 lines and"):
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


def refuses_or_reads(path: Path) -> None:
    try:
        record = read_log(path)
    except LogError:
        return
    assert all(len(curve) for curve in record.curves.values())


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
def test_no_table_raises_anything_but_a_log_error(tmp_path, rows):
    path = tmp_path / "table"
    path.write_bytes("\n".join(["iteration,loss", "1,4.5", *rows]).encode())
    assert 1 in read_log(path).curves["loss"].iterations


@FAST
@given(header=st.text(max_size=60), rows=st.lists(st.text(max_size=60), max_size=4))
def test_no_run_directory_raises_anything_but_a_log_error(tmp_path, header, rows):
    (tmp_path / "run.json").write_bytes(header.encode("utf-8", "replace"))
    (tmp_path / "iterations.jsonl").write_bytes("\n".join(rows).encode("utf-8", "replace"))
    refuses_or_reads(tmp_path)
