"""What an explanation says in one sentence; no torch."""

from emacheck.audit.findings.operators import (
    PARTLY,
    PROVEN,
    RIGHT,
    UNREPEATED,
    UNTRIED,
    Explanation,
    OperatorError,
)
from emacheck.audit.findings.text import number, ratio_and_limit
from emacheck.counted import counted

SHOWN = 3
CHOSE = "among equal values {} chose others than the CPU does, as any device may, and that may be all of it"
MISCOPIED = "what is copied to {} and back is not what it was, so that its copies are wrong"


def message_of(found: Explanation, *, also: str = "", unseen: str = "") -> str:
    """Return what an explanation says, for a person.

    Args:
        found: The explanation.
        also: Where the error may come from: other choices, copies or calls; empty if unknown.
        unseen: An operator of the reference in whose place the device shows none; empty if there is no such.
    """
    if found.conclusion == UNREPEATED and found.trials:
        last = found.trials[-1]
        return (
            f"{found.scope}: {_wrong(list(found.suspects[:SHOWN]), found.scope)}{_more(found)}; repeated as it is it "
            f"is within its limits now ({number(last.ratio)}, limit {last.limit:g}), so what is wrong there comes and "
            "goes, and no cause is shown"
        )
    if found.conclusion == UNREPEATED:
        return (
            f"{found.scope}: repeated with its operators watched it is within its limits ({number(found.ratio)}, limit "
            f"{found.limit:g}), so what is wrong there does not repeat"
        )
    if found.conclusion == RIGHT:
        return f"{found.scope}: {_right(found, unseen)}{f'; {also}' if also and not unseen else ''}"
    if found.conclusion == PROVEN:
        rows = [row for name in found.cause for row in found.operators if row.operator == name]
        return f"{found.scope}: {_wrong(rows, found.scope)}; with {_it(rows)} computed on the CPU {_passes(found)}"
    rows = list(found.suspects[:SHOWN])
    if found.conclusion == UNTRIED:
        return f"{found.scope}: {_wrong(rows, found.scope)}{_more(found)}"
    last = found.trials[-1]
    moved = f"it differs by {ratio_and_limit(last.ratio, last.limit)} instead of {number(found.ratio)}"
    rest = "something else is wrong as well" if found.conclusion == PARTLY else "that is not shown to be the cause"
    wrong = f"{_wrong(rows, found.scope)}{_more(found)}"
    return f"{found.scope}: {wrong}; with {_it(rows)} computed on the CPU {moved}, so {rest}"


def _right(found: Explanation, unseen: str) -> str:
    hidden = (
        f"{unseen}, which the reference calls, is not called there: either it is left out, or the device computes it "
        "in a kernel that torch does not show"
    )
    if unseen and not found.calls:
        return f"no operator could be judged: {hidden}"
    if not found.calls:
        return f"no operator could be judged ({_unjudged(found) or 'it runs none that computes'})"
    worst = found.operators[0]
    many = f"{counted(found.calls, 'call')} of {counted(len(found.operators), 'operator')}"
    judged = f"{many}; the worst ratio is {ratio_and_limit(worst.ratio, worst.limit)}, of {worst.operator}"
    if unseen:
        return f"every operator that torch shows is right on the inputs it got ({judged}); {hidden}"
    if found.unjudged:
        return f"every operator that could be judged is right on the inputs it got ({judged}); {_unjudged(found)}"
    if found.level == "end to end" and found.ratio != found.ratio:  # a survey: nothing failed
        return f"every operator is right on the inputs it got ({judged})"
    return (
        f"every operator is right on the inputs it got ({judged}): the error is in what is called with what, not in "
        "an operator"
    )


def _unjudged(found: Explanation) -> str:
    rows = found.unjudged[:SHOWN]
    more = len(found.unjudged) - len(rows)
    said = ", ".join(f"{row.operator} ({row.why})" for row in rows)
    return f"not judged: {said}{f' and {more} more' if more else ''}" if rows else ""


def _wrong(rows: list[OperatorError], scope: str) -> str:
    return " and ".join(_row(row, scope) for row in rows)


def _row(row: OperatorError, scope: str) -> str:
    where = f" in {row.module}" if row.module not in ("", scope) else ""
    only = f", only those {row.only}" if row.only else ""
    steady = ", and it does not repeat" if row.repeats is False else ""
    is_wrong = "is close to its limit" if row.passes else "is wrong"
    count = f"{row.over} of {counted(row.calls, 'call')}{only}"
    ratio = f"ratio {ratio_and_limit(row.ratio, row.limit)}"
    return f"{row.operator} ({row.phase}{where}) {is_wrong}: {ratio}, {count}{steady}"


def _it(rows: list[OperatorError]) -> str:
    return "it" if len(rows) == 1 else "them"


def _more(found: Explanation) -> str:
    more = len(found.suspects) - SHOWN
    return f" and {more} more" if more > 0 else ""


def _passes(found: Explanation) -> str:
    return {"(optimizer)": "the optimizer passes", "(iteration)": "the whole iteration passes"}.get(
        found.scope, "the module passes"
    )
