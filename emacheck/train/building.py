"""Refuse, before anything is trained, what mmengine cannot build of a user's configuration."""

import contextlib
import difflib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from mmengine import registry as registries

from emacheck.errors import EmacheckError, UsageError

UNREGISTERED = re.compile(r"(?P<name>\S+) is not in the (?P<registry>\S[^.]*) registry")
UNEXPECTED = re.compile(r"(?P<type>\w+)\.__init__\(\) got an unexpected keyword argument '(?P<name>\w+)'")
REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://")
# What numpy says when mmengine packs a list of no samples.
NO_SAMPLE = "need at least one array to concatenate"
# What calls the type of an entry with the rest of it; the entry is called cfg in both.
BUILDERS = (registries.build_from_cfg.__code__, registries.build_scheduler_from_cfg.__code__)
OURS = Path(__file__).parent.parent
NO_DATA_AT_HAND = "No data at hand: emacheck data make DIR draws a synthetic Cityscapes."


class UnbuildableError(UsageError):
    """The configuration names something that mmengine cannot build; no training could begin."""


@contextlib.contextmanager
def building(config: Any) -> Iterator[None]:
    """Turn what mmengine raises into a refusal that names the entry of the configuration, where there is one to blame.

    Args:
        config: The configuration of which something is built within.

    Raises:
        UnbuildableError: If a type is not registered, a type does not take an entry, data are not where they are
            looked for, or a type raises anything while it is built of its entry. Whatever else is raised within passes,
            for it may be anybody's mistake.
    """
    try:
        yield
    except EmacheckError:
        raise
    except Exception as error:
        why = next(filter(None, (explain(error, config) for explain in EXPLANATIONS)), None)
        if why is None:
            raise
        raise UnbuildableError(f"{_file(config)}{why}") from error


def entries(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dict of a configuration with its dotted key.

    Example:
        >>> [where for where, _ in entries({"model": {"heads": [{}, {}]}})]
        ['', 'model', 'model.heads.0', 'model.heads.1']
    """
    if isinstance(value, dict):
        yield where, value
        for key, item in value.items():
            yield from entries(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from entries(item, f"{where}.{at}")


def _file(config: Any) -> str:
    name = getattr(config, "filename", None)
    return f"{name}: " if name else ""


def _unregistered(error: Exception, config: Any) -> str | None:
    said = UNREGISTERED.search(str(error.args[0] if error.args else "")) if isinstance(error, KeyError) else None
    if said is None:
        return None
    name = said["name"].strip("'\"")
    found = [f"{where}.type".lstrip(".") for where, entry in entries(_plain(config)) if entry.get("type") == name]
    return _of_no_type(", ".join(found) or "type", name, said["registry"].rpartition("::")[2])


def _without_optimizer(error: Exception, config: Any) -> str | None:
    """Name an optimizer that nothing registers: mmengine takes None in its place, and says that it cannot be called."""
    if not isinstance(error, TypeError):
        return None
    for where, entry in entries(config.get("optim_wrapper"), "optim_wrapper"):
        name = entry.get("type")
        if where.rpartition(".")[2] == "optimizer" and isinstance(name, str):
            with registries.OPTIMIZERS.switch_scope_and_registry(None) as known:
                if known.get(name) is None:
                    return _of_no_type(f"{where}.type", name, "optimizer")
    return None


def _of_no_type(where: str, name: str, registry: str) -> str:
    close = difflib.get_close_matches(name, _registered(registry), n=1)
    meant = f"perhaps you mean {close[0]}" if close else "expected one that mmengine or an imported module registers"
    return (
        f"{where}: found {name!r}, which nothing has registered as {registry}; {meant}. Correct it, or import the "
        "module that registers it: custom_imports = dict(imports=['MODULE'])."
    )


def _registered(name: str) -> set[str]:
    """Return what the registries of a name hold."""
    return {key for each in _registries() if each.name == name for key in each.module_dict}


def _class_names(kind: Any) -> set[str]:
    """Return what the classes are called that a type of a configuration may mean, those that they inherit from too."""
    name = str(kind).rpartition(".")[2]
    found = [kind, *(each.module_dict[name] for each in _registries() if name in each.module_dict)]
    return {parent.__name__ for each in found if isinstance(each, type) for parent in each.__mro__}


def _registries() -> Iterator[Any]:
    """Yield the registries of mmengine and of the packages that are imported."""
    for root in vars(registries).values():
        if isinstance(root, registries.Registry):
            yield from (root, *root.children.values())


def _unexpected(error: Exception, config: Any) -> str | None:
    said = UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
    if said is None:
        return None
    found = [
        where
        for where, entry in entries(_plain(config))
        if said["name"] in entry and said["type"] in _class_names(entry.get("type"))
    ]
    if not found:
        return None
    keys = ", ".join(f"{where}.{said['name']}".lstrip(".") for where in found)
    return f"{keys}: found an entry that its type does not take ({error}). Correct its name, or leave it out."


def _without_data(error: Exception, config: Any) -> str | None:
    """Say which place of the data is missing, may not be read or is empty, if the error came of that."""
    refused, empty = isinstance(error, OSError | AssertionError), NO_SAMPLE in str(error)
    for where, dataset in entries(config.get("train_dataloader"), "train_dataloader"):
        for key, place in _places(dataset):
            named = refused and str(place) in str(error)
            if named and not place.exists():
                return f"{where}.{key}: found nothing at {place.absolute()}. {_how_to_place(where, dataset, key)}"
            if named and isinstance(error, PermissionError):
                told = f"{error.filename or place.absolute()} may not be read ({error.strerror or error})"
                return f"{where}.{key}: {told}. Fix its permissions."
            if empty and key.startswith("data_prefix"):
                return (
                    f"{where}.{key}: {place.absolute()} holds no sample that {dataset.get('type')} takes. "
                    f"{_how_to_place(where, dataset, key)}"
                )
    return None


def _places(dataset: Any) -> Iterator[tuple[str, Path]]:
    """Yield where mmengine looks for the data of a dataset: the root first, then what is joined with it."""
    root = dataset.get("data_root")
    root = root if isinstance(root, str) else ""
    if root and not REMOTE.match(root):
        yield "data_root", Path(root)
    prefixes = dataset.get("data_prefix")
    named = {f"data_prefix.{key}": value for key, value in prefixes.items()} if isinstance(prefixes, dict) else {}
    for key, value in {**named, "ann_file": dataset.get("ann_file")}.items():
        if isinstance(value, str) and value and not REMOTE.match(value) and not REMOTE.match(root):
            yield key, Path(root, value)


def _how_to_place(where: str, dataset: Any, key: str) -> str:
    if "data_root" not in dataset:
        return f"Say where the data are: --cfg-options {where}.{key}=PATH. {NO_DATA_AT_HAND}"
    other = "" if key == "data_root" else f", or --cfg-options {where}.{key}=PATH"
    return (
        f"Say where the data are: --data-root DIR, the same as --cfg-options {where}.data_root=DIR (found "
        f"{dataset['data_root']!r}){other}. {NO_DATA_AT_HAND}"
    )


def _raised_by_its_type(error: Exception, config: Any) -> str | None:
    """Name the entry whose type raised the error while it was built, in code that is not ours."""
    calls = list(traceback.walk_tb(error.__traceback__))
    builds = [at for at, (frame, _) in enumerate(calls) if frame.f_code in BUILDERS]
    if not builds or any(_is_ours(frame) for frame, _ in calls[builds[-1] :]):
        return None
    if calls[builds[-1]][0].f_locals["registry"].name == registries.MODEL_WRAPPERS.name:
        return None  # it moves a model that is built to the device, which may be to blame
    # A type may build others of what it has made up itself.
    built = (calls[at][0].f_locals["cfg"] for at in reversed(builds))
    entry, where = next(((each, places) for each in built if (places := _places_of(each, config))), (None, []))
    if entry is None:
        return None
    last = traceback.extract_tb(error.__traceback__)[-1]
    raised = "" if calls[-1][0].f_code in BUILDERS else f", raised at {last.filename}:{last.lineno}"
    return (
        f"{', '.join(where)}: {_name_of(entry['type'])} cannot be built of this entry "
        f"({type(error).__name__}: {str(error) or last.line}{raised}). Correct what it speaks of."
    )


def _is_ours(frame: FrameType) -> bool:
    return OURS in Path(frame.f_code.co_filename).parents


def _places_of(entry: Any, config: Any) -> list[str]:
    """Return the dotted keys of an entry, or those of its type where it was changed before it was built."""
    if not isinstance(entry, dict) or "type" not in entry:
        return []
    alike = [(where, each) for where, each in entries(_plain(config)) if each.get("type") == entry["type"]]
    equal = [where for where, each in alike if repr(each) == repr(_plain(entry))]
    return equal or [where for where, _ in alike]


def _name_of(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))


def _plain(config: Any) -> Any:
    return config.to_dict() if hasattr(config, "to_dict") else config


EXPLANATIONS = (_unregistered, _without_optimizer, _unexpected, _without_data, _raised_by_its_type)
