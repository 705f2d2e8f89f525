"""What every rule says about real trainings: benign variations, faults, other seeds. Writes ``results/rules_study.json``.

The trainings are stored in ``recorded/`` (``recorded_runs.py`` makes them). No limit was fitted to them but
to the eight that are called repeats, which are judged only where that is said, and to the calibration set of
``results/starting_points.json``. ``--render`` only writes the tables into docs/rules-measured.md from the stored result.
"""

import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from other_logs import bare, printed
from recorded_runs import load
from simulated_curves import simulated, simulated_with_repeats
from variations import BENIGN, FAULTS, LONG_FAULTS, LONG_PAIRED, LONG_SEEDS, REFERENCE, REPEATS, SEEDS

from emacheck.curve import Curve, Floats
from emacheck.judge import RULES, Outcome, decide, default_rules, make_rules
from emacheck.judge.comparison import Comparison, compare
from emacheck.judge.divergence import hint
from emacheck.judge.forensics.pairing import pairing_of
from emacheck.judge.rules.envelope import Envelope
from emacheck.judge.rules.equivalence import Equivalence
from emacheck.judge.rules.final_metric import FinalMetric
from emacheck.judge.rules.first_iterations import FirstIterations
from emacheck.judge.rules.ranks import Ranks
from emacheck.judge.rules.worst_window import WorstWindow, worst_window
from emacheck.record import Record
from emacheck.strict_json import encode_value

RESULTS = Path(__file__).parent / "results" / "rules_study.json"
STARTS = Path(__file__).parent / "results" / "starting_points.json"
DRAWS = 60
# All runs are of one process; what ranks do is measured by rank_noise.py.
ALONE = tuple(name for name in RULES if name != Ranks.name)
# What means over a whole run hide: put onto the loss of benign runs, by its factor at each of n iterations.
STRETCHES: dict[str, Callable[[int], Floats]] = {
    "last 20th rises to 1.35 times the loss": lambda n: rising(n, n // 20, 1.35),
    "last tenth rises to 1.25 times the loss": lambda n: rising(n, n // 10, 1.25),
    "a tenth in the middle alternates between 0.75 and 1.25 times the loss": lambda n: alternating(n, n // 10, 0.25),
    "an eighth in the middle alternates between 0.61 and 1.39 times the loss": lambda n: alternating(n, n // 8, 0.39),
    "drifts steadily from 0.91 to 1.09 times the loss": lambda n: np.linspace(0.91, 1.09, n),
    "last 3 iterations 3.9 times the loss": lambda n: stretch(n, n - 3, 3, 3.9),
    "last iteration 2.7 times the loss": lambda n: stretch(n, n - 1, 1, 2.7),
}
# Lengths of windows in runs that are long.
LENGTHS = (10, 40, 100)
# A fault that changes none of these cannot be seen in a log of the training, whatever the rule.
SHOWN = ("loss", "grad_norm", "lr")
# Earlier versions of the limits were chosen with a run of this kind in view.
SEEN_BEFORE = frozenset({"1 thread"})


def as_from_a_device(record: Record, reference: Record) -> Record:
    """Return a run as another device would record it: a changed last bit of the weights is its doing, not the data's."""
    return replace(record, initial_state=reference.initial_state)


def stretch(count: int, start: int, length: int, factor: Floats | float) -> Floats:
    """Return a factor for each of ``count`` iterations, 1 but for a stretch."""
    factors = np.ones(count)
    factors[start : start + length] = factor
    return factors


def alternating(count: int, length: int, by: float) -> Floats:
    """Return a factor for each of ``count`` iterations, 1 but for a stretch in the middle, 1 - by and 1 + by in turn."""
    return stretch(count, count // 2, length, 1 + by * (-1.0) ** np.arange(1, length + 1))


def rising(count: int, length: int, last: float) -> Floats:
    """Return a factor for each of ``count`` iterations, 1 and in the end rising to ``last``."""
    return stretch(count, count - length, length, np.linspace(1, last, length + 1)[1:])


def in_roundoffs(relative: Floats) -> list[float]:
    """Return the largest relative difference of each of the first three iterations, in units of 2^-24."""
    largest: list[float] = np.round(np.abs(relative[:, :3]).max(axis=0) * 2.0**24, 1).tolist()
    return largest


def from_other_starts() -> list[dict[str, Any]]:
    """Judge the first iterations of benign variations from each stored starting point."""
    found = []
    for start in json.loads(STARTS.read_text(encoding="utf-8"))["starts"]:
        reference, *others = (three_iterations(training) for training in start["trainings"])
        pairs = [Comparison(reference=reference, candidate=other, paired=True) for other in others]
        relative = {m: np.array([p.curve(m).relative_difference for p in pairs]) for m in ("loss", "grad_norm")}
        found.append(
            {
                "start": start["start"],
                "set": start["set"],
                "trainings": len(pairs),
                "amplification": {metric: in_roundoffs(values) for metric, values in relative.items()},
                "false alarms": sum(worst_of(FirstIterations().check(pair)) == "FAIL" for pair in pairs),
            }
        )
    return found


def three_iterations(training: dict[str, Any]) -> Record:
    """Return a stored training as a record."""
    curves = {
        name: Curve(name=name, iterations=np.arange(1, 4), values=np.array(training[name]))
        for name in ("loss", "grad_norm")
    }
    return Record(name=training["variation"], format="", curves=curves)


class Paired:
    """Everything that is judged against the recorded reference."""

    def __init__(self) -> None:
        self.reference = load(REFERENCE.slug)
        self.repeats = tuple(load(each.slug) for each in REPEATS)

    def row(self, record: Record) -> dict[str, Any]:
        """Let each rule judge one run, and the default rules with more and with less to go by."""
        candidate = as_from_a_device(record, self.reference)
        comparison = compare(self.reference, candidate, repeats=self.repeats)
        rules = {}
        for name in ALONE:
            alone = decide(comparison, make_rules([name]))
            worst = alone.worst or alone.findings[0]
            rules[name] = {
                "outcome": alone.outcome.value,
                "observed": encode_value(worst.observed),
                "limit": encode_value(worst.limit),
                "metric": worst.metric,
                "iteration": worst.iteration,
            }
        without = compare(bare(self.reference), bare(candidate))
        verdict = decide(comparison)
        suggested = hint(verdict)
        return {
            "identical": comparison.curve("loss").first_unequal() is None,
            "rules": rules,
            "verdicts": {
                "with repeats": verdict.outcome.value,
                "with fingerprints": decide(compare(self.reference, candidate)).outcome.value,
                "bare logs": decide(without).outcome.value,
                "printed logs": decide(compare(printed(self.reference), printed(candidate))).outcome.value,
            },
            "pairing of bare logs": pairing_of(without).pairing.value,
            "hint": {"kind": str(suggested.kind), "iteration": suggested.iteration},
        }

    def calibration(self) -> dict[str, Any]:
        """Return what the limits were fitted to: the eight repeats, each held against the reference."""
        found: dict[str, Any] = {}
        for metric in ("loss", "grad_norm"):
            relative = np.array(
                [compare(self.reference, r, metrics=[metric]).curve(metric).relative_difference for r in self.repeats]
            )
            found[metric] = {
                "amplification": in_roundoffs(relative),
                "largest mean relative error": float(np.abs(relative).mean(axis=1).max()),
                "largest bias": float(np.abs(relative.mean(axis=1)).max()),
                "largest worst window": max(worst_window(np.abs(of)).mean for of in relative),
            }
        return found

    def leave_one_out(self) -> dict[str, Any]:
        """Hold each stored repeat against the envelope of the others."""
        outcomes = [
            self._envelope(repeat, [other for other in self.repeats if other is not repeat]) for repeat in self.repeats
        ]
        return {"trials": len(outcomes), "false alarms": outcomes.count("FAIL")}

    def by_repeats(self, benign: Sequence[Record], faults: Sequence[Record]) -> dict[str, Any]:
        """Draw 2, 4 and 8 of all benign runs as repeats, and judge the others and the faults."""
        draw = np.random.default_rng(0)
        pool = [*self.repeats, *benign]
        found = {}
        for count in (2, 4, 8):
            alarms = detected = trials = fault_trials = 0
            for _ in range(DRAWS):
                chosen = set(draw.choice(len(pool), size=count, replace=False).tolist())
                repeats = [pool[i] for i in sorted(chosen)]
                outcomes = [self._envelope(run, repeats) for i, run in enumerate(pool) if i not in chosen]
                trials, alarms = trials + len(outcomes), alarms + outcomes.count("FAIL")
                outcomes = [self._envelope(run, repeats) for run in faults]
                fault_trials, detected = fault_trials + len(outcomes), detected + outcomes.count("FAIL")
            found[str(count)] = {
                "draws": DRAWS,
                "trials": trials,
                "false alarms": alarms,
                "fault trials": fault_trials,
                "detected": detected,
            }
        return found

    def benign_pairs(self, benign: Sequence[Record]) -> dict[str, Any]:
        """Hold every benign run against every other, as logs with fingerprints and without repeats."""
        pool = [as_from_a_device(run, self.reference) for run in (self.reference, *self.repeats, *benign)]
        names = ("mean_relative_error", "bias", "worst_window", "first_iterations", "default rules")
        outcomes: dict[str, Counter[str]] = {name: Counter() for name in names}
        undecided: Counter[str] = Counter()
        largest = {"loss": 0.0, "grad_norm": 0.0}
        pairs = list(itertools.combinations(pool, 2))
        for reference, candidate in pairs:
            comparison = compare(reference, candidate)
            for name in names:
                verdict = decide(comparison, None if name == "default rules" else make_rules([name]))
                outcomes[name][verdict.outcome.value] += 1
                if name == "default rules":
                    undecided.update({f.rule for f in verdict.findings if f.outcome is Outcome.INCONCLUSIVE})
            for metric, most in largest.items():
                off = np.abs(comparison.curve(metric).relative_difference)
                largest[metric] = max(most, worst_window(off).mean)
        return {
            "runs": len(pool),
            "pairs": len(pairs),
            "outcomes": outcomes,
            "undecided": undecided,
            "largest worst window": largest,
        }

    def stretches(self, benign: Sequence[Record]) -> dict[str, Any]:
        """Put what means over a whole run hide onto benign runs, and judge with and without the rule for it."""
        found = {}
        for name, factors in STRETCHES.items():
            said: dict[str, dict[str, int]] = {}
            for run in benign:
                loss = run.curves["loss"]
                wrong = replace(loss, values=loss.values * factors(len(loss)))
                candidate = replace(as_from_a_device(run, self.reference), curves={**run.curves, "loss": wrong})
                comparison = compare(self.reference, candidate)
                others = [rule for rule in default_rules(comparison) if rule != WorstWindow.name]
                for of, rules in {
                    "alone": [WorstWindow.name],
                    "without": others,
                    "with": default_rules(comparison),
                }.items():
                    outcome = decide(comparison, make_rules(rules)).outcome.value
                    counts = said.setdefault(of, {})
                    counts[outcome] = counts.get(outcome, 0) + 1
            found[name] = said
        return found

    def _envelope(self, run: Record, repeats: Sequence[Record]) -> str:
        comparison = compare(self.reference, as_from_a_device(run, self.reference), repeats=repeats)
        return worst_of(Envelope().check(comparison))


def far_apart(runs: Sequence[Record]) -> dict[str, Any]:
    """Hold long runs that differ in benign ways against each other, quarter by quarter: do they go on coming apart?"""
    reference, *others = runs
    pairs = list(itertools.combinations((reference, *(as_from_a_device(other, reference) for other in others)), 2))
    quarters: list[dict[str, float]] = [dict.fromkeys(("mean", *map(str, LENGTHS)), 0.0) for _ in range(4)]
    found: dict[str, Any] = {"pairs": len(pairs), "iterations": len(reference.curves["loss"]), "quarters": quarters}
    largest = found["largest"] = {"bias": 0.0, "mean": 0.0, "last 10": 0.0}
    verdicts = [decide(compare(*pair)) for pair in pairs]
    found["verdicts"] = [verdict.outcome.value for verdict in verdicts]
    undecided = {(f.rule, f.metric) for verdict in verdicts for f in verdict.findings if f.outcome is not Outcome.PASS}
    found["not passed"] = sorted(f"{rule}[{metric}]" for rule, metric in undecided)
    for pair in pairs:
        signed = compare(*pair).curve("loss").relative_difference
        off = np.abs(signed)
        for name, value in (("bias", abs(signed.mean())), ("mean", off.mean()), ("last 10", off[-10:].mean())):
            largest[name] = max(largest[name], float(value))
        for quarter, part in zip(quarters, np.array_split(off, 4), strict=True):
            quarter["mean"] = max(quarter["mean"], float(part.mean()))
            for length in LENGTHS:
                means = np.convolve(part, np.full(length, 1 / length), mode="valid")
                quarter[str(length)] = max(quarter[str(length)], float(means.max()))
    return found


def worst_of(findings: Iterable[Any]) -> str:
    """Return the outcome of some findings together."""
    outcomes = {finding.outcome for finding in findings}
    return next(each.value for each in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS) if each in outcomes)


def scores(benign: Sequence[Record], faults: Sequence[Record]) -> dict[str, Any]:
    """Draw a validated benign run as reference and some as its repeats, and judge the scores of the others."""
    draw = np.random.default_rng(0)
    rule = FinalMetric()
    found = {}
    for count in (0, 2, 4, 8):
        said: dict[str, Counter[str]] = {"benign": Counter(), "faults": Counter()}
        failed: set[str] = set()
        for _ in range(DRAWS):
            reference, *others = (benign[i] for i in draw.permutation(len(benign)))
            for kind, candidates in (("benign", others[count:]), ("faults", faults)):
                for run in candidates:
                    outcome = worst_of(rule.check(compare(reference, run, repeats=others[:count])))
                    said[kind][outcome] += 1
                    failed.update([run.name] if outcome == "FAIL" else [])
        found[str(count)] = {**said, "failed": sorted(failed)}
    return {"runs": len(benign), "draws": DRAWS, "by repeats": found}


def unpaired(pairs: Iterable[tuple[Record, Record]]) -> dict[str, Any]:
    """Count what is said of pairs that neither start alike nor see the same data."""
    counts: dict[str, dict[str, int]] = {}
    largest: dict[str, float] = {}
    for reference, candidate in pairs:
        comparison = replace(compare(bare(reference), bare(candidate)), stated=False)
        said = {
            "equivalence": worst_of(Equivalence().check(comparison)),
            "final_metric": worst_of(FinalMetric().check(comparison)),
            "default rules, stated": decide(comparison).outcome.value,
            "default rules, bare logs": decide(replace(comparison, stated=None)).outcome.value,
            "default rules, logs as printed": decide(compare(printed(reference), printed(candidate))).outcome.value,
            "pairing of bare logs": pairing_of(replace(comparison, stated=None)).pairing.value,
        }
        for name, outcome in said.items():
            of = counts.setdefault(name, {})
            of[outcome] = of.get(outcome, 0) + 1
        for finding in (*Equivalence().check(comparison), *FinalMetric().check(comparison)):
            key = f"{finding.rule}[{finding.metric}]"
            largest[key] = max(largest.get(key, 0.0), abs(finding.observed))
    return {"counts": counts, "largest difference": largest}


def study() -> dict[str, Any]:
    """Judge everything that was recorded."""
    paired = Paired()
    benign = {each.name: load(each.slug) for each in BENIGN}
    faults = {each.name: load(each.slug) for each in FAULTS}
    short, long = ([load(each.slug) for each in kind] for kind in (SEEDS, LONG_SEEDS))
    rows = {name: paired.row(record) for name, record in (*benign.items(), *faults.items())}
    # Faults are trained with one thread: one that changed nothing would be that run to the last bit.
    plain = {name: curve.values.tolist() for name, curve in benign["1 thread"].curves.items() if name in SHOWN}
    for name, record in faults.items():
        same = {n: record.curves[n].values.tolist() for n in plain} == plain
        rows[name]["visible in the record"] = not same
    unseen = [record for name, record in benign.items() if name not in SEEN_BEFORE]
    return {
        "calibration": paired.calibration(),
        "other starts": from_other_starts(),
        "benign": {name: rows[name] for name in benign},
        "seen before": sorted(SEEN_BEFORE),
        "faults": {name: rows[name] for name in faults},
        "leave one out": paired.leave_one_out(),
        "benign pairs": paired.benign_pairs(unseen),
        "stretches": paired.stretches(unseen),
        "far apart": far_apart([load(each.slug) for each in LONG_PAIRED]),
        "by repeats": paired.by_repeats(unseen, list(faults.values())),
        "scores": scores(unseen, [replace(record, name=name) for name, record in faults.items()]),
        "unpaired": {
            "16 seeds, 100 iterations": unpaired(itertools.combinations(short, 2)),
            "6 seeds, 800 iterations": unpaired(itertools.combinations(long, 2)),
            **{
                f"{each.name.removeprefix('long, ')}, 800 iterations": unpaired((r, load(each.slug)) for r in long)
                for each in LONG_FAULTS
            },
        },
    }


def main() -> None:
    """Judge, unless told only to render, and write result and tables."""
    from rules_page import render

    if "--render" not in sys.argv:
        made = {**study(), "simulated": simulated(), "simulated with repeats": simulated_with_repeats()}
        RESULTS.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    render(json.loads(RESULTS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
