"""The audit on networks that it was not calibrated on; writes benchmarks/results/audit_zoo.json and docs/audit-zoo.md.

    python benchmarks/audit_zoo.py [--seeds 8]
    python benchmarks/audit_zoo.py --precision bf16 [--seeds 8]
    python benchmarks/audit_zoo.py --render

Each network is trained a little from each seed, and audited on a batch of its own: healthy candidates that compute the same
thing in other ways from every seed, and faults, a third of them from each of the first three. The limits are those of
EMANet. Results are kept after every state, and a second call goes on where the first one stopped. To look at something while
the zoo is changed, take other seeds and another file: ``--first-seed 100 --results FILE``.
"""

import argparse
import gc
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from host import cpu_facts
from zoo.faults import SHARES, faults
from zoo.networks import WARM_UP, ZOO
from zoo.orders import ORDERS, Order
from zoo.trial import ZooTrial, read, text

from emacheck import audit_step
from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.faults import Fault, NotApplicableError
from emacheck.audit.findings.result import AuditResult, TensorError, badness, find
from emacheck.audit.iteration.shared_code import SharedCode
from emacheck.audit.judging.candidate import judge
from emacheck.audit.judging.reference import Plan, Reference
from emacheck.audit.limits import Limits
from emacheck.audit.lockstep.variations import PLAIN, Variation
from emacheck.audit.selftest.trials import benign_variations, fingerprint
from emacheck.judge.verdict import Outcome

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "audit_zoo.json"
THREADS = 1
# Of the healthy candidates from one seed; half of them are EMANet's variations, half sum in another order.
VARIATIONS = 3
SEEDS = 8


def plan(precision: str) -> Plan:
    """Return how everything is audited: as :func:`emacheck.audit_step` does."""
    return Plan(precision=Precision(name=precision))


def said(errors: tuple[TensorError, ...], troubles: list[Any]) -> dict[str, Any]:
    """Return what an audit says, in the fields of a trial."""
    findings = find(errors, troubles)
    result = AuditResult(device="cpu", precision="", errors=errors, findings=findings)
    worst = max(errors, key=badness, default=None)
    return {
        "outcome": result.outcome.value,
        "named": result.module,
        "blamed": tuple(dict.fromkeys(f.module for f in findings if f.outcome is Outcome.FAIL)),
        "phase": result.phase,
        "tensor": "" if worst is None else f"{worst.module} {worst.tensor}, {worst.level}",
        "measure": "" if worst is None else worst.measure,
        "alone": max((badness(e) for e in errors if e.level != "end to end"), default=0.0),
        "whole": max((badness(e) for e in errors if e.level == "end to end"), default=0.0),
        "raised": "; ".join(trouble.message for trouble in troubles),
    }


def healthy(seed: int, precision: str) -> list[Variation | Order]:
    """Return the healthy candidates from a seed; none of them is one of the reference's own variations."""
    variations = benign_variations((seed + 1) * VARIATIONS, precision=precision)[-VARIATIONS:]
    return [*variations, *(Order(name, seed) for name in ORDERS)]


def try_healthy(reference: Reference, what: Variation | Order) -> dict[str, Any]:
    """Audit a candidate that computes the same thing in another way."""
    candidate = reference.subject.twin()
    if isinstance(what, Order):
        candidate.around.append(what.around)
    judged = judge(reference, candidate, variation=what if isinstance(what, Variation) else PLAIN)
    return {"part": "benign", "name": str(what), **said(tuple(judged.errors), judged.troubles)}


def try_broken(reference: Reference, fault: Fault, plain: dict[Any, float]) -> dict[str, Any] | None:
    """Audit a candidate with a fault; None if the network has nothing that it could sit in."""
    candidate, code = reference.subject.twin(), SharedCode(reference.subject.model)
    try:
        sits_in = fault(candidate)
        judged = judge(reference, candidate)
    except NotApplicableError:
        return None
    finally:
        code.put_back()
    errors = tuple(judged.errors)
    answer = said(errors, judged.troubles)
    model = reference.subject.model
    return {
        "part": "fault",
        "name": fault.name,
        "kind": fault.kind,
        "severity": fault.severity,
        "unit": fault.unit,
        "sits_in": sits_in,
        "rightly": sits_in is None or answer["named"] in sharing(model, sits_in),
        "changed": bool(judged.troubles) or fingerprint(errors) != plain,
        **answer,
    }


def sharing(model: torch.nn.Module, name: str) -> set[str]:
    """Return a module and those that hold one of its weights, as a tied embedding does."""
    modules = dict(model.named_modules())
    mine = {id(weight) for weight in modules[name].parameters(recurse=False)} if name in modules else set()
    others = {other for other, each in modules.items() if mine & {id(w) for w in each.parameters(recurse=False)}}
    return {name, *others}


def try_step(subject: Any, batch: Any, precision: str) -> dict[str, Any]:
    """Audit the network as a user does, on the CPU."""
    result = audit_step(subject.model, subject.optimizer, batch, subject.loss, "cpu", precision=precision)
    troubles = [finding for finding in result.findings if math.isinf(finding.ratio)]
    return {"part": "step", "name": "audit_step", **said(result.errors, troubles), "notes": result.notes}


def measure(name: str, seed: int, precision: str, wanted: set[str]) -> list[ZooTrial]:
    """Make the trials of a network from one seed: ``benign`` ones, with the step of a user, or those of a ``fault``."""
    entry = ZOO[name]
    made: list[ZooTrial] = []
    subject, batch = entry.trained(seed), entry.batch(seed)
    reference = Reference(subject=subject, batch=batch, plan=plan(precision), keep=True)

    def keep(trial: Any) -> None:
        started = time.monotonic()
        fields = trial()
        if fields is not None:
            seconds = round(time.monotonic() - started, 3)
            made.append(ZooTrial(network=name, seed=seed, precision=precision, seconds=seconds, **fields))
        # Hooks make cycles, and each candidate holds a whole network.
        if len(made) % 20 == 0:
            gc.collect()

    if "benign" in wanted:
        keep(lambda: try_step(subject, batch, precision))
        for what in healthy(seed, precision):
            keep(lambda what=what: try_healthy(reference, what))
    if "fault" in wanted:
        plain = fingerprint(judge(reference, subject.twin()).errors)
        for fault in faults(subject.model, list(ZOO).index(name) + seed):
            keep(lambda fault=fault: try_broken(reference, fault, plain))
    return made


def planned(at: int) -> set[str]:
    """Return what is tried from a state of a network: each of the first ones has a share of the faults."""
    return {"benign", "fault"} if at < SHARES else {"benign"}


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        **cpu_facts(THREADS),
        "warm_up": WARM_UP,
        "limits": asdict(Limits()),
    }


def main() -> None:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--networks", nargs="*", choices=list(ZOO), default=list(ZOO))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    if not options.render:
        run(options)
    if options.results == RESULTS and RESULTS.exists():
        from zoo.page import write_page

        write_page()


def run(options: argparse.Namespace) -> None:
    """Make all trials that are not stored yet."""
    file: Path = options.results
    made, trials = read(file) if file.exists() else (machine(), [])
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.networks:
            key = (name, seed, options.precision)
            done = {trial.part for trial in trials if (trial.network, trial.seed, trial.precision) == key}
            wanted = planned(seed - options.first_seed) - done
            if not wanted:
                continue
            with Precision(name=options.precision).lists():
                new = measure(*key, wanted)
            trials += new
            file.write_text(text(made, trials), encoding="utf-8")
            print(f"seed {seed}, {name}: {len(new)} trials, {sum(trial.seconds for trial in new):.0f} s", flush=True)


if __name__ == "__main__":
    main()
