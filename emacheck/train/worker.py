"""The worker: the process that trains. Started as ``python -m emacheck.train.worker RUN_DIRECTORY``."""

import datetime
import json
import os
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emacheck.errors import TrainingError, UsageError
from emacheck.experiment import differences, digest, flatten, parted_batch_matters
from emacheck.rank_files import FORMAT_VERSION, RUN_FILE
from emacheck.strict_json import strict
from emacheck.train.launching.program import leave_with, watched_over
from emacheck.train.request import TrainingRequest

if TYPE_CHECKING:
    from emacheck.train.device.devices import Device


def main(arguments: list[str]) -> int:
    """Train what the run directory's request says.

    Args:
        arguments: The run directory.

    Returns:
        0 when the run is complete, 4 when the request was refused (the reason is in ``refusal.txt``).
    """
    return watched_over(lambda directory: train(TrainingRequest.read(directory), directory), Path(arguments[0]))


def train(request: TrainingRequest, run_directory: Path) -> None:
    """Train and record one request.

    Args:
        request: What to train.
        run_directory: Where the record is written.

    Raises:
        UsageError: If the configuration cannot be used, or is not the experiment of the reference or of all ranks.
    """
    import torch

    # A mean over threads is a different sum for a different number of them.
    torch.set_num_threads(request.threads)
    from emacheck.dispatch.autocast import as_on_accelerators
    from emacheck.train import ranks
    from emacheck.train.device.accelerator import describe_device
    from emacheck.train.device.devices import parse_device
    from emacheck.train.device.precision import check_autocast, check_precision, set_float32
    from emacheck.train.device.vanilla_mmengine import adapt, ask_for_precision, point_mmengine_at
    from emacheck.train.observed import ObserverHook
    from emacheck.train.presets import resolve
    from emacheck.train.recorder import RecorderHook
    from emacheck.train.runner import PairingHook

    warnings.filterwarnings("ignore")
    config, notes = resolve(request, run_directory)
    ask_for_precision(config, request.precision)
    experiment = describe_experiment(request, config, processes=ranks.world_size())
    refusal = _refusal(request, experiment)
    device = parse_device(request.device)
    check_precision(device, request.precision)
    ranks.agree(describe_task(request, experiment, device), refusal)
    device = ranks.open_device_of_rank(device, request.backend)
    check_autocast(device, request.precision)
    point_mmengine_at(device)
    adapt(config, device)
    facts = {
        **describe_device(device),
        "precisions": ", ".join(device.kind.precisions),
        **set_float32(device, request.precision),
    }
    facts |= ranks.devices_of_others(facts)
    provenance = _provenance(request, experiment, facts, notes)
    _write_run(run_directory, complete=False, recorder=None, provenance=provenance)
    tcap_log = run_directory / f"{device.type}.log" if request.log_format == "tcap" else None
    recorder = RecorderHook(run_directory, request.iterations, tcap_log=tcap_log, device=device)
    pairing = PairingHook(request.seed, device)
    observer = ObserverHook(
        device, request.precision, iterations=request.iterations, compiled=bool(config.get("compile"))
    )
    started, ended_well = time.monotonic(), False
    try:
        with as_on_accelerators(request.precision) if device.is_cpu else nullcontext():
            _run(config, device, pairing, observer, recorder)
        _require_enough(recorder, request.iterations)
        observer.require_as_asked()
        ranks.gather_records(run_directory, tcap_log)
        ended_well = True
    finally:
        from emacheck.train.provenance import peak_memory

        recorder.close()
        provenance |= {
            "duration_seconds": round(time.monotonic() - started, 3),
            "peak_memory_bytes": peak_memory(device, recorder.peak_memory),
            "draws_on_device": pairing.unpaired,
            "observed": observer.facts(),
        }
        _write_run(run_directory, complete=ended_well, recorder=recorder, provenance=provenance)
    ranks.leave()


def _require_enough(recorder: Any, iterations: int) -> None:
    if recorder.recorded != iterations:
        raise TrainingError(
            f"the training ended by itself after {recorder.recorded} of {iterations} iterations; "
            "expected a configuration that trains that long. Ask for fewer with --iters."
        )


def describe_experiment(request: TrainingRequest, config: Any, *, processes: int) -> dict[str, Any]:
    """Return the choices that must be equal before two runs may be compared.

    Args:
        request: What is trained.
        config: Its resolved configuration, already asked for the precision.
        processes: How many processes train.
    """
    from emacheck.train.device.precision import AUTOCAST

    return {
        "name": request.experiment_name,
        "config": flatten(config.to_dict()),
        "seed": request.seed,
        "precision": request.precision,
        **({"autocast": "as on accelerators"} if request.precision in AUTOCAST else {}),
        "draws": config.draws,
        "processes": processes,
        "data_hash": request.data_hash,
    }


def describe_task(request: TrainingRequest, experiment: dict[str, Any], device: "Device") -> dict[str, Any]:
    """Return what must be equal on every rank: the experiment, and whatever else decides what a rank does and when.

    The record names the versions of rank 0 alone; that of Python takes no part in the numbers.
    """
    from emacheck.train.provenance import versions

    return {
        **experiment,
        **{f"version of {name}": version for name, version in versions().items() if name != "python"},
        "device": device.type,
        "iterations": request.iterations,
        "threads": request.threads,
        "log format": request.log_format,
    }


def _refusal(request: TrainingRequest, experiment: dict[str, Any]) -> str | None:
    """Return why this training is refused, to be said when the other ranks can hear it; None if it is not."""
    try:
        refuse_other_experiment(request, experiment)
        _refuse_joined_batch(request, experiment["config"])
    except UsageError as error:
        return str(error)
    return None


def refuse_other_experiment(request: TrainingRequest, experiment: dict[str, Any]) -> None:
    """Refuse a training that is not the experiment of one of its references.

    Raises:
        UsageError: If it is not; the message names every field in which it differs from the nearest of them.
    """
    lines = min((differences(each, experiment) for each in request.must_match), key=len, default=[])
    if lines:
        shown = "\n".join(f"  {line}" for line in lines[:20])
        more = f"\n  ... and {len(lines) - 20} more" if len(lines) > 20 else ""
        nearest = "its reference" if len(request.must_match) == 1 else "the nearest of its references"
        raise UsageError(
            f"this run and {nearest} are different experiments, so their losses prove nothing:\n{shown}{more}\n"
            "Drop the options that cause this, or make a reference of this experiment: "
            "--reference-device cpu (now), or emacheck reference make with the same options (to keep)."
        )


def _refuse_joined_batch(request: TrainingRequest, config: dict[str, Any]) -> None:
    reasons = parted_batch_matters(config) if request.batch_factor > 1 else []
    if reasons:
        shown = "\n".join(f"  {reason}" for reason in reasons[:20])
        raise UsageError(
            f"one process with a joined batch is another experiment than several processes here:\n{shown}\n"
            "Train the reference with as many processes as the candidate: --reference-nproc N."
        )


def _provenance(
    request: TrainingRequest, experiment: dict[str, Any], device: dict[str, str], notes: tuple[str, ...]
) -> dict[str, Any]:
    from emacheck.train.provenance import host, versions

    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "experiment": experiment,
        "config_hash": digest(experiment["config"]),
        "planned_iterations": request.iterations,
        "device": device,
        "threads": request.threads,
        "workers": experiment["config"].get("train_dataloader.num_workers", 0),
        "versions": versions(),
        "host": host(),
        "git_commit": request.git_commit,
        "last_bit_seed": request.last_bit_seed,
        "notes": list(notes),
    }


def _write_run(run_directory: Path, *, complete: bool, recorder: Any, provenance: dict[str, Any]) -> None:
    from emacheck.train import ranks

    if ranks.rank() != 0:
        return
    run = {
        "format_version": FORMAT_VERSION,
        "complete": complete,
        "iterations": recorder.recorded if recorder else 0,
        "initial_state": recorder.initial_state if recorder else None,
        "provenance": provenance,
    }
    temporary = run_directory / f".{RUN_FILE}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(strict(run), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(run_directory / RUN_FILE)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _run(config: Any, device: "Device", pairing: Any, observer: Any, recorder: Any) -> None:
    from emacheck.train import ranks
    from emacheck.train.device.accelerator import step_marker
    from emacheck.train.recorder import EnoughIterations
    from emacheck.train.runner import SeededRunner, StepMarkingHook

    observer.told.listen()
    if config.default_scope == "mmseg":
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=False)
    if ranks.is_launched():
        config.launcher = "pytorch"
    runner = SeededRunner.from_cfg(config)
    mark_step = step_marker(device)
    if mark_step is not None:
        runner.register_hook(StepMarkingHook(mark_step))
    runner.register_hook(pairing, priority="HIGHEST")
    # The recorder ends a training when it has enough, so nothing after it sees the last iteration.
    runner.register_hook(observer)
    runner.register_hook(recorder)
    try:
        runner.train()
    except EnoughIterations:
        runner.call_hook("after_run")
    ranks.require_equal_ranks(runner.model, "after training")


if __name__ == "__main__":
    leave_with(main)
