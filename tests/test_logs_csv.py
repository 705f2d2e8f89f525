"""Tables of values that are separated by commas, semicolons or tabulators."""

import csv
import json
import math

import numpy as np
import pytest
from conftest import points, remarks, said
from hypothesis import given
from hypothesis import strategies as st
from log_lines import FAST, FLOATS, bits

from emacheck.errors import LogError
from emacheck.logs import read_log
from emacheck.logs.formats import csv_table
from emacheck.oddity import OddityKind


@pytest.mark.parametrize("column", ["iteration", "iter", "Step", "GLOBAL_STEP"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_takes_its_iterations_from_a_column_of_that_name(log, column, separator):
    rows = [["loss", column, "lr"], ["4.5", "1", "0.01"], ["4.25", "2", "1e-2"]]
    record = log("\n".join(separator.join(row) for row in rows) + "\n")
    assert record.format == "CSV"
    assert points(record) == [(1, 4.5), (2, 4.25)]
    assert points(record, "lr") == [(1, 0.01), (2, 0.01)]


def test_a_step_that_starts_anew_in_each_epoch_gives_way_to_a_global_step_in_tables_and_json_lines_alike(log):
    rows = [(0, 0, 1, 4.5), (0, 1, 2, 4.25), (1, 0, 3, 4.0), (1, 1, 4, 3.75)]
    names = ("epoch", "step", "global_step", "loss")
    table = log("\n".join(",".join(map(str, row)) for row in (names, *rows)) + "\n")
    json_lines = log("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows) + "\n")
    assert (table.format, json_lines.format) == ("CSV", "JSON lines")
    assert points(table) == points(json_lines) == [(1, 4.5), (2, 4.25), (3, 4.0), (4, 3.75)]
    assert remarks(table) == remarks(json_lines) == ""


def test_csv_tells_an_empty_cell_from_nan(log):
    record = log("iteration,loss,acc\n1,4.5,\n2,nan,50\n3,,51\n4,NaN,52\n5,-inf,1e999\n")
    assert record.curves["loss"].iterations.tolist() == [1, 2, 4, 5]
    assert np.isnan(record.curves["loss"].values[1:3]).all()
    assert points(record, "acc") == [(2, 50.0), (3, 51.0), (4, 52.0), (5, math.inf)]


def test_csv_names_its_columns_of_text_and_its_stray_texts(log):
    record = log("iteration,loss,host\n1,4.5,a\n2,NA,a\n3,4.0,b\n")
    assert set(record.curves) == {"loss"}
    assert points(record) == [(1, 4.5), (3, 4.0)]
    assert "columns without a number are not read: host" in said(record)
    assert "values of loss that are no number: 1 left out ('NA'), the first on line 3" in said(record)


def test_csv_without_a_column_of_iterations_is_refused_with_its_columns(log):
    with pytest.raises(LogError, match=r"no column of iterations. Its columns are: time, speed. Expected one of: iter"):
        log("time,speed\n1,4.5\n")


@pytest.mark.parametrize("header", ["phase,iteration,loss", "iteration,Split,loss", "iteration  mode  loss"])
def test_rows_of_a_table_that_say_so_are_of_a_validation(log, header):
    rows = [("1", "train", "4.5"), ("2", "train", "4.25"), ("2", "val", "5.5"), ("3", "train", "4.0")]
    phase_first, apart = header.startswith("phase"), "," if "," in header else "  "
    text = [apart.join((phase, at, loss) if phase_first else (at, phase, loss)) for at, phase, loss in rows]
    record = log("\n".join([header, *text]) + "\n")
    assert points(record) == [(1, 4.5), (2, 4.25), (3, 4.0)]
    assert points(record, validation=True) == [(2, 5.5)]
    assert [each.kind for each in record.oddities] == [OddityKind.VALIDATION_APART]


def test_rows_with_parts_of_epochs_are_counted_and_none_is_dropped(log):
    record = log("epoch,loss\n0.0,4.5\n0.5,4.25\n1.0,4.0\n1.5,3.75\n")
    assert points(record) == [(1, 4.5), (2, 4.25), (3, 4.0), (4, 3.75)]
    assert set(record.curves) == {"loss"}
    assert "the rows have no iteration: they are counted from 1" in said(record)


def test_the_iterations_of_the_trainer_in_a_chart_are_iterations(log):
    record = log(
        '"train/global_step","a - train/loss","a - train/loss__MIN","a - train/loss__MAX"\n"50","4.5","4.5","4.5"\n'
    )
    assert points(record) == [(50, 4.5)]


def test_numbers_with_a_decimal_comma_are_refused_with_what_to_do(log):
    with pytest.raises(LogError, match="numbers with a comma, such as 4,5, are not read: write them with a point"):
        log("Iteration;Loss\r\n1;4,5\r\n2;4,25\r\n")


def test_a_table_without_a_loss_is_read_and_says_what_there_is(log):
    record = log("iteration,acc\n1,0.5\n2,0.625\n")
    assert points(record, "acc") == [(1, 0.5), (2, 0.625)]
    assert said(record) == ["no metric is called loss; there is acc"]


def test_columns_of_the_same_name_are_said(log):
    assert "several columns have one name, which the first keeps: loss (column 3)" in said(
        log("step,loss,loss\n1,4,5\n")
    )


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


def test_csv_whose_last_run_holds_no_number_is_refused_for_that(log):
    with pytest.raises(LogError, match=r"no training record: found 4 lines(?s:.*)two runs in one file"):
        log("iteration,loss\n1,4.5\n10,\n0,\n")


@FAST
@given(values=st.lists(FLOATS, min_size=1, max_size=30))
def test_csv_keeps_every_bit(tmp_path, values):
    path = tmp_path / "table"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["iteration", "loss"], *enumerate(map(repr, values), 1)])
    assert bits(read_log(path).curves["loss"].values) == bits(values)


def chart(*runs, least=lambda loss: loss):
    """Return a chart as Weights & Biases exports it."""
    head = "".join(f',"{run} - train/loss","{run} - train/loss__MIN","{run} - train/loss__MAX"' for run in runs)
    rows = (
        f'"{n}"' + "".join(f',"{loss}","{least(loss)}","{loss}"' for loss in (5 - n - at for at, _ in enumerate(runs)))
        for n in range(1, 4)
    )
    return f'"Step"{head}\n' + "\n".join(rows) + "\n"


def test_a_chart_of_one_run_of_wandb_holds_its_metric_without_the_name_of_the_run_and_without_ranges(log):
    record = log(chart("brave - sun-1"))
    assert set(record.curves) == {"loss"}
    assert points(record) == [(1, 4.0), (2, 3.0), (3, 2.0)]
    assert record.curves["loss"].window == 1
    assert "the least and the largest of each point are left out: 2 columns" in remarks(record)


def test_points_of_a_wandb_chart_that_stand_for_several_iterations_have_an_unknown_window(log):
    record = log(chart("a", least=lambda loss: loss - 0.5))
    assert record.curves["loss"].window == 0
    assert "points stand for several iterations" in remarks(record)


def test_one_column_of_a_table_of_several_runs_is_taken_as_the_loss(tmp_path):
    file = tmp_path / "chart.csv"
    file.write_text(chart("cuda", "sdaa"), encoding="utf-8")
    both = read_log(file)
    assert "loss" not in both.curves
    assert f"name a column behind the path to take it as the loss: {file}#cuda - train/loss" in remarks(both)
    record = read_log(f"{file}#sdaa - train/loss")
    assert points(record) == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert "name a column" not in remarks(record)
    with pytest.raises(LogError, match=r"no column 'npu' in this file. Found: Step, cuda - train/loss, "):
        read_log(f"{file}#npu")


@pytest.mark.parametrize(
    ("column", "found"), [("train_loss", [4.5, 4.0]), ("val_loss", [9.0]), ("acc # 1", [0.5, 0.75])]
)
def test_any_column_of_a_table_is_taken_as_the_loss_by_its_name_in_the_file(tmp_path, column, found):
    file = tmp_path / "a#b.csv"
    file.write_text("step,train_loss,val_loss,acc # 1\n1,4.5,,0.5\n2,4.0,9.0,0.75\n", encoding="utf-8")
    record = read_log(f"{file}#{column}")
    assert record.curves["loss"].values.tolist() == found
    assert (set(record.curves), record.validation, record.blank.tolist()) == ({"loss"}, {}, [])


def test_a_table_of_validations_alone_is_refused_with_how_to_judge_them(log):
    with pytest.raises(LogError, match=r"name their column behind the path: .*#val_loss"):
        log("step,val_loss\n1,4.5\n2,4.25\n")
