"""The worker: the process that trains. Started as ``python -m emacheck.train.worker RUN_DIRECTORY``."""

import datetime
import json
import logging
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from emacheck.errors import EmacheckError, TrainingError, UsageError
from emacheck.experiment import differences, digest, flatten
from emacheck.strict_json import strict
from emacheck.train.request import REFUSAL_FILE, TrainingRequest

RUN_FILE = "run.json"
FORMAT_VERSION = 1
REFUSED = 4


def main(arguments: list[str]) -> int:
    """Train what the run directory's request says.

    Args:
        arguments: The run directory.

    Returns:
        0 when the run is complete, 4 when the request was refused (the reason is in ``refusal.txt``).
    """
    run_directory = Path(arguments[0])
    _end_with_parent()
    try:
        train(TrainingRequest.read(run_directory), run_directory)
    except EmacheckError as error:
        (run_directory / REFUSAL_FILE).write_text(f"{error}\n", encoding="utf-8")
        return REFUSED
    return 0


def _end_with_parent() -> None:
    """End this process when the command that started it is gone, however it went."""
    if sys.stdin is None or sys.stdin.isatty():
        return

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def train(request: TrainingRequest, run_directory: Path) -> None:
    """Train and record one request.

    Args:
        request: What to train.
        run_directory: Where the record is written.

    Raises:
        UsageError: If the configuration cannot be used or is not the experiment of the reference.
    """
    import torch

    # A mean over threads is a different sum for a different number of them.
    torch.set_num_threads(request.threads)
    from emacheck.train.accelerator import describe_device, open_device
    from emacheck.train.devices import parse_device
    from emacheck.train.precision import check_precision, set_float32
    from emacheck.train.presets import resolve
    from emacheck.train.recorder import RecorderHook
    from emacheck.train.runner import PairingHook
    from emacheck.train.vanilla_mmengine import adapt, ask_for_precision, point_mmengine_at

    warnings.filterwarnings("ignore")
    config, notes = resolve(request, run_directory)
    ask_for_precision(config, request.precision)
    experiment = {
        "name": request.experiment_name,
        "config": flatten(config.to_dict()),
        "seed": request.seed,
        "precision": request.precision,
        "draws": config.draws,
        "processes": 1,
        "data_hash": request.data_hash,
    }
    _refuse_other_experiment(request, experiment)
    device = parse_device(request.device)
    check_precision(device, request.precision)
    open_device(device)
    point_mmengine_at(device)
    adapt(config, device)
    facts = {
        **describe_device(device),
        "precisions": ", ".join(device.kind.precisions),
        **set_float32(device, request.precision),
    }
    provenance = _provenance(request, experiment, facts, notes)
    _write_run(run_directory, complete=False, recorder=None, provenance=provenance)
    recorder = RecorderHook(run_directory, request.iterations)
    pairing = PairingHook(request.seed, device)
    started = time.monotonic()
    try:
        _run(config, pairing, recorder)
    finally:
        from emacheck.train.provenance import peak_memory

        recorder.close()
        provenance["duration_seconds"] = round(time.monotonic() - started, 3)
        provenance["peak_memory_bytes"] = peak_memory(device)
        provenance["draws_on_device"] = pairing.unpaired
        complete = recorder.recorded == request.iterations
        _write_run(run_directory, complete=complete, recorder=recorder, provenance=provenance)
    if not complete:
        raise TrainingError(
            f"the training ended by itself after {recorder.recorded} of {request.iterations} iterations; "
            "expected a configuration that trains that long. Ask for fewer with --iters."
        )


def _refuse_other_experiment(request: TrainingRequest, experiment: dict[str, Any]) -> None:
    if request.must_match is None:
        return
    lines = differences(request.must_match, experiment)
    if lines:
        shown = "\n".join(f"  {line}" for line in lines[:20])
        more = f"\n  ... and {len(lines) - 20} more" if len(lines) > 20 else ""
        raise UsageError(
            f"this run and its reference are different experiments, so their losses prove nothing:\n{shown}{more}\n"
            "Drop the options that cause this, or make a reference of this experiment: "
            "--reference-device cpu (now) or emacheck reference make (to keep)."
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
    run = {
        "format_version": FORMAT_VERSION,
        "complete": complete,
        "iterations": recorder.recorded if recorder else 0,
        "initial_state": recorder.initial_state if recorder else None,
        "provenance": provenance,
    }
    temporary = run_directory / f".{RUN_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(strict(run), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(run_directory / RUN_FILE)


def _run(config: Any, pairing: Any, recorder: Any) -> None:
    from emacheck.train.recorder import EnoughIterations
    from emacheck.train.runner import SeededRunner

    logging.captureWarnings(capture=True)
    if config.default_scope == "mmseg":
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=False)
    runner = SeededRunner.from_cfg(config)
    runner.register_hook(pairing, priority="HIGHEST")
    runner.register_hook(recorder)
    try:
        runner.train()
    except EnoughIterations:
        runner.call_hook("after_run")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
