"""Saved states: weights, buffers and optimizer state in one file, proven by a hash."""

import errno
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from emacheck.errors import DataError, OutputError
from emacheck.workplace import workplace_for
from emacheck.writable import obstacle

STATE_FILE = "state.pt"
HASH_FILE = "state.json"


def state_digest(value: Any) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of everything in a state.

    Args:
        value: Tensors and plain values in mappings and sequences.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> state_digest({"weight": torch.ones(2)}) == state_digest({"weight": torch.zeros(2)})
        False
    """
    seen = hashlib.sha256()
    for piece in _pieces("", value):
        seen.update(piece)
    return seen.hexdigest()


def _pieces(path: str, value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous()
        yield f"{path}:{array.dtype}{tuple(array.shape)}\n".encode()
        if array.numel():
            yield array.reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, dict):
        for key in value:
            yield from _pieces(f"{path}.{key}", value[key])
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _pieces(f"{path}.{index}", item)
    else:
        yield f"{path}:{value!r}\n".encode()


def save_state(directory: Path, state: dict[str, Any]) -> str:
    """Save a state into a new directory, whole or not at all.

    Args:
        directory: Does not exist yet; a directory that another process made in the meantime is left as it is.
        state: Tensors and plain values.

    Returns:
        The state's digest.

    Raises:
        OutputError: If it cannot be written.
    """
    digest = state_digest(state)
    content = json.dumps({"format_version": 1, "sha256": digest}) + "\n"
    try:
        with workplace_for(directory) as partial:
            torch.save(state, partial / STATE_FILE)
            (partial / HASH_FILE).write_text(content, encoding="utf-8")
            _put_in_place(partial, directory)
    except (OSError, RuntimeError) as error:  # torch says of a full disk that its writer failed
        raise _unsaved(directory, getattr(error, "strerror", None) or str(error).partition("\n")[0]) from error
    return digest


def _put_in_place(partial: Path, directory: Path) -> None:
    """Rename a finished state into place, unless another process was faster."""
    try:
        partial.rename(directory)  # fails on a directory that holds something
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def require_place(directory: Path) -> None:
    """See that a state can be saved before minutes are spent on making it; nothing is written.

    Raises:
        OutputError: If it cannot.
    """
    if (found := obstacle(directory)) is not None:
        raise _unsaved(directory, f"found {found}")


def _unsaved(directory: Path, why: str) -> OutputError:
    return OutputError(
        f"{directory}: the state to audit, of a few hundred MB, cannot be saved in the cache ({why}). "
        "Set EMACHECK_CACHE to a directory with room that may be written to."
    )


def load_state(directory: Path) -> tuple[dict[str, Any], str]:
    """Load a state and verify its hash.

    Args:
        directory: What :func:`save_state` wrote.

    Returns:
        The state and its digest.

    Raises:
        DataError: If it is incomplete, unreadable, or does not match its hash.
    """
    fix = f"Delete {directory}; it is made again when it is needed."
    try:
        expected = json.loads((directory / HASH_FILE).read_text(encoding="utf-8"))["sha256"]
        state: dict[str, Any] = torch.load(directory / STATE_FILE, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(
            f"{directory}: the saved state cannot be read ({type(error).__name__}: {error}). {fix}"
        ) from error
    found = state_digest(state)
    if found != expected:
        raise DataError(
            f"{directory}: the saved state does not match its hash.\n  found:    {found}\n  expected: {expected}\n{fix}"
        )
    return state, found
