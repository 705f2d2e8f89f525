"""Which operator is wrong: what level 3 finds on EMANet, and how often it is wrong about what is right.

    python benchmarks/operators_power.py [--calibration 8] [--reported 18] [--short 3]
    python benchmarks/operators_power.py --render

Benign trials are whole iterations of EMANet on the CPU whose operators compute in another way (other kernels, threads, memory
layout, order of summation), each operator of them ranked. The limits are those of a module alone and were fixed before any of
these trials; those of the calibration, with seeds and a batch of their own, were looked at to see whether they do, and none was
changed. The small networks of docs/audit-zoo.md are ranked as well, with their sums in other orders. Broken devices are the
simulated device of the tests with one broken operator, audited alone on one batch; the others are faults of the selftest in
which every operator is right. It writes benchmarks/results/operators_power.json, and the measured section of docs/operators.md
from it. A second call goes on where the first one stopped.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "operators_power.json"
PACKAGE = HERE.parent / "tests" / "simulated_device" / "package"
BATCHES, CALIBRATION_BATCH = 3, 3
CALIBRATION_SEED, REPORTED_SEED = 1, 1000
# Of the states and batches of other networks.
ZOO_SEED = 11


class Broken(NamedTuple):
    """A device with one broken kernel, and the names that torch gives to it above the device."""

    fault: str
    operator: str
    also: tuple[str, ...] = ()


DEVICES = {
    "healthy": Broken("", ""),
    "softmax, off by 1e-3": Broken("scale _softmax by=1e-3", "aten._softmax.default"),
    "softmax, off by 1e-4": Broken("scale _softmax by=1e-4", "aten._softmax.default"),
    "log-softmax, backward, off by 1e-3": Broken(
        "scale _log_softmax_backward_data by=1e-3", "aten._log_softmax_backward_data.default"
    ),
    "convolution, off by 1e-4": Broken("scale convolution_overrideable by=1e-4", "aten.convolution.default"),
    "convolution, in one tile, off by 1e-3": Broken(
        "scale convolution_overrideable by=1e-3 where=tile", "aten.convolution.default"
    ),
    "convolution, in one tile, off by 1e-4": Broken(
        "scale convolution_overrideable by=1e-4 where=tile", "aten.convolution.default"
    ),
    "convolution, backward, off by 1e-3": Broken(
        "scale convolution_backward_overrideable by=1e-3", "aten.convolution_backward.default"
    ),
    "convolution, backward, off by 1e-4": Broken(
        "scale convolution_backward_overrideable by=1e-4", "aten.convolution_backward.default"
    ),
    "batch normalisation, off by 1e-3": Broken("scale native_batch_norm by=1e-3", "aten.native_batch_norm.default"),
    "batch normalisation, backward, off by 1e-4": Broken(
        "scale native_batch_norm_backward by=1e-4", "aten.native_batch_norm_backward.default"
    ),
    "bilinear upsampling, off by 1e-3": Broken("scale upsample_bilinear2d by=1e-3", "aten.upsample_bilinear2d.default"),
    "bilinear upsampling, backward, off by 1e-4": Broken(
        "scale upsample_bilinear2d_backward by=1e-4", "aten.upsample_bilinear2d_backward.default"
    ),
    "matrix product, of strided inputs only, off by 1e-3": Broken(
        "scale bmm by=1e-3 where=strided", "aten.bmm.default"
    ),
    "matrix product, one call alone and never again": Broken("scale bmm by=1e-3 call=3", "aten.bmm.default"),
    "vector norm, off by 1e-3": Broken("scale linalg_vector_norm by=1e-3", "aten.linalg_vector_norm.default"),
    "addition, off by 1e-4": Broken(
        "scale add by=1e-4",
        "aten.add_.Tensor",
        ("aten.add.Tensor", "aten._foreach_add_.List", "aten._foreach_add.List"),
    ),
    "multiplication, off by 1e-4": Broken(
        "scale mul by=1e-4", "aten.mul.Tensor", ("aten.mul_.Tensor", "aten._foreach_mul_.Scalar")
    ),
}
# Every operator is right there: what is wrong is what is called, or a module's own code.
ELSEWHERE = (
    "epsilon_of_one_norm@0.001",
    "momentum_of_one_norm@0.11",
    "one_stage_missing",
    "bases_not_quite_normalised@0.001",
    "residual_scaled@0.001",
    "align_corners_flipped",
    "dilation_ignored",
    "class_weighted@1.01",
    "learning_rate_off@1.001",
    "weight_decay_decoupled",
)


def main() -> None:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=int, default=8)
    parser.add_argument("--reported", type=int, default=18)
    parser.add_argument("--short", type=int, default=3, help="reported trials in each of bf16 and fp16")
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    if not options.render:
        sys.path.insert(0, str(PACKAGE))
        os.environ.setdefault("SDAA_SIMULATED_RNG", "cpu")
        measure(options)
    from operators_page import write_page

    write_page()


def measure(options: argparse.Namespace) -> None:
    """Make all trials that are not stored yet."""
    # Before anything is differentiated, for torch then counts the devices.
    import torch_sdaa  # noqa: F401
    from audit_power import THREADS, prepare
    from host import cpu_facts
    from zoo.networks import ZOO
    from zoo.orders import Order

    from emacheck.audit.lockstep.variations import Variation
    from emacheck.strict_json import strict

    stored: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    training = prepare(BATCHES + 1)
    stored.setdefault("benign", {})
    stored.setdefault("zoo", {})
    stored.setdefault("devices", {})
    stored.setdefault("elsewhere", {})
    stored["machine"] = {**cpu_facts(THREADS), "state_hash": training.state_hash, "batch_hashes": training.batch_hashes}

    def keep(group: str, name: str, made: dict[str, Any]) -> None:
        stored[group][name] = strict(made)
        RESULTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        print(group, name, {k: v for k, v in made.items() if k != "operators"}, flush=True)

    for part, precision, batch, way in planned(options):
        name = f"{part}, {precision}, batch {batch + 1}, {way}"
        if name not in stored["benign"]:
            keep(
                "benign",
                name,
                {
                    "part": part,
                    "precision": precision,
                    **benign(training.subject, training.batches[batch], precision, way),
                },
            )
    for name, entry in ZOO.items():
        for order in (
            *(Order("shuffled", REPORTED_SEED + at) for at in range(3)),
            Order("backwards"),
            Order("in pieces"),
        ):
            if f"{name}, {order}" not in stored["zoo"]:
                subject, batch, as_it_is = entry.trained(ZOO_SEED), entry.batch(ZOO_SEED), Way(Variation(), order)
                made = benign(subject, batch, "fp32", as_it_is)
                keep("zoo", f"{name}, {order}", {k: v for k, v in made.items() if k not in ("operators", "seconds")})
    for name, case in DEVICES.items():
        if name not in stored["devices"]:
            keep("devices", name, broken(training, case))
    for name in ELSEWHERE:
        if name not in stored["elsewhere"]:
            keep("elsewhere", name, elsewhere(training, name))


class Way(NamedTuple):
    """How the operators of a healthy candidate compute."""

    variation: Any
    order: Any

    def __str__(self) -> str:
        return f"{self.variation}, {self.order}"


def planned(options: argparse.Namespace) -> Iterator[tuple[str, str, int, Way]]:
    """Yield all benign trials: part, precision, index of the batch, and the way to compute."""
    for at in range(options.calibration):
        yield "calibration", "fp32", CALIBRATION_BATCH, way(at, CALIBRATION_SEED)
    for at in range(options.reported):
        yield "reported", "fp32", at % BATCHES, way(at, REPORTED_SEED)
    for precision in ("bf16", "fp16"):
        for at in range(options.short):
            yield "reported", precision, at % BATCHES, way(at, REPORTED_SEED, half=True)


def way(at: int, first: int, *, half: bool = False) -> Way:
    """Return one way to compute the same thing; sums of shuffled terms, each time others, for most of them."""
    from zoo.orders import Order

    from emacheck.audit.lockstep.variations import Variation
    from emacheck.audit.selftest.trials import ROUNDING_SEEDS

    order = Order("backwards") if at % 6 == 4 else Order("in pieces") if at % 6 == 5 else Order("shuffled", first + at)
    variation = Variation(
        threads=1 + at % 2,
        channels_last=at // 2 % 2 == 1,
        onednn=at % 3 != 2 or half,
        rounding=ROUNDING_SEEDS + first + at if half and at % 2 else 0,
    )
    return Way(variation=variation, order=order)


def benign(subject: Any, batch: Any, precision: str, way: Way) -> dict[str, Any]:
    """Rank the operators of one whole iteration of a healthy candidate."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from emacheck.audit.arithmetic.precision import Precision
    from emacheck.audit.findings.result import AuditResult
    from emacheck.audit.judging.reference import Plan
    from emacheck.audit.operators.explain import explain

    class Computing(TorchDispatchMode):  # type: ignore[misc]
        """Each operator alone computes in the variation; what it is held against does not."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            with way.variation.active():
                return func(*args, **(kwargs or {}))

    candidate = subject.twin()
    if way.variation.channels_last:
        candidate.model.to(memory_format=torch.channels_last)
    candidate.around += [way.order.around, Computing]
    plan = Plan(precision=Precision(name=precision))
    nothing = AuditResult(device="cpu", precision=precision, errors=(), findings=())
    result = explain(nothing, subject, candidate, [batch], plan, always=True)
    (found,) = result.operators.explanations
    return {
        "conclusion": found.conclusion,
        "calls": found.calls,
        "operators": {row.operator: round(row.ratio, 4) for row in found.operators},
        "limit": plan.limit_of_operators,
        "worst": found.operators[0].operator,
        "ratio": found.operators[0].ratio,
        "unjudged": {row.operator: row.why for row in found.unjudged},
        "seconds": result.operators.seconds,
    }


def broken(training: Any, case: Broken) -> dict[str, Any]:
    """Audit the simulated device with one broken operator, explain what fails, and rank one whole iteration."""
    import torch
    import torch_sdaa

    device = torch.device("sdaa")
    fault = torch_sdaa.faults.inject(case.fault) if case.fault else None
    try:
        result, seconds = audited(training, training.subject.twin(), device)
    finally:
        if fault is not None:
            torch_sdaa.faults.heal(fault)
    known = {"fault": case.fault, "operators": list(filter(None, (case.operator, *case.also)))}
    return {**told(result), **known, "audit seconds": seconds}


def elsewhere(training: Any, name: str) -> dict[str, Any]:
    """Audit a candidate on the CPU with a fault of the selftest, and explain what fails."""
    import torch

    from emacheck.audit.faults import catalogue

    candidate = training.subject.twin()
    module = catalogue()[name].apply(candidate, catalogue()[name].severity)
    result, seconds = audited(training, candidate, torch.device("cpu"), always=False)
    return {**told(result), "sits in": module, "audit seconds": seconds}


def audited(training: Any, candidate: Any, device: Any, *, always: bool = True) -> tuple[Any, float]:
    """Audit modules and optimizer alone on one batch, and explain what fails."""
    from emacheck.audit.findings.result import AuditResult, find
    from emacheck.audit.judging.candidate import judge
    from emacheck.audit.judging.reference import Plan
    from emacheck.audit.operators.explain import explain

    plan = Plan(device=device, evaluation=False, end_to_end=False)
    reference = reference_on(training, plan)
    started = time.monotonic()
    judged = judge(reference, candidate)
    seconds = round(time.monotonic() - started, 1)
    errors = tuple(judged.errors)
    result = AuditResult(device=str(device), precision="fp32", errors=errors, findings=find(errors, judged.troubles))
    return explain(result, training.subject, candidate, training.batches[:1], plan, always=always), seconds


KEPT: dict[str, Any] = {}


def reference_on(training: Any, plan: Any) -> Any:
    """Return reference and arbiter, made once for all candidates of a device."""
    from emacheck.audit.judging.reference import Reference

    if str(plan.device) not in KEPT:
        KEPT.clear()
        batch = training.batches[0]
        KEPT[str(plan.device)] = Reference(subject=training.subject, batch=batch, plan=plan, keep=True)
    return KEPT[str(plan.device)]


def told(result: Any) -> dict[str, Any]:
    """Return what was said, without the operators that are right."""
    found = result.operators
    explanations = () if found is None else found.explanations
    return {
        "outcome": result.outcome.value,
        "module": result.module,
        "explanations": [
            {
                "scope": each.scope,
                "level": each.level,
                "conclusion": each.conclusion,
                "cause": list(each.cause),
                "message": each.message,
                "wrong": [row.operator for row in each.wrong],
                "worst": each.operators[0].operator if each.operators else None,
                "ratio": each.operators[0].ratio if each.operators else None,
                "calls of the worst": [each.operators[0].over, each.operators[0].calls] if each.operators else None,
                "trials": [[*trial.operators, trial.passes] for trial in each.trials],
            }
            for each in explanations
        ],
        "notes": [] if found is None else list(found.notes),
        "seconds": 0.0 if found is None else found.seconds,
    }


if __name__ == "__main__":
    main()
