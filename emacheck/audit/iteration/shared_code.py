"""Functions and methods that every side runs: what breaks a candidate may not leave them replaced."""

import sys
from typing import Any

import torch

_OWNERS = (torch, torch.Tensor, torch.nn.functional, torch.nn, torch.autograd, torch.fft, torch.linalg, torch.special)


class SharedCode:
    """Remember the functions of torch, and the methods and modules of a model's classes, and put them back.

    Args:
        model: The model.

    Example:
        >>> code = SharedCode(torch.nn.Linear(1, 1))
        >>> torch.nn.functional.relu = torch.nn.functional.gelu
        >>> code.put_back(), code.put_back()
        (('torch.nn.functional.relu',), ())
    """

    def __init__(self, model: torch.nn.Module) -> None:
        classes = {kind for module in model.modules() for kind in type(module).__mro__ if kind is not object}
        homes = {sys.modules.get(kind.__module__) for kind in classes} - {None}
        owners = {id(owner): owner for owner in (*_OWNERS, *homes, *classes)}.values()
        self._code = [(owner, {k: v for k, v in vars(owner).items() if callable(v)}) for owner in owners]

    def put_back(self) -> tuple[str, ...]:
        """Put back what was replaced since, and return the names of it."""
        replaced = []
        for owner, code in self._code:
            now = vars(owner)
            for name, value in code.items():
                if now.get(name) is not value:
                    replaced.append(f"{_name(owner)}.{name}")
                    setattr(owner, name, value)
        return tuple(sorted(replaced))


def _name(owner: Any) -> str:
    return f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else str(owner.__name__)
