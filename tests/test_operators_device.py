"""Level 3 on the simulated device, whose operators are broken by name below torch's dispatcher."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
import torch, torch_sdaa, emacheck
sys.path.insert(0, sys.argv[1])
from small_network import trained_net

torch.set_num_threads(1)
subject = trained_net()
said = {}
for fault in (None, *sys.argv[2:]):
    injected = torch_sdaa.faults.inject(fault) if fault else None
    result = emacheck.audit_step(*subject, "sdaa", evaluation=False, end_to_end=False, operators=True)
    if injected:
        torch_sdaa.faults.heal(injected)
    found = result.to_json()
    said[str(fault)] = {"outcome": found["outcome"], "module": found["module"], **found["operators"]}
print(json.dumps(said, allow_nan=False))
"""
CAUSES = {
    "scale convolution_overrideable by=1e-3 where=tile": ("aten.convolution.default", "forward"),
    "scale convolution_backward_overrideable by=1e-4": ("aten.convolution_backward.default", "backward"),
    "scale native_batch_norm by=1e-4": ("aten.native_batch_norm.default", "forward"),
    "scale addmm by=1e-3 where=strided": ("aten.addmm.default", "forward"),
    "scale _log_softmax_backward_data by=1e-3": ("aten._log_softmax_backward_data.default", "backward"),
}
COPIES = "scale _copy_from by=1e-3"


@pytest.fixture(scope="module")
def said(simulated_device):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / "tests"), *CAUSES, COPIES, "missing native_batch_norm"],
        env={**os.environ, **simulated_device()}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_healthy_device_has_no_wrong_operator(said):
    healthy = said["None"]
    (survey,) = healthy["explanations"]
    assert (healthy["outcome"], survey["conclusion"]) == ("PASS", "no operator is wrong")
    assert survey["calls"] > 40
    assert survey["unjudged"] == []


@pytest.mark.parametrize("fault", CAUSES)
def test_the_broken_operator_is_named_first_and_proven(said, fault):
    operator, phase = CAUSES[fault]
    first, *_, survey = said[fault]["explanations"]
    assert (first["scope"], first["conclusion"], first["cause"]) == (said[fault]["module"], "proven", [operator])
    assert (first["operators"][0]["operator"], first["operators"][0]["phase"]) == (operator, phase)
    assert survey["operators"][0]["operator"] == operator
    assert [row["operator"] for row in survey["operators"] if row["ratio"] == "NaN" or row["ratio"] > 30] == [operator]


def test_a_missing_operator_leaves_the_verdict_and_says_why_nothing_could_be_ranked(said):
    missing = said["missing native_batch_norm"]
    assert missing["outcome"] == "INCONCLUSIVE"
    survey = missing["explanations"][-1]
    assert survey["conclusion"] == "not ranked"
    assert "aten.native_batch_norm.default" in survey["message"]
    assert "Could not run 'aten::native_batch_norm'" in survey["message"]


def test_copies_that_change_numbers_are_named_where_every_operator_is_right(said):
    first = said[COPIES]["explanations"][0]
    assert (first["scope"], first["conclusion"]) == ("(optimizer)", "no operator is wrong")
    assert first["message"].endswith("what is copied to sdaa and back is not what it was, so that its copies are wrong")
