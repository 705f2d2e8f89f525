"""Strict JSON that keeps NaN and infinity: they are written as the strings that the proto3 JSON mapping uses."""

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_value(value: float) -> float | str:
    """Return a finite number as it is, and NaN or an infinity as a string.

    Example:
        >>> encode_value(1.5), encode_value(float("-inf"))
        (1.5, '-Infinity')

    Source: Protocol Buffers documentation, ProtoJSON format, https://protobuf.dev/programming-guides/json/
    """
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def decode_value(value: Any) -> float:
    """Return the number that :func:`encode_value` wrote.

    Raises:
        ValueError: If it is neither a number nor one of the three strings.

    Example:
        >>> decode_value("-Infinity")
        -inf
    """
    if isinstance(value, str):
        if value not in NON_FINITE:
            raise ValueError(f"found {value!r}, expected a number, 'NaN', 'Infinity' or '-Infinity'")
        return NON_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"found {type(value).__name__}, expected a number")  # noqa: TRY004 - one error for one cause
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError("found an integer beyond the range of a float") from error


def strict(value: Any) -> Any:
    """Return a value in types that strict JSON has; anything it has no type for becomes its text.

    Example:
        >>> strict({"loss": float("nan"), "crop": (64, 128)})
        {'loss': 'NaN', 'crop': [64, 128]}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return encode_value(float(value))
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return str(value)


def to_json(document: Mapping[str, Any]) -> str:
    r"""Return an object as the text of a JSON file: ASCII, indented, with a newline at its end.

    Example:
        >>> to_json({"outcome": "PASS"})
        '{\n  "outcome": "PASS"\n}\n'
    """
    # DEL is the one control character that json leaves as it is; "##[" anywhere in the output of a job GitHub obeys.
    text = json.dumps(document, allow_nan=False, indent=2).replace("\x7f", "\\u007f")
    return text.replace("##", "#\\u0023") + "\n"
