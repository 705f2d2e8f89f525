"""The cost of recording and pairing: one mmengine run in which they work in every second iteration only.

Neighbouring iterations form a pair, and which of the two comes first alternates from pair to pair, so that neither a
drifting machine nor a habit of every second iteration favours one. Times are those of mmengine's own timer
(``time`` in ``scalars.json``: the whole iteration, data loading and hooks included). ``recording`` is the smoke preset;
``recording and pairing`` is the smoke preset with dropout, samples seeded one by one and masks drawn on the CPU.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from emacheck.train.device.devices import Device
    from emacheck.train.request import TrainingRequest

RESULTS = Path(__file__).parent / "results" / "recording_cost.json"
PAIRS, WARM_UP = 480, 5
# Of the normal distribution; the ranks between which a median lies with 95 %.
TWO_SIDED = 1.96


def works(iteration: int) -> bool:
    """Tell whether an iteration, counted from 0, is recorded and paired."""
    return iteration % 4 in (1, 2)


@contextmanager
def pairing_every_second(batch_size: int, current: Callable[[], int]) -> Iterator[None]:
    """Seed the samples and draw the dropout masks of every second iteration only."""
    from torch import nn

    from emacheck.train.paired.batches import SeededSamples
    from emacheck.train.paired.dropout import HostDropout

    load, drop = SeededSamples.__getitem__, HostDropout.forward

    def loading(self: Any, index: Any) -> Any:
        return load(self, index) if works(index.position // batch_size) else self._dataset[int(index)]

    def dropping(self: Any, x: Any) -> Any:
        return drop(self, x) if works(current()) else nn.functional.dropout2d(x, self.p, self.training)

    with patch.object(SeededSamples, "__getitem__", loading), patch.object(HostDropout, "forward", dropping):
        yield


def hooks_of_every_second(directory: Path, request: "TrainingRequest", device: "Device") -> tuple[Any, Any]:
    """Return hooks that record and that seed the masks, in odd iterations (counted from 0) only."""
    from emacheck.train.recorder import RecorderHook
    from emacheck.train.runner import PairingHook

    class EverySecond(RecorderHook):  # type: ignore[misc]
        iteration = 0

        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            self.iteration = batch_idx
            if works(batch_idx):
                super().before_train_iter(runner, batch_idx, data_batch)

        def _before_step(self, *arguments: Any) -> None:
            if works(self.iteration):
                super()._before_step(*arguments)

        def after_train_iter(self, *arguments: Any, **named: Any) -> None:
            if works(self.iteration):
                super().after_train_iter(*arguments, **named)

    class SeedingEverySecond(PairingHook):  # type: ignore[misc]
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            if works(batch_idx):
                super().before_train_iter(runner, batch_idx, data_batch)

    return EverySecond(directory, request.iterations), SeedingEverySecond(request.seed, device)


def train(directory: Path, *, paired: bool) -> None:
    """Train the smoke preset in this process, recording every second iteration."""
    import torch
    from mmseg.utils import register_all_modules

    from emacheck.data.synthetic import DEFAULT_NAME, cache_root, ensure_dataset
    from emacheck.train.device.accelerator import open_device
    from emacheck.train.device.devices import parse_device
    from emacheck.train.device.vanilla_mmengine import point_mmengine_at
    from emacheck.train.presets import resolve
    from emacheck.train.request import TrainingRequest
    from emacheck.train.runner import SeededRunner

    data = ensure_dataset(cache_root() / DEFAULT_NAME)
    iterations = 2 * (PAIRS + WARM_UP)
    dropout = tuple(f"model.{head}.dropout_ratio=0.1" for head in ("decode_head", "auxiliary_head")) if paired else ()
    request = TrainingRequest(
        preset="smoke", config=None, data_root=str(data.root), iterations=iterations, cfg_options=dropout
    )
    torch.set_num_threads(request.threads)
    device = parse_device("cpu")
    open_device(device)
    point_mmengine_at(device)
    config, _ = resolve(request, directory)
    config.draws = 2 if paired else 1
    register_all_modules(init_default_scope=False)
    runner = SeededRunner.from_cfg(config)
    recorder, pairing = hooks_of_every_second(directory, request, device)
    runner.register_hook(pairing, priority="HIGHEST")
    # mmengine stops its timer in a hook of its own; recording comes before it and so inside of the measured iteration.
    runner.register_hook(recorder, priority="VERY_HIGH")
    with pairing_every_second(config.train_dataloader.batch_size, lambda: recorder.iteration):
        runner.train()


def measure(*, paired: bool) -> dict[str, Any]:
    """Train once and return the ratios of neighbouring iterations."""
    with tempfile.TemporaryDirectory() as place:
        train(Path(place), paired=paired)
        (scalars,) = Path(place).glob("mmengine/*/vis_data/scalars.json")
        times = [json.loads(line)["time"] for line in scalars.read_text(encoding="utf-8").splitlines()]
    measured = range(2 * WARM_UP, len(times))
    working = [times[at] for at in measured if works(at)]
    plain = [times[at] for at in measured if not works(at)]
    ratios = sorted(a / b for a, b in zip(working, plain, strict=True))
    off = TWO_SIDED * math.sqrt(len(ratios)) / 2
    least, most = math.floor((len(ratios) - 1) / 2 - off), math.ceil((len(ratios) - 1) / 2 + off)
    from emacheck.train.device.accelerator import describe_device
    from emacheck.train.device.devices import parse_device

    return {
        "machine": describe_device(parse_device("cpu"))["name"],
        "pairs": len(ratios),
        "ratio with / without": {
            "median": statistics.median(ratios),
            "interval of the median": [ratios[least], ratios[most]],
            "lower quartile": ratios[len(ratios) // 4],
            "upper quartile": ratios[3 * len(ratios) // 4],
        },
        "milliseconds without": round(1000 * statistics.median(plain), 1),
    }


def main() -> None:
    """Measure pairs and write their ratios; mmengine keeps what it made, so each measurement has its own process."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(paired=sys.argv[1] == "paired")))
        return
    result = {}
    for name, argument in (("recording", "recorded"), ("recording and pairing", "paired")):
        done = subprocess.run([sys.executable, __file__, argument], stdout=subprocess.PIPE, text=True, check=True)
        result[name] = json.loads(done.stdout.splitlines()[-1])
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(main())
