"""Ways to run the same training a little differently (benign) or wrongly (faults), unseen by the provenance."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Change = Callable[[], None]


def on_model(change: Callable[[nn.Module], None]) -> Change:
    """Apply a change to the model once it is complete: SyncBN layers are replaced when mmengine wraps it."""

    def apply() -> None:
        from emacheck.train.runner import SeededRunner

        wrap = SeededRunner.wrap_model

        def wrap_and_change(self: Any, settings: Any, model: Any) -> nn.Module:
            wrapped: nn.Module = wrap(self, settings, model)
            change(wrapped)
            return wrapped

        SeededRunner.wrap_model = wrap_and_change

    return apply


def on_optimizer(**settings: float) -> Change:
    """Give SGD other settings than the configuration says; a function of the configured value, or a value."""

    def apply() -> None:
        create = torch.optim.SGD.__init__

        def create_otherwise(self: Any, params: Any, **options: Any) -> None:
            create(self, params, **{**options, **settings})

        torch.optim.SGD.__init__ = create_otherwise  # type: ignore[method-assign]

    return apply


def threads(count: int) -> Change:
    """Sum in another order: another number of threads."""

    def apply() -> None:
        set_threads = torch.set_num_threads
        torch.set_num_threads = lambda _: set_threads(count)

    return apply


def without_onednn() -> None:
    """Use torch's own kernels instead of oneDNN's."""
    torch.backends.mkldnn.enabled = False


def last_bit(seed: int) -> Change:
    """Change the last bit of a third of the weights up and of a third down."""

    def change(model: nn.Module) -> None:
        from emacheck.train.runner import change_last_bits

        change_last_bits(model, seed)

    return on_model(change)


def batch_norm_eps(model: nn.Module) -> None:
    """Normalise one layer with a hundredfold eps."""
    model.get_submodule("backbone.layer3.2.bn2").eps = 1e-3


def stale_bases(model: nn.Module) -> None:
    """Keep the bases of the EMA module as they were drawn."""
    model.get_submodule("decode_head.ema_module").momentum = 0.0


def dead_channel(model: nn.Module) -> None:
    """Return zeros in one channel of one layer."""

    def kill(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
        output = output.clone()
        output[:, 17] = 0
        return output

    model.get_submodule("backbone.layer3.1.bn3").register_forward_hook(kill)


def zero_gradient(model: nn.Module) -> None:
    """Lose the weight gradient of one convolution."""
    model.get_submodule("backbone.layer3.2.conv2").weight.register_hook(torch.zeros_like)


BENIGN_FOR_CALIBRATION: dict[str, Change] = {
    "1 thread": threads(1),
    "last bit, seed 1": last_bit(1),
    "last bit, seed 2": last_bit(2),
    "last bit, seed 3": last_bit(3),
    "last bit, seed 4": last_bit(4),
}
BENIGN_FOR_REPORT: dict[str, Change] = {
    "3 threads": threads(3),
    "without oneDNN": without_onednn,
    "last bit, seed 5": last_bit(5),
    "last bit, seed 6": last_bit(6),
    "last bit, seed 7": last_bit(7),
}
FAULTS: dict[str, Change] = {
    "SGD momentum 0.8 instead of 0.9": on_optimizer(momentum=0.8),
    "learning rate 1 % too high": on_optimizer(lr=0.0101),
    "no weight decay": on_optimizer(weight_decay=0.0),
    "EMA bases never updated": on_model(stale_bases),
    "one BatchNorm with eps 1e-3": on_model(batch_norm_eps),
    "one dead channel in layer3": on_model(dead_channel),
    "gradient of one convolution lost": on_model(zero_gradient),
}
ALL = {**BENIGN_FOR_CALIBRATION, **BENIGN_FOR_REPORT, **FAULTS}


def name_to_slug(name: str) -> str:
    """Return a name that can be a directory."""
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").lower()


if __name__ == "__main__":
    import sys

    from emacheck.train.worker import main

    ALL[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
