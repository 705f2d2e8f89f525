"""What is the same where it should differ, so that agreement says little: one run, one device, ranks that are equal."""

from collections.abc import Iterator, Mapping

from emacheck.judge.comparison import Comparison
from emacheck.judge.forensics.one_run import of_one_run
from emacheck.judge.reasons.reason import Reason


def one_run(comparison: Comparison) -> Iterator[Reason]:
    """Say that both records are the log of one run."""
    if same := of_one_run(comparison):
        yield Reason(message=same)


def equal_ranks(comparison: Comparison) -> Iterator[Reason]:
    """Say that all ranks of the candidate have the same losses while those of the reference differ."""
    for metric in comparison.metrics:
        ours, theirs = (
            {each[metric].values.tobytes() for each in side.of_ranks.values() if metric in each}
            for _, side in comparison.sides
        )
        count = sum(metric in each for each in comparison.candidate.of_ranks.values())
        if count > 1 and len(theirs) == 1 and len(ours) > 1:
            yield Reason(
                message=f"all {count} ranks of the candidate have the same {metric}, those of the reference do not: "
                "they see the same samples, or print their mean"
            )


def one_device(comparison: Comparison) -> Iterator[Reason]:
    """Say that a device is held against itself; the CPU is what is trusted, and may be."""
    devices = [record.provenance.get("device") for _, record in comparison.sides]
    facts = [(each.get("type"), each.get("name")) for each in devices if isinstance(each, Mapping)]
    if len(facts) == 2 and facts[0] == facts[1] and facts[0][0] not in (None, "cpu"):
        yield Reason(
            message=f"both were trained on {facts[0][0]} ({facts[0][1]}), and what it does wrong in both does not show"
        )
