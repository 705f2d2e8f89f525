"""``--cfg-options``: single values of a configuration, and the refusal of those that would change nothing."""

import argparse
import difflib
import inspect
from typing import Any

from mmengine.config import DictAction
from mmengine.runner import Runner

from emacheck.errors import UsageError

EVALUATION = tuple(f"{when}_{part}" for when in ("val", "test") for part in ("cfg", "dataloader", "evaluator"))
# Default hooks that a run leaves out, and what it does not do without them.
LEFT_OUT_HOOKS = {"checkpoint": "nothing is saved", "visualization": "nothing is drawn"}
# What mmengine's Runner reads of a configuration although it is no argument of its own.
READ_BESIDES = (
    *("model_wrapper_cfg", "find_unused_parameters", "sync_bn", "compile"),
    *("activation_checkpointing", "efficient_conv_bn_eval"),
)
OPTIONS_OF_OUR_OWN = {
    "work_dir": "use the option --work-dir",
    "launcher": "use the option --launcher, with --nproc-per-node",
    "resume": "a run starts from the weights that its reference starts from; name weights with load_from=FILE",
}


def override(config: Any, options: tuple[str, ...], notes: list[str]) -> None:
    """Merge ``--cfg-options`` into a configuration.

    Args:
        config: The configuration; it is changed.
        options: Each ``key=value``, with dotted keys.
        notes: What was not used is added here.

    Raises:
        UsageError: If an option cannot be merged, or would have no effect.
    """
    if not options:
        return
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--cfg-options", nargs="+", action=DictAction)
    try:
        overrides = parser.parse_args(["--cfg-options", *options]).cfg_options
    except Exception as error:
        raise _not_merged(options, error) from error
    chosen = _chosen(config, overrides, notes)
    try:
        config.merge_from_dict(chosen)
    except Exception as error:
        raise _not_merged(options, error) from error


def _not_merged(options: tuple[str, ...], error: Exception) -> UsageError:
    return UsageError(
        f"--cfg-options {' '.join(options)}: found something that cannot be merged into the configuration "
        f"({type(error).__name__}: {error}); expected key=value with keys of the configuration, such as "
        "optim_wrapper.optimizer.lr=0.02"
    )


def _chosen(config: Any, overrides: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return the overrides but those of validation, test, checkpoints and drawing, which a run leaves out."""
    _refuse_without_effect(config, overrides)
    unused = {key: why for key in overrides if (why := _left_out(key))}
    notes += [f"{key} was not used, for {why}" for key, why in unused.items()]
    return {key: value for key, value in overrides.items() if key not in unused}


def _left_out(key: str) -> str | None:
    """Say what a run does not do, if that is all that a key of the configuration decides."""
    first, *rest = key.split(".")
    if first in EVALUATION:
        return "nothing is evaluated"
    return LEFT_OUT_HOOKS.get(rest[0]) if first == "default_hooks" and rest else None


def _refuse_without_effect(config: Any, overrides: dict[str, Any]) -> None:
    """Refuse an override that would change nothing: one that no part of mmengine reads, or that has an option here."""
    known = {*config.keys(), *inspect.signature(Runner.__init__).parameters, *READ_BESIDES, "draws"}
    for key, value in overrides.items():
        part = key.partition(".")[0]
        if part not in known:
            close = difflib.get_close_matches(part, known, n=1)
            meant = f"perhaps you mean {close[0]}" if close else f"expected one of {', '.join(sorted(config.keys()))}"
            raise UsageError(f"--cfg-options {key}: the configuration has no {part} and mmengine reads none; {meant}.")
        if part in OPTIONS_OF_OUR_OWN and value not in (config.get(part), None):
            raise UsageError(f"--cfg-options {key}: has no effect here; {OPTIONS_OF_OUR_OWN[part]}.")
