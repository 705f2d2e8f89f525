"""The cost of recording: one mmengine run in which the recorder works in every second iteration only.

Neighbouring iterations form a pair, so a drifting machine favours neither. Times are those of mmengine's own timer
(``time`` in ``scalars.json``: the whole iteration, data loading and hooks included).
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "recording_cost.json"
PAIRS, WARM_UP = 120, 5


def train(directory: Path) -> None:
    """Train the smoke preset in this process, recording every second iteration."""
    import torch
    from mmseg.utils import register_all_modules

    from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset
    from emacheck.train.accelerator import open_device
    from emacheck.train.devices import parse_device
    from emacheck.train.presets import resolve
    from emacheck.train.recorder import RecorderHook
    from emacheck.train.request import TrainingRequest
    from emacheck.train.runner import PairingHook, SeededRunner
    from emacheck.train.vanilla_mmengine import point_mmengine_at

    class EverySecond(RecorderHook):  # type: ignore[misc]
        """Works in odd iterations (counted from 0) and does nothing in even ones."""

        working = False

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            self.working = batch_idx % 2 == 1
            if self.working:
                super().before_train_iter(runner, batch_idx, data_batch)

        def _before_step(self, *arguments: Any) -> None:
            if self.working:
                super()._before_step(*arguments)

        def after_train_iter(self, *arguments: Any, **named: Any) -> None:
            if self.working:
                super().after_train_iter(*arguments, **named)

    data = ensure_dataset(cache_root() / DEFAULT_NAME)
    iterations = 2 * (PAIRS + WARM_UP)
    request = TrainingRequest(preset="smoke", config=None, data_root=str(data.root), iterations=iterations)
    torch.set_num_threads(request.threads)
    device = parse_device("cpu")
    open_device(device)
    point_mmengine_at(device)
    config, _ = resolve(request, directory)
    register_all_modules(init_default_scope=False)
    runner = SeededRunner.from_cfg(config)
    runner.register_hook(PairingHook(request.seed, device), priority="HIGHEST")
    # mmengine stops its timer in a hook of its own; recording comes before it and so inside of the measured iteration.
    runner.register_hook(EverySecond(directory, iterations), priority="VERY_HIGH")
    runner.train()


def main() -> None:
    """Measure pairs and write their ratios."""
    with tempfile.TemporaryDirectory() as place:
        train(Path(place))
        (scalars,) = Path(place).glob("mmengine/*/vis_data/scalars.json")
        times = [json.loads(line)["time"] for line in scalars.read_text(encoding="utf-8").splitlines()]
    recorded, plain = times[2 * WARM_UP + 1 :: 2], times[2 * WARM_UP :: 2]
    ratios = sorted(a / b for a, b in zip(recorded, plain, strict=True))
    result = {
        "pairs": len(ratios),
        "ratio with / without": {
            "median": statistics.median(ratios),
            "lower quartile": ratios[len(ratios) // 4],
            "upper quartile": ratios[3 * len(ratios) // 4],
        },
        "milliseconds without": round(1000 * statistics.median(plain), 1),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(main())
