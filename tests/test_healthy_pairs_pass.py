"""A healthy pair passes, in every combination of options; where it does not, that is documented and told how to.

Rehearsals that hunt for a PASS that is not deserved do not see a rule that never passes at all.
"""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from healthy_logs import WRITERS, Log, chaotic, possible, training, with_steps_left_out, write

from emacheck.counted import counted
from emacheck.judge import Outcome, decide, default_rules, make_rules
from emacheck.judge.comparison import compare
from emacheck.judge.noise.rounding import ROUNDOFF
from emacheck.logs import read_log

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
PAIRINGS = {"as the logs tell": None, "--paired": True, "--unpaired": False}
LENGTHS = ((20, 1), (100, 1), (100, 10), (1000, 1), (1000, 10), (1000, 50))
FLAGS = ("norms", "rates", "validated", "resumed")
FEWEST, FEWEST_IN_HALF = 10, 30


def judge(reference, candidate, *, metrics=("loss",), stated=None, precision="", repeats=(), **limits):
    comparison = compare(reference, candidate, metrics=metrics, repeats=repeats)
    if comparison.paired is None:  # otherwise the command refuses to be told
        comparison = replace(comparison, stated=stated)
    comparison = replace(comparison, stated_precision=precision)
    return decide(comparison, make_rules(default_rules(comparison), limits), named=tuple(limits))


def drawn(form, precision):
    """Logs of a form in a precision: every length with other options, so that all of them meet."""
    draw = np.random.default_rng(sum(map(ord, form + precision)))
    for (length, every), ranks in zip(LENGTHS, itertools.cycle((1, 2, 4))):
        if length < 1000 or precision == "fp32":
            flags = dict(zip(FLAGS, map(bool, draw.integers(0, 2, size=len(FLAGS))), strict=True))
            yield possible(form, Log(length=length, every=every, ranks=ranks, precision=precision, **flags))


def documented(log, pairing):
    """Why a healthy pair is INCONCLUSIVE: the rules that lack values, see docs/rules.md and docs/rules-unpaired.md."""
    records = log.length // log.every
    few = {"coverage"} if records < FEWEST else set()
    return few | ({"equivalence"} if pairing is False and records < 2 * FEWEST_IN_HALF else set())


@pytest.mark.parametrize("precision", ROUNDOFF)
@pytest.mark.parametrize("form", WRITERS)
def test_a_healthy_pair_passes_in_every_format_precision_and_pairing(tmp_path, form, precision):
    if form == "tensorboard":
        pytest.importorskip("tensorboard")
    told = "" if form == "run_directory" else precision  # a record of our own says it
    found = []
    for at, log in enumerate(drawn(form, precision)):
        metrics = training(log.length, ranks=log.ranks)
        other = replace(log, clock=0.25)
        reference = read_log(write(tmp_path / f"{at}-reference", form, metrics, log))
        candidates = {
            "the same numbers": read_log(write(tmp_path / f"{at}-same", form, metrics, other)),
            "benign chaos": read_log(write(tmp_path / f"{at}-near", form, chaotic(metrics, precision), other)),
        }
        for (kind, candidate), (said, stated) in itertools.product(candidates.items(), PAIRINGS.items()):
            pairing = None if form == "run_directory" else stated  # of which fingerprints prove it
            verdict = judge(reference, candidate, stated=stated, precision=told)
            undecided = {each.rule for each in verdict.findings if each.outcome is not PASS}
            outcome = INCONCLUSIVE if documented(log, pairing) else PASS
            if (verdict.outcome, undecided) != (outcome, documented(log, pairing)):
                found.append((kind, said, log, [str(each) for each in verdict.findings if each.outcome is not PASS]))
    assert found == []


# --- what is INCONCLUSIVE says what to do, and that leads to a PASS ---------------------------------------------------

NEEDS_ADVICE = {
    "fewer than ten iterations": (("csv_table", 5, {}), ("csv_table", 5, {})),
    "means of fifty": (("mmengine_text", 100, {"every": 50}), ("mmengine_text", 100, {"every": 50})),
    "a candidate that trained longer": (("csv_table", 100, {}), ("csv_table", 120, {})),
    "a window that only one log names": (("mmcv_json", 100, {}), ("free_text", 100, {})),
    "a log of ours and one of mmengine": (("run_directory", 100, {}), ("mmengine_text", 100, {})),
}


@pytest.mark.parametrize("why", NEEDS_ADVICE)
def test_a_healthy_pair_that_is_inconclusive_says_which_limit_accepts_it_and_passes_with_it(tmp_path, why):
    records = []
    for side, (form, length, options) in enumerate(NEEDS_ADVICE[why]):
        metrics = {name: values[:, :length] for name, values in training(120).items()}
        metrics = chaotic(metrics) if side else metrics
        records.append(read_log(write(tmp_path / str(side), form, metrics, Log(length=length, **options))))
    verdict = judge(*records)
    assert verdict.outcome is INCONCLUSIVE
    limits = {}
    for rule, field, value in re.findall(r"--limit (\w+)(?:\.(\w+))?=([\d.e-]*\d)", str([*verdict.findings])):
        limits.setdefault(rule, {})[field or "limit"] = float(value)
    assert judge(*records, **limits).outcome is PASS


def test_runs_that_are_not_paired_pass_from_as_many_values_as_the_finding_asks_for(tmp_path):
    def records(length):
        for name, metrics in (("a", training(length)), ("b", training(length, seed=5))):
            yield read_log(write(tmp_path / f"{length}-{name}", "csv_table", metrics, Log(length=length)))

    short = judge(*records(40), stated=False)
    assert (short.outcome, short.worst.rule) == (INCONCLUSIVE, "equivalence")
    assert f"{FEWEST_IN_HALF} are needed: train longer, or log more often" in short.worst.message
    assert judge(*records(200), stated=False).outcome is PASS


# --- precisions that no log names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
def test_paired_logs_of_a_coarser_precision_fail_with_the_advice_to_name_it_and_pass_with_it(tmp_path, precision):
    metrics = training(60)
    reference, candidate = (
        read_log(write(tmp_path / name, "csv_table", each, Log(length=60)))
        for name, each in (("a", metrics), ("b", chaotic(metrics, precision)))
    )
    verdict = judge(reference, candidate, stated=True)
    assert (verdict.outcome, verdict.worst.rule) == (FAIL, "first_iterations")
    assert "if both computed in another, say --precision" in verdict.worst.message
    assert judge(reference, candidate, stated=True, precision=precision).outcome is PASS
    far = replace(candidate, curves={**candidate.curves, "loss": chaos_of(candidate.curves["loss"], 1.5)})
    assert judge(reference, far, stated=True, precision=precision).outcome is FAIL


def chaos_of(curve, factor):
    return replace(curve, values=curve.values * factor)


def test_what_the_user_says_of_the_precision_is_refused_where_a_log_says_another(tmp_path, emacheck_here):
    for name, form in (("a", "csv_table"), ("b", "csv_table"), ("c", "run_directory")):
        write(tmp_path / name, form, training(40), Log(length=40))
    assert emacheck_here("compare", "a", "b", "--paired", "--precision", "bf16").code == 0
    refused = emacheck_here("compare", "c", "c", "--precision", "bf16")
    assert refused.code == 2
    assert "--precision bf16: the reference, c, says that it computed in fp32. Drop the option." in refused.err


# --- repeats, and steps that a scaler of fp16 leaves out --------------------------------------------------------------


@pytest.mark.parametrize("precision", ROUNDOFF)
@pytest.mark.parametrize("form", ["run_directory", "csv_table", "mmengine_text", "mmengine_json"])
def test_a_healthy_pair_passes_beside_any_number_of_repeats(tmp_path, form, precision):
    metrics, log = training(60), Log(length=60, precision=precision)
    told = "" if form == "run_directory" else precision

    def record(name, seed):
        changed = chaotic(metrics, precision, seed=seed) if seed else metrics
        return read_log(write(tmp_path / name, form, changed, log))

    reference, repeats = record("reference", 0), [record(f"repeat-{seed}", seed) for seed in range(11, 19)]
    candidates = [record(f"candidate-{seed}", seed) for seed in (0, 1)]
    for candidate, count, stated in itertools.product(candidates, (2, 3, 8), (None, True)):
        verdict = judge(reference, candidate, stated=stated, precision=told, repeats=repeats[:count])
        assert verdict.outcome is PASS, [str(each) for each in verdict.findings]
        assert "envelope" in {each.rule for each in verdict.findings}
    equal = [record(f"equal-{n}", 0) for n in (1, 2)]
    assert judge(reference, equal[0], precision=told, repeats=equal).outcome is PASS
    none = judge(reference, candidate, stated=True, precision=told, repeats=equal)
    assert none.outcome is INCONCLUSIVE
    assert "one that equals the reference shows nothing: give runs with other threads, or none" in none.worst.message


@pytest.mark.parametrize(
    ("change", "why"),
    [
        # Of gradients accumulated over four iterations, and of few digits.
        (lambda norms: replace(norms, iterations=norms.iterations[3::4], values=norms.values[3::4]), "chaos has grown"),
        (lambda norms: replace(norms, values=norms.values.round(), quantum=1.0), "as printed"),
    ],
)
def test_a_gradient_norm_of_which_no_first_iteration_tells_anything_forbids_no_pass_and_is_said(tmp_path, change, why):
    metrics = training(60)
    records = []
    for name, each in (
        ("a", metrics),
        ("b", chaotic(metrics)),
    ):
        record = read_log(write(tmp_path / name, "run_directory", each, Log(length=60)))
        norms = change(record.curves["grad_norm"])
        records.append(replace(record, curves={**record.curves, "grad_norm": norms}))
    verdict = judge(*records)
    assert verdict.outcome is PASS
    (early,) = (each for each in verdict.findings if each.rule == "first_iterations")
    assert why in early.limited_by[0]
    assert early.limited_by[0].endswith("its first iterations are not judged")


@pytest.mark.parametrize("form", ["run_directory", "csv_table", "mmengine_text", "mmengine_json"])
@pytest.mark.parametrize("places", [((0, 1), (0, 1)), ((0, 1, 2), (0, 1)), ((), (0,)), ((0, 30), (0, 31))])
def test_steps_that_a_scaler_of_fp16_leaves_out_forbid_no_pass(tmp_path, form, places):
    metrics, log = training(60), Log(length=60, precision="fp16")
    told = "" if form == "run_directory" else "fp16"

    def record(name, seed, left_out):
        changed = with_steps_left_out(chaotic(metrics, "fp16", seed=seed) if seed else metrics, *left_out)
        return read_log(write(tmp_path / name, form, changed, log))

    reference, candidate = record("a", 0, places[0]), record("b", 1, places[1])
    repeats = [record(f"repeat-{seed}", seed, (*places[0], seed)) for seed in (11, 12, 13)]
    assert judge(reference, candidate, precision=told).outcome is PASS
    verdict = judge(reference, candidate, precision=told, repeats=repeats)
    assert verdict.outcome is PASS
    (said,) = {each.limited_by for each in verdict.findings if (each.rule, each.metric) == ("envelope", "grad_norm")}
    assert "at which a scaler left the step out" in said[0]
    # Asked for, it is judged at the other iterations, and says so once.
    twin = record("twin", 0, places[1])
    if places[0] == places[1]:
        assert (
            judge(reference, twin).outcome is PASS
        )  # and where nobody says the precision, what is alike is not judged
    asked = judge(reference, twin, metrics=("loss", "grad_norm"), precision=told)
    assert asked.outcome is PASS
    notes = [note for each in asked.findings for note in each.limited_by if "scaler" in note]
    # Our own record has no norm of a step that was left out, so nothing is lost where both lack it.
    left_out = {*places[0], *places[1]} if form != "run_directory" else {*places[0]} ^ {*places[1]}
    count = counted(len(left_out), "iteration")
    assert notes == [f"grad_norm is not judged at {count} at which a scaler left the step out"] * bool(left_out)
    # What no scaler explains is judged as before.
    lost = record("lost", 1, range(40, 60))
    assert judge(reference, lost, precision=told, repeats=repeats).outcome is not PASS
    assert judge(reference, lost, metrics=("grad_norm",), precision=told).outcome is FAIL
    if form != "run_directory":
        assert (
            judge(record("none", 0, ()), record("some", 1, (5, 9)), precision="fp32", repeats=repeats).outcome
            is not PASS
        )
