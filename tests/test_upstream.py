"""The last upstream mmengine instead of onedl-mmengine; ``make test-upstream`` makes the environment for it."""

import json
from importlib.metadata import PackageNotFoundError, version

import pytest

pytestmark = [pytest.mark.training, pytest.mark.upstream]
ITERATIONS = 10


@pytest.fixture
def upstream():
    """Skip where mmengine is not the upstream one."""
    try:
        return version("mmengine")
    except PackageNotFoundError:
        pytest.skip("onedl-mmengine supplies mmengine here; make test-upstream runs this with the upstream one")


def test_a_run_passes_against_the_reference_that_onedl_mmengine_made(upstream, emacheck_cli, tmp_path):
    """Its weights, samples and numbers are those of the stored reference, which names what it was made with."""
    from emacheck.reference.stored import find_bundle

    made_with = find_bundle("emanet_r50-d8_smoke/cpu-fp32").record.provenance["versions"]
    assert ("onedl-mmengine" in made_with, "mmengine" in made_with) == (True, False)
    done = emacheck_cli("run", "--device", "cpu", "--iters", ITERATIONS, "--no-audit", "--work-dir", "run")
    assert done.code == 0, done
    assert json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))["paired"] is True
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["provenance"]["versions"]["mmengine"]
        == upstream
    )
