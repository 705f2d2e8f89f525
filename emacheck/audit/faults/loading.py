"""Which faults there are: those that come with emacheck, and those of a file of the user's own."""

import importlib
import importlib.util
import sys
from pathlib import Path

from emacheck.audit.faults.registry import CATALOGUE, PROCESSES, Fault
from emacheck.errors import UsageError

OWN_MODULES = (
    "kernels",
    "kernels_backward",
    "norms",
    "attention",
    "gradients",
    "optimizers",
    "losses",
    "data",
    "state",
)

# A file is run once in a process, however often its faults are asked for.
_LOADED: dict[Path, dict[str, Fault]] = {}


def catalogue() -> dict[str, Fault]:
    """Return all faults of one process that come with emacheck, and those that were registered beside them."""
    for name in OWN_MODULES:
        importlib.import_module(f"emacheck.audit.faults.{name}")
    return {name: fault for name, fault in CATALOGUE.items() if fault.kind != PROCESSES}


def process_faults() -> dict[str, Fault]:
    """Return the faults in what several processes exchange; only such processes can be broken by them."""
    importlib.import_module("emacheck.audit.faults.processes")
    return {name: fault for name, fault in CATALOGUE.items() if fault.kind == PROCESSES}


def load_faults(path: Path) -> dict[str, Fault]:
    """Run a Python file, unless this process did, and return the faults that it registers.

    Raises:
        UsageError: If the file cannot be run or registers no fault.
    """
    if path.resolve() in _LOADED:
        return _LOADED[path.resolve()]
    before = set(CATALOGUE)
    name = f"emacheck_faults_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"--faults {path}: no such Python file. Expected a file with functions under @fault.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"--faults {path}: the file cannot be run: {type(error).__name__}: {error}") from error
    found = {key: value for key, value in CATALOGUE.items() if key not in before}
    if not found:
        raise UsageError(
            f"--faults {path}: it registers no fault. Decorate a function of (candidate, severity) with "
            "@fault(kind=...) from emacheck.audit.faults."
        )
    _LOADED[path.resolve()] = found
    return found
