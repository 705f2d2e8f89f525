"""Judge published pairs of logs by the rules of the field and ours, and count the records of published logs.

The logs belong to other people: only numbers and outcomes are stored, in ``results/published_pairs.json``, and written
into docs/scoreboard.md between two marks. ``EMACHECK_CORPUS`` names the folder that holds the logs; ``--render`` only
writes the page from the stored results.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from emacheck import compare, decide, read_log
from emacheck.errors import EmacheckError
from emacheck.judge import Finding, Verdict, make_rules
from emacheck.judge.comparison import Comparison
from emacheck.judge.rules.modelzoo import LAST, seen_by_script
from emacheck.judge.scoreboard import scoreboard
from emacheck.record import Record

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "published_pairs.json"
PAGE = HERE.parent / "docs" / "scoreboard.md"
BEGIN, END = "<!-- written by benchmarks/published_pairs.py -->", "<!-- until here -->"
PAIRS = {
    "EMANet, 1 process against 4": ("emanet_cuda.log", "emanet_sdaa.log"),
    "demo, identical": ("demo_cuda.log", "demo_sdaa.log"),
    "RegNet": ("regnet_cuda.log", "regnet_sdaa.excerpt.log"),
    "ReXNet, training loss per epoch": ("rexnetCifar100Cuda.log", "rexnetCifar100Sdaa.log"),
    "facial expressions": ("fer_cuda_loss.first120.json", "fer_sdaa_loss.first120.json"),
    "ECANet": ("ecanet_loss.txt#CUDA", "ecanet_loss.txt#SDAA"),
    "RPN": ("rpn_loss.txt#CUDA", "rpn_loss.txt#SDAA"),
}
# What others counted in these logs by scripts of their own: training records of each rank, and validation records.
COUNTED: dict[str, tuple[int, int | None]] = {
    "emanet_cuda.log": (120, None),
    "emanet_sdaa.log": (112, None),
    "demo_cuda.log": (16, None),
    "demo_sdaa.log": (16, None),
    "regnet_cuda.log": (105, None),
    "regnet_sdaa.excerpt.log": (101, None),
    "rexnetCifar100Cuda.log": (100, 100),
    "rexnetCifar100Sdaa.log": (100, 100),
    "fer_cuda_loss.first120.json": (120, None),
    "fer_sdaa_loss.first120.json": (120, None),
    "ecanet_loss.txt#CUDA": (100, None),
    "ecanet_loss.txt#SDAA": (100, None),
    "rpn_loss.txt#CUDA": (100, None),
    "rpn_loss.txt#SDAA": (100, None),
    "tinyllama_sdaa_trainer_state.json": (100, None),
    "melband_cuda.partA.log": (48, None),
    "segformer_sdaa_mmengine.excerpt.log": (12, 1),
    "vgg11_scalars.json": (1, None),
    "vgg_log_metadata_only.json": (0, None),
    "potato_None.log.json.first": (65, 3),
    "pspnet_fashion_20240413_204032.json.first": (50, 2),
    "pspnet_fashion_20240413_204032.iter1700-3000.log": (27, 1),
}
FIELD = ("modelzoo", "unsigned 5 %", "MindFormers", "Megatron-LM", "bitwise")


def main() -> None:
    """Measure, unless told only to render, and write the page."""
    if "--render" not in sys.argv:
        folder = os.environ.get("EMACHECK_CORPUS")
        if not folder:
            sys.exit("EMACHECK_CORPUS does not name a folder of published logs; --render writes the page without them.")
        results = {
            "pairs": {name: judged(Path(folder), *logs) for name, logs in PAIRS.items()},
            "records": {name: counted(Path(folder), name) for name in COUNTED},
        }
        RESULTS.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    before, behind = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{rendered()}\n{END}{behind}", encoding="utf-8")
    print(f"wrote {PAGE}")


def judged(folder: Path, reference: str, candidate: str) -> dict[str, Any]:
    """Judge one pair by everything."""
    records = [read_log(folder / name) for name in (reference, candidate)]
    ranks = max(record.ranks for record in records)
    rank_0 = compare(*(read_log(folder / name, rank=0) for name in (reference, candidate))) if ranks > 1 else None
    comparison = compare(*records)
    verdict = decide(comparison)
    entries = scoreboard(comparison, verdict, rank_0=rank_0)
    return {
        "iterations": [len(records[0].curves["loss"]), len(comparison.curve("loss").iterations)],
        "emacheck": {"outcome": str(verdict.outcome.value), **_worst(verdict)},
        "field": {each.rule: {"outcome": each.outcome.value, "observed": number(each.observed)} for each in entries},
        "unsigned": number(unsigned(rank_0 or comparison)),
        "equivalence": found(comparison, "equivalence"),
        "final_metric": found(comparison, "final_metric"),
    }


def _worst(verdict: Verdict) -> dict[str, Any]:
    worst = verdict.worst
    return {} if worst is None else {"rule": worst.rule, "observed": number(worst.observed)}


def unsigned(comparison: Comparison) -> float:
    """Return the mean relative error without signs over the values that the model zoo's script averages."""
    pair = [seen_by_script(each.curves["loss"].values) for each in (comparison.reference, comparison.candidate)]
    length = min(map(len, pair))
    reference, candidate = (values[:length][-LAST:] for values in pair)
    return float(np.mean(np.abs(candidate - reference) / reference))


def found(comparison: Comparison, rule: str) -> list[dict[str, Any]]:
    """Return what one of our rules finds, whether or not it is one by default."""
    verdict = decide(comparison, make_rules((rule,)))
    return [_described(each) for each in verdict.findings if each.rule == rule]


def _described(finding: Finding) -> dict[str, Any]:
    return {"metric": finding.metric, "outcome": finding.outcome.value, "observed": number(finding.observed)}


def counted(folder: Path, name: str) -> dict[str, Any]:
    """Count the records of one log."""
    try:
        record: Record = read_log(folder / name)
    except EmacheckError:
        return {"format": None, "ranks": 0, "training": 0, "validation": 0}
    curve = record.curves.get("loss") or next(iter(record.curves.values()))
    validation = max(map(len, record.validation.values()), default=0)
    return {"format": record.format, "ranks": record.ranks, "training": len(curve), "validation": validation}


def number(value: float) -> float | None:
    """Return a number, None where there is none."""
    return float(value) if math.isfinite(value) else None


def rendered() -> str:
    """Return the tables in Markdown, from the stored results alone."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    return "\n".join([*_pairs(results["pairs"]), "", *_records(results["records"])])


def _pairs(pairs: dict[str, Any]) -> list[str]:
    titles = ["pair", "iterations", "emacheck", *(f"`{n}`" if n == "modelzoo" else n for n in FIELD)]
    titles += ["unsigned", "`equivalence`", "`final_metric`"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, row in pairs.items():
        of, common = row["iterations"]
        ours = row["emacheck"]
        cells = [name, str(common) if common == of else f"{common} of {of}"]
        cells.append(f"{ours['outcome']} (`{ours['rule']}`)" if ours["outcome"] != "PASS" else "PASS")
        for rule in FIELD:
            cell = _cell(row["field"][rule], exact=rule == "bitwise")
            cells.append(f"**{cell}**" if row["field"][rule]["outcome"] != ours["outcome"] else cell)
        cells.append(_number(row["unsigned"]))
        cells.append("; ".join(_cell(each) for each in row["equivalence"]) or "none")
        cells.append("; ".join(f"{each['metric']} {_cell(each)}" for each in row["final_metric"]) or "none")
        lines.append(f"| {' | '.join(cells)} |")
    passing = [name for name, row in pairs.items() if row["field"]["modelzoo"]["outcome"] == "PASS"]
    lines += ["", f"Bold: disagrees with emacheck. The signed rule passes {len(passing)} of {len(pairs)} pairs; "]
    signs = [
        f"{name} ({row['unsigned']:.2g})"
        for name, row in pairs.items()
        if name in passing and row["unsigned"] is not None and row["unsigned"] > 0.05
    ]
    lines[-1] += f"only by the signs: {', '.join(signs)}." if signs else "none of them only by the signs."
    return [*lines, "*unsigned* is the mean relative error without signs over the values that `modelzoo` averages."]


def _records(records: dict[str, Any]) -> list[str]:
    lines = ["Records that are read of published logs, beside what scripts of others counted in them:", ""]
    lines += ["| log | read as | ranks | training records | counted | validation records | counted |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|"]
    for name, row in records.items():
        training, validation = COUNTED[name]
        cells = [f"`{name}`", row["format"] or "refused: no record", row["ranks"], row["training"], training]
        cells += [row["validation"], "" if validation is None else validation]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    wrong = [n for n, row in records.items() if row["training"] != COUNTED[n][0]]
    wrong += [n for n, row in records.items() if COUNTED[n][1] not in (None, row["validation"])]
    return [*lines, "", f"Differences: {', '.join(wrong) or 'none'}."]


def _cell(entry: dict[str, Any], *, exact: bool = False) -> str:
    return entry["outcome"] if exact else f"{entry['outcome']} {_number(entry['observed'])}".strip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
