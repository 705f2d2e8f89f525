"""Autocast on a CPU: each operator runs in the type in which it runs on an accelerator."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from emacheck.dispatch import autocast  # noqa: E402
from emacheck.dispatch.autocast import SummedInFloat32, accelerator_lists, as_on_accelerators, has_kernel, policies  # noqa: E402

HEADER = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
PROGRAM = Path(__file__).parent / "simulated_device" / "programs" / "autocast_types.py"
# What the header lists by name, not by macro: kernels of cuDNN alone, and one that autocast refuses.
APART = {"binary_cross_entropy", "cudnn_convolution", "cudnn_convolution_transpose", "_cudnn_rnn"}
# Of torch 2.14: in the lists of CUDA and of the CPU, and not in those of other devices.
APART |= {"linalg_matrix_sqrth"}


def listed(macro):
    """Return the operators of one of the lists in torch's own header."""
    text = HEADER.read_text(encoding="utf-8")
    body = re.search(rf"#define {macro}\(_\)(.*?[^\\\\])\n", text, re.DOTALL).group(1)
    found = re.findall(r"_\((\w+)(?:, (\w+))?\)", body)
    return without_named_tensors({f"{name}.{overload}" if overload else name for name, overload in found})


def without_named_tensors(names):
    """Leave out the overloads of named tensors, which older versions of torch list and no network here uses."""
    return {name for name in names if "imname" not in name and ".names_" not in name}


@pytest.mark.parametrize(
    ("macro", "ours"),
    [
        ("AT_FORALL_LOWER_PRECISION_FP", autocast.LOWER),
        ("AT_FORALL_FP32", autocast.FLOAT32),
        ("AT_FORALL_FP32_SET_OPT_DTYPE", autocast.FLOAT32_UNLESS_NAMED),
        ("AT_FORALL_PROMOTE", autocast.WIDEST),
    ],
)
def test_the_lists_are_those_of_the_installed_torch(macro, ours):
    assert len(set(ours)) == len(ours)
    # Older versions of torch do not list rms_norm.
    assert {name for name in ours if has_kernel(name, "AutocastCUDA")} == listed(macro)


def test_no_operator_that_autocast_knows_on_an_accelerator_is_left_out():
    names = {
        f"{schema.name}.{schema.overload_name}".rstrip(".").removeprefix("aten::")
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::")
    }
    known = without_named_tensors({name for name in names if has_kernel(name, "AutocastCUDA")})
    assert len(known) > 100
    assert known - APART == set(policies())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_operator_has_the_type_and_the_bits_that_it_has_on_a_device(simulated_device, dtype):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), dtype],
        env={**os.environ, **simulated_device()}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["compared"]) > 80
    assert len(found["compared bit by bit"]) > 75
    assert found["unlike"] == []
    # With the CPU's own lists they are unlike, or the test would show nothing.
    assert {"softmax", "interpolate, bilinear", "sum"} <= set(found["unlike with the CPU's lists"])


def test_a_cross_entropy_of_sixteen_bits_rounds_its_logarithms_as_on_an_accelerator():
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.tensor([0, 3, 6, 1])
    with torch.autocast("cpu"):
        of_the_cpu = F.cross_entropy(logits, labels)
    with accelerator_lists(), torch.autocast("cpu"):
        rounded = F.cross_entropy(logits, labels)
    expected = F.nll_loss(F.log_softmax(logits, 1).float(), labels)
    assert rounded == expected != of_the_cpu


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_an_encoder_layer_in_evaluation_mode_rounds_as_in_training_mode_as_on_an_accelerator(precision):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    value, dtype = torch.randn(2, 5, 8), {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    def computed(*, training):
        with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
            return layer.train(training)(value)

    with as_on_accelerators(precision):
        assert torch.equal(computed(training=True), computed(training=False))
    # Else torch computes all of it in float32 by a fast path, which it leaves under CUDA's autocast.
    assert not torch.equal(computed(training=True), computed(training=False))
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_lists_of_the_cpu_are_back_when_the_outermost_context_ends():
    value = torch.ones(2, 3, dtype=torch.bfloat16)

    def dtypes():
        with torch.autocast("cpu"):
            return value.softmax(1).dtype, value.sum().dtype

    def fail():
        with accelerator_lists():
            raise KeyError

    before = dtypes()
    assert before == (torch.bfloat16, torch.bfloat16)
    with accelerator_lists():
        with accelerator_lists():
            assert dtypes() == (torch.float32, torch.float32)
        assert dtypes() == (torch.float32, torch.float32)
    assert dtypes() == before
    with pytest.raises(KeyError):
        fail()
    assert dtypes() == before


def test_nothing_changes_outside_of_autocast_and_in_float64():
    value, double = torch.randn(3, 4).bfloat16(), torch.randn(3, 4, dtype=torch.float64)
    with accelerator_lists():
        assert value.softmax(1).dtype is value.sum().dtype is torch.bfloat16
        with torch.autocast("cpu"):
            results = double.softmax(1), double.norm(), double.sum(), double.exp(), double.logsumexp(1)
            assert {each.dtype for each in results} == {torch.float64}
            assert double.sum(dtype=torch.float16).dtype is torch.float16


def test_gradients_come_back_in_the_type_of_the_weights():
    layer = torch.nn.Linear(4, 3)
    with as_on_accelerators("bf16"), torch.autocast("cpu"):
        result = layer(torch.ones(2, 4))
        loss = F.cross_entropy(result, torch.tensor([0, 2]))
        loss.backward()
    assert (result.dtype, loss.dtype, layer.weight.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert layer.weight.grad.abs().sum() > 0


def test_products_of_float16_are_summed_in_float32_and_rounded_once():
    one = torch.full((1, 4096), 1.0, dtype=torch.float16)
    two = torch.full((4096, 1), 1.0 + 2**-10, dtype=torch.float16)
    with SummedInFloat32():
        summed = one @ two
    assert summed.dtype is torch.float16
    assert summed.item() == torch.tensor(4096 * (1 + 2**-10)).half().item()


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_other_precisions_change_nothing(precision):
    with as_on_accelerators(precision), torch.autocast("cpu"):
        assert torch.ones(2, 3, dtype=torch.bfloat16).softmax(1).dtype is torch.bfloat16


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # torch's, of the switch for oneDNN
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_round_as_on_an_accelerator_whether_or_not_there_is_onednn(kind):
    torch.manual_seed(0)
    layer, value = getattr(torch.nn, kind)(4, 5, num_layers=2, bidirectional=True), torch.randn(6, 2, 4)
    packed = torch.nn.utils.rnn.pack_padded_sequence(value, [6, 4])
    plain, onednn = layer(value)[0], torch.backends.mkldnn.flags
    with as_on_accelerators("bf16"), torch.autocast("cpu"):
        outputs = [layer(value)[0], layer(packed)[0].data]
        with onednn(enabled=False):
            without = layer(value)[0]
        outputs[0].sum().backward()
    assert {each.dtype for each in outputs} == {torch.bfloat16}
    assert torch.equal(outputs[0], without)
    assert 0 < (outputs[0].float() - plain).abs().max() < 0.02
    assert layer.weight_hh_l0.grad.dtype is torch.float32
    with as_on_accelerators("bf16"):
        assert torch.equal(layer(value)[0], plain)
