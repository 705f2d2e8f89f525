"""The limits of the audit, and where they come from."""

from dataclasses import dataclass

# For what one call of an operator makes, and for one with tensors of 16 bits in bf16 or fp16; it explains a FAIL and
# decides nothing (docs/operators.md).
OPERATOR, OPERATOR_HALF = 30.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many times the accepted error a candidate's error may be.

    Chosen on benign variations on a CPU: several times the worst of them where tensors run alone, because a device may
    sum in any order and use fast convolution algorithms (docs/audit-method.md, measured in
    docs/verification-power.md and docs/device-arithmetic.md).

    Attributes:
        isolated: For a tensor of a module, or of the optimizer, that runs alone.
        half: For a tensor of a module that runs alone in bf16 or fp16. There rounding each result once is most of the
            accepted error, and the order in which a device sums in float32 is little of it.
        end_to_end: For a tensor of one whole iteration: times the largest accepted error of all tensors of its kind.
        end_to_end_median: For the median over the gradients, updates or buffers of one whole iteration.
    """

    isolated: float = 30.0
    half: float = 10.0
    end_to_end: float = 10.0
    end_to_end_median: float = 10.0
