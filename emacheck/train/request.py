"""What the worker is asked to train, as the command hands it over."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emacheck.experiment import PATHS

REQUEST_FILE = "request.json"
REFUSAL_FILE = "refusal.txt"
WORKER_LOG = "worker.log"
PRESETS = {
    "smoke": "EMANet-R50-D8, 64x128 crops, batch 2: minutes on a CPU",
    "smoke-256x512": "EMANet-R50-D8, 256x512 crops, batch 2: 16 times the pixels of smoke",
    "cityscapes": "EMANet-R50-D8, 512x1024 crops, as mmsegmentation ships it",
    "cityscapes-769x769": "EMANet-R50-D8, 769x769 crops, as mmsegmentation ships it",
    "cityscapes-r101": "EMANet-R101-D8, 512x1024 crops, as mmsegmentation ships it",
    "cityscapes-r101-769x769": "EMANet-R101-D8, 769x769 crops, as mmsegmentation ships it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """One training, completely described.

    Attributes:
        preset: A named EMANet configuration, or None when ``config`` is given.
        config: Path of an mmengine configuration file, or None.
        cfg_options: Overrides ``key=value`` in mmengine's notation.
        device: Device type with optional index, such as ``cpu`` or ``cuda:1``.
        precision: Arithmetic of the training: ``fp32``, ``tf32``, ``bf16`` or ``fp16``.
        iterations: Number of training iterations.
        seed: Seed of weights, sampler and augmentation, all drawn on the CPU.
        threads: Number of CPU threads of one operator; part of what makes two runs bit-identical.
        data_root: Root of the data set, or None to keep what the configuration says.
        data_hash: Hash of the data set, or None if it is not known.
        git_commit: Commit of the working directory the command was started in, or None.
        backend: Communication backend of several processes, or None for the device's usual one.
        batch_factor: How many batches of the configuration each process trains on at once, joined into one.
        log_format: ``tcap`` to write a log of TCAPPDLL lines as well, or None.
        last_bit_seed: Seed of a change in the last bit of the initial weights, for a benign repeat; 0 for none.
        must_match: The experiments of the references that this run may be held against; none if it need not match.
    """

    preset: str | None
    config: str | None
    cfg_options: tuple[str, ...] = ()
    device: str = "cpu"
    precision: str = "fp32"
    iterations: int = 100
    seed: int = 0
    threads: int = 2
    data_root: str | None = None
    data_hash: str | None = None
    git_commit: str | None = None
    backend: str | None = None
    batch_factor: int = 1
    log_format: str | None = None
    last_bit_seed: int = 0
    must_match: tuple[Mapping[str, Any], ...] = ()

    @property
    def experiment_name(self) -> str:
        """The name under which references of this experiment are stored."""
        if self.preset is None:
            return Path(self.config or "config").stem
        if self.preset.startswith("smoke"):
            return f"emanet_r50-d8_{self.preset}"
        depth = "r101" if "r101" in self.preset else "r50"
        return f"emanet_{depth}-d8_cityscapes-{'769x769' if '769' in self.preset else '512x1024'}"

    def in_common(self) -> dict[str, Any]:
        """Return what tells this training from another one, and is the same on every node.

        Where data and configuration lie may differ between nodes.

        Example:
            >>> there = TrainingRequest(preset="smoke", config=None, cfg_options=("a=1",), data_root="/there")
            >>> here = TrainingRequest(preset="smoke", config=None, cfg_options=("a=1", "x.data_root=/here"))
            >>> there.in_common() == here.in_common()
            True
        """
        return {
            "name": self.experiment_name,
            "options": [each for each in self.cfg_options if each.split("=")[0].rpartition(".")[2] not in PATHS],
            "device": self.device.partition(":")[0],
            "precision": self.precision,
            "iterations": self.iterations,
            "seed": self.seed,
        }

    def write(self, run_directory: Path) -> None:
        """Write the request into a run directory."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        (run_directory / REQUEST_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, run_directory: Path) -> "TrainingRequest":
        """Read the request of a run directory."""
        return cls.from_fields(json.loads((run_directory / REQUEST_FILE).read_text(encoding="utf-8")))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "TrainingRequest":
        """Return the request whose fields JSON has carried."""
        return cls(**{**fields, **{key: tuple(fields[key]) for key in ("cfg_options", "must_match")}})
