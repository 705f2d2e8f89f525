"""Free text, where only words tell what a number is, and a pattern of one's own for what no reader knows."""

import json
import signal
import subprocess
import sys

import pytest
from conftest import points, remarks, said

from emacheck.errors import LogError, UsageError
from emacheck.logs.formats import pattern_text
from emacheck.oddity import OddityKind


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


@pytest.mark.parametrize(
    "line",
    ["Epoch {e} loss: {x} val_loss: 4.1 val_acc: 0.1\n", "Epoch {e}/3\n9/9 [===] - 1s - loss: {x} - val_loss: 4.1\n"],
)
def test_validations_of_later_epochs_count_though_they_say_the_same(log, line):
    record = log("".join(line.format(e=e, x=5 - e) for e in (1, 2, 3)))
    assert points(record, validation=True) == [(1, 4.1), (2, 4.1), (3, 4.1)]


def test_a_bar_that_repeats_the_last_validation_adds_none(log):
    bar = "Epoch {e}: 50%|## | {i}/4 [00:01<00:01, 2.0it/s, loss={x}, val_loss=4.1]\r"
    record = log("".join(bar.format(e=e, i=i, x=9 - 4 * e - i) for e in (0, 1) for i in (1, 2, 3, 4)))
    assert len(record.validation["loss"]) == 1


def test_a_loss_that_stands_again_in_a_line_with_another_value_is_said(log):
    record = log("Step 1 loss: 4.5 loss: 4.5\nStep 2 loss: 4.25 loss: 9.0\n")
    assert points(record) == [(1, 4.5), (2, 4.25)]
    (said_so,) = [each for each in record.oddities if each.kind is OddityKind.REPLACED]
    assert said_so.line == 2
    assert "a loss stands again with another value" in said_so.message


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
    assert "values of loss that are no number: 1 left out ('x'), the first on line 5" in said(record)


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


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers of the system")
def test_a_search_without_end_ends_also_if_whoever_waits_for_it_was_killed():
    endless = json.dumps(r"(?P<iteration>(a+)+)(?P<loss>b)") + "\n" + json.dumps(["a" * 100]) + "\n"
    program = "from emacheck.logs.formats import pattern_worker as worker; worker.MOST_SECONDS = 0.2; worker.main()"
    done = subprocess.run([sys.executable, "-c", program], input=endless, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGVTALRM
