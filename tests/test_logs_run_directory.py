"""The run directories that emacheck itself writes."""

import contextlib
import json
import math
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from conftest import points, remarks, said
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_lines import FAST, FLOATS, bits

from emacheck.errors import LogError
from emacheck.experiment import BATCH_SIZE
from emacheck.judge import Outcome, decide, default_rules, make_rules
from emacheck.judge.comparison import compare
from emacheck.logs import read_log
from emacheck.strict_json import encode_value


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


def test_what_a_run_left_out_of_its_configuration_is_said_and_decides_nothing(tmp_path):
    notes = ["resume was not used", 7, *(f"key{at} was not used" for at in range(10))]
    record = read_log(make_run(tmp_path / "run", [iteration(1, loss=4.5)], provenance={"notes": notes}))
    assert str(record.oddities[0]) == "configuration: resume was not used"
    assert str(record.oddities[-1]) == "configuration: 1 further note in run.json"
    assert {str(each.effect) for each in record.oddities} == {"NOTE"}
    assert len(record.oddities) == 11
    other = read_log(make_run(tmp_path / "other", [iteration(1, loss=4.5)], provenance={"notes": "none"}))
    assert other.oddities == ()


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


def test_a_run_that_is_still_going_on_is_inconclusive_and_a_shorter_one_that_is_over_is_not(tmp_path):
    whole, going = tmp_path / "whole", tmp_path / "going"
    for folder, complete in ((whole, True), (going, False)):
        make_run(folder, [iteration(at, loss=4.5 - 0.1 * at) for at in range(1, 31)], complete=complete)
    assert decide(compare(read_log(whole), read_log(whole))).outcome is Outcome.PASS
    verdict = decide(compare(read_log(whole), read_log(going)))
    assert (verdict.outcome, verdict.worst.rule) == (Outcome.INCONCLUSIVE, "integrity")


def test_the_only_rank_that_was_asked_for_is_complete_where_others_are_missing(tmp_path):
    described = {"provenance": {"experiment": {"processes": 2}}}
    make_run(tmp_path, [iteration(at, loss=4.5 - 0.1 * at) for at in range(1, 31)], **described)
    assert read_log(tmp_path, rank=0).complete
    assert not read_log(tmp_path).complete


def test_run_directory_drops_a_torn_last_line_and_skips_a_broken_one(tmp_path):
    make_run(tmp_path, [iteration(1, loss=4.5), iteration(2, loss=4.0), iteration(3, loss=3.5)], complete=False)
    lines = (tmp_path / "iterations.jsonl").read_text().splitlines()
    (tmp_path / "iterations.jsonl").write_text(f'{lines[0]}\n{{"metrics": NaN}}\n{lines[1]}\n{lines[2][:-9]}')
    record = read_log(tmp_path)
    assert points(record) == [(1, 4.5), (2, 4.0)]
    assert "the last line, 4, is torn and was dropped" in said(record)
    assert "lines that are not the JSON object of an iteration: 1 skipped, the first on line 2" in said(record)


@pytest.mark.parametrize(
    ("hashes", "known"), [(("aa", None), ("aa", None)), ((None, None), ()), (("", "bb"), (None, "bb")), (("", ""), ())]
)
def test_run_directory_has_the_hashes_of_the_batches_that_have_one(tmp_path, hashes, known):
    rows = [iteration(at, batch=batch, loss=4.5) for at, batch in enumerate(hashes, 1)]
    assert read_log(make_run(tmp_path, rows)).batches == known


def test_a_run_directory_that_counts_from_0_keeps_the_order_of_its_batches(tmp_path):
    of_zero, of_one = (
        read_log(
            make_run(tmp_path / str(first), [iteration(first + at, batch=f"{at}", loss=4.5 - at) for at in (0, 1)])
        )
        for first in (0, 1)
    )
    assert compare(of_one, of_zero.from_one()).paired is True


def test_processes_that_share_a_batch_are_paired_with_one_that_has_it_whole_by_the_documented_hash(tmp_path):
    samples = [[f"{at}-{number}" for number in range(4)] for at in range(1, 31)]
    losses = [4.5 - 0.1 * at + 0.01 * (at % 3) for at in range(1, 31)]
    # Neither names its number of processes: the files are all there are.
    bare = {"provenance": {}}
    whole = [sha256("\n".join(each).encode()).hexdigest() for each in samples]
    rows = [
        iteration(at, batch=batch, loss=loss) for at, (batch, loss) in enumerate(zip(whole, losses, strict=True), 1)
    ]
    one, two = make_run(tmp_path / "one", rows, **bare), make_run(tmp_path / "two", rows, **bare)
    for rank, file in ((0, "iterations.jsonl"), (1, "iterations.rank1.jsonl")):
        parts = [{**row, "samples": each[rank::2]} for row, each in zip(rows, samples, strict=True)]
        (two / file).write_text("".join(json.dumps(row) + "\n" for row in parts))
    verdict = decide(compare(read_log(one), read_log(two)))
    assert (verdict.outcome, verdict.comparison.paired) == (Outcome.PASS, True)


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


@pytest.mark.parametrize(
    ("experiment", "where"), [([1], "experiment"), ("fp32", "experiment"), ({"config": [1]}, "experiment.config")]
)
def test_run_directory_with_a_damaged_experiment_is_refused(tmp_path, experiment, where):
    make_run(tmp_path, [iteration(1, loss=4.5)], provenance={"experiment": experiment})
    with pytest.raises(LogError, match=rf"run.json: provenance.{where}: found .*, expected an object"):
        read_log(tmp_path)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["", "SyncBN"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["config", "processes", BATCH_SIZE, "model.norm_cfg.type"]), inner)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(*[st.dictionaries(st.sampled_from(["config", "processes", "precision", "draws"]), ANYTHING)] * 2)
def test_whatever_an_experiment_holds_there_is_a_verdict_or_a_refusal(tmp_path, reference, candidate):
    rows = [iteration(at, loss=4.5 - at / 10) for at in range(1, 21)]
    for name, experiment in (("a", reference), ("b", candidate)):
        make_run(tmp_path / name, rows, provenance={"experiment": experiment})
    with contextlib.suppress(LogError):
        comparison = compare(read_log(tmp_path / "a"), read_log(tmp_path / "b"))
        decide(comparison, make_rules(default_rules(comparison)))


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"format_version": ' + "1" * 5000 + "}"])
def test_run_directory_with_a_header_that_is_no_json_is_refused(tmp_path, content):
    make_run(tmp_path, [iteration(1, loss=4.5)])
    (tmp_path / "run.json").write_text(content)
    # The last is a number to a Python before 3.10.7, and an unknown version then.
    with pytest.raises(LogError, match=r"expected the description of a run|found format_version 1+, expected 1"):
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


@pytest.mark.parametrize(
    "name", ["20310203/vis_data/scalars.json", "runs/events.out.tfevents.1.host.2", "checkpoint-9/trainer_state.json"]
)
def test_a_work_directory_of_a_training_leads_to_the_log_in_it(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    (tmp_path / "train.log").touch()
    with pytest.raises(LogError, match="Perhaps you mean") as caught:
        read_log(tmp_path)
    assert str(caught.value).endswith(f"Perhaps you mean {tmp_path / name}")


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


@pytest.mark.parametrize("rank", ["", ".rank1"])
@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "link to nothing"])
def test_what_is_no_file_in_the_place_of_the_iterations_is_refused_and_not_waited_for(tmp_path, rank, kind):
    make_run(tmp_path, [iteration(1, loss=4.5)])
    path = tmp_path / f"iterations{rank}.jsonl"
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    with pytest.raises(LogError, match=f"iterations{rank}.jsonl: this is a directory, a pipe, a device or a link"):
        read_log(tmp_path)


def test_a_file_of_a_rank_that_nobody_can_count_to_is_none_of_the_run(tmp_path):
    make_run(tmp_path, [iteration(1, loss=4.5)])
    (tmp_path / f"iterations.rank{'9' * 30}.jsonl").write_text("", encoding="utf-8")
    assert points(read_log(tmp_path)) == [(1, 4.5)]


def test_names_that_are_others_in_every_line_make_no_remark_each(tmp_path):
    make_run(tmp_path, [{"iteration": at, "metrics": {"loss": 4.5, f"odd {at}": "x"}} for at in range(1, 2001)])
    record = read_log(tmp_path)
    assert len(record.oddities) < 200
    assert "further lines or values: 1900 skipped, the first on line 101" in said(record)
