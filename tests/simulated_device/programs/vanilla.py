"""Train a tiny network with mmengine's own Runner and emacheck's seam on a device, as JSON on the last line.

Usage: vanilla.py WORK_DIR DEVICE PRECISION ITERATIONS [RESUME | KEY=VALUE ...]
"""

import ast
import json
import sys
import warnings
from pathlib import Path

import torch

torch.set_num_threads(1)
warnings.filterwarnings("ignore")

from mmengine.config import Config  # noqa: E402
from mmengine.evaluator import BaseMetric  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.model import BaseModel  # noqa: E402
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.train.device.accelerator import open_device  # noqa: E402
from emacheck.train.device.devices import parse_device  # noqa: E402
from emacheck.train.device.precision import set_float32  # noqa: E402
from emacheck.train.device.vanilla_mmengine import adapt, ask_for_precision, point_mmengine_at  # noqa: E402
from emacheck.train.paired.fingerprint import state_hash  # noqa: E402


@MODELS.register_module()
class Tiny(BaseModel):
    """A convolution, a SyncBN that one process reverts, and a softmax."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SyncBatchNorm(4), nn.ReLU(), nn.Conv2d(4, 5, 1))

    def forward(self, inputs, labels, mode="tensor"):
        out = self.layers(inputs)
        if mode == "loss":
            return {"loss": nn.functional.cross_entropy(out, labels)}
        return [{"right": (out.argmax(1) == labels).float().mean()}]


@DATASETS.register_module()
class Toy(torch.utils.data.Dataset):
    """Noise."""

    metainfo = {"name": "toy"}  # noqa: RUF012

    def __len__(self):
        return 12

    def __getitem__(self, index):
        g = torch.Generator().manual_seed(int(index))
        return {"inputs": torch.randn(3, 8, 8, generator=g), "labels": torch.randint(0, 5, (8, 8), generator=g)}


@METRICS.register_module()
class Right(BaseMetric):
    """Mean of what the model found right."""

    def process(self, data_batch, data_samples):
        self.results += [sample["right"].item() for sample in data_samples]

    def compute_metrics(self, results):
        return {"right": sum(results) / len(results)}


SEEN = {"losses": [], "where": set(), "pinned": set(), "right": [], "scale": [], "skipped": []}


def is_pinned(tensor):
    """Before torch 2.6 a tensor that names no device tells whether it is pinned for CUDA."""
    return tensor.is_pinned() or (hasattr(torch, "sdaa") and tensor.is_pinned("sdaa"))


@HOOKS.register_module()
class Watch(Hook):
    """Note what a device can be recognised by."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        # Only of the batch as it comes from the loader.
        SEEN["pinned"].add(all(is_pinned(tensor) for tensor in data_batch["inputs"]))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        SEEN["losses"].append(float(outputs["loss"]))
        SEEN["where"] |= {p.device.type for p in runner.model.parameters()} | {outputs["loss"].device.type}
        scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
        if scaler is not None:
            SEEN["enabled"] = scaler.is_enabled()
            SEEN["scale"].append(runner.optim_wrapper.used_scale)
            SEEN["skipped"].append(runner.optim_wrapper.skipped_steps)

    def after_val_epoch(self, runner, metrics=None):
        SEEN["right"].append(metrics["right"])


def loader(workers):
    return {
        "dataset": {"type": "Toy"},
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "collate_fn": {"type": "default_collate"},
        "batch_size": 4,
        "num_workers": workers,
        "pin_memory": True,
    }


def main(work_dir, device, precision, iterations, *options):
    resume = "RESUME" in options
    config = Config(
        {
            "model": {"type": "Tiny"},
            "work_dir": work_dir,
            "train_dataloader": loader(2),
            "val_dataloader": loader(0),
            "val_cfg": {},
            "val_evaluator": {"type": "Right"},
            "train_cfg": {"by_epoch": False, "max_iters": int(iterations), "val_interval": 2},
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
            "param_scheduler": {"type": "PolyLR", "by_epoch": False, "end": 8},
            "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 2, "by_epoch": False}},
            "custom_hooks": [{"type": "Watch"}],
            "randomness": {"seed": 3},
            "resume": resume,
            "log_level": "ERROR",
            "default_scope": "mmengine",
        }
    )
    config.merge_from_dict(
        {key: ast.literal_eval(value) for key, _, value in (text.partition("=") for text in options if "=" in text)}
    )
    place = parse_device(device)
    ask_for_precision(config, precision)
    open_device(place)
    set_float32(place, precision)
    point_mmengine_at(place)
    adapt(config, place)
    runner = Runner.from_cfg(config)
    runner.train()
    moments = [state["momentum_buffer"] for state in runner.optim_wrapper.optimizer.state.values()]
    SEEN["where"] |= {moment.device.type for moment in moments}
    SEEN["state"] = state_hash(runner.model)
    SEEN["norm"] = type(runner.model.layers[1]).__name__
    SEEN["checkpoints"] = sorted(path.name for path in Path(work_dir).glob("*.pth"))
    print(json.dumps({key: sorted(value) if isinstance(value, set) else value for key, value in SEEN.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
