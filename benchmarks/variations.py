"""Ways to run the same training a little differently (benign) or wrongly (faults), unseen by the provenance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Change = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """One way to run the training.

    Attributes:
        name: What it is called in the tables.
        kind: ``benign``, ``fault``, ``seed`` for another experiment on a sound device, or ``seed and fault``.
        changes: What is done before the worker trains.
        seed: Seed of the run.
        iterations: Length of the run.
        options: Overrides of the configuration, in mmengine's notation.
    """

    name: str
    kind: str
    changes: tuple[Change, ...]
    seed: int = 0
    iterations: int = 100
    options: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """A name that can be a file."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())


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


def on_optimizer(**settings: Any) -> Change:
    """Give SGD other settings than the configuration says."""

    def apply() -> None:
        create = torch.optim.SGD.__init__

        def create_otherwise(self: Any, params: Any, **options: Any) -> None:
            create(self, params, **{**options, **settings})

        torch.optim.SGD.__init__ = create_otherwise  # type: ignore[method-assign]

    return apply


def at_step(number: int, action: Callable[[torch.optim.Optimizer, Callable[[], Any]], Any]) -> Change:
    """Do something else than one step of SGD; the action gets the optimizer and the step that was asked for."""

    def apply() -> None:
        step = torch.optim.SGD.step
        steps = 0

        def step_otherwise(self: Any, closure: Any = None) -> Any:
            nonlocal steps
            steps += 1
            if steps == number:
                return action(self, lambda: step(self, closure))
            return step(self, closure)

        torch.optim.SGD.step = step_otherwise  # type: ignore[method-assign]

    return apply


def on_input(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Change what the data preprocessor hands to the network; the batch's fingerprint is taken before."""

    def hook(model: nn.Module) -> None:
        preprocessor = model.get_submodule("data_preprocessor")
        preprocessor.register_forward_hook(lambda module, inputs, output: change(output))  # noqa: ARG005

    return on_model(hook)


def threads(count: int) -> Change:
    """Sum in another order: another number of threads."""

    def apply() -> None:
        set_threads = torch.set_num_threads
        torch.set_num_threads = lambda _: set_threads(count)

    return apply


def without_onednn() -> None:
    """Use torch's own kernels instead of oneDNN's."""
    torch.backends.mkldnn.enabled = False


def channels_last(model: nn.Module) -> None:
    """Store the weights in the other memory format, for which there are other kernels."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def last_bit(seed: int) -> Change:
    """Change the last bit of a third of the weights up and of a third down."""

    def change(model: nn.Module) -> None:
        from emacheck.train.runner import change_last_bits

        change_last_bits(model, seed)

    return on_model(change)


def batch_norm_eps(model: nn.Module) -> None:
    """Normalise one layer with a hundredfold eps."""
    model.get_submodule("backbone.layer3.2.bn2").eps = 1e-3


def batch_norm_momentum(model: nn.Module) -> None:
    """Update the running statistics of every layer ten times too slowly."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.01


def stale_bases(model: nn.Module) -> None:
    """Keep the bases of the EMA module as they were drawn."""
    model.get_submodule("decode_head.ema_module").momentum = 0.0


def missing_stage(model: nn.Module) -> None:
    """Leave out one of the three stages of the EM algorithm."""
    model.get_submodule("decode_head.ema_module").num_stages = 2


def other_corners(model: nn.Module) -> None:
    """Resize the logits with the other convention for corners."""
    head = model.get_submodule("decode_head")
    head.align_corners = not head.align_corners


def swapped_colours(model: nn.Module) -> None:
    """Leave the channels in the order of the file."""
    model.get_submodule("data_preprocessor")._channel_conversion = False


def wrong_deviation(model: nn.Module) -> None:
    """Divide the images by a standard deviation that is 1 % too large."""
    model.get_submodule("data_preprocessor").std *= 1.01


def on_output(layer: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """Change what one layer returns."""

    def hook(model: nn.Module) -> None:
        model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: change(output))  # noqa: ARG005

    return on_model(hook)


def dead_channel(output: torch.Tensor) -> torch.Tensor:
    """Return zeros in one channel."""
    output = output.clone()
    output[:, 17] = 0
    return output


def lost_edge(output: torch.Tensor) -> torch.Tensor:
    """Return zeros in the last column, as a kernel does that forgets the remainder of a tile."""
    output = output.clone()
    output[..., -1] = 0
    return output


def on_gradient(layer: str, factor: float) -> Change:
    """Multiply the weight gradients of all layers below a name."""

    def hook(model: nn.Module) -> None:
        for parameter in model.get_submodule(layer).parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient: gradient * factor)

    return on_model(hook)


def softmax_of_ema(replacement: Callable[..., torch.Tensor]) -> Change:
    """Give the EMA module another softmax."""

    def apply() -> None:
        from mmseg.models.decode_heads import ema_head

        class Functional:
            softmax = staticmethod(replacement)

            def __getattr__(self, name: str) -> Any:
                return getattr(nn.functional, name)

        ema_head.F = Functional()

    return apply


def rounded_to_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """Keep ten bits of the mantissa; the gradient passes unchanged."""
    bits = tensor.detach().contiguous().view(torch.int32)
    rounded = ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)
    return tensor + (rounded - tensor).detach()


def tf32_convolutions() -> None:
    """Round both operands of every convolution in the forward pass as tf32 does."""
    convolve = nn.Conv2d._conv_forward

    def rounded(self: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: Any) -> torch.Tensor:
        return convolve(self, rounded_to_tf32(inputs), rounded_to_tf32(weight), bias)

    nn.Conv2d._conv_forward = rounded  # type: ignore[method-assign]


def count_ignored(output: dict[str, Any]) -> dict[str, Any]:
    """Count the pixels that are to be ignored as the first class."""
    for sample in output["data_samples"]:
        label = sample.gt_sem_seg.data
        label[label == 255] = 0
    return output


def shift_labels(output: dict[str, Any]) -> dict[str, Any]:
    """Shift the labels by one pixel."""
    for sample in output["data_samples"]:
        sample.gt_sem_seg.data = torch.roll(sample.gt_sem_seg.data, 1, -1)
    return output


def repeated_batch(number: int) -> Change:
    """Train on the previous batch a second time."""
    seen: list[dict[str, Any]] = []

    def change(output: dict[str, Any]) -> dict[str, Any]:
        seen.append(output)
        del seen[:-2]
        change.calls += 1  # type: ignore[attr-defined]
        return seen[0] if change.calls == number else output  # type: ignore[attr-defined]

    change.calls = 0  # type: ignore[attr-defined]
    return on_input(change)


def late_schedule() -> None:
    """Move the learning rate one iteration too late."""
    from mmengine.optim.scheduler.param_scheduler import PolyParamScheduler

    step = PolyParamScheduler.step
    called: list[int] = []

    def step_late(self: Any) -> None:
        called.append(1)
        if len(called) > 1:
            step(self)

    PolyParamScheduler.step = step_late


def forget_momentum(optimizer: torch.optim.Optimizer, step: Callable[[], Any]) -> Any:
    """Lose the optimizer's state, as a resume that restores only the weights does."""
    optimizer.state.clear()
    return step()


def _benign() -> list[Variation]:
    """Every kind of benign variation with several changes of the last bits."""
    ways: dict[str, tuple[Change, ...]] = {
        "1 thread": (threads(1),),
        "1 thread, without oneDNN": (threads(1), without_onednn),
        "1 thread, channels last": (threads(1), on_model(channels_last)),
        "3 threads": (threads(3),),
    }
    runs = [Variation(name=name, kind="benign", changes=changes) for name, changes in ways.items()]
    for seed in range(2001, 2007):
        for name in ("1 thread", "1 thread, without oneDNN", "1 thread, channels last"):
            changes = (*ways[name], last_bit(seed))
            runs.append(Variation(name=f"{name}, last bits {seed}", kind="benign", changes=changes))
    return runs


_FAULTS: dict[str, Change] = {
    "SGD momentum 0.8 instead of 0.9": on_optimizer(momentum=0.8),
    "learning rate 1 % too high": on_optimizer(lr=0.0101),
    "no weight decay": on_optimizer(weight_decay=0.0),
    "EMA bases never updated": on_model(stale_bases),
    "one BatchNorm with eps 1e-3": on_model(batch_norm_eps),
    "one dead channel in layer3": on_output("backbone.layer3.1.bn3", dead_channel),
    "gradient of one convolution lost": on_gradient("backbone.layer3.2.conv2", 0.0),
    "nesterov momentum": on_optimizer(nesterov=True),
    "schedule one iteration late": late_schedule,
    "EM stage missing": on_model(missing_stage),
    "EMA softmax over the wrong axis": softmax_of_ema(lambda x, dim: torch.softmax(x, 3 - dim)),
    "EMA softmax in bf16": softmax_of_ema(lambda x, dim: torch.softmax(x.bfloat16(), dim).float()),
    "EMA softmax 0.1 % too large": softmax_of_ema(lambda x, dim: 1.001 * torch.softmax(x, dim)),
    "convolutions in tf32": tf32_convolutions,
    "logits resized with other corners": on_model(other_corners),
    "red and blue swapped": on_model(swapped_colours),
    "deviation of the images 1 % off": on_model(wrong_deviation),
    "labels shifted by a pixel": on_input(shift_labels),
    "ignored pixels counted": on_input(count_ignored),
    "batch 50 repeats batch 49": repeated_batch(50),
    "gradients 1 % too small in layer3": on_gradient("backbone.layer3", 0.99),
    "step 30 left out": at_step(30, lambda optimizer, step: None),  # noqa: ARG005
    "momentum lost at step 50": at_step(50, forget_momentum),
    "last column lost in layer2": on_output("backbone.layer2.1.conv2", lost_edge),
    "running statistics too slow": on_model(batch_norm_momentum),
}
# Faults that could change where the loss ends, which is all that runs with other seeds can show.
_FAULTS_OF_LEVEL: dict[str, Change] = {
    "SGD momentum 0.8 instead of 0.9": on_optimizer(momentum=0.8),
    "learning rate ten times too low": on_optimizer(lr=0.001),
    "gradients of the backbone lost": on_gradient("backbone", 0.0),
    "labels shifted by a pixel": on_input(shift_labels),
}
LONG = 800
# What the others are held against; trained without any change, with the two threads of the default.
REFERENCE = Variation(name="reference", kind="reference", changes=())
REPEATS = [Variation(name=f"repeat {at}", kind="repeat", changes=(last_bit(1000 + at),)) for at in range(1, 9)]
BENIGN = _benign()
FAULTS = [Variation(name=name, kind="fault", changes=(threads(1), change)) for name, change in _FAULTS.items()]
SEEDS = [Variation(name=f"seed {s}", kind="seed", changes=(threads(1),), seed=s) for s in range(3001, 3017)]
LONG_SEEDS = [
    Variation(name=f"long, seed {s}", kind="seed", changes=(threads(1),), seed=s, iterations=LONG)
    for s in range(3101, 3107)
]
# One training whose learning rate falls over all of a thousand iterations, and the same in benign ways: how far do
# paired runs come apart in time? The preset's own schedule ends after 100 iterations, and little moves thereafter.
LONGEST = 1000
_LONG_WAYS: dict[str, tuple[Change, ...]] = {
    "": (),
    ", last bits": (last_bit(4001),),
}
LONG_PAIRED = [
    Variation(
        name=f"falling for {LONGEST} iterations{way}",
        kind="long benign",
        changes=(threads(1), *changes),
        seed=3111,
        iterations=LONGEST,
        options=(f"param_scheduler.0.end={LONGEST}",),
    )
    for way, changes in _LONG_WAYS.items()
]
LONG_FAULTS = [
    Variation(
        name=f"long, {name}", kind="seed and fault", changes=(threads(1), change), seed=3107 + at, iterations=LONG
    )
    for at, (name, change) in enumerate(_FAULTS_OF_LEVEL.items())
]
GROUPS = ([REFERENCE, *REPEATS], LONG_SEEDS, LONG_PAIRED, LONG_FAULTS, FAULTS, BENIGN, SEEDS)
ALL = {each.name: each for group in GROUPS for each in group}
