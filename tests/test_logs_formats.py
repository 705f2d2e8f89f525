"""Formats of others: Hugging Face, tables, JSON lines, arrays, TensorBoard."""

import json
import subprocess
import sys

import pytest
from conftest import points, remarks, said
from log_lines import MMCV

from emacheck.errors import LogError, MissingExtraError, UsageError
from emacheck.logs import read_log
from emacheck.logs.reading import reader_names
from emacheck.oddity import OddityKind

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


# --- tables, JSON lines, arrays --------------------------------------------------------------------------------------


def test_whitespace_columns_with_names(log):
    record = log("# iter   loss    val_loss\n  1   4.500  5.0\n  2   4.250  nan\n\nnonsense\n")
    assert record.format == "whitespace columns"
    assert points(record) == [(1, 4.5), (2, 4.25)]
    assert points(record, validation=True)[0] == (1, 5.0)
    assert record.curves["loss"].quantum == 1e-3
    assert "lines that are no row of the table: 1 skipped, the first on line 5" in said(record)


def test_lines_that_rule_off_a_table_are_no_rows(log):
    columns = log("iter loss\n---- ----\n1 4.5\n2 4.25\n==== ====\n")
    table = "| iter | loss |\n|-----:|:-----|\n| 1 | 4.5 |\n| 2 | 4.25 |\n"
    for record in (columns, log(table), log(f"## Training\n\n{table}")):
        assert points(record) == [(1, 4.5), (2, 4.25)]
        assert remarks(record) == ""


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


def test_a_blank_in_a_list_of_records_is_no_larger_interval(log):
    rows = [{"step": at, "loss": 4 - 0.1 * at if at % 2 else None} for at in range(1, 21)]
    record = log(json.dumps(rows))
    assert record.format == "JSON document"
    assert record.blank.tolist() == list(range(2, 21, 2))
    assert "(in its place: 'null')" in remarks(record)


def test_the_scores_of_yolo_have_their_names_where_they_are_grouped(log):
    table = "      Epoch    GPU_mem   box_loss       Size\n"
    row = "        1/3       1.2G        1.5        640: 100%|####|\n"
    titles = "                 Class     Images  Instances      Box(P          R      mAP50  mAP50-95): 100%|####|\n"
    scores = "                   all        128        929        0.6        0.5       0.55        0.4\n"
    found = log(table + row + titles + scores).validation
    assert {name: curve.values.tolist() for name, curve in found.items()} == {
        "P": [0.6], "R": [0.5], "mAP50": [0.55], "mAP50-95": [0.4],
    }  # fmt: skip


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_of_records_within_an_object_is_read_on_one_line_or_more(log, indent):
    rows = [{"step": at, "loss": 4 - 0.25 * at} for at in range(10)]
    record = log(json.dumps({"config": {"seed": 1}, "logs": [*rows, {"note": "end"}]}, indent=indent))
    assert record.format == "JSON document"
    assert points(record) == [(at, 4 - 0.25 * at) for at in range(10)]


@pytest.mark.parametrize("indent", [None, 1])
def test_the_list_that_tensorboard_exports_is_read_as_time_step_and_value(log, indent):
    record = log(json.dumps([[1700000000.5 + at, at, 4 - 0.25 * at] for at in range(10)], indent=indent))
    assert record.format == "JSON document"
    assert points(record) == [(at, 4 - 0.25 * at) for at in range(10)]


def test_json_lines_by_epoch_tell_training_from_validation(log):
    record = log("".join(json.dumps({"epoch": e, "train_loss": 4.5 - e, "val_loss": 5.0 - e}) + "\n" for e in (1, 2)))
    assert points(record) == [(1, 3.5), (2, 2.5)]
    assert points(record, validation=True) == [(1, 4.0), (2, 3.0)]
    assert "there is no iteration: the epoch is taken for it" in said(record)


def test_json_lines_with_parts_of_epochs_are_counted_and_none_is_dropped(log):
    losses = [{"loss": 4.5, "epoch": 0.5}, {"loss": 4.25, "epoch": 1.0}, {"eval_loss": 5.5, "epoch": 1.0}]
    rows = [*losses, {"loss": 4.0, "epoch": 1.5}]
    for record in (log("\n".join(map(json.dumps, rows)) + "\n"), log(json.dumps(rows))):
        assert points(record) == [(1, 4.5), (2, 4.25), (3, 4.0)]
        assert points(record, validation=True) == [(2, 5.5)]
        assert "the records have no iteration, only parts of epochs: they are counted from 1" in said(record)


def test_the_json_that_tensorboard_exports_holds_the_value_at_each_step(log):
    record = log(json.dumps([[1700000000.25, 10, 4.5], [1700000001.5, 20, 4.25], [1700000002.0, 30, 4.0]]))
    assert record.format == "JSON document"
    assert points(record) == [(10, 4.5), (20, 4.25), (30, 4.0)]


@pytest.mark.parametrize("indent", [None, 1])
def test_of_several_lists_in_a_json_document_those_that_are_not_read_are_said(log, indent):
    runs = {"cuda": [{"step": 1, "loss": 4.5}, {"step": 2, "loss": 4.25}], "sdaa": [{"step": 1, "loss": 9.0}]}
    lists = {name: {"loss": [row["loss"] for row in rows]} for name, rows in runs.items()}
    for document, words in (
        (runs, "lists of records beside the longest one, of 2, are left out: 1"),
        (lists, "cuda, sdaa"),
    ):
        record = log(json.dumps(document, indent=indent))
        assert (record.format, points(record)) == ("JSON document", [(1, 4.5), (2, 4.25)])
        assert any(words in each.message for each in record.oddities if each.kind is OddityKind.SEVERAL_RUNS)


def test_lists_by_epoch_in_a_json_document_say_so(log):
    record = log(json.dumps({"epoch": [1, 2], "loss": [4.5, 4.25]}))
    assert [each.kind for each in record.oddities] == [OddityKind.BY_EPOCH]


def test_json_lines_of_a_step_within_an_epoch_or_of_several_ranks_are_no_mmengine(log):
    rows = [
        {"epoch": at // 2, "step": at % 2, "rank": rank, "loss": 4.0 - at + rank} for at in range(6) for rank in (0, 1)
    ]
    record = log("\n".join(map(json.dumps, rows)) + "\n")
    assert (record.format, record.ranks) == ("JSON lines", 2)
    assert points(record) == [(at, 4.5 - at) for at in range(6)]


@pytest.mark.parametrize("step", ["1k", "1_000", "1e3"])
def test_what_is_no_whole_number_is_not_the_iteration_that_it_begins_with(log, step):
    record = log(f"step {step} loss 4.5\nstep {step} loss 4.25\n")
    assert points(record) == [(1, 4.5), (2, 4.25)]
    assert "the records have no iteration: they are counted from 1" in said(record)


def test_records_that_hang_on_each_other_are_all_read(log):
    ranks = log("rank 0 iter 3 loss 4.0rank 1 iter 3 loss 3.0\n\nrank 0 iter 4 loss 3.0\nrank 1 iter 4 loss 2.0\n")
    assert points(ranks) == [(3, 3.5), (4, 2.5)]
    alone = log("Epoch 1 step 1 loss: 4.5Epoch 1 step 2 loss: 4.25\n\nEpoch 1 step 3 loss: 4.0 speed 2iter/s\n")
    assert points(alone) == [(1, 4.5), (2, 4.25), (3, 4.0)]
    bar = log(
        "\r10%|# | 1/10 [00:01<00:09, 2it/s, loss=4.5]Step 2 loss: 4.25\n\r30%|# | 3/10 [00:01<00:09, 2it/s, loss=4]"
    )
    assert points(bar) == [(1, 4.5), (2, 4.25), (3, 4.0)]


def test_chinese_colons_are_colons(log):
    assert points(log("iter 1\uff0closs\uff1a4.5\uff0clr\uff1a0.1\niter 2\uff0closs\uff1a4.25\uff0clr\uff1a0.1\n")) == [
        (1, 4.5),
        (2, 4.25),
    ]


def test_json_lines_that_say_of_how_many_iterations_one_is(log):
    row = {"loss": 4.5, "epoch": 0.05, "global_step/max_steps": "5/100", "percentage": "5.00%"}
    assert points(log(json.dumps(row) + "\n")) == [(5, 4.5)]


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


@pytest.mark.parametrize(
    "text",
    [
        "1.000e+00 4.500e+00\n2.000e+00 4.250e+00\n3.000e+00 4.000e+00\n",
        "(1, 4.5)\n(2, 4.25)\n(3, 4.0)\n",
        "[(1, 4.5), (2, 4.25), (3, 4.0)]\n",
        "loss = [[1, 4.5], [2, 4.25], [3, 4.0]]\n",
    ],
)
def test_pairs_of_iteration_and_loss_are_not_one_array(log, text):
    assert [value for _, value in points(log(text), next(iter(log(text).curves)))] == [4.5, 4.25, 4.0]
    assert "counted from 1" not in remarks(log(text))


def test_rows_of_a_few_numbers_are_columns_of_which_one_is_to_be_chosen(tmp_path):
    path = tmp_path / "times.txt"
    path.write_text("0.5 4.5\n1.25 4.25\n1.5 4.0\n", encoding="utf-8")
    record = read_log(path)
    assert list(record.curves) == ["column 1", "column 2"]
    assert "2 arrays are in one file: column 1, column 2" in remarks(record)
    assert points(read_log(f"{path}#column 2")) == [(1, 4.5), (2, 4.25), (3, 4.0)]


@pytest.mark.parametrize(
    "text",
    [
        "array([4.5 , 4.25,\n       4.  , 3.75,\n       3.5 , 3.25])\n",
        "tensor([4.5000, 4.2500, 4.0000, 3.7500, 3.5000, 3.2500], device='sdaa:0')\n",
        "4.5 4.25 4.0\n3.75 3.5 3.25\n",
    ],
)
def test_an_array_that_python_prints_is_whole(log, text):
    assert points(log(text)) == [(at, 4.75 - at / 4) for at in range(1, 7)]


def test_one_array_is_the_loss(log):
    assert points(log("4.5\n4.25\n4.0\n")) == [(1, 4.5), (2, 4.25), (3, 4.0)]


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


TWICE = (
    '{"step": 1, "loss": NaN, "loss": 4.5}',
    '{"iteration": 1, "train": {"loss": 4.0, "loss": 4.5}}',
    '{"mode": "train", "epoch": 1, "iter": 1, "iter": 2, "loss": 4.5}',
    'TCAPPDLL {"type": "LOG", "step": [0, 1], "data": "{\'train.loss\': \'nan\', \'train.loss\': \'2.5\'}"}',
)


@pytest.mark.parametrize("line", TWICE)
def test_a_key_with_two_values_in_one_object_makes_no_record(log, line):
    good = line
    for wrong in ('"loss": NaN, ', '"loss": 4.0, ', '"iter": 1, ', "'train.loss': 'nan', "):
        good = good.replace(wrong, "")
    record = log(f"{good}\n{line}\n")
    assert len(record.curves["loss"]) == 1
    assert [each for each in said(record) if each.endswith("1 skipped, the first on line 2")]


@pytest.mark.parametrize(
    "text",
    [
        '[{"step": 1, "loss": 4.5, "loss": 4.0}, {"step": 2, "loss": 4.0}]',
        '{"log_history": [{"step": 1, "loss": 4.5, "loss": 4.0}]}',
    ],
)
def test_a_key_with_two_values_in_a_document_is_refused_and_named(log, text):
    with pytest.raises(LogError, match="the key 'loss' stands in one object with several values"):
        log(text)


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


@pytest.mark.parametrize("cut", range(100, 300, 13))
@pytest.mark.parametrize(
    "change", [lambda data, cut: data[:cut] + b"\xff" + data[cut + 1 :], lambda data, cut: data[:cut]]
)
def test_damaged_tensorboard_events_are_read_up_to_there_and_said_to_be(tmp_path, cut, change):
    path = event_file(tmp_path / "events", [("loss", step, 4.5) for step in range(1, 9)])
    path.write_bytes(change(path.read_bytes(), cut))
    record = read_log(path)
    assert 0 < len(record.curves["loss"]) < 8
    (oddity,) = (each for each in record.oddities if each.kind is OddityKind.DAMAGED)
    assert f"event {len(record.curves['loss']) + 2} is damaged" in str(oddity)


def test_a_tensor_whose_shape_claims_a_terabyte_takes_no_memory(tmp_path, monkeypatch):
    path = event_file(tmp_path / "events", [("loss", 1, 4.5)])
    from tensorboard.compat.proto import event_pb2, tensor_pb2, tensor_shape_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter
    from tensorboard.util import tensor_util

    made = []
    make = tensor_util.make_ndarray
    monkeypatch.setattr(tensor_util, "make_ndarray", lambda tensor: made.append(tensor) or make(tensor))
    with path.open("ab") as file:
        for step, sizes in ((2, []), (3, [1, 1]), (4, [2**38])):
            shape = tensor_shape_pb2.TensorShapeProto(dim=[{"size": size} for size in sizes])
            event = event_pb2.Event(step=step)
            event.summary.value.add(
                tag="loss", tensor=tensor_pb2.TensorProto(dtype=1, tensor_shape=shape, float_val=[4.25])
            )
            RecordWriter(file).write(event.SerializeToString())
    assert points(read_log(path)) == [(1, 4.5), (2, 4.25), (3, 4.25)]
    assert len(made) == 2


def test_tensorboard_without_its_package_names_the_extra(tmp_path, monkeypatch):
    path = event_file(tmp_path / "events", [("loss", 1, 4.5)])
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'emacheck\[tensorboard\]'"):
        read_log(path)


def test_reading_rooms_import_neither_pandas_nor_scipy(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("iteration,loss\n1,4.5\n")
    code = (
        "import sys; from emacheck import read_log; read_log(sys.argv[1]); "
        "print({'pandas', 'scipy', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
