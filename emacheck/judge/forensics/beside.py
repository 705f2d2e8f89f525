"""What a record holds beside the judged metrics and should move as they do: components of the loss, gradient norms."""

from collections.abc import Iterator

from emacheck.judge.comparison import Comparison
from emacheck.judge.forensics.metric_names import is_gradient_norm


def components(comparison: Comparison) -> Iterator[str]:
    """Return the components of the loss that the reference has beside the judged metrics."""
    for name, curve in comparison.reference.curves.items():
        # The scale of a scaler is no loss.
        if "loss" in name.lower() and "scale" not in name.lower() and name not in comparison.metrics and len(curve):
            yield name


def gradient_norms(comparison: Comparison) -> Iterator[str]:
    """Return the gradient norms that the reference has beside the judged metrics."""
    yield from (n for n in comparison.reference.curves if is_gradient_norm(n) and n not in comparison.metrics)
