"""The cost of recording: the same mmengine run with and without the recorder, in alternating processes.

Times are those of mmengine's own timer (``time`` in ``scalars.json``, data loading included) in both cases.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "recording_cost.json"
PAIRS, ITERATIONS, WARM_UP = 6, 60, 10


def train(directory: Path, *, record: bool) -> None:
    """Train the smoke preset in this process, with or without the recorder."""
    import torch
    from mmseg.utils import register_all_modules

    from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset
    from emacheck.train.devices import parse_device, prepare_device
    from emacheck.train.presets import resolve
    from emacheck.train.recorder import RecorderHook
    from emacheck.train.request import TrainingRequest
    from emacheck.train.runner import ReseedHook, SeededRunner

    data = ensure_dataset(cache_root() / DEFAULT_NAME)
    request = TrainingRequest(preset="smoke", config=None, data_root=str(data.root), iterations=ITERATIONS)
    torch.set_num_threads(request.threads)
    prepare_device(parse_device("cpu"))
    config, _ = resolve(request, directory)
    register_all_modules(init_default_scope=False)
    runner = SeededRunner.from_cfg(config)
    runner.register_hook(ReseedHook(request.seed), priority="HIGHEST")
    if record:
        runner.register_hook(RecorderHook(directory, ITERATIONS))
    runner.train()


def median_iteration(*, record: bool) -> float:
    """Return the median seconds of an iteration of one process."""
    with tempfile.TemporaryDirectory() as place:
        mode = "with" if record else "without"
        subprocess.run([sys.executable, __file__, mode, place], check=True, capture_output=True)
        (scalars,) = Path(place).glob("mmengine/*/vis_data/scalars.json")
        times = [json.loads(line)["time"] for line in scalars.read_text(encoding="utf-8").splitlines()]
    return statistics.median(times[WARM_UP:])


def main() -> None:
    """Measure pairs and write their ratios."""
    if len(sys.argv) > 2:
        train(Path(sys.argv[2]), record=sys.argv[1] == "with")
        return
    pairs = []
    for at in range(PAIRS):
        # Which of the two comes first alternates, so that a drifting machine favours neither.
        order = (True, False) if at % 2 else (False, True)
        seconds = {record: median_iteration(record=record) for record in order}
        pairs.append(seconds[True] / seconds[False])
        print(f"pair {at + 1}: with / without = {pairs[-1]:.4f}", flush=True)
    result = {
        "pairs": PAIRS,
        "iterations": ITERATIONS - WARM_UP,
        "ratio with / without": {"median": statistics.median(pairs), "least": min(pairs), "most": max(pairs)},
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
