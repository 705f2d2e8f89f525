"""The logs of TCAPPDLL, text and JSON."""

import json
import math

import pytest
from conftest import points, remarks, said
from log_lines import ITER, tcap

from emacheck.errors import LogError

# --- TCAPPDLL text ---------------------------------------------------------------------------------------------------


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
    assert "values of loss that are no number: 1 left out ('None'), the first on line 2" in said(record)
    assert "is not an integer of 64 bits: 1 skipped, the first on line 4" in remarks(record)


# --- TCAPPDLL JSON ---------------------------------------------------------------------------------------------------


def tcap_json(step, data, *, mark="TCAPPDLL"):
    return f"{mark} {json.dumps({'timestamp': '1.5', 'type': 'LOG', 'step': step, 'data': data})}\n"


def test_tcap_json_with_a_name_that_is_no_text_is_read(log):
    record = log(tcap_json([0, 0], "{'train.loss': '4.5', 7: 'x'}") + tcap_json([0, 1], "{'train.loss': '4.25'}"))
    assert points(record) == [(0, 4.5), (1, 4.25)]


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
