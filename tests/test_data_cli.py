"""Where the data are kept, and the commands `emacheck data make` and `emacheck data check`."""

import subprocess
import sys
from pathlib import Path

import pytest
from cityscapes_roots import SEED_0_HASH
from click.testing import CliRunner

from emacheck.cli.data import data
from emacheck.data.cityscapes import DatasetSummary
from emacheck.data.manifest import first_few
from emacheck.data.synthetic import cache_root
from emacheck.errors import DataError, OutputError, UsageError

FORBIDDEN = ["torch", "mmengine", "mmseg", "mmcv", "cv2", "matplotlib"]


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/eve")
    monkeypatch.delenv("EMACHECK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == Path("/home/eve/.cache/emacheck")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_root() == Path("/home/eve/.cache/emacheck")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_root() == Path("/var/cache/emacheck")
    monkeypatch.setenv("EMACHECK_CACHE", "/scratch")
    assert cache_root() == Path("/scratch")
    monkeypatch.setenv("EMACHECK_CACHE", "~/here")
    assert cache_root() == Path("/home/eve/here")


def test_no_home_at_all_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMACHECK_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(UsageError, match="set EMACHECK_CACHE to a directory, and HOME"):
        cache_root()


def test_the_commands_say_what_they_did(made: DatasetSummary, real: Path) -> None:
    result = CliRunner().invoke(data, ["make", str(made.root)])
    assert result.exit_code == 0
    assert "64 train + 8 val pairs" in result.output
    assert "already there" in result.output
    assert SEED_0_HASH in result.output
    result = CliRunner().invoke(data, ["check", str(made.root)])
    assert result.exit_code == 0
    assert "Decoded 72 of 72 pairs; nothing wrong found." in result.output
    result = CliRunner().invoke(data, ["check", "--all", str(real)])
    assert result.exit_code == 0
    assert "real Cityscapes, 6 train + 1 val pairs." in result.output


def test_the_commands_raise_what_the_outer_boundary_prints(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert isinstance(CliRunner().invoke(data, ["check", str(tmp_path)]).exception, DataError)
    assert isinstance(CliRunner().invoke(data, ["make", str(tmp_path)]).exception, OutputError)
    assert CliRunner().invoke(data, ["make", str(tmp_path / "new"), "--seed", "-1"]).exit_code == 2


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, emacheck.cli.data\n"
        "assert not {'PIL', 'emacheck.data.scene'} & sys.modules.keys()\n"
        "import emacheck.data.cityscapes, emacheck.data.synthetic\n"
        f"assert not set({FORBIDDEN}) & sys.modules.keys(), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_first_few_are_quoted_and_counted() -> None:
    assert first_few(["x\x1b[31m"]) == r"'x\x1b[31m'"
    assert first_few("gfedcba") == "'a', 'b', 'c', 'd', 'e' and 2 more"
