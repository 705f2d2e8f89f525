"""The tables of docs/rules-measured.md, from the result of the study."""

from collections import Counter
from math import exp, lgamma, log, log1p
from pathlib import Path
from typing import Any

from marked import between_marks

PAGE = Path(__file__).parent.parent / "docs" / "rules-measured.md"
BEGIN, END = "<!-- measured: begin, written by make rules -->", "<!-- measured: end -->"
SHORT = {"PASS": "pass", "FAIL": "**FAIL**", "INCONCLUSIVE": "inconclusive"}
SITUATIONS = {
    "with repeats": "`emacheck run`: fingerprints, 8 repeats",
    "with fingerprints": "two records with fingerprints",
    "bare logs": "two logs at full precision",
    "printed logs": "two logs as mmengine prints them",
}
Rows = dict[str, dict[str, Any]]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def upper_bound(trials: int) -> str:
    """Return the exact 95 % upper bound of a rate of which no case was seen (Clopper and Pearson 1934, one-sided)."""
    return f"{1 - 0.05 ** (1 / trials):.0%}"


def counted(outcomes: list[str]) -> str:
    """Return how often each outcome occurred, those that did."""
    counts = Counter(outcomes)
    return ", ".join(f"{counts[name]} {SHORT[name]}" for name in ("FAIL", "INCONCLUSIVE", "PASS") if counts[name])


def per_rule(benign: Rows, faults: Rows) -> list[str]:
    """Describe each rule alone."""
    rows = []
    for rule in next(iter(benign.values()))["rules"]:
        said = {kind: [r["rules"][rule]["outcome"] for r in of.values()] for kind, of in (("b", benign), ("f", faults))}
        alarms = said["b"].count("FAIL")
        bound = f" (rate below {upper_bound(len(benign))})" if not alarms else ""
        undecided = f"{said['b'].count('INCONCLUSIVE')}, {said['f'].count('INCONCLUSIVE')}"
        detected = f"{said['f'].count('FAIL')} of {len(faults)}"
        rows.append([f"`{rule}`", f"{alarms} of {len(benign)}{bound}", detected, undecided])
    return table(["rule, alone", "false alarms", "faults detected", "undecided: benign, faults"], rows)


def per_situation(benign: Rows, faults: Rows) -> list[str]:
    """Describe the default rules with more and with less to go by."""
    rows = [
        [text, *(counted([row["verdicts"][name] for row in of.values()]) for of in (benign, faults))]
        for name, text in SITUATIONS.items()
    ]
    return table(["the default rules on", f"{len(benign)} benign runs", f"{len(faults)} faults"], rows)


def per_fault(faults: Rows) -> list[str]:
    """Describe each fault."""
    rows = []
    for name, row in faults.items():
        seen = [rule for rule, said in row["rules"].items() if said["outcome"] == "FAIL"]
        # The mean absolute error alone fails every run, benign ones included: it tells nothing.
        shown = [f"`{rule}`" for rule in seen if rule != "mean_absolute_error"]
        iterations = [row["rules"][rule]["iteration"] for rule in seen if rule in ("envelope", "first_iterations")]
        first = str(min(iterations)) if iterations else ""
        hint = row["hint"]["kind"] if row["hint"]["kind"].split(":")[0] != "benign chaos" else ""
        invisible = "" if row["visible in the record"] else " (changes no recorded value)"
        verdicts = [SHORT[row["verdicts"][s]] for s in ("with repeats", "bare logs")]
        rows.append([name + invisible, ", ".join(shown), first, hint, *verdicts])
    return table(["fault", "rules that FAIL, alone", "worst at", "hint", "`emacheck run`", "two bare logs"], rows)


def envelope(result: dict[str, Any]) -> list[str]:
    """Describe false alarms and detection by number of repeats."""
    rows = [
        [
            count,
            f"{found['false alarms']} of {found['trials']}",
            f"{found['detected'] / found['fault trials']:.0%}",
        ]
        for count, found in result["by repeats"].items()
    ]
    left = result["leave one out"]
    return [
        *table(["repeats", "false alarms", "faults detected"], rows),
        "",
        f"Each of the {left['trials']} repeats against the envelope of the other seven: {left['false alarms']} false alarms.",
    ]


def by_scores(result: dict[str, Any]) -> list[str]:
    """Describe what is said of scores by number of repeats."""
    rows, failed = [], set[str]()
    for count, found in result["scores"]["by repeats"].items():
        benign, faults = found["benign"], found["faults"]
        rows.append(
            [
                count,
                *(f"{said.get('PASS', 0) / sum(said.values()):.0%}" for said in (benign, faults)),
                str(benign.get("FAIL", 0)),
            ]
        )
        failed.update(found["failed"])
    return [
        *table(["repeats", "benign runs that pass", "faults that pass", "false alarms"], rows),
        "",
        f"Of the faults, these FAIL: {'; '.join(sorted(failed)) or 'none'}. All others are inconclusive where they do not pass.",
    ]


def stretches(result: dict[str, Any]) -> list[str]:
    """Describe what is said of runs that are wrong for a stretch or in the end."""
    rows = []
    for name, said in result["stretches"].items():
        cells = [
            ", ".join(f"{said[of][o]} {SHORT[o]}" for o in ("FAIL", "INCONCLUSIVE", "PASS") if o in said[of])
            for of in ("without", "alone", "with")
        ]
        rows.append([name, *cells])
    return table(["the candidate's loss", "the other default rules", "`worst_window`", "all default rules"], rows)


def far_apart(result: dict[str, Any]) -> list[str]:
    """Describe how far long runs come apart that differ in benign ways."""
    found = result["far apart"]
    largest, length = found["largest"], found["iterations"] // 4
    rows = [
        [f"{at * length + 1} to {(at + 1) * length}", *(f"{value:.2g}" for value in quarter.values())]
        for at, quarter in enumerate(found["quarters"])
    ]
    lengths = [name for name in found["quarters"][0] if name != "mean"]
    return [
        f"The smoke preset with a learning rate that falls over all of {found['iterations']} iterations, trained with one thread and with other last bits of the weights; "
        f"{found['pairs']} pair{'s' if found['pairs'] > 1 else ''} of runs. Over the whole run the largest mean relative error is {largest['mean']:.2g}, the largest |bias| {largest['bias']:.2g}, "
        f"and the last 10 iterations are {largest['last 10']:.2g} off. The default rules say {counted(found['verdicts'])}"
        + (f" ({', '.join(f'`{each}`' for each in found['not passed'])})" if found["not passed"] else "")
        + ". Largest of the loss:",
        "",
        *table(["iterations", "mean relative error", *(f"window of {length}" for length in lengths)], rows),
    ]


def unpaired(result: dict[str, Any]) -> list[str]:
    """Describe what is said of runs that are not paired."""
    rows = []
    for name, found in result["unpaired"].items():
        counts, largest = found["counts"], found["largest difference"]
        said = [
            ", ".join(f"{counts[rule][o]} {SHORT[o]}" for o in ("FAIL", "INCONCLUSIVE", "PASS") if o in counts[rule])
            for rule in ("equivalence", "final_metric", "default rules, bare logs", "default rules, logs as printed")
        ]
        pairing = ", ".join(f"{count} {kind}" for kind, count in sorted(counts["pairing of bare logs"].items()))
        most = f"{largest['equivalence[loss]']:.3f}; {largest['final_metric[mIoU]']:.1f}, {largest['final_metric[aAcc]']:.1f}"
        rows.append([name, *said, pairing, most])
    head = [
        "pairs",
        "`equivalence`",
        "`final_metric`",
        "default rules, bare logs",
        "as mmengine prints them",
        "taken for",
    ]
    return table([*head, "largest difference: level; mIoU, aAcc"], rows)


def starts(result: dict[str, Any]) -> list[str]:
    """Describe the first iterations from each starting point."""
    rows = []
    for start in result["other starts"]:
        seen = [", ".join(f"{value:g}" for value in start["amplification"][m]) for m in ("loss", "grad_norm")]
        fitted = start["set"] == "calibration"
        alarms = "limits were fitted to these" if fitted else f"{start['false alarms']} of {start['trainings']}"
        rows.append([start["start"], *seen, alarms])
    return table(["after", "loss", "gradient norm", "false alarms of `first_iterations`"], rows)


def simulated(found: dict[str, Any]) -> list[str]:
    """Describe what is said of simulated runs with other noise."""
    trials = found["trials"]
    lines = [
        f"Curves whose noise is unlike that of the trainings above (`benchmarks/simulated_curves.py`), {trials} pairs for each figure, in percent. Paired runs without fingerprints whose "
        "differences have levelled off before the first record, at a standard deviation of 3 or 5 %. Nothing is wrong with them: how often |bias| is over its limit, and after the arrow "
        "how often the default rules FAIL for it; in brackets how often they FAIL at all.",
    ]
    for size, noises in found["paired"].items():
        lengths = list(next(iter(noises.values())))
        rows = [[noise, *(_explained(of[length], trials) for length in lengths)] for noise, of in noises.items()]
        head = [f"noise of {float(size):.0%}", *(f"{length} iterations" for length in lengths)]
        lines += ["", *table(head, rows)]
    worst, pairs = _false_alarms(found["paired"], trials)
    lines += [
        "",
        f"`bias` FAILs {_rate(worst, pairs)} of all healthy pairs. Where more FAIL at all, it is by `mean_relative_error` or `worst_window`: chaos of 5 % has a mean size of 4 %, "
        "which is close to their limits. The same with faults; FAIL / INCONCLUSIVE / PASS:",
        "",
    ]
    rows = [[fault, *(_all(of, trials) for of in cases)] for fault, cases in found["faults"].items()]
    lines += table(
        [
            "the candidate's loss",
            "20 iterations, white, 1 %",
            "100, white, 3 %",
            "300, neighbours correlated by 0.8, 3 %",
        ],
        rows,
    )
    lines += [
        "",
        "Runs that saw other batches, whose losses fluctuate by 10 %, printed as means of ten, so that nothing tells whether they are paired; FAIL / INCONCLUSIVE / PASS:",
        "",
    ]
    lengths = list(next(iter(found["printed"].values())))
    rows = [[noise, *(_all(of[length], trials) for length in lengths)] for noise, of in found["printed"].items()]
    lines += table(["noise", *(f"{length} iterations" for length in lengths)], rows)
    worst = sum(of.get("FAIL", 0) for each in found["printed"].values() for of in each.values())
    pairs = trials * sum(map(len, found["printed"].values()))
    lines += ["", f"{_rate(worst, pairs)} of these FAIL. With faults, 500 iterations:", ""]
    noises = list(next(iter(found["printed faults"].values())))
    rows = [[fault, *(_all(of[noise], trials) for noise in noises)] for fault, of in found["printed faults"].items()]
    return [*lines, *table(["the candidate's loss", *noises], rows)]


def simulated_with_repeats(found: dict[str, Any]) -> list[str]:
    """Describe what is said of simulated runs that are noisier than the default limits allow, by number of repeats."""
    trials, healthy = found["trials"], found["healthy"]
    sizes = list(healthy)
    lines = [
        f"Paired runs of {found['iterations']} iterations as above, each with chaos of its own, the reference and its repeats included: two of them differ by 1.4 times the standard "
        f"deviation. {trials} candidates for each figure; FAIL / INCONCLUSIVE / PASS of the default rules, in percent. Nothing is wrong with these:"
    ]
    for size in sizes:
        repeats = list(next(iter(healthy[size].values())))
        rows = [[noise, *(_all(of[k], trials) for k in repeats)] for noise, of in healthy[size].items()]
        lines += ["", *table([f"noise of {float(size):.0%}", *_headed(repeats)], rows)]
    cells = [of for each in healthy.values() for of in each.values()]
    failed = sum(of[k].get("FAIL", 0) for of in cells for k in of if k != "0")
    pairs = trials * sum(len(of) - 1 for of in cells)
    lines += [
        "",
        f"With repeats {_rate(failed, pairs)} of these FAIL. With faults, noise of {float(sizes[0]):.0%}:",
        "",
    ]
    noises = list(next(iter(found["faults"].values())))
    repeats = list(found["faults"][next(iter(found["faults"]))][noises[0]])
    head = ["the candidate's loss", *(f"{noise}, {k}" for noise in noises for k in _headed(repeats))]
    rows = [
        [fault, *(_all(of[noise][k], trials) for noise in noises for k in repeats)]
        for fault, of in found["faults"].items()
    ]
    return [*lines, *table(head, rows)]


def _headed(repeats: list[str]) -> list[str]:
    return ["no repeats" if k == "0" else f"{k} repeats" for k in repeats]


def _explained(of: dict[str, int], trials: int) -> str:
    over, failed, all_failed = (100 * of.get(name, 0) / trials for name in ("bias over its limit", "bias FAIL", "FAIL"))
    return f"{over:.1f} → {failed:.1f} ({all_failed:.1f})"


def _all(of: dict[str, int], trials: int) -> str:
    return " / ".join(f"{100 * of.get(name, 0) / trials:.1f}" for name in ("FAIL", "INCONCLUSIVE", "PASS"))


def _false_alarms(sizes: dict[str, Any], trials: int) -> tuple[int, int]:
    cells = [of for noises in sizes.values() for lengths in noises.values() for of in lengths.values()]
    return sum(of.get("bias FAIL", 0) for of in cells), trials * len(cells)


def _rate(cases: int, trials: int) -> str:
    """Return a rate with its exact 95 % interval (Clopper and Pearson 1934)."""

    def at_least(rate: float, count: int) -> float:
        logs = (
            lgamma(trials + 1) - lgamma(i + 1) - lgamma(trials - i + 1) + i * log(rate) + (trials - i) * log1p(-rate)
            for i in range(count)
        )
        return 1 - sum(map(exp, logs))

    def solved(count: int, probability: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if at_least(middle, count) < probability else (low, middle)
        return low

    low, high = solved(cases, 0.025) if cases else 0.0, solved(cases + 1, 0.975)
    return f"{100 * cases / trials:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def measured(result: dict[str, Any]) -> list[str]:
    """Return the whole section."""
    seen = set(result["seen before"])
    benign = {name: row for name, row in result["benign"].items() if name not in seen}
    faults = result["faults"]
    calibration, pairs = result["calibration"], result["benign pairs"]
    detected = [n for n, row in faults.items() if row["verdicts"]["with repeats"] == "FAIL"]
    missed = [n for n, row in faults.items() if row["verdicts"]["with repeats"] == "PASS"]
    fails = {name: outcomes.get("FAIL", 0) for name, outcomes in pairs["outcomes"].items()}
    open_ = pairs["outcomes"]["default rules"].get("INCONCLUSIVE", 0)
    paired = Counter(row["pairing of bare logs"] for row in benign.values())
    return [
        f"**Of {len(faults)} faults, {len(detected)} FAIL by the default rules of `emacheck run`, and {len(missed)} pass: "
        f"{'; '.join(missed)}.** A PASS of the curve rules means that nothing gross is wrong.",
        "",
        *per_situation(benign, faults),
        "",
        *per_rule(benign, faults),
        "",
        f"Alone, each rule judges the loss; `envelope` and `first_iterations` the gradient norm as well. The {len(benign)} benign runs vary threads, kernels "
        "(with and without oneDNN), memory format and the last bits of the weights, also together. Every run of them, of the "
        f"eight repeats and of the reference held against every other, {pairs['pairs']} pairs of {pairs['runs']} runs (not independent): {fails['mean_relative_error']} false alarms of "
        f"`mean_relative_error`, {fails['bias']} of `bias`, {fails['worst_window']} of `worst_window`, {fails['first_iterations']} of `first_iterations`, {fails['default rules']} of the default rules; "
        f"{open_} are inconclusive, by {', '.join(f'`{rule}`' for rule in pairs['undecided'])}, see [below](#scores-by-number-of-repeats). "
        f"Without fingerprints, the first iterations alone show {paired['paired']} of {len(benign)} benign runs to be paired.",
        "",
        *per_fault(faults),
        "",
        "`mean_absolute_error` alone is left out of this table: its limit fails every run, benign ones included, which is why it is only an alternative.",
        "",
        "### Wrong for a stretch, or in the end",
        "",
        f"What means over a whole run hide, put onto the loss of each of the {len(benign)} benign runs, as two records with fingerprints. "
        f"The largest window of the {pairs['pairs']} pairs of benign runs is "
        + "; ".join(f"{metric}: {largest:.2g}" for metric, largest in pairs["largest worst window"].items())
        + ".",
        "",
        *stretches(result),
        "",
        "### How far long runs come apart",
        "",
        *far_apart(result),
        "",
        "### The envelope, by number of repeats",
        "",
        f"Repeats drawn {result['by repeats']['8']['draws']} times from all benign runs, the eight included; the others and all faults are judged (not independent).",
        "",
        *envelope(result),
        "",
        "### Scores, by number of repeats",
        "",
        f"`final_metric` on the {result['scores']['runs']} benign runs that were validated, once, after the last iteration: one is drawn as reference and some as its repeats, {result['scores']['draws']} times; "
        "the others and all faults are judged (not independent). Without repeats a score may differ by 1 point.",
        "",
        *by_scores(result),
        "",
        "### Runs that are not paired",
        "",
        "Every seed against every other, and faults against the long seeds; 100 or 800 iterations of the smoke preset, validated once at the end. The pairs share runs "
        "and are not independent.",
        "",
        *unpaired(result),
        "",
        "### The first iterations from other starting points",
        "",
        "Stock initialisation zeroes the last batch norm of each residual block, so that little grows in it. From trained weights rounding grows faster. Largest |relative difference| in "
        "units of 2^-24 at iterations 1, 2 and 3, over benign variations (threads, memory format, oneDNN and the last bits of the weights) of the smoke preset, each held against a plain training "
        "from the same weights, optimizer state and batches (`benchmarks/starting_points.py`):",
        "",
        *starts(result),
        "",
        "### Simulated runs",
        "",
        *simulated(result["simulated"]),
        "",
        "### Noisy runs, with repeats",
        "",
        *simulated_with_repeats(result["simulated with repeats"]),
        "",
        "### What the limits were fitted to",
        "",
        "Eight repeats of the reference, which differ from it in the last bits of the weights: largest |relative difference| in units of 2^-24 at iterations 1, 2 and 3, "
        + "; ".join(f"{m}: {', '.join(map(str, found['amplification']))}" for m, found in calibration.items())
        + ". Largest mean relative error "
        + "; ".join(f"{m}: {found['largest mean relative error']:.2g}" for m, found in calibration.items())
        + ". Largest |bias| "
        + "; ".join(f"{m}: {found['largest bias']:.2g}" for m, found in calibration.items())
        + ". Largest worst window "
        + "; ".join(f"{m}: {found['largest worst window']:.2g}" for m, found in calibration.items())
        + ". For `first_iterations` also the calibration set of the table above. "
        + f"Left out of the benign runs above, because earlier limits were chosen with a run of its kind in view: {', '.join(sorted(seen))}.",
    ]


def with_section(page: str, result: dict[str, Any]) -> str:
    """Return the page with the section between its marks written anew."""
    return between_marks(page, (BEGIN, END), measured(result))


def render(result: dict[str, Any]) -> None:
    """Write the section."""
    PAGE.write_text(with_section(PAGE.read_text(encoding="utf-8"), result), encoding="utf-8")
