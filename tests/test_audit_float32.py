"""An audit in fp32 says so where torch's switches let CUDA compute float32 in TF32."""

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from emacheck.audit.arithmetic.float32 import notes_on_float32  # noqa: E402

# The switches are global, and torch refuses to mix their generations: each case has a process of its own.
SWITCHED = """
import json, multiprocessing, sys, torch
from emacheck.audit.arithmetic.float32 import switched_to_tf32

def case(before):
    exec(before)
    return switched_to_tf32()

with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
    print(json.dumps([pool.apply(case, (before,)) for before in json.loads(sys.argv[1])]))
"""
OLDER = {
    "": ["convolutions"],
    "torch.backends.cudnn.allow_tf32 = False": [],
    "torch.backends.cuda.matmul.allow_tf32 = True": ["matrix products", "convolutions"],
    "torch.backends.cudnn.allow_tf32 = False; torch.backends.cuda.matmul.allow_tf32 = True": ["matrix products"],
}
NEWER = {
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'": [],
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'": ["matrix products", "convolutions"],
    "torch.backends.fp32_precision = 'tf32'": ["matrix products", "convolutions"],
}


def test_what_is_computed_in_tf32_is_said_whichever_switch_was_used():
    expected = OLDER | (NEWER if hasattr(torch.backends.cudnn, "conv") else {})
    command = [sys.executable, "-c", SWITCHED, json.dumps(list(expected))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert dict(zip(expected, json.loads(done.stdout), strict=True)) == expected


def test_nothing_is_said_of_other_devices_and_precisions():
    assert notes_on_float32(torch.device("cpu"), "fp32") == ()
    assert notes_on_float32(torch.device("cuda"), "tf32") == ()


@pytest.mark.skipif(not torch.cuda.is_available() or torch.version.cuda is None, reason="needs a card of NVIDIA")
def test_it_is_said_of_a_card_that_has_tf32():
    note = "cuda computes convolutions of float32 in TF32, which counts as an error"
    has = torch.cuda.get_device_capability() >= (8, 0)
    assert notes_on_float32(torch.device("cuda"), "fp32") == ((note,) if has else ())
