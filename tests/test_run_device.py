"""``emacheck run`` on another device than the CPU: the simulated one, which is no evidence about any hardware."""

import os
import subprocess
import sys

import pytest
from conftest import emacheck_process

from emacheck.logs import read_log

pytestmark = [pytest.mark.training, pytest.mark.usefixtures("simulated_device")]
ITERATIONS = 3
SHORT = ("--iters", ITERATIONS, "--limit", f"coverage.minimum={ITERATIONS}", "--threads", 1, "--no-audit")
TIMES = {"seconds", "data_seconds"}


@pytest.fixture
def small(tmp_path):
    """The configuration of a preset made small."""
    from emacheck.train.presets import config_path
    from emacheck.train.request import TrainingRequest

    (tmp_path / "small.py").write_text(
        f"_base_ = ['{config_path(TrainingRequest(preset='cityscapes', config=None))}']\n"
        "crop_size = (64, 64)\nmodel = dict(data_preprocessor=dict(size=crop_size))\n"
        "train_dataloader = dict(num_workers=2)\n",
        encoding="utf-8",
    )
    return tmp_path / "small.py"


def command(cwd, *arguments, env=None):
    process = emacheck_process(*arguments, cwd=cwd, env={"OMP_WAIT_POLICY": "PASSIVE", **(env or {})})
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def unequal(one, two):
    """Return the recorded curves in which two records are not equal in every bit."""
    assert set(one.curves) == set(two.curves)
    names = set(one.curves) - TIMES
    return {name for name in names if one.curves[name].values.tobytes() != two.curves[name].values.tobytes()}


def test_a_run_on_the_device_passes_and_is_bit_identical_to_the_reference_of_the_cpu(
    workshop, references, simulated_device
):
    asked = {**simulated_device(), "TORCH_SDAA_CONV_USE_FP32": "0"}
    code, out, err = command(workshop, "run", "--device", "sdaa:1", *SHORT, "--work-dir", "good", env=asked)
    assert code == 0, out + err
    assert "bit-identical" in out
    assert "sdaa:1 is to compute float32 in float32: TORCH_SDAA_CONV2D_BACKWARD_USE_FP32=1\n" in err
    reference = read_log(references / "emanet_r50-d8_smoke" / "cpu-fp32")
    candidate = read_log(workshop / "good")
    assert unequal(reference, candidate) == set()
    assert {"loss", "grad_norm", "lr", "decode.acc_seg"} <= set(candidate.curves)
    assert candidate.initial_state == reference.initial_state
    assert candidate.batches == reference.batches
    provenance = candidate.provenance
    assert provenance["device"]["type"] == "sdaa"
    assert provenance["device"]["torch_sdaa.__version__"] == "0.0+simulated"
    assert provenance["device"]["precisions"] == "fp32, bf16, fp16"
    assert provenance["device"]["TORCH_SDAA_CONV2D_BACKWARD_USE_FP32"] == "1"
    assert provenance["device"]["TORCH_SDAA_CONV_USE_FP32"] == "0"
    report = (workshop / "good" / "report.md").read_text(encoding="utf-8")
    assert "device torch\\_sdaa" in report or "device torch_sdaa" in report
    assert "| precision" in report
    assert provenance["draws_on_device"] is False
    assert provenance["peak_memory_bytes"]["device"] > 2**27


@pytest.mark.slow
def test_a_run_in_mixed_precision_is_bit_identical_to_the_cpu_which_rounds_where_a_device_does(
    workshop, references, simulated_device
):
    options = ("--precision", "bf16", "--reference-device", "cpu", "--work-dir", "bf16")
    code, out, err = command(workshop, "run", "--device", "sdaa", *SHORT, *options, env=simulated_device())
    assert code == 0, out + err
    reference, candidate = read_log(workshop / "bf16" / "reference"), read_log(workshop / "bf16")
    assert unequal(reference, candidate) == set()
    assert candidate.provenance["experiment"]["autocast"] == "as on accelerators"
    in_fp32 = read_log(references / "emanet_r50-d8_smoke" / "cpu-fp32")
    assert "loss" in unequal(in_fp32, candidate)


def test_the_peak_memory_of_a_device_is_kept_although_somebody_starts_it_anew(monkeypatch, tmp_path):
    from emacheck.train import recorder
    from emacheck.train.device import accelerator
    from emacheck.train.device.devices import parse_device
    from emacheck.train.provenance import peak_memory

    device, asked = parse_device("cuda"), iter([300, 700, 100])
    monkeypatch.setattr(recorder, "peak_memory", lambda _: next(asked))
    monkeypatch.setattr(accelerator, "peak_memory", lambda _: 50)
    hook = recorder.RecorderHook(tmp_path, 3, device=device)
    for _ in range(3):
        hook._watch_memory()
    assert peak_memory(device, hook.peak_memory)["device"] == 700


@pytest.mark.slow
def test_dropout_augmentation_and_workers_are_bit_identical_on_a_device_that_draws_other_numbers(
    workshop, small, simulated_device
):
    # The preset's own dropout of 0.1, its augmentations and two workers; the device's generator is not the CPU's.
    data = workshop / "cache" / "synthetic-cityscapes-v1"
    code, out, err = command(
        *(workshop, "run", "--config", small, "--data-root", data, "--device", "sdaa", *SHORT),
        *("--reference-device", "cpu", "--work-dir", "paired", "--cfg-options"),
        *(
            "train_dataloader.dataset.pipeline.3.crop_size=(64,64)",
            "train_dataloader.dataset.pipeline.2.scale=(256,128)",
        ),
        env=simulated_device(rng="device"),
    )
    assert code == 0, out + err
    reference, candidate = read_log(workshop / "paired" / "reference"), read_log(workshop / "paired")
    assert unequal(reference, candidate) == set()
    assert candidate.initial_state == reference.initial_state
    assert candidate.batches == reference.batches
    assert candidate.provenance["draws_on_device"] is False
    assert candidate.provenance["experiment"]["draws"] == 2
    assert candidate.provenance["experiment"]["config"]["model.decode_head.dropout_ratio"] == 0.1


@pytest.mark.slow
def test_the_batches_of_a_real_pipeline_are_the_same_with_any_number_of_workers(workshop, tmp_path):
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner
    from mmseg.utils import register_all_modules

    from emacheck.train.paired.batches import independent_of_workers
    from emacheck.train.paired.fingerprint import batch_hash
    from emacheck.train.presets import resolve
    from emacheck.train.request import TrainingRequest

    register_all_modules(init_default_scope=False)
    init_default_scope("mmseg")
    seen = []
    for workers in (0, 2):
        request = TrainingRequest(
            preset="smoke", config=None, data_root=str(workshop / "cache" / "synthetic-cityscapes-v1"),
            cfg_options=(f"train_dataloader.num_workers={workers}",),
        )  # fmt: skip
        config, _ = resolve(request, tmp_path)
        loader = iter(Runner.build_dataloader(independent_of_workers(config.train_dataloader, 0), seed=0))
        seen.append([batch_hash(next(loader)) for _ in range(4)])
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 4


@pytest.mark.parametrize(
    ("command", "devices", "said"),
    [
        (("run", "--no-audit", "--device", "sdaa"), 0, "--device sdaa: T sees 0 sdaa devices, expected at least 1."),
        (
            ("run", "--reference-device", "cpu", "--device", "sdaa:5"),
            2,
            "--device sdaa:5: T sees 2 sdaa devices, expected at least 6.",
        ),
        (
            ("run", "--nproc-per-node", 3, "--device", "sdaa"),
            2,
            "--device sdaa: T sees 2 sdaa devices, expected at least 3, one for each process of this node "
            "(--nproc-per-node).",
        ),
        (
            ("run", "--reference-device", "sdaa", "--reference-nproc", 2, "--nproc-per-node", 2),
            1,
            "--reference-device sdaa: T sees 1 sdaa device, expected at least 2, one for each process of this node "
            "(--nproc-per-node).",
        ),
        (("audit", "--device", "sdaa"), 0, "--device sdaa: T sees 0 sdaa devices, expected at least 1."),
    ],
)
@pytest.mark.usefixtures("workshop")  # the data are there
def test_a_device_that_is_not_there_is_refused_before_anything_is_announced_or_written(
    simulated_device, tmp_path, *, command, devices, said
):
    import torch

    iterations = ("--iters", ITERATIONS) if "run" in command else ()
    process = emacheck_process(*command, *iterations, cwd=tmp_path, env=simulated_device(devices=devices))
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, list(tmp_path.iterdir())) == (2, "", [])
    sees = f"torch {torch.__version__} with torch_sdaa imported"
    assert err.startswith(f"emacheck: {said.replace(' T ', f' {sees} ')} Check the driver")
    assert err.count("\n") == 1


def test_auto_takes_the_accelerator_that_torch_finds_and_not_the_cpu_of_a_machine_that_should_have_one(
    simulated_device, tmp_path
):
    code = "from emacheck.train.device.devices import parse_device; print(parse_device('auto', '--reference-device'))"
    for devices in (2, 0):
        env = {**os.environ, **simulated_device(devices=devices)}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        assert done.stdout == ("sdaa\n" if devices else ""), done.stderr
    said = done.stderr.splitlines()[-1]
    assert "UsageError: --reference-device auto: torch_sdaa is installed here, and torch" in said
    assert said.endswith("To train on the CPU all the same: --reference-device cpu")


@pytest.mark.slow
def test_an_operator_that_the_device_lacks_ends_the_run_with_its_name(workshop, simulated_device, tmp_path):
    lacking = simulated_device("missing _softmax")
    options = ("--device", "sdaa", *SHORT, "--work-dir", tmp_path / "run")
    code, _, err = command(workshop, "run", *options, env=lacking)
    assert code == 2
    assert "aten::_softmax" in err
    assert "after iteration 0" in err
