"""The public names, and the page about them."""

import doctest
import subprocess
import sys

import pytest
from conftest import ROOT

import emacheck

PAGE = ROOT / "docs" / "python-api.md"


def test_the_page_shows_what_it_says():
    pytest.importorskip("torch")
    done = doctest.testfile(str(PAGE), module_relative=False)
    assert (done.failed, done.attempted > 15) == (0, True)


def test_every_public_name_is_on_the_page_and_can_be_listed():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in emacheck.__all__ if f"`{name}" not in text and f"emacheck.{name}" not in text] == []
    assert set(emacheck.__all__) <= set(dir(emacheck))


def test_what_needs_torch_says_how_to_install_it():
    program = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import emacheck\n"
        "try:\n"
        "    emacheck.audit_step\n"
        "except emacheck.EmacheckError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtraError emacheck.audit_step needs torch, which is not installed here.")
