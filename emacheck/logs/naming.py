"""What a metric is called, and whether a name says that it was measured in a validation."""

import re
from collections.abc import Iterable

_TRAIN, _VALIDATION = r"train(?:ing)?", r"vali?(?:d(?:ation)?)?|eval(?:uation)?|test"
_GAP = r"[\s_./-]+"
_BEFORE = re.compile(rf"(?:({_VALIDATION})|{_TRAIN}){_GAP}(.+)", re.IGNORECASE | re.DOTALL)
_JOINED = re.compile(rf"(?:({_VALIDATION})|{_TRAIN})((?:loss|acc|error|iou|dice|f1).*)", re.IGNORECASE | re.DOTALL)
_AFTER = re.compile(rf"(.+?){_GAP}(?:({_VALIDATION})|{_TRAIN})", re.IGNORECASE | re.DOTALL)
_SAYS = re.compile(rf"\s*(?:{_VALIDATION}|dev)(?![a-z])", re.IGNORECASE)
LONGEST_NAME = 200
_APART = re.compile(r"[\s_./:-]+")
_TOTALS = (
    *("total loss", "loss total", "totalloss", "all loss", "loss all", "sum loss", "overall loss", "lm loss"),
    *("loss step", "step loss", "batch loss", "loss batch", "loss value", "train loss", "training loss"),
    *("avg loss", "average loss", "mean loss", "loss avg", "loss mean", "running loss", "loss epoch", "epoch loss"),
)
ITERATION_NAMES = (
    *("iteration", "iter", "global_step", "step", "_step", "it", "current_steps", "trainer/global_step"),
    *("global_step/max_steps", "iterations", "iters", "steps", "global_steps", "num_updates", "n_iter", "iter_num"),
    *("step_num", "batch", "update", "timestep", "total_timesteps"),
)
"""Names of what counts iterations, the most telling first: a ``step`` beside a ``global_step`` is one of its epoch."""
# The most telling first: processes of two nodes share their local ranks.
_RANKS = ("global_rank", "rank", "local_rank")
MODE_KEYS = ("mode", "phase", "split", "stage", "subset", "part", "prefix", "dataset", "job_type", "event", "type")
"""Names under which a record says whether it is of the training or of a validation."""
_NO_LOSS = re.compile(r"scale|weight|ratio|coeff?|min$|max$")
# Metrics that only a validation yields, however its record is labelled.
_ONLY_VALIDATION = re.compile(r"(?:m(?:IoU|Acc|Dice|Fscore|Precision|Recall)|aAcc|(?:IoU|Acc)\..*|.*mAP.*)\Z")


def understood(name: str) -> tuple[bool, str]:
    """Return whether a metric's name says that it is of a validation, and the name without the word that says so.

    Example:
        >>> understood("val_loss"), understood("train/loss"), understood("decode.loss_ce_val"), understood("Loss")
        ((True, 'loss'), (False, 'loss'), (True, 'decode.loss_ce'), (False, 'loss'))
        >>> understood("ValLoss"), understood("testacc1")
        ((True, 'loss'), (True, 'acc1'))
    """
    if len(name) > LONGEST_NAME:
        return False, name
    found = _BEFORE.fullmatch(name) or _JOINED.fullmatch(name)
    if found is not None:
        validation, bare = found[1] is not None, found[2]
    else:
        found = _AFTER.fullmatch(name)
        validation, bare = (found[2] is not None, found[1]) if found is not None else (False, name)
    return validation, "loss" if bare.lower() == "loss" else bare


def says_validation(text: str) -> bool:
    """Tell whether a word, such as the value of ``mode`` or ``split``, says that a validation is meant.

    Example:
        >>> says_validation("val"), says_validation("train"), says_validation("Test set")
        (True, False, True)
    """
    return _SAYS.match(text[:LONGEST_NAME]) is not None


def the_loss(names: list[str]) -> str | None:
    """Return the metric that is the loss: the one called so, a total, a mean, or the only one that speaks of a loss.

    Example:
        >>> the_loss(["loss_cls", "total_loss", "lr"]), the_loss(["lm loss", "lr"]), the_loss(["Loss_D", "Loss_G"])
        ('total_loss', 'lm loss', None)
    """
    if "loss" in names:
        return "loss"
    plain = {_APART.sub(" ", name.lower()).strip(): name for name in reversed(names)}
    for known in _TOTALS:
        if known in plain:
            return plain[known]
    candidates = [name for key, name in plain.items() if "loss" in key and not _NO_LOSS.search(key)]
    return candidates[0] if len(candidates) == 1 else None


def is_loss(name: str) -> bool:
    """Tell whether a metric is a loss or a part of one, by its name.

    Example:
        >>> is_loss("decode.loss_ce"), is_loss("grad_norm")
        (True, False)
    """
    return "loss" in name.lower()


def the_rank(names: Iterable[str]) -> str | None:
    """Return the name under which a record says which rank wrote it, or None.

    Example:
        >>> the_rank(["step", "local_rank", "Rank"]), the_rank(["step", "loss"])
        ('Rank', None)
    """
    found = {_plain(name): name for name in names}
    return next((found[name] for name in _RANKS if name in found), None)


def the_modes(names: Iterable[str]) -> frozenset[int]:
    """Return the positions of the names under which a record may say that it is of a validation.

    Example:
        >>> the_modes(["Phase", "step", "loss"])
        frozenset({0})
    """
    return frozenset(at for at, name in enumerate(names) if _plain(name) in MODE_KEYS)


def is_rank(name: str) -> bool:
    """Tell whether a name is one under which a record says which rank wrote it."""
    return _plain(name) in _RANKS


def _plain(name: str) -> str:
    return name.lower().lstrip("# ").replace(" ", "_")


def looks_like_validation(names: list[str]) -> bool:
    """Tell whether a record of these metrics is of a validation, though nothing says so: no loss, but a mIoU.

    Example:
        >>> looks_like_validation(["lr", "mIoU", "aAcc"]), looks_like_validation(["lr", "loss", "mIoU"])
        (True, False)
    """
    return any(map(_ONLY_VALIDATION.match, names)) and not any("loss" in name for name in names)
