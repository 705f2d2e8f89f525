"""What a metric is, as far as its name tells: a learning rate, a gradient norm, a score, a time."""

import re

_RATE = re.compile(r"(?:^|[/._-])(?:lr|learning_rate)(?:[/._-]|\d|$)", flags=re.IGNORECASE)
_SCORE = re.compile(
    r"iou|acc|dice|f1|f_?score|precision|recall|auc|top[-_]?\d|(?<![a-z])m?ap(?![a-z])", flags=re.IGNORECASE
)
_OF_A_CLASS = re.compile(r"(iou|acc|dice|f_?score|precision|recall)\.", flags=re.IGNORECASE)
_TIME = re.compile(r"(?:.*[._/ -])?(?:(?:\w+_)?time|ips|fps|throughput|\w+_per_sec(?:ond)?)", re.IGNORECASE)


def is_rate(name: str) -> bool:
    """Tell whether a metric is a learning rate.

    Example:
        >>> [name for name in ("lr", "base_lr", "lr_backbone", "lr-SGD/pg1", "clr_loss") if is_rate(name)]
        ['lr', 'base_lr', 'lr_backbone', 'lr-SGD/pg1']
    """
    return _RATE.search(name) is not None


def is_gradient_norm(name: str) -> bool:
    """Tell whether a metric is a norm of gradients.

    Example:
        >>> [name for name in ("grad_norm", "decode.acc_seg", "layer_norm") if is_gradient_norm(name)]
        ['grad_norm']
    """
    return "grad" in name.lower() and "norm" in name.lower()


def is_score(name: str) -> bool:
    """Tell whether a validation metric is a score that is a percentage or a fraction.

    Times, speeds and losses are not: a limit in percentage points means nothing for them.

    Example:
        >>> [name for name in ("mIoU", "aAcc", "accuracy/top1", "coco/bbox_mAP", "loss", "data_time") if is_score(name)]
        ['mIoU', 'aAcc', 'accuracy/top1', 'coco/bbox_mAP']
    """
    return "loss" not in name.lower() and _SCORE.search(name) is not None


def class_score(name: str) -> str | None:
    """Return what a score of a single class is of, such as ``iou``; None for any other metric.

    Example:
        >>> class_score("IoU.train"), class_score("mIoU")
        ('iou', None)
    """
    found = _OF_A_CLASS.search(name)
    return found[1].lower() if found else None


def is_time(name: str) -> bool:
    """Tell whether a metric is a time that was measured, or a speed.

    Example:
        >>> [name for name in ("time", "data_time", "ips", "samples_per_second", "loss", "times") if is_time(name)]
        ['time', 'data_time', 'ips', 'samples_per_second']
    """
    return _TIME.fullmatch(name) is not None
