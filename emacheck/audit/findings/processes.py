"""What the processes of one iteration must have in common, and what is said where they have not; no torch."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from emacheck.audit.findings.result import ITERATION, PHASES, PROCESSES, ModuleFinding, TensorError, badness, persistent
from emacheck.counted import counted
from emacheck.judge.verdict import Outcome
from emacheck.strict_json import decode_value, strict

ALL_REDUCE = "all-reduce of"
LEVEL = "processes"
OF_RANK = " of rank "
_PHASE = {"gradient": "backward", "buffer": "buffers", "update": "optimizer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankBatch:
    """What one process reports about one batch.

    Attributes:
        samples: The hash of each sample that it was fed.
        losses: Its own losses by name.
        hashes: The hash of every gradient, update and buffer change, by :func:`key`, in the order of the network.
        reduced: For every gradient how far the all-reduced one is from the mean of the processes' own gradients in
            float64, relative to the largest of these; the larger of Frobenius and maximum norm, by parameter.
    """

    samples: list[str]
    losses: dict[str, float]
    hashes: dict[str, str]
    reduced: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankReport:
    """What one process reports.

    Attributes:
        rank: Its number.
        device: Where it computed.
        start: The hash of every parameter and buffer from which it started, by name.
        batches: One entry for each batch.
    """

    rank: int
    device: str
    start: dict[str, str]
    batches: list[RankBatch] = field(default_factory=list)

    def to_json(self) -> Any:
        """Return it in types that strict JSON has."""
        return strict(asdict(self))


def read_report(fields: Mapping[str, Any]) -> RankReport:
    """Return the report that :meth:`RankReport.to_json` wrote.

    Example:
        >>> report = RankReport(rank=1, device="cpu", start={"w": "a"})
        >>> read_report(report.to_json()) == report
        True
    """
    batches = [
        RankBatch(
            samples=list(batch["samples"]),
            losses={name: decode_value(value) for name, value in batch["losses"].items()},
            hashes=dict(batch["hashes"]),
            reduced={name: decode_value(value) for name, value in batch["reduced"].items()},
        )
        for batch in fields["batches"]
    ]
    return RankReport(rank=fields["rank"], device=fields["device"], start=dict(fields["start"]), batches=batches)


def key(kind: str, module: str, path: str) -> str:
    """Return the name under which a tensor is reported.

    Example:
        >>> key("gradient", "decode_head.conv_seg", "bias")
        'gradient decode_head.conv_seg bias'
    """
    return f"{kind} {module} {path}"


def parse_key(name: str) -> tuple[str, str, str]:
    """Return kind, module and path of a tensor that is reported under a name."""
    kind, module, path = name.split(" ", 2)
    return kind, module, path


def reduced_errors(
    reports: Sequence[RankReport], *, unit_roundoff: float, limit: float, depths: Mapping[str, int]
) -> list[TensorError]:
    """Return the errors of the all-reduced gradients, each the largest of all processes.

    A sum of N terms in any order is off by at most N unit roundoffs of the sum of their magnitudes.

    Args:
        reports: The reports of all processes.
        unit_roundoff: That of the type of the gradients.
        limit: How many times the accepted error passes.
        depths: Position of each module in the order of the forward pass.
    """
    found = []
    for at, first in enumerate(reports[0].batches):
        for parameter in first.reduced:
            module, _, own = parameter.rpartition(".")
            found.append(
                TensorError(
                    module=module,
                    kind="",
                    tensor=f"{ALL_REDUCE} gradient {own}",
                    phase="backward",
                    level=LEVEL,
                    batch=at + 1,
                    depth=depths.get(module, 0),
                    error=max((r.batches[at].reduced.get(parameter, float("inf")) for r in reports), key=_finite),
                    accepted=len(reports) * unit_roundoff,
                    limit=limit,
                )
            )
    return found


def _finite(value: float) -> float:
    return value if value == value else float("inf")  # noqa: PLR0124 - NaN is unlike itself


def find_between(
    reports: Sequence[RankReport],
    *,
    start: Mapping[str, str],
    samples: Sequence[Sequence[str]],
    own: Collection[str],
) -> list[ModuleFinding]:
    """Find where processes differ that an algorithm makes equal, bit for bit, and where they were fed other samples.

    Args:
        reports: The reports of all processes, by rank.
        start: The hashes of the shared state, by name.
        samples: For each batch the hashes of the joined batch's samples; sample i is that of rank i modulo N.
        own: Names of buffers that belong to a process, such as statistics that are not synchronised.

    Returns:
        At most one finding for each of: the state at the start, the samples, gradients, updates and buffers.
    """
    found = [_of_start(reports, start), _of_samples(reports, samples)]
    gradients = _differing(reports, "gradient", own)
    found.append(_unequal(reports, gradients))
    # A gradient that differs makes an update that differs.
    inherited = {(rank, batch, module, path) for rank, batch, _, module, path in gradients}
    updates = [each for each in _differing(reports, "update", own) if (*each[:2], *each[3:]) not in inherited]
    found += [_unequal(reports, updates), _unequal(reports, _differing(reports, "buffer", own))]
    return [finding for finding in found if finding is not None]


_Difference = tuple[int, int, str, str, str]


def _differing(reports: Sequence[RankReport], kind: str, own: Collection[str]) -> list[_Difference]:
    """Return rank, batch, kind, module and path of what differs from rank 0, in the order of the network."""
    return list(_differences(reports, kind, own))


def _differences(reports: Sequence[RankReport], kind: str, own: Collection[str]) -> Iterator[_Difference]:
    first = reports[0]
    for at, batch in enumerate(first.batches):
        names = {name: None for each in reports for name in each.batches[at].hashes}
        for name in names:
            found, module, path = parse_key(name)
            if found != kind or (kind == "buffer" and f"{module}.{path}" in own):
                continue
            for report in reports[1:]:
                if report.batches[at].hashes.get(name) != batch.hashes.get(name):
                    yield report.rank, at + 1, kind, module, path


def _unequal(reports: Sequence[RankReport], differences: Sequence[_Difference]) -> ModuleFinding | None:
    if not differences:
        return None
    rank, batch, kind, module, path = differences[0]
    count = len({(each[3], each[4]) for each in differences})
    compared = sum(parse_key(name)[0] == kind for name in reports[0].batches[batch - 1].hashes)
    ranks = sorted({each[0] for each in differences})
    return _certain(
        module=module,
        phase=_PHASE[kind],
        tensor=f"{kind} {path}",
        count=count,
        rank=rank,
        message=(
            f"rank {rank} differs from rank 0 in {kind} {module}.{path}, batch {batch}: {count} of {compared} {kind}s "
            f"are not equal bit for bit on all {len(reports)} ranks ({_names(ranks)})"
        ),
    )


def _certain(*, module: str, phase: str, tensor: str, count: int, rank: int, message: str) -> ModuleFinding:
    """Return the finding of a difference between processes that no rounding explains."""
    return ModuleFinding(
        module=module,
        kind=LEVEL,
        outcome=Outcome.FAIL,
        phase=phase,
        introduced=True,
        tensor=tensor,
        count=count,
        rank=rank,
        message=message,
    )


def _names(ranks: Sequence[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:8])
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {shown}{' ...' if len(ranks) > 8 else ''}"


def _of_start(reports: Sequence[RankReport], start: Mapping[str, str]) -> ModuleFinding | None:
    for report in reports:
        names = [name for name in {**start, **report.start} if start.get(name) != report.start.get(name)]
        if names:
            module, _, path = names[0].rpartition(".")
            return _certain(
                module=module,
                phase="forward",
                tensor=path,
                count=len(names),
                rank=report.rank,
                message=(
                    f"rank {report.rank} starts from another state than the shared one: {names[0]} on {report.device} "
                    f"is the first of {len(names)} of {len(start)} tensors that are not equal bit for bit"
                ),
            )
    return None


def _of_samples(reports: Sequence[RankReport], samples: Sequence[Sequence[str]]) -> ModuleFinding | None:
    for at, joined in enumerate(samples):
        for report in reports:
            expected, seen = list(joined[report.rank :: len(reports)]), report.batches[at].samples
            if expected == seen:
                continue
            wrong = next((hash_ for hash_, due in zip(seen, expected, strict=False) if hash_ != due), "")
            theirs = joined.index(wrong) % len(reports) if wrong in joined else None
            whose = "none of the joined batch" if theirs is None else f"one that belongs to rank {theirs}"
            return _certain(
                module=PROCESSES,
                phase="forward",
                tensor="samples",
                count=len(seen),
                rank=report.rank,
                message=(
                    f"rank {report.rank} was fed other samples than its share of the joined batch {at + 1}: {whose}; "
                    "expected samples r, r + N, r + 2 N, ... on rank r of N"
                ),
            )
    return None


def find_whole(errors: Sequence[TensorError], *, size: int, explained: bool) -> list[ModuleFinding]:
    """Find what the processes together do otherwise than one process with the joined batch.

    Args:
        errors: The errors of level ``processes``.
        size: How many processes there are.
        explained: Whether something else was found already, from which this may be inherited.
    """
    over = persistent(errors)
    reduced = [error for error in over if error.tensor.startswith(ALL_REDUCE)]
    found = []
    if reduced:
        worst = max(reduced, key=badness)
        count = len({(error.module, error.tensor) for error in reduced})
        message = (
            f"the all-reduced gradients are not the mean of the gradients of the {size} processes: {count} of them, "
            f"the worst is gradient {worst.module}.{worst.tensor.rpartition(' ')[2]}"
        )
        found.append(_finding(PROCESSES, worst, count, message, introduced=True))
    whole = [error for error in over if not error.tensor.startswith(ALL_REDUCE)]
    if whole:
        found.append(_of_whole(whole, size=size, introduced=not explained and not found))
    return found


def _of_whole(whole: list[TensorError], *, size: int, introduced: bool) -> ModuleFinding:
    phase = min((error.phase for error in whole), key=PHASES.index)
    first = [error for error in whole if error.phase == phase]
    # A median has no place; a tensor says more.
    worst = max([error for error in first if error.module != ITERATION] or first, key=badness)
    modules = {error.module for error in whole} - {ITERATION}
    module = worst.module if modules == {worst.module} and phase != "loss" else PROCESSES
    losses = [error for error in whole if OF_RANK in error.tensor]
    ranks = {int(error.tensor.rpartition(OF_RANK)[2]) for error in losses}
    rank = next(iter(ranks)) if len(ranks) == 1 < size else None
    count = len({(error.module, error.tensor) for error in whole})
    told = ""
    if rank is not None:
        told = f"; only the loss of rank {rank} differs, so audit its device alone as well"
    elif losses:
        told = f"; the loss of rank {max(losses, key=badness).tensor.rpartition(OF_RANK)[2]} is farthest off"
    inherited = "" if introduced else "; it may be inherited from what is above"
    message = (
        f"{size} processes differ from one with the joined batch, first in phase {phase}: "
        f"{counted(count, 'tensor')}, the worst is {worst.tensor} of {worst.module}{told}{inherited}"
    )
    return _finding(module, worst, count, message, introduced=introduced, rank=rank)


def _finding(
    module: str, worst: TensorError, count: int, message: str, *, introduced: bool, rank: int | None = None
) -> ModuleFinding:
    inside = module == worst.module
    return ModuleFinding(
        module=module,
        kind=LEVEL,
        outcome=Outcome.FAIL,
        phase=worst.phase,
        introduced=introduced,
        tensor=worst.tensor if inside else f"{worst.module} {worst.tensor}",
        ratio=worst.ratio,
        limit=worst.limit,
        count=count,
        rank=rank,
        message=message,
    )
