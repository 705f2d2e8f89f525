"""What a metric is called, and whether a name says that it was measured in a validation."""

import re

_TRAIN, _VALIDATION = r"train(?:ing)?|tr", r"val(?:id(?:ation)?)?|eval(?:uation)?|test"
_GAP = r"[\s_./-]+"
_BEFORE = re.compile(rf"(?:({_VALIDATION})|{_TRAIN}){_GAP}(.+)", re.IGNORECASE | re.DOTALL)
_AFTER = re.compile(rf"(.+?){_GAP}(?:({_VALIDATION})|{_TRAIN})", re.IGNORECASE | re.DOTALL)
LONGEST_NAME = 200
# Metrics that only a validation yields, however its record is labelled.
_ONLY_VALIDATION = re.compile(r"(?:m(?:IoU|Acc|Dice|Fscore|Precision|Recall)|aAcc|(?:IoU|Acc)\..*|.*mAP.*)\Z")


def understood(name: str) -> tuple[bool, str]:
    """Return whether a metric's name says that it is of a validation, and the name without the word that says so.

    Example:
        >>> understood("val_loss"), understood("train/loss"), understood("decode.loss_ce_val"), understood("Loss")
        ((True, 'loss'), (False, 'loss'), (True, 'decode.loss_ce'), (False, 'loss'))
    """
    if len(name) > LONGEST_NAME:
        return False, name
    found = _BEFORE.fullmatch(name)
    if found is not None:
        validation, bare = found[1] is not None, found[2]
    else:
        found = _AFTER.fullmatch(name)
        validation, bare = (found[2] is not None, found[1]) if found is not None else (False, name)
    return validation, "loss" if bare.lower() == "loss" else bare


def looks_like_validation(names: list[str]) -> bool:
    """Tell whether a record of these metrics is of a validation, though nothing says so: no loss, but a mIoU.

    Example:
        >>> looks_like_validation(["lr", "mIoU", "aAcc"]), looks_like_validation(["lr", "loss", "mIoU"])
        (True, False)
    """
    return any(map(_ONLY_VALIDATION.match, names)) and not any("loss" in name for name in names)
