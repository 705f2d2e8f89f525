"""Which rank wrote a record, and what became of records that others replaced."""

import json
import math

import pytest
from conftest import points, said
from log_lines import tcap_line as tcap

from emacheck.judge import Outcome, decide
from emacheck.judge.comparison import compare
from emacheck.oddity import Effect, OddityKind

N = 40
REFERENCE = [1.5 + 2.5 * math.exp(-i / 40) * (1 + 0.03 * math.sin(7.7 * i)) for i in range(N)]
# Rounding that grows, as between two devices.
CANDIDATE = [v * (1 + min(1e-7 * 2**i, 0.005) * math.sin(3.3 * i)) for i, v in enumerate(REFERENCE)]


def csv(rows, columns="iteration,rank,loss"):
    return columns + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


def two_ranks(change):
    """Return rows of two ranks whose mean is the candidate; ``change`` makes a rank's loss of the mean."""
    return [(i + 1, rank, change(rank, i, CANDIDATE[i])) for i in range(N) for rank in (0, 1)]


def as_table(rows):
    return csv(rows)


def as_blanks(rows):
    return "iteration rank loss\n" + "".join(f"{i} {rank} {loss}\n" for i, rank, loss in rows)


def as_rows(rows):
    return json.dumps([{"iteration": i, "rank": rank, "loss": loss} for i, rank, loss in rows])


def as_lists(rows):
    return json.dumps(dict(zip(("iteration", "rank", "loss"), map(list, zip(*rows, strict=True)), strict=True)))


def as_json_lines(rows):
    return "".join(json.dumps({"iteration": i, "rank": rank, "loss": loss}) + "\n" for i, rank, loss in rows)


def kinds(record):
    return {each.kind for each in record.oddities}


def judged(reference, candidate):
    return decide(compare(reference, candidate))


# --- columns and keys that name the rank -----------------------------------------------------------------------------


@pytest.mark.parametrize("written", [as_table, as_blanks, as_rows, as_lists, as_json_lines])
def test_a_column_or_key_rank_is_the_rank_and_not_a_metric(log, written):
    text = written([(i, rank, 2.0 * i + rank) for i in (1, 2, 3) for rank in (0, 1)])
    record = log(text)
    assert (record.ranks, points(record)) == (2, [(1, 2.5), (2, 4.5), (3, 6.5)])
    assert set(record.curves) == {"loss"}
    assert points(log(text, rank=1)) == [(1, 3.0), (2, 5.0), (3, 7.0)]


@pytest.mark.parametrize("written", [as_table, as_blanks, as_rows, as_lists, as_json_lines])
def test_nan_of_one_rank_in_a_table_fails(log, written):
    reference = log(csv(enumerate(REFERENCE, 1), "iteration,loss"))
    candidate = log(written(two_ranks(lambda rank, i, v: math.nan if rank == 0 and i > 20 else v)))
    assert judged(reference, candidate).outcome is Outcome.FAIL


@pytest.mark.parametrize("names", ["local_rank", "global_rank", "Rank", "local_rank,global_rank"])
def test_the_rank_has_several_names_and_the_global_one_tells_most(log, names):
    count = names.count(",") + 1
    rows = [(i, *[rank % 2, rank][-count:], 2.5 + rank) for i in (1, 2) for rank in (0, 1)]
    record = log(csv(rows, f"iteration,{names},loss"))
    assert (record.ranks, set(record.curves)) == (2, {"loss"})


@pytest.mark.parametrize("written", [as_table, as_blanks])
def test_a_metric_that_is_called_rank_stays_a_metric(log, written):
    record = log(written([(1, 3.5, 4.5), (2, 3.0, 4.0)]))
    assert points(record, "rank") == [(1, 3.5), (2, 3.0)]


@pytest.mark.parametrize("written", [as_table, as_blanks])
def test_rows_without_an_integer_as_their_rank_are_counted(log, written):
    record = log(written([(1, 0, 4.5), (2, "?", 4.0), (3, 0, 3.5)]))
    assert points(record) == [(1, 4.5), (3, 3.5)]
    assert "rows whose rank is not an integer of 64 bits: 1 skipped, the first on line 3" in said(record)


# --- records that others replaced ------------------------------------------------------------------------------------


def test_several_losses_of_most_iterations_decide_nothing(log):
    record = log(csv([(i, loss) for i in range(1, 9) for loss in (3.0 / i, 2.0 / i)], "iteration,loss"))
    (mixed,) = (each for each in record.oddities if each.kind is OddityKind.MIXED)
    assert mixed.effect is Effect.INCONCLUSIVE
    assert mixed.message.startswith("8 of 8 iterations are recorded with several losses")


@pytest.mark.parametrize(
    "rows",
    [
        [*enumerate(REFERENCE, 1), *enumerate(CANDIDATE[5:], 6)],
        [(i, loss) for i, loss in enumerate(REFERENCE, 1) for _ in range(2)],
    ],
    ids=["resumed early", "written twice alike"],
)
def test_a_resume_and_equal_records_are_no_mixture(log, rows):
    assert OddityKind.MIXED not in kinds(log(csv(rows, "iteration,loss")))


NAN = ["nan"] * 10


@pytest.mark.parametrize(
    ("rows", "line", "at", "count"),
    [
        ([*enumerate([*CANDIDATE[:20], *NAN], 1), *enumerate(CANDIDATE[20:], 21)], 22, 21, 10),
        ([*enumerate([*CANDIDATE[:20], *NAN], 1), *enumerate(CANDIDATE, 1)], 22, 21, 10),
        ([*enumerate(CANDIDATE[:5], 1), (5, "-inf"), *enumerate(CANDIDATE[4:], 5)], 7, 5, 1),
    ],
    ids=["resumed", "second run", "duplicate line"],
)
def test_a_loss_that_was_nan_before_it_was_replaced_is_inconclusive(log, rows, line, at, count):
    reference = log(csv(enumerate(REFERENCE, 1), "iteration,loss"))
    candidate = log(csv(rows, "iteration,loss"))
    (found,) = (each for each in candidate.oddities if each.kind is OddityKind.REPLACED_NOT_FINITE)
    where = f"line {line}: loss is NaN or infinite in records that later ones replaced"
    assert found.message.startswith(f"{where}: {count}, the first at iteration {at}")
    assert judged(reference, candidate).outcome is Outcome.INCONCLUSIVE


def test_a_finite_run_that_was_resumed_still_passes(log):
    reference = log(csv(enumerate(REFERENCE, 1), "iteration,loss"))
    candidate = log(csv([*enumerate(CANDIDATE[:30], 1), *enumerate(CANDIDATE[20:], 21)], "iteration,loss"))
    assert {OddityKind.RESUMED} <= kinds(candidate)
    assert judged(reference, candidate).outcome is Outcome.PASS


def test_a_gradient_norm_that_was_infinite_before_a_resume_is_no_reason(log):
    rows = [(1, 2.5, 1.0), (2, 2.4, "inf"), (3, 2.3, 1.0), (2, 2.4, 1.1), (3, 2.3, 1.0)]
    assert OddityKind.REPLACED_NOT_FINITE not in kinds(log(csv(rows, "iteration,loss,grad_norm")))


def test_what_happened_to_one_rank_is_said_of_it_and_what_happened_to_all_once(log):
    text = "".join(tcap(i, 9 - i, rank=rank) for i in (0, 1, 2, 3, 2, 3) for rank in (0, 1, 2))
    text += tcap(4, "nan", rank=2) + "".join(tcap(4, 4.5, rank=rank) for rank in (0, 1, 2))
    found = said(log(text))
    assert "line 13: the iteration goes back from 3 to 2, as after a resume" in found
    assert any(each.startswith("rank 2: line 19: loss is NaN or infinite in records that") for each in found)
    assert sum("goes back" in each for each in found) == 1


# --- lines that a launcher marked with the rank ----------------------------------------------------------------------


def marked(*ranks, start=0):
    """Return the lines of ranks, mixed line by line."""
    turns = max(map(len, ranks))
    return "".join(
        f"[rank{rank}]: {lines[turn]}\n"
        for turn in range(turns)
        for rank, lines in enumerate(ranks, start)
        if turn < len(lines)
    )


def lines_of(losses):
    return [f"iter {i} loss: {loss:.6f}" for i, loss in enumerate(losses, 1)]


@pytest.mark.parametrize(
    "unreadable",
    [[f"iter {i} loss: ***" for i in range(1, N + 1)], ["CUDA error: device-side assert triggered"] * 5],
    ids=["loss of stars", "device error"],
)
@pytest.mark.parametrize("others", [1, 2], ids=["one rank records", "two ranks record"])
def test_a_rank_whose_losses_cannot_be_read_is_missing(log, unreadable, others):
    reference = log(marked(*[lines_of(REFERENCE)] * others))
    candidate = log(marked(*[lines_of(CANDIDATE)] * others, unreadable))
    (missing,) = (each for each in candidate.oddities if each.kind is OddityKind.RANKS_MISSING)
    assert missing.message.startswith(f"no line of rank {others} can be read as a record")
    assert judged(reference, candidate).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("words", ["reducing loss scale to 32768.0", "UserWarning: slow nll_loss kernel", "ready"])
def test_ranks_that_leave_the_log_to_one_of_them_are_not_missing(log, words):
    candidate = log(marked(lines_of(CANDIDATE), [words] * 3, [words] * 3))
    assert OddityKind.RANKS_MISSING not in kinds(candidate)
    assert "3 ranks are in the log; rank 0 alone has records" in said(candidate)
    assert judged(log(marked(lines_of(REFERENCE))), candidate).outcome is Outcome.PASS


def test_a_metric_that_another_rank_than_the_first_prints_is_not_lost(log):
    parts = [f"{line}  aux_loss: nan" for line in lines_of(CANDIDATE)]
    candidate = log(marked(lines_of(CANDIDATE), parts))
    assert len(candidate.curves["aux_loss"]) == N
    assert judged(log(marked(*[lines_of(REFERENCE)] * 2)), candidate).outcome is Outcome.FAIL


def test_what_is_odd_in_any_rank_is_said_with_the_rank(log):
    again = [*lines_of([2 * v for v in CANDIDATE]), *lines_of(CANDIDATE)[20:]]
    spoilt = [*lines_of(CANDIDATE)[:9], "iter 10 loss: nan", *lines_of(CANDIDATE)[9:]]
    record = log(marked(lines_of(CANDIDATE), again, spoilt))
    found = {each.kind: str(each) for each in record.oddities if str(each).startswith("rank ")}
    assert found[OddityKind.RESUMED].startswith("rank 1: line 41: the iteration goes back from 40 to 21")
    assert found[OddityKind.REPLACED_NOT_FINITE].startswith("rank 2: line 10: loss is NaN or infinite")


def test_ranks_that_are_all_odd_in_the_same_way_are_described_once(log):
    record = log(marked(*[[*lines_of(CANDIDATE)[:30], *lines_of(CANDIDATE)[20:]]] * 4))
    resumed = [str(each) for each in record.oddities if each.kind is OddityKind.RESUMED]
    assert resumed == ["line 31: the iteration goes back from 30 to 21, as after a resume"]


def test_of_many_ranks_that_differ_a_few_are_named_and_the_others_counted(log):
    ranks = [[*lines_of(CANDIDATE)[: 10 + rank], *lines_of(CANDIDATE)[2 + rank :]] for rank in range(9)]
    resumed = [str(each) for each in log(marked(*ranks)).oddities if each.kind is OddityKind.RESUMED]
    assert (len(resumed), resumed[-1]) == (6, "4 further remarks of this kind, about single ranks")


# --- the curves of each rank -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "".join(tcap(i, i + rank, rank=rank) for i in range(1, 4) for rank in (0, 1)),
        marked(lines_of([1, 2, 3]), lines_of([2, 3, 4])),
        as_table([(i, rank, i + rank) for i in (1, 2, 3) for rank in (0, 1)]),
        as_json_lines([(i, rank, i + rank) for i in (1, 2, 3) for rank in (0, 1)]),
    ],
    ids=["TCAPPDLL", "marked lines", "CSV", "JSON lines"],
)
def test_a_record_of_several_ranks_holds_the_curves_of_each(log, text):
    record = log(text)
    assert points(record) == [(1, 1.5), (2, 2.5), (3, 3.5)]
    assert set(record.of_ranks) == {0, 1}
    for rank in (0, 1):
        alone = record.of_rank(rank)
        assert points(alone) == points(log(text, rank=rank)) == [(i, i + rank) for i in (1, 2, 3)]
        assert (alone.curves["loss"].window, alone.curves["loss"].quantum) == (
            record.curves["loss"].window,
            record.curves["loss"].quantum,
        )
    assert {len(curves["loss"]) for curves in record.until(2).of_ranks.values()} == {2}
    assert not log(text, rank=1).of_ranks


def test_a_metric_that_is_taken_for_the_loss_is_so_in_each_rank(log):
    record = log(csv([(i, rank, i + rank) for i in (1, 2, 3) for rank in (0, 1)], "iteration,rank,total_loss"))
    assert points(record.of_rank(1)) == points(record.of_rank(1), "total_loss") == [(1, 2.0), (2, 3.0), (3, 4.0)]
