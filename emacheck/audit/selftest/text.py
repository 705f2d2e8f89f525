"""A selftest for a terminal: one line for each fault, then the counts."""

from emacheck.audit.findings.text import number
from emacheck.audit.selftest.curve_rules import CURVE_RULES
from emacheck.audit.selftest.trials import Selftest, Trial
from emacheck.counted import counted

# The columns of the curve rules: what stands above them.
SHORT = {
    "modelzoo": "zoo",
    "mean_relative_error": "mean",
    "first_iterations": "first",
    "envelope": "env",
    "curves": "curves",
}


def selftest_text(result: Selftest, *, command: str) -> str:
    """Return what a person reads.

    Args:
        result: All trials.
        command: The command that reproduces it.
    """
    width = max([len(trial.name) for trial in result.faults] + [10])
    curves = [rule for rule in CURVE_RULES if rule in result.rule_names]
    heads = "".join(f" {SHORT[rule]:>6}" for rule in curves)
    lines = [f"  {'fault':{width}} {'class':10}{heads} {'alone':>9} {'whole':>9}  {'audit':9} module"]
    lines += [_fault(trial, width, curves) for trial in result.faults]
    lines += [
        "",
        f"  {'rule':20} {'detected':>11} {'after':>6} {'false alarms':>13}  95 % interval    one-sided 95 % limit",
    ]
    rules = result.rules()
    for name, rule in rules.items():
        low, high = rule["interval"]
        after = "-" if rule["median_first_seen"] is None else f"{rule['median_first_seen']:g}"
        lines.append(
            f"  {name:20} {rule['detected']:4} of {rule['faults']:3} {after:>6} "
            f"{rule['false_alarms']:6} of {rule['trials']:3}  {low:6.2%} to {high:6.2%}  {rule['upper_limit']:.2%}"
        )
    lines += ["", *_legend(result, curves), ""]
    audit = rules["audit"]
    counts = (
        f"detected {audit['detected']} of {audit['faults']}, false alarms {audit['false_alarms']} of {audit['trials']}"
    )
    lines.append(f"{result.outcome} selftest {counts} | {command}")
    return "\n".join(lines)


def _legend(result: Selftest, curves: list[str]) -> list[str]:
    named, placed = result.naming()
    lines = [f"  named correctly: {named} of {counted(placed, 'fault that sits', 'faults that sit')} in one module"]
    worst = max(result.benign, key=lambda trial: max(trial.isolated, trial.end_to_end), default=None)
    if worst is not None:
        lines.append(
            f"  worst benign trial: alone {number(worst.isolated)}, whole {number(worst.end_to_end)} "
            f"of the limit ({worst.name})"
        )
    lines.append("  alone, whole: worst ratio over its limit, of a tensor of one module and of a whole iteration")
    if curves:
        columns = ", ".join(f"{SHORT[rule]} = {rule}" for rule in curves if SHORT[rule] != rule)
        lines += [
            f"  {columns}: iterations until the rule fails, . if it does not in {result.iterations}",
            "  curves: the verdict of emacheck run without an audit; after: median iterations until a rule fails",
        ]
    return lines


def _fault(trial: Trial, width: int, curves: list[str]) -> str:
    start = f"  {trial.name:{width}} {trial.kind:10}"
    if trial.message:
        return f"{start} {trial.message}"
    if not trial.changed:
        return f"{start} NO EFFECT: not a fault"
    seen = "".join(f" {trial.first_seen.get(rule, '.'):>6}" for rule in curves)
    ratios = f"{number(trial.isolated):>9} {number(trial.end_to_end):>9}"
    module = "-" if trial.module is None else trial.module
    if trial.module is not None and trial.named != trial.module:
        module += f" (named {trial.named})"
    return f"{start}{seen} {ratios}  {'found' if 'audit' in trial.detected_by else 'MISSED':9} {module}"
