"""Logs that mean no good, and the fast path against the slow one."""

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_lines import FAST, refuses_or_reads

from emacheck.errors import LogError
from emacheck.logs import read_log
from emacheck.logs.formats import bulk
from emacheck.logs.formats.bulk_numbers import MARGIN, Text, floats, integers
from emacheck.logs.reading import READERS, slug

# ruff: noqa: E501 - lines of a log are as long as they are
REAL = {
    "tcappdll-text": "TCAPPDLL 2031-02-03 04:05:06.7 - Epoch: 0 Iteration: 1  rank : 0  train.loss : 1.47  train.ips : 10.8 i/s\n",
    "tcappdll-json": 'TCAPPDLL {"type": "LOG", "step": [0, 1], "data": "{\'rank\': \'0\', \'train.loss\': \'2.5\'}"}\n',
    "mmengine-text": "2031/02/03 04:05:06 - mmengine - INFO - Iter(train) [ 50/800]  lr: 9.9e-03  eta: 0:01:02  loss: 2.0731\n",
    "mmcv-text": "2031-02-03 04:05:06,7 - mmseg - INFO - Epoch [1][50/800]\tlr: 9.9e-03, eta: 1 day, 0:01:02, loss: 2.0731,\n",
    "hugging-face-trainer-state": '{"log_history": [{"step": 1, "loss": 4.5}, {"step": 1, "eval_loss": 4.5}], "max_steps": 5}\n',
    "mmcv-json": '{"env_info": "a: b", "config": "a = dict(b=[1])"}\n{"mode": "train", "epoch": 1, "iter": 5, "loss": 4.5}\n',
    "json-lines": '{"iteration": 1, "train": {"loss": 4.5}, "rank": 0}\n',
    "mmengine-json": '{"step": 1, "loss": 4.5, "epoch": 1, "iter": 1}\n{"step": 1, "mIoU": 5.5}\n',
    "csv": "iteration,loss,val_loss\n1,4.5,\n2,4.25,5\n",
    "whitespace-columns": "iter loss\n1 4.5\n2 4.25\n",
    "arrays-of-numbers": "=== A ===\n4.5 4.25\n=== B ===\n1.5 1.25\n",
    "json-document": '[{"step": 1, "loss": 4.5}, {"step": 2, "loss": 4.25, "epoch": 0.5}, {"step": 2, "eval_loss": 5}]',
    "yolo-text": " Epoch  GPU_mem  box_loss  Size\n 1/9  2.1G  1.5  640: 50%\r 1/9  2.1G  1.25  640: 100%\n 2/9  2.1G  1.0  640: 100%\n",
    "free-text": "Epoch 1 iter 5 train_loss 4.5 acc 1.5 | val loss 4.25 acc 1.0\n",
}


def test_every_reader_has_a_sample_that_it_reads(tmp_path):
    assert set(REAL) == {slug(reader) for reader in READERS}
    for name, text in REAL.items():
        path = tmp_path / name
        path.write_text(text)
        assert slug(type("R", (), {"NAME": read_log(path).format})) == name


@settings(FAST, max_examples=500)
@given(data=st.data())
def test_no_change_to_a_real_log_raises_anything_but_ours(tmp_path, data):
    name = data.draw(st.sampled_from(sorted(REAL)))
    content = bytearray((REAL[name] * data.draw(st.integers(1, 3))).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 8))
        content[at : at + length] = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"nan", b"1e999", b"-", b"\r", b"9" * 25])
        )
    path = tmp_path / "log"
    path.write_bytes(content)
    refuses_or_reads(path)
    refuses_or_reads(path, reader=name, rank=data.draw(st.none() | st.integers(0, 1)))


PREFIXES = (
    "[rank{}]: ",
    "[1,{}]<stdout>:",
    "{}: ",
    "(Worker pid={}) ",
    "2031-01-01T00:00:0{}Z ",
    "job-{}  | ",
    "[pod/a-{}] ",
)


@settings(FAST, max_examples=300)
@given(data=st.data())
def test_no_prefix_before_lines_raises_anything_but_ours(tmp_path, data):
    name, prefix = data.draw(st.sampled_from(sorted(REAL))), data.draw(st.sampled_from(PREFIXES))
    lines = (REAL[name] * data.draw(st.integers(1, 3))).splitlines(keepends=True)
    content = bytearray("".join(prefix.format(data.draw(st.integers(0, 2))) + line for line in lines).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(
            st.sampled_from([b"", b"\n", b"[rank7]:", b"\xff", b"9" * 25])
        )
    path = tmp_path / "log"
    path.write_bytes(content)
    refuses_or_reads(path, rank=data.draw(st.none() | st.integers(0, 1)))
    refuses_or_reads(path, reader=name)


LINES = (
    *(
        "Epoch: [{i}][{j}/9] loss {x} ({x})\n",
        "Test: [{j}/9] loss: {x}\n",
        "iter {j} loss: {x}\n",
        "Epoch {i}\n",
        "loss={x}\n",
    ),
    *(
        "val_loss: {x}\n",
        " * acc {x}\n",
        "rank {i} step {j} train loss {x}, val loss {x}\n",
        "{i}/{j} [====] - loss: {x}\n",
    ),
    *(
        "{{'loss': {x}, 'epoch': {i}.{j}}}\n",
        "({j} / 9) - Loss: {x}\n",
        "Evaluating...\n",
        "global_step: {j} loss: {x}\n",
        "\n",
    ),
)


@settings(FAST, max_examples=400)
@given(data=st.data())
def test_free_text_in_any_order_raises_nothing_but_ours(tmp_path, data):
    numbers = st.sampled_from(["4.5", "nan", "-inf", "1e999", "1e-400", "7", "1,234.5", "9" * 30, ""])
    lines = (
        data.draw(st.sampled_from(LINES)).format(
            i=data.draw(st.integers(0, 3)), j=data.draw(st.integers(0, 9)), x=data.draw(numbers)
        )
        for _ in range(data.draw(st.integers(1, 12)))
    )
    path = tmp_path / "log"
    path.write_text("".join(lines))
    refuses_or_reads(path, reader="free-text", rank=data.draw(st.none() | st.integers(0, 1)))


@settings(FAST, max_examples=300)
@given(
    content=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")), data=st.data()
)
def test_no_reader_raises_anything_but_ours_on_anything(tmp_path, content, data):
    path = tmp_path / "log"
    path.write_bytes(
        data.draw(st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"BZh9"])) + content
    )
    refuses_or_reads(path, reader=data.draw(st.none() | st.sampled_from([*sorted(REAL), "tensorboard-events"])))


@pytest.mark.parametrize("name", sorted(REAL))
def test_a_line_of_a_hundred_megabytes_is_no_trouble(tmp_path, name):
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(REAL[name].encode())
        for _ in range(100):
            file.write(b"loss: 1.5 [" * 90_000)
    began = time.process_time()
    refuses_or_reads(path)
    assert time.process_time() - began < 20


@pytest.mark.parametrize("filling", [" ", "a", "[", "(", "1", "loss ", "epoch ", "a.", "-", "=", "{'a':"])
@pytest.mark.parametrize("name", sorted(REAL))
def test_a_long_line_of_anything_takes_no_long_time(tmp_path, name, filling):
    path = tmp_path / "log"
    path.write_text(REAL[name] + filling * (200_000 // len(filling)) + "\n" + REAL[name])
    began = time.process_time()
    refuses_or_reads(path, reader=name)
    refuses_or_reads(path)
    assert time.process_time() - began < 10


def test_objects_that_are_nested_a_million_deep_are_skipped(tmp_path):
    path = tmp_path / "log"
    path.write_text(REAL["json-lines"] + '{"iteration": 2, "a":' + "[" * 10**6 + "\n")
    assert read_log(path).curves["loss"].values.tolist() == [4.5]


# --- many numbers at once --------------------------------------------------------------------------------------------

DECIMALS = (
    st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.floats(0, 100).map(repr)
    | st.floats(-10, 10).map(lambda x: f"{x:.4f}")
    | st.floats(1e-9, 10).map(lambda x: f"{x:.4e}")
    | st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{0,20})?(e[-+][0-9]{2})?", fullmatch=True)
)


def laid_out(words):
    content, starts, ends = b" " * MARGIN, [], []
    for word in words:
        starts.append(len(content))
        content += word.encode()
        ends.append(len(content))
        content += b" "
    return Text(content + b" " * MARGIN), np.array(starts), np.array(ends)


@settings(FAST, max_examples=400)
@given(words=st.lists(DECIMALS | st.text("0123456789.e-+ ", min_size=1, max_size=12), min_size=1, max_size=8))
def test_many_numbers_at_once_are_what_float_makes_of_each(words):
    values, _, sound = floats(*laid_out([word[:24] for word in words]))
    for word, value, sure in zip(words, values.tolist(), sound.tolist(), strict=True):
        if sure:
            assert value == float(word[:24]), word


def test_usual_numbers_are_never_left_to_the_slow_way():
    draw = random.Random(3)  # noqa: S311 - plausible numbers, no secret
    words = [repr(draw.random() * 10**n) for n in range(-1, 3) for _ in range(2000)] + [
        f"{draw.random():.4e}" for _ in range(999)
    ]
    values, _, sound = floats(*laid_out(words))
    assert sound.mean() > 0.99
    assert all(
        value == float(word) for value, word, sure in zip(values.tolist(), words, sound.tolist(), strict=True) if sure
    )


@FAST
@given(
    words=st.lists(
        st.integers(0, 10**10).map(str)
        | st.tuples(st.integers(0, 12), st.integers(0, 10**10)).map(lambda pair: " " * pair[0] + str(pair[1]))
        | st.text("0123456789 ", min_size=1, max_size=12),
        min_size=1,
        max_size=5,
    )
)
def test_many_integers_at_once_are_what_int_makes_of_each(words):
    values, sound = integers(*laid_out(words))
    for word, value, sure in zip(words, values.tolist(), sound.tolist(), strict=True):
        if sure:
            assert value == int(word)


def long_log(kind, draw):
    for i in range(3000):
        loss, time_taken = draw.choice(["nan", "1e-07", "-0.25", "12", f"{draw.random() * 9:.4f}"]), draw.random() * 99
        if kind == "tcap":
            yield (
                f"TCAPPDLL 2031-02-03 04:05:06.{i:06d} - Epoch: {i // 900} Iteration: {i % 900}  rank : {draw.randrange(2)}  "
                f"train.loss : {loss}  train.ips : {time_taken!r} imgs/s \n"
            )
        else:
            head = (
                f"Iter(train) [{i:>5}/30000]"
                if kind == "iter"
                else f"Epoch(train) [{i // 900 + 1}][{i % 900 + 1:>3}/900]"
            )
            yield f"2031/02/03 04:05:06 - mmengine - INFO - {head}  lr: {time_taken:.4e}  eta: 1 day, 0:01:02  loss: {loss}\n"
        if draw.random() < 0.02:
            yield draw.choice(
                ["noise\n", "a: b: c\n", "\n", "bar 5%\rbar 6%\n", "Iter(val) [9/9]  mIoU: 5.5000\n", "\x1b[1mx\n"]
            )


@pytest.mark.parametrize("kind", ["tcap", "iter", "epoch"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lines_read_at_once_are_what_they_are_one_by_one(tmp_path, monkeypatch, kind, ending):
    path = tmp_path / "log"
    draw = random.Random(11)  # noqa: S311 - plausible numbers, no secret
    path.write_bytes("".join(long_log(kind, draw)).replace("bar 5%\r", "").replace("\n", ending).encode())
    fast = read_log(path, rank=0)
    monkeypatch.setattr(bulk, "_SMALL", math.inf)
    slow = read_log(path, rank=0)
    assert_same(fast, slow)


def assert_same(fast, slow):
    assert fast.oddities == slow.oddities
    assert fast.header == slow.header
    for curves, others in ((fast.curves, slow.curves), (fast.validation, slow.validation)):
        assert list(curves) == list(others)
        for name, curve in curves.items():
            np.testing.assert_array_equal(curve.iterations, others[name].iterations)
            assert curve.values.tobytes() == others[name].values.tobytes()
            assert (curve.window, curve.quantum) == (others[name].window, others[name].quantum)


PRINTED = st.floats(-100, 100).map(repr) | st.floats(0, 100).map(lambda x: f"{x:.4f}")
PRINTED |= st.floats(1e-9, 1e9).map(lambda x: f"{x:.4e}") | st.sampled_from(
    ["nan", "inf", "0", "-0.0", "12.", ".5", "x"]
)
RECORDS = (
    "TCAPPDLL 2031-02-03 04:05:06.7 - Epoch: 0 Iteration: {i}  rank : 0  train.loss : {a}  train.ips : {b} imgs/s \n",
    "2031/02/03 04:05:06 - mmengine - INFO - Iter(train) [{i:>10}/80000]  lr: {a}  eta: 0:01:02  loss: {b}\n",
)
MESSAGES = (
    "noise\n",
    "2031/02/03 04:05:06 - mmengine - INFO - Saving checkpoint\n",
    "2031/02/03 04:05:06 - mmengine - INFO - Iter(val) [9/9]  mIoU: 5.5000\n",
    "seed: 7\n",
    "TCAPPDLL nothing\n",
)


@pytest.mark.parametrize("small", [0, math.inf])
def test_a_time_that_is_torn_is_no_metric(tmp_path, monkeypatch, small):
    monkeypatch.setattr(bulk, "_SMALL", small)
    lines = [RECORDS[1].format(i=i, a="0.01", b=f"{3 - i / 10:.4f}") for i in range(20)]
    lines[7] = lines[7].replace("0:01:02", "0:01: 02")
    (tmp_path / "log").write_text("".join(lines), encoding="utf-8")
    record = read_log(tmp_path / "log")
    assert {name: len(curve) for name, curve in record.curves.items()} == {"lr": 20, "loss": 20}


@pytest.mark.parametrize("record", RECORDS)
def test_a_name_that_is_torn_in_one_line_is_no_name_of_the_others(tmp_path, monkeypatch, record):
    lines = [record.format(i=i, a="0.5", b=f"{3 - i / 10:.4f}") for i in range(30)]
    for torn in range(30):
        (tmp_path / "log").write_text(
            "".join(line.replace("loss", "1loss") if at == torn else line for at, line in enumerate(lines)),
            encoding="utf-8",
        )
        records = []
        for small in (0, math.inf):
            monkeypatch.setattr(bulk, "_SMALL", small)
            records.append(read_log(tmp_path / "log"))
        assert_same(*records)
        assert len(records[0].curves["loss"]) == 29


@settings(FAST, max_examples=300)
@given(data=st.data())
def test_any_lines_read_at_once_are_what_they_are_one_by_one(tmp_path, monkeypatch, data):
    record = data.draw(st.sampled_from(RECORDS))
    first = data.draw(st.sampled_from([0, 9_990, 9_999_995, 99_999_995, 999_999_995]))
    usual = data.draw(PRINTED)
    content = ""
    for i in range(first, first + 30):
        content += record.format(i=i, a=usual, b=data.draw(PRINTED))
        if data.draw(st.integers(0, 9)) == 0:
            content += data.draw(st.sampled_from(MESSAGES))
    changed = bytearray(content.encode())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(changed)))
        put = data.draw(st.sampled_from([b"", b" ", b"1", b"-", b".", b":", b"[", b"e", b"\n", b"\0", b"\xff", b"nan"]))
        changed[at : at + data.draw(st.integers(0, 2))] = put
    path = tmp_path / "log"
    path.write_bytes(changed)
    records = []
    for small in (0, math.inf):
        monkeypatch.setattr(bulk, "_SMALL", small)
        try:
            records.append(read_log(path))
        except LogError as error:
            records.append(str(error))
    if isinstance(records[0], str) or isinstance(records[1], str):
        assert records[0] == records[1]
    else:
        assert_same(*records)
