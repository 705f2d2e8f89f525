"""A selftest for a terminal: one line for each fault, then the counts."""

from emacheck.audit.selftest import RULES, Selftest, Trial
from emacheck.audit.text import number


def selftest_text(result: Selftest, *, command: str) -> str:
    """Return what a person reads.

    Args:
        result: All trials.
        command: The command that reproduces it.
    """
    width = max([len(trial.name) for trial in result.faults] + [10])
    lines = [f"  {'fault':{width}} {'class':10} {'alone':>9} {'whole':>9}  {'found by':22} module"]
    lines += [_fault(trial, width) for trial in result.faults]
    lines += ["", f"  {'rule':18} {'detected':>12} {'false alarms':>13}  95 % interval    upper limit (one-sided 95 %)"]
    rules = result.rules()
    for name in RULES:
        rule = rules[name]
        low, high = rule["interval"]
        lines.append(
            f"  {name:18} {rule['detected']:5} of {rule['faults']:3} {rule['false_alarms']:6} of {rule['trials']:3}"
            f"  {low:6.2%} to {high:6.2%}  {rule['upper_limit']:.2%}"
        )
    named, placed = result.naming()
    lines.append(f"\n  named correctly: {named} of {placed} faults that sit in one module")
    worst = max(result.benign, key=lambda trial: max(trial.isolated, trial.end_to_end), default=None)
    if worst is not None:
        lines.append(
            f"  worst benign trial: alone {number(worst.isolated)}, whole {number(worst.end_to_end)} "
            f"of the limit ({worst.name})"
        )
    lines += ["", "  alone, whole: worst ratio over its limit, of a tensor of one module and of a whole iteration", ""]
    audit = rules["audit"]
    counts = (
        f"detected {audit['detected']} of {audit['faults']}, false alarms {audit['false_alarms']} of {audit['trials']}"
    )
    lines.append(f"{result.outcome} selftest {counts} | {command}")
    return "\n".join(lines)


def _fault(trial: Trial, width: int) -> str:
    if trial.message:
        said, module = trial.message, ""
    elif not trial.changed:
        said, module = "NO EFFECT: not a fault", ""
    else:
        rules = [rule.removeprefix("audit_").replace("_", " ") for rule in trial.detected_by if rule != "audit"]
        said = ", ".join(rules) or "MISSED"
        module = "-" if trial.module is None else trial.module
        if trial.module is not None and trial.named != trial.module:
            module += f" (named {trial.named})"
    ratios = f"{number(trial.isolated):>9} {number(trial.end_to_end):>9}"
    return f"  {trial.name:{width}} {trial.kind:10} {ratios}  {said:22} {module}"
