"""How single values and positions are read: odd spellings, missing ones, commas, and how many digits were printed."""

import json
import warnings

import numpy as np
import pytest
from conftest import points, remarks, said
from hypothesis import given
from hypothesis import strategies as st
from log_lines import tcap

from emacheck.errors import LogError
from emacheck.judge import Outcome, decide
from emacheck.judge.comparison import compare
from emacheck.logs import read_log
from emacheck.logs.formats import tcap_json
from emacheck.logs.formats.free_line import parsed
from emacheck.printed import few_digits, unit_of

LENGTH = 60
AT = np.arange(LENGTH)
REFERENCE = (1.5 + 2.5 * np.exp(-3 * AT / LENGTH)) * (1 + 0.03 * np.random.default_rng(0).standard_normal(LENGTH))
CANDIDATE = REFERENCE * (1 + np.minimum(1e-7 * 3.0**AT, 0.01) * np.random.default_rng(1).standard_normal(LENGTH))
MMENGINE = "2031/02/03 04:05:06 - mmengine - INFO - Iter(train) [{}/60]  lr: 9.9945e-03  eta: 3:48:39  loss: {}\n"
MMCV = "2031-02-03 04:05:06,789 - mmseg - INFO - Iter [{}/60]\tlr: 9.995e-03, time: 0.632, loss: {}\n"


def lines(form, head=""):
    return lambda texts: head + "".join(form.format(at, text) for at, text in enumerate(texts, 1))


TEXTS = {
    "TCAPPDLL text": lambda texts: "".join(tcap(at, text) + "\n" for at, text in enumerate(texts)),
    "mmengine text": lines(MMENGINE),
    "mmcv text": lines(MMCV),
    "CSV": lines("{},{}\n", "iteration,loss\n"),
    "whitespace columns": lines("{} {} 0.01\n", "step loss lr\n"),
    "arrays of numbers": lambda texts: "".join(f"{text}\n" for text in texts),
    "free text": lines("iter {} loss: {}\n"),
    "free text without iterations": lambda texts: "".join(f"loss: {text}\n" for text in texts),
}


def rows(form):
    return lambda values: "".join(json.dumps(form(at, value)) + "\n" for at, value in enumerate(values, 1))


OBJECTS = {
    "JSON lines": rows(lambda at, value: {"iteration": at, "loss": value}),
    "mmengine JSON": rows(lambda at, value: {"lr": 0.01, "loss": value, "iter": at, "step": at}),
    "mmcv JSON": rows(lambda at, value: {"mode": "train", "epoch": 1, "iter": at, "lr": 0.01, "loss": value}),
    "JSON document": lambda values: json.dumps({"loss": list(values)}),
    "Hugging Face trainer state": lambda values: json.dumps(
        {"log_history": [{"step": at, "loss": value} for at, value in enumerate(values, 1)]}, indent=1
    ),
}


def every_second(value, texts):
    return [text if at % 2 == 0 else value for at, text in enumerate(texts)]


def judged(tmp_path, reference, candidate, **options):
    for name, text in (("reference", reference), ("candidate", candidate)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    records = (read_log(tmp_path / name, **options) for name in ("reference", "candidate"))
    return decide(compare(*records))


def finding_of(verdict, rule):
    return next(finding for finding in verdict.findings if finding.rule == rule)


@pytest.mark.parametrize("spelling", ["-nan(ind)", "1.#QNAN", "-1.#IND00", "1.#INF", "tensor(nan)", "np.float32(nan)"])
@pytest.mark.parametrize("form", TEXTS.values(), ids=TEXTS)
def test_every_spelling_of_nan_and_infinity_fails_in_every_format(tmp_path, form, spelling):
    texts = [repr(value) for value in CANDIDATE.tolist()]
    verdict = judged(tmp_path, form(map(repr, REFERENCE.tolist())), form(every_second(spelling, texts)))
    assert finding_of(verdict, "finite").outcome is Outcome.FAIL


@pytest.mark.parametrize("text", ["None", "NULL", "#NUM!", "***"])
@pytest.mark.parametrize("form", TEXTS.values(), ids=TEXTS)
def test_records_without_a_loss_that_can_be_read_are_no_larger_interval(tmp_path, form, text):
    texts = [repr(value) for value in CANDIDATE.tolist()]
    verdict = judged(tmp_path, form(map(repr, REFERENCE.tolist())), form(every_second(text, texts)))
    finding = finding_of(verdict, "coverage")
    assert verdict.outcome is finding.outcome is Outcome.INCONCLUSIVE
    assert "records without a loss that can be read at 30 iterations" in finding.message
    assert f"30 left out ('{text}')" in finding.message


@pytest.mark.parametrize("form", OBJECTS.values(), ids=OBJECTS)
def test_null_is_no_larger_interval_and_nan_as_text_fails(tmp_path, form):
    reference, candidate = REFERENCE.tolist(), CANDIDATE.tolist()
    verdict = judged(tmp_path, form(reference), form(every_second(None, candidate)))
    assert verdict.outcome is finding_of(verdict, "coverage").outcome is Outcome.INCONCLUSIVE
    assert "30 left out ('null')" in finding_of(verdict, "coverage").message
    verdict = judged(tmp_path, form(reference), form(every_second("nan", candidate)))
    assert finding_of(verdict, "finite").outcome is Outcome.FAIL
    assert judged(tmp_path, form(reference), form(candidate)).outcome is Outcome.PASS


@pytest.mark.parametrize("text", ["", "2.1%"])
def test_cells_that_are_empty_or_no_number_are_no_larger_interval(tmp_path, text):
    form = TEXTS["CSV"]
    texts = [repr(value) for value in CANDIDATE.tolist()]
    verdict = judged(tmp_path, form(map(repr, REFERENCE.tolist())), form(every_second(text, texts)))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    swapped = judged(tmp_path, form(every_second(text, texts)), form(map(repr, REFERENCE.tolist())))
    assert swapped.outcome is Outcome.INCONCLUSIVE
    assert "the reference has records without a loss" in finding_of(swapped, "coverage").message


def test_matches_of_a_pattern_that_are_no_number_are_no_larger_interval(tmp_path):
    form, pattern = TEXTS["free text"], r"iter (?P<iteration>\d+) loss: (?P<loss>\S+)"
    texts = [repr(value) for value in CANDIDATE.tolist()]
    candidate = form(every_second("oops", texts))
    verdict = judged(tmp_path, form(map(repr, REFERENCE.tolist())), candidate, pattern=pattern)
    assert verdict.outcome is Outcome.INCONCLUSIVE


def test_a_larger_interval_stays_one_beside_validations_and_means_of_an_epoch(tmp_path):
    fine = "step,train_loss,epoch_loss,val_loss\n" + "".join(f"{at},{REFERENCE[at]!r},,\n" for at in AT)
    coarse = "step,train_loss,epoch_loss,val_loss\n"
    for at in AT.tolist():
        coarse += f"{at},{float(CANDIDATE[at])!r},,\n" if at % 2 == 0 else ""
        coarse += f"{at},,,{float(CANDIDATE[at])!r}\n" if at % 9 == 0 else ""
        coarse += f"{at},,{float(CANDIDATE[at])!r},\n" if at % 7 == 0 else ""
    verdict = judged(tmp_path, fine, coarse)
    assert finding_of(verdict, "coverage").outcome is Outcome.PASS
    assert "the candidate logs every 2 iterations" in finding_of(verdict, "coverage").message


def test_a_message_with_an_iteration_is_no_record_without_a_loss(tmp_path):
    form = OBJECTS["JSON lines"]
    coarse = "".join(
        json.dumps({"iteration": at + 1} | ({"loss": CANDIDATE[at]} if at % 2 else {"message": "saved"})) + "\n"
        for at in AT.tolist()
    )
    assert judged(tmp_path, form(REFERENCE.tolist()), coarse).outcome is Outcome.PASS


def test_a_record_without_a_metric_gives_way_to_another_of_its_iteration(log):
    record = log('{"step": 1, "loss": 2.5}\n{"step": 1, "loss": null}\n{"step": 2, "loss": 2.25}\n')
    assert points(record) == [(1, 2.5), (2, 2.25)]
    assert record.blank.tolist() == []
    assert log('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null}\n').blank.tolist() == [2]


def test_what_stands_in_the_place_of_a_loss_is_said_with_the_line(log):
    record = log('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null}\n{"step": 3, "loss": "?", "lr": 0.1}\n')
    assert "values of loss that are no number: 2 left out ('null', '?'), the first on line 2" in said(record)
    assert "line 2: records without a loss: 2 (in its place: 'null', '?'), the first is iteration 2" in said(record)


def test_a_list_of_losses_keeps_its_place_beside_a_null(tmp_path):
    losses = [*CANDIDATE.tolist()]
    losses[15] = None
    candidate = json.dumps({"loss": losses, "smooth_loss": REFERENCE.tolist()})
    verdict = judged(tmp_path, json.dumps({"loss": REFERENCE.tolist()}), candidate)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.comparison.curve("loss").only_reference.tolist() == [16]


def test_no_other_metric_is_taken_for_a_loss_that_cannot_be_read(log):
    record = log(json.dumps({"loss": [None] * 3, "smooth_loss": [2.5, 2.25, 2.0]}))
    assert set(record.curves) == {"smooth_loss"}
    assert "values of loss that are no number: 3 left out ('null')" in remarks(record)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("loss: 2,51", "2,51"),
        ("loss: 12,501", "12,501"),
        ("loss: 1 234.5", "1"),
        ("loss: 2\u00b710^3", "2\u00b710^3"),
        ("loss: 2.5 e-03", "2.5"),
    ],
)
def test_numbers_that_may_mean_two_things_are_not_read_and_counted(log, text, found):
    assert (parsed(f"iter 3 {text}").metrics, parsed(f"iter 3 {text}").unread) == ([], [("loss", found)])
    record = log(f"iter 1 loss: 2.51\niter 2 loss: 2.41\niter 3 {text}\n")
    assert points(record) == [(1, 2.51), (2, 2.41)]
    assert record.blank.tolist() == [3]
    assert "values of loss that are no number: 1 left out" in remarks(record)


@pytest.mark.parametrize(
    ("text", "value"),
    [("loss: 1,234.5", 1234.5), ("loss: 0.5,0.3", 0.5), ("loss: 3,acc: 0.5", 3.0), ("loss: 2.5 3.5", 2.5)],
)
def test_thousands_with_a_point_and_lists_are_read_as_before(text, value):
    assert parsed(f"iter 3, {text}").metrics[0].value == value


def test_decimal_commas_throughout_are_refused(log):
    with pytest.raises(LogError, match="format of this file is not known"):
        log("iter 1 loss: 2,51\niter 2 loss: 2,41\n")


@pytest.mark.parametrize("form", ["step {:,} loss: {}\n", "step {:,}/10,000 loss: {}\n", '"{:,}",{}\n'])
def test_iterations_with_thousands_separators_are_read_whole(log, form):
    head = "step,loss\n" if form.startswith('"') else ""
    record = log(head + "".join(form.format(at, 2.5 - at / 1e4) for at in (900, 1000, 1100, 10000)))
    assert record.curves["loss"].iterations.tolist() == [900, 1000, 1100, 10000]


def test_an_iteration_with_a_comma_that_is_no_thousands_is_none():
    assert parsed("step 1,2 loss: 2.5").iteration is None
    assert parsed("[1, 2000] loss: 2.5").iteration == 2000


def test_the_lowest_integer_of_64_bits_is_no_iteration_and_skipped_aloud(log):
    record = log(f"iteration,loss\n{-(2**63)},2.5\n1,2.25\n2,2.0\n")
    assert points(record) == [(1, 2.25), (2, 2.0)]
    assert "not an integer of 64 bits: 1 skipped, the first on line 2" in remarks(record)


def test_data_that_is_no_literal_warns_of_nothing():
    line = "TCAPPDLL " + json.dumps({"type": "LOG", "step": [0, 1], "data": "{'train.loss': 1.5if 1else 2}"}) + "\n"
    good = "TCAPPDLL " + json.dumps({"type": "LOG", "step": [0, 2], "data": "{'train.loss': 2.5}"}) + "\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert points(tcap_json.read([line, good], "log")) == [(2, 2.5)]


# --- printed digits --------------------------------------------------------------------------------------------------


def stripped(values, decimals):
    return [repr(round(value, decimals)) for value in values]


@pytest.mark.parametrize(("level", "decimals"), [(0.03, 4), (0.03, 6), (0.3, 3), (3.0, 2), (3.0, 4), (300.0, 2)])
def test_the_quantum_is_the_decimal_that_was_printed_though_zeros_were_stripped(log, level, decimals):
    values = level * (1 + REFERENCE)
    for name in ("CSV", "free text", "whitespace columns", "arrays of numbers"):
        assert log(TEXTS[name](stripped(values, decimals))).curves["loss"].quantum == pytest.approx(10.0**-decimals)


@pytest.mark.parametrize("coarse", ["2.0", "2."])
@pytest.mark.parametrize("name", ["whitespace columns", "free text", "mmengine text"])
def test_one_coarse_value_does_not_make_the_curve_coarse(log, name, coarse):
    texts = [f"{value:.4f}" for value in REFERENCE]
    texts[30] = coarse
    assert log(TEXTS[name](texts)).curves["loss"].quantum == 1e-4
    texts = [repr(value) for value in REFERENCE.tolist()]
    texts[30] = coarse
    assert log(TEXTS[name](texts)).curves["loss"].quantum < 1e-12


@pytest.mark.parametrize("name", ["TCAPPDLL text", "CSV"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_full_precision_has_no_quantum(log, name, dtype):
    texts = [str(value) for value in REFERENCE.astype(dtype)]
    assert log(TEXTS[name](texts)).curves["loss"].quantum == 0
    numbers = [float(value) for value in REFERENCE.astype(dtype)]
    assert log(OBJECTS["JSON lines"](numbers)).curves["loss"].quantum == 0


def test_numbers_of_few_bits_and_round_learning_rates_are_at_full_precision(log):
    values = [4.0 + at / 64 for at in range(LENGTH)]  # as bfloat16 has them
    assert log(OBJECTS["JSON lines"](values)).curves["loss"].quantum == 0
    rates = "".join(json.dumps({"step": at, "loss": 1 / at, "lr": round(0.001 * at, 3)}) + "\n" for at in range(1, 30))
    assert log(rates).curves["lr"].quantum == 0


@pytest.mark.parametrize("decimals", [3, 4])
@pytest.mark.parametrize("name", ["CSV", "TCAPPDLL text", "free text"])
def test_healthy_pairs_with_few_decimals_pass_the_first_iterations(tmp_path, name, decimals):
    form, outcomes = TEXTS[name], set()
    for seed in range(4):
        start = 10.0**-decimals * (0.5 + 1e-7)  # just beside where rounding turns
        reference = REFERENCE + seed
        reference[:3] = np.floor(reference[:3] * 10**decimals) / 10**decimals + start
        candidate = reference * (1 - 1e-7)
        verdict = judged(tmp_path, form(stripped(reference, decimals)), form(stripped(candidate, decimals)))
        outcomes |= {finding.outcome for finding in verdict.findings}
    assert outcomes == {Outcome.PASS}


@given(st.lists(st.integers(1, 10**6), min_size=30, max_size=60), st.integers(1, 6))
def test_the_unit_is_never_finer_than_what_was_printed(numbers, decimals):
    values = np.array([number / 10**decimals for number in numbers])
    assert unit_of(values) == 0 or unit_of(values) >= 10.0**-decimals * (1 - 1e-9)
    assert few_digits(values) in (0.0, unit_of(values))


def test_significant_digits_have_the_unit_of_the_largest_values():
    values = np.array([float(f"{value:.4g}") for value in np.geomspace(9.5, 0.15, 40)])
    assert unit_of(values) == 1e-3


def test_a_value_that_only_repeats_says_nothing_of_how_it_is_printed():
    values = np.array([0.01] * 40 + [float(f"{value:.4g}") for value in np.geomspace(9.9e-3, 1.1e-3, 40)])
    assert unit_of(values) == 1e-6
    assert unit_of(np.repeat([0.01, 0.001, 0.0001], 20)) == 0
