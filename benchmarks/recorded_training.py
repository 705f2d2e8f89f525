"""The process that trains one of the recorded runs: ``python benchmarks/recorded_training.py VARIATION RUN_DIRECTORY``."""

import sys
from pathlib import Path
from typing import Any

from variations import ALL


def validate_at_the_end() -> None:
    """Let the worker validate after its last iteration, on the synthetic data at the size of the training."""
    from emacheck.train import presets

    train_only = presets._train_only

    def train_and_validate(config: Any, request: Any, run_directory: Path, notes: list[str]) -> None:
        kept = {f"val_{part}": config[f"val_{part}"] for part in ("cfg", "dataloader", "evaluator")}
        train_only(config, request, run_directory, notes)
        loader = kept["val_dataloader"]
        loader.num_workers, loader.persistent_workers, loader.dataset.data_root = 0, False, request.data_root
        for transform in loader.dataset.pipeline:
            if transform["type"] == "Resize":
                transform["scale"] = presets.SMALL["smoke"][1]
        for key, value in kept.items():
            config[key] = value
        config.train_cfg.val_interval = request.iterations

    presets._train_only = train_and_validate


def draw_as_recorded() -> None:
    """Draw weights and data in the first way, from torch's own generators, as the stored runs were drawn."""
    from emacheck.train import presets

    resolve = presets.resolve

    def resolve_so(*arguments: Any) -> Any:
        config, notes = resolve(*arguments)
        config.draws = 1
        return config, notes

    presets.resolve = resolve_so


if __name__ == "__main__":
    from emacheck.train.worker import main

    draw_as_recorded()
    validate_at_the_end()
    for apply_change in ALL[sys.argv[1]].changes:
        apply_change()
    sys.exit(main(sys.argv[2:]))
