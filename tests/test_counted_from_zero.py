"""Logs of which one counts its iterations from 0 and the other from 1."""

from dataclasses import replace

import numpy as np
import pytest

from emacheck import Curve, Record, compare, decide
from emacheck.judge import Outcome, make_rules

LOSSES = (4.0 * np.exp(-np.arange(60) / 40) + 0.5) * np.exp(0.1 * np.random.default_rng(0).normal(size=60))


def run(first, factor=1.0, ranks=0, **fields):
    def loss(values):
        return {"loss": Curve(name="loss", iterations=range(first, first + 60), values=values)}

    of_ranks = {rank: loss(factor * LOSSES * (1 + rank / 100)) for rank in range(ranks)}
    return Record(
        name="", format="test", curves=loss(factor * LOSSES), ranks=max(ranks, 1), of_ranks=of_ranks, **fields
    )


def paired(reference, candidate):
    """A comparison of which the user says that the runs are paired, as the shifted curves do not show it."""
    return replace(compare(reference, candidate), stated=True)


def outcomes(verdict):
    return {finding.rule: finding.outcome for finding in verdict.findings}


@pytest.mark.parametrize(("reference", "candidate"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("ranks", [0, 2])
def test_the_same_losses_do_not_fail_and_the_finding_says_how_to_number_them_alike(reference, candidate, ranks):
    verdict = decide(paired(run(reference, ranks=ranks), run(candidate, ranks=ranks)))
    assert Outcome.FAIL not in outcomes(verdict).values(), verdict.findings
    assert verdict.outcome is Outcome.INCONCLUSIVE
    coverage = next(finding for finding in verdict.findings if finding.rule == "coverage")
    assert coverage.message == (
        f"the reference counts its iterations from {reference}, the candidate from {candidate}, and they are paired by "
        "number: if both begin with the same iteration, say --from-one"
    )
    over = next(finding for finding in verdict.findings if finding.rule == "mean_relative_error")
    assert over.message.startswith("of pairs that may be wrong, see coverage; ")


def test_a_loss_that_is_39_percent_too_low_fails_however_it_is_numbered():
    assert outcomes(decide(paired(run(0), run(1, 0.61))))["bias"] is Outcome.FAIL


def test_a_rule_that_was_named_fails_over_its_limit_whatever_the_numbers_mean():
    comparison = paired(run(0), run(1))
    assert outcomes(decide(comparison, make_rules(["bias"])))["bias"] is Outcome.FAIL
    assert outcomes(decide(comparison, named=("bias",)))["bias"] is Outcome.FAIL


def test_a_run_that_ended_early_besides_is_no_matter_of_numbers():
    early = replace(run(1), curves={"loss": Curve(name="loss", iterations=range(1, 41), values=LOSSES[:40])})
    assert outcomes(decide(paired(run(0), early)))["coverage"] is Outcome.FAIL


def test_a_record_from_zero_is_numbered_from_one_with_its_ranks_validations_and_blanks():
    score = Curve(name="mIoU", iterations=[29, 59], values=[1.0, 2.0])
    made = run(0, ranks=2, validation={"mIoU": score}, blank=np.array([7])).from_one()
    assert made.curves["loss"].iterations[[0, -1]].tolist() == [1, 60]
    assert made.of_ranks[1]["loss"].iterations[[0, -1]].tolist() == [1, 60]
    assert made.validation["mIoU"].iterations.tolist() == [30, 60]
    assert made.blank.tolist() == [8]


@pytest.mark.parametrize("first", [1, 50])
def test_a_record_that_does_not_begin_at_zero_stays(first):
    record = run(first)
    assert record.from_one() is record


def test_the_command_line_numbers_both_logs_from_one_and_says_so(emacheck_here, tmp_path):
    for first, name in enumerate(("zero.csv", "one.csv")):
        rows = [f"{iteration},{loss!r}" for iteration, loss in enumerate(LOSSES.tolist(), first)]
        (tmp_path / name).write_text("\n".join(["iteration,loss", *rows, ""]))
    assert emacheck_here("compare", "zero.csv", "one.csv").code == 3
    done = emacheck_here("compare", "zero.csv", "one.csv", "--from-one")
    assert (done.code, done.last_line.endswith("emacheck compare zero.csv one.csv --from-one")) == (0, True), done
    assert done.out.count("[renumbered]") == 1
