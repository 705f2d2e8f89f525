"""mmengine's and mmcv's logs, JSON and text."""

import math
import sys

import numpy as np
import pytest
from conftest import points, remarks, said
from log_lines import ITER, MMCV, scalars

# --- mmengine JSON ---------------------------------------------------------------------------------------------------


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
    record = log(
        scalars(*({"loss": loss, "iter": at, "step": at} for loss, at in ((4.5, 50), (4.25, 100), (4.0, 150))))
    )
    assert record.curves["loss"].window == 0
    assert "recorded every 50 iterations" in remarks(record)


def test_mmengine_json_of_a_single_late_record_has_an_unknown_window(log):
    assert log(scalars({"loss": 4.5, "iter": 100, "step": 100})).curves["loss"].window == 0


def test_mmengine_json_of_every_iteration_in_single_precision_is_raw(log):
    record = log(
        scalars(*({"loss": float(np.float32(4.1) / np.float32(n)), "iter": n, "step": n} for n in range(1, 9)))
    )
    assert record.curves["loss"].window == 1
    assert record.oddities == ()


def test_mmengine_json_of_every_iteration_that_is_a_running_mean_has_an_unknown_window(log):
    raw = [float(np.float32(4.1) / np.float32(n)) for n in range(1, 9)]
    record = log(scalars(*({"loss": sum(raw[:n]) / n, "iter": n, "step": n} for n in range(1, 9))))
    assert record.curves["loss"].window == 0
    assert "no single-precision numbers" in remarks(record)


@pytest.mark.parametrize("every", [1, 50])
def test_rows_of_a_step_and_a_loss_without_what_mmengine_always_writes_are_not_taken_for_its_means(log, every):
    record = log(scalars(*({"step": every * n, "loss": 4.1 / n, "lr": 0.1} for n in range(1, 9))))
    assert record.curves["loss"].window == 1
    assert "mmengine" not in remarks(record)
    assert ("recorded every 50 iterations" in remarks(record)) == (every == 50)


def test_torn_and_invalid_json_lines_are_skipped_with_the_first_line_number(log):
    record = log('{"loss": 4.5, "step": 1}\nTraceback\n{"loss": 4.0, "st\n[1]\n{"loss": 3.5, "step": 2}\n{"loss": 3')
    assert points(record) == [(1, 4.5), (2, 3.5)]
    assert "lines that are not a valid JSON object: 3 skipped, the first on line 2" in said(record)
    assert "the last line, 6, is torn and was dropped" in said(record)


def test_deep_nesting_is_skipped_and_an_enormous_integer_never_a_finite_number(log):
    deep = "[" * 100_000
    record = log(f'{{"loss": 4.5, "step": 1}}\n{deep}\n{{"a":{deep}\n{{"loss": {"9" * 5000}, "step": 2}}\n')
    # Before 3.10.7 Python reads integers of any length.
    limited = hasattr(sys, "set_int_max_str_digits")
    assert points(record) == ([(1, 4.5)] if limited else [(1, 4.5), (2, math.inf)])
    assert f"{3 if limited else 2} skipped, the first on line 2" in remarks(record)


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


def test_a_validation_that_mmengine_labels_as_training_is_one_in_a_long_log_too(log):
    scores = "".join(ITER.format(i, f"mIoU: {i % 7}.5000  aAcc: 50.0000") for i in range(1, 1001))
    record = log(scores + "".join(ITER.format(i, "loss: 2.5000") for i in (1001, 1002)))
    assert len(record.validation["mIoU"]) == 1000
    assert set(record.curves) == {"loss"}


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


# --- mmcv text -------------------------------------------------------------------------------------------------------


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
    other = "2031-02-03 04:05:07,1 - mmseg - INFO - acc: 9.0\n"
    record = log(first.rstrip() + "\n" + other + MMCV.format("mmseg", "Iter [100/800]", "loss: 2.4000"))
    assert "acc" not in record.curves


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
