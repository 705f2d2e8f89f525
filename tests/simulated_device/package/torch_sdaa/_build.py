"""Build the library on first use, once per content of its sources and version of torch, and load it."""

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

NAME = "simulated_sdaa"
SOURCES = Path(__file__).parent / "csrc"
FLAGS = ("-O1", "-g0", "-w")
# In a process of its own: it loads the library to try it, and a library registers its device only once per process.
COMPILE = """
import sys
from torch.utils.cpp_extension import load
name, source, folder, *flags = sys.argv[1:]
load(name=name, sources=[source], build_directory=folder, extra_cflags=flags)
"""


class ToolsMissingError(ImportError):
    """This machine has no compiler."""


class BuildError(ImportError):
    """The compiler failed."""


def missing_tools():
    """Return what a build lacks on this machine, as one line, or None."""
    compiler = os.environ.get("CXX", "c++")
    lacking = [tool for tool in (compiler, "ninja") if shutil.which(tool, path=_path()) is None]
    return (
        f"the simulated device is built with {compiler} and ninja; not found here: {', '.join(lacking)}"
        if lacking
        else None
    )


def cache_folder():
    """Return where built libraries are kept: ``$SDAA_SIMULATED_CACHE``, else a folder in the user's cache."""
    if own := os.environ.get("SDAA_SIMULATED_CACHE"):
        return Path(own).expanduser()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "emacheck" / "simulated_device"


def built_library():
    """Return the path that the library of these sources has in the cache, built or not."""
    content = hashlib.sha256()
    versions = (
        torch.__version__,
        sys.implementation.cache_tag,
        platform.machine(),
        os.environ.get("CXX", "c++"),
        *FLAGS,
    )
    content.update("\n".join(versions).encode())
    for source in sorted(SOURCES.iterdir()):
        content.update(f"\n{source.name}\n".encode() + source.read_bytes())
    return cache_folder() / content.hexdigest()[:20] / f"{NAME}.so"


def load():
    """Load the library, built first if it is not there yet.

    Raises:
        ToolsMissingError: If it has to be built and a tool is missing.
        BuildError: If the compiler failed.
    """
    spec = importlib.util.spec_from_file_location(NAME, build())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build():
    """Return the library's path; of several processes, one builds and the others wait for it."""
    library = built_library()
    if library.exists():
        return library
    if lacking := missing_tools():
        raise ToolsMissingError(lacking)
    library.parent.parent.mkdir(parents=True, exist_ok=True)
    # The system frees this lock when its holder dies, so a killed build blocks nobody.
    with (library.parent.parent / f"{library.parent.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            _compile_into(library)
    return library


def _compile_into(library):
    with tempfile.TemporaryDirectory(prefix=".build-", dir=library.parent.parent) as folder:
        command = [sys.executable, "-c", COMPILE, NAME, str(SOURCES / f"{NAME}.cpp"), folder, *FLAGS]
        done = subprocess.run(command, env={**os.environ, "PATH": _path()}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"the simulated device cannot be built:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}")
        library.parent.mkdir(exist_ok=True)
        (Path(folder) / library.name).replace(library)


def _path():
    """Return PATH with this interpreter's own folder first: a ninja that pip installed lies there."""
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
