"""Rules of the house: which rooms may know which others, and which of them torch."""

import ast
import functools
import graphlib
from pathlib import Path

import pytest

from emacheck.cli import COMMANDS

PACKAGE = Path(__file__).parent.parent / "emacheck"
IMPORTS = (ast.Import, ast.ImportFrom)
# Words and forms that any room may use; they know none of the rooms.
GROUND = {
    "bundle_files", "counted", "curve", "errors", "exit_code", "experiment", "module_path", "oddity", "on_cpu",
    "picture", "printable", "printed", "rank_files", "record", "regular_file", "strict_json", "uninterrupted",
    "workplace", "writable",
}  # fmt: skip
# From the first to the last, as data flows; each may import what it names.
ROOMS = {
    "logs": set(),
    "data": set(),
    "reference": {"logs"},
    "judge": set(),
    "dispatch": set(),
    "train": {"data", "reference", "dispatch"},
    "audit": {"judge", "dispatch"},
    "report": {"judge", "audit"},
}
FRAMEWORKS = {"torch", "mmengine", "mmcv", "mmseg"}
# Those that know them; of the command line the functions that run in processes of their own.
ROOMS_WITH_TORCH = {"dispatch", "train", "audit", "cli"}
# Below the package's own modules that combine them; each may import those before it.
INNER_ROOMS = {
    "judge": ["noise", "forensics", "reasons", "rules"],
    "audit": ["arithmetic", "findings", "iteration", "faults", "lockstep", "judging", "operators", "selftest"],
}


def modules():
    for source in sorted(PACKAGE.rglob("*.py")):
        parts = source.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), source


def imports(source, *, anywhere):
    """Return the nodes that import something, anywhere in a module or only while it is itself imported."""
    tree = ast.parse(source.read_bytes())
    return [node for node in (ast.walk(tree) if anywhere else tree.body) if isinstance(node, IMPORTS)]


def imported(source, known, *, anywhere):
    """Return the package's modules that a module imports."""
    found = set()
    for node in imports(source, anywhere=anywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif (node.module or "").partition(".")[0] == "emacheck":
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) or {node.module}
    return found


def needs_torch(source, *, anywhere):
    """Tell whether a module imports torch, or what is built on it."""
    named = [
        [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for node in imports(source, anywhere=anywhere)
    ]
    return bool(FRAMEWORKS & {name.partition(".")[0] for names in named for name in names})


@functools.cache
def edges(*, anywhere):
    known = {name for name, _ in modules()}
    return {name: imported(source, known, anywhere=anywhere) - {name} for name, source in modules()}


def room_of(name):
    return name.split(".")[1] if "." in name else ""


def test_no_modules_import_each_other_in_a_circle():
    order = list(graphlib.TopologicalSorter(edges(anywhere=False)).static_order())
    assert len(order) > 200


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_knows_only_those_before_it(room):
    found = {
        (name, other)
        for name, others in edges(anywhere=True).items()
        if room_of(name) == room
        for other in others
        if room_of(other) not in GROUND | ROOMS[room] | {room, ""}
    }
    assert not found


def test_what_every_room_may_use_knows_no_room():
    for name, others in edges(anywhere=True).items():
        if room_of(name) in GROUND:
            assert {room_of(other) for other in others} <= GROUND, name


def test_every_room_is_in_the_plan():
    assert {room_of(name) for name, _ in modules()} == GROUND | set(ROOMS) | {"", "cli", "__main__"}


@pytest.mark.parametrize("room", INNER_ROOMS)
def test_the_rooms_within_a_room_know_only_those_below(room):
    inner, prefix = INNER_ROOMS[room], f"emacheck.{room}."
    for name, others in edges(anywhere=True).items():
        place = name.split(".")[2] if name.startswith(prefix) else ""
        if place in inner:
            known = {other.split(".")[2] for other in others if other.startswith(prefix)}
            assert known & set(inner) <= set(inner[: inner.index(place) + 1]), name


def test_only_what_runs_an_iteration_or_a_training_imports_torch():
    found = {name for name, source in modules() if needs_torch(source, anywhere=True)}
    assert {room_of(name) for name in found} == ROOMS_WITH_TORCH


@pytest.mark.parametrize("command", sorted({module for module, _ in COMMANDS.values()}))
def test_a_command_that_is_imported_imports_no_torch(command):
    sources, waiting, seen = dict(modules()), {command, "emacheck", "emacheck.cli"}, set()
    while waiting:
        name = waiting.pop()
        assert not needs_torch(sources[name], anywhere=False), name
        seen.add(name)
        waiting |= edges(anywhere=False)[name] - seen
    assert command in seen
