"""``emacheck audit`` and ``emacheck selftest`` in processes of their own."""

import json
import os
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import SLIM

torch = pytest.importorskip("torch")

from emacheck.audit.selftest.curves import Training  # noqa: E402
from emacheck.audit.selftest.trials import Trial  # noqa: E402
from emacheck.cli.audit import memory, supervision  # noqa: E402
from emacheck.cli.audit.job import AuditJob  # noqa: E402
from emacheck.cli.audit.supervision import audit_in_worker  # noqa: E402
from emacheck.cli.audit.worker import _require_possible  # noqa: E402
from emacheck.cli.selftest import _gathered, _planned  # noqa: E402
from emacheck.errors import TrainingError, UsageError  # noqa: E402
from emacheck.train import host_memory  # noqa: E402
from emacheck.train.launching import hints  # noqa: E402
from emacheck.train.request import TrainingRequest  # noqa: E402

QUICK = ("--modules", "decode_head.*", "--no-end-to-end", "--batches", "1", "--threads", "1")


def test_bad_input_is_refused_at_once(emacheck_cli, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "audit.json").touch()
    (tmp_path / "file").touch()
    for arguments, words in (
        (("--precision", "fp8"), "fp8"),
        (("--output-dir", "report"), "nothing was overwritten"),
        (("--output-dir", "file"), "file, which is no directory"),
        (("--output-dir", "file/new"), "file, which is no directory"),
        (("--preset", "smoke", "--config", "x.py"), "give one of the two"),
        (("--batches", "0"), "0"),
    ):
        done = emacheck_cli("audit", *arguments)
        assert done.code == 2, done
        assert words in done.err


@pytest.mark.slow
def test_the_faults_can_be_listed(emacheck_cli):
    done = emacheck_cli("selftest", "--list", "--only", "epsilon*")
    assert done.code == 0
    assert "epsilon_of_one_norm@0.001" in done.out
    assert "https://github.com/" in done.out
    assert emacheck_cli("selftest", "--only", "nothing_like_this").code == 2


def test_a_selftest_overwrites_nothing(emacheck_cli, tmp_path):
    (tmp_path / "there.png").touch()
    done = emacheck_cli("selftest", "--plot", "there.png")
    assert done.code == 2
    assert "--plot there.png: exists already" in done.err


def test_a_selftest_refuses_what_it_could_not_write_before_it_trains(emacheck_cli):
    for arguments in (("--output", "x", "--plot", "x"), ("--plot", "nowhere/x.png")):
        assert emacheck_cli("selftest", *arguments, timeout=60).code == 2


def test_a_trial_is_judged_by_its_audit_and_by_its_training():
    plan = _planned({"a": None, "b": None}, 3, 20, precision="fp32", threads=2)
    assert [sort for sort, _ in plan] == ["repeat"] * 9 + ["fault"] * 2 + ["benign"] * 3
    assert [sort for sort, _ in _planned({"a": None}, 1, 0, precision="fp32", threads=2)] == ["fault", "benign"]

    def training(factor):
        values = tuple(factor * (4 - 0.1 * at) for at in range(20))
        return Training(loss=values, grad_norm=values)

    near = [training(1 + at * 1e-7) for at in range(9)]
    fault = Trial(name="a", kind="norm", detected_by=("audit",), first_seen={"audit": 1})
    made = [*((None, each) for each in near), (fault, training(1.2)), (Trial(name="v", kind="benign"), near[4])]
    result = _gathered(made, precision="fp32", device="cpu", iterations=20)
    (found,), (quiet,) = result.faults, result.benign
    assert found.first_seen == {
        "modelzoo": 1,
        "mean_relative_error": 1,
        "first_iterations": 1,
        "envelope": 1,
        "curves": 1,
        "audit": 1,
    }
    assert quiet.detected_by == ()
    assert _gathered(made[9:], precision="fp32", device="cpu", iterations=0).faults == (fault,)


@pytest.mark.training
def test_a_device_that_is_not_there_is_named(emacheck_cli):
    done = emacheck_cli("audit", "--device", "sdaa")
    assert done.code == 2
    assert "--device sdaa: Tecorigin SDAA needs the module torch_sdaa" in done.err


@pytest.mark.training
def test_an_audit_of_one_head_passes_and_is_reported(emacheck_cli, tmp_path):
    options = (*QUICK, "--output-dir", "report", "--cfg-options", *SLIM)
    done = emacheck_cli("audit", *options)
    assert done.code == 0, done
    assert done.last_line.startswith("PASS audit worst ")
    report = json.loads((tmp_path / "report" / "audit.json").read_text(encoding="utf-8"))
    assert report["outcome"] == "PASS"
    assert {row["module"] for row in report["tensors"]} >= {"decode_head.ema_module", "decode_head.bottleneck.conv"}
    assert (tmp_path / "report" / "audit.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report" / "audit.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert emacheck_cli("audit", *options).code == 2


@pytest.mark.slow
@pytest.mark.training
def test_modules_that_match_nothing_are_refused_before_a_state_is_trained(emacheck_cli):
    done = emacheck_cli("audit", "--modules", "nothing", "--batches", "1", "--seed", "77", "--json")
    assert (done.code, done.out) == (2, ""), done
    assert "found modules nothing, which matches nothing that the iteration calls, expected a glob" in done.err
    assert "iteration 10 of" not in done.err


@pytest.mark.slow
@pytest.mark.training
def test_a_state_in_the_cache_that_was_changed_is_refused(emacheck_cli, tmp_path):
    options = (*QUICK, "--cfg-options", *SLIM)
    assert emacheck_cli("audit", *options).code == 0
    shutil.copytree(os.environ["EMACHECK_CACHE"], tmp_path / "cache")
    for file in (tmp_path / "cache" / "audit-states").glob("*/state.pt"):
        state = torch.load(file, weights_only=True)
        state["model"]["decode_head.conv_seg.bias"][0] += 1e-3
        torch.save(state, file)
    done = emacheck_cli("audit", *options, env={"EMACHECK_CACHE": str(tmp_path / "cache")})
    assert done.code == 2, done
    assert "does not match its hash" in done.err
    assert f"Delete {tmp_path / 'cache' / 'audit-states'}" in done.err


@pytest.mark.slow
@pytest.mark.training
def test_a_selftest_finds_and_names_a_fault_of_the_user(emacheck_cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from emacheck.audit.faults import fault\n"
        "@fault(kind='norm')\n"
        "def epsilon_of_mine(candidate, severity):\n"
        "    'An epsilon is a hundred times too large.'\n"
        "    candidate.model.backbone.layer3[2].bn2.eps *= 100\n    return 'backbone.layer3.2.bn2'\n"
    )
    chosen = ("--faults", "mine.py", "--only", "epsilon_of_mine", "--benign", "1", "--curves", "3", "--threads", "1")
    chosen += ("--cfg-options", *SLIM)
    done = emacheck_cli("selftest", *chosen, "--json", "--output", "out.json", "--plot", "out.png", timeout=900)
    assert done.code == 0, done
    result = json.loads(done.out)
    assert result["rules"]["audit"] == json.loads((tmp_path / "out.json").read_text())["rules"]["audit"]
    assert result["faults"][0]["named"] == "backbone.layer3.2.bn2"
    assert result["iterations"] == 3
    assert result["rules"]["curves"]["trials"] == 1
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("code", "free", "words"),
    [
        (f"os.kill(os.getpid(), {int(signal.SIGKILL)})", 1 << 30, r"SIGKILL(.|\n)* --modules GLOB"),
        ("os._exit(7)", 1 << 30, r"exit code 7(.|\n)* --modules GLOB"),
        ("os._exit(1)", 4096, r"is full: found 4096 bytes free there, .* TMPDIR says where that is\.$"),
    ],
)
def test_a_worker_that_dies_is_reported(monkeypatch, tmp_path, code, free, words):
    monkeypatch.setattr(hints.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    (tmp_path / "python").write_text(f"#!/bin/sh\nexec python3 -c 'import os; {code}'\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(supervision.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(TrainingError, match=words):
        audit_in_worker(AuditJob(request=TrainingRequest(preset="smoke", config=None), device="cpu"), timeout=60)


@pytest.mark.parametrize("asked", ["compile=True", "compile.backend=eager"])
def test_a_configuration_that_compiles_is_refused_for_its_audit_would_run_other_code(tmp_path, asked):
    from emacheck.cli.audit.training import build_runner

    request = TrainingRequest(preset="smoke", config=None, cfg_options=(asked,))
    with pytest.raises(
        UsageError, match=r"^compile: found .*expected a training of the code as it is written"
    ) as refused:
        build_runner(request, tmp_path)
    assert "--cfg-options compile=False" in str(refused.value)


def test_several_optimizers_are_refused_by_name():
    torch = pytest.importorskip("torch")
    optim = pytest.importorskip("mmengine.optim")
    from emacheck.cli.audit.training import _refuse_several_optimizers

    one = optim.OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))
    _refuse_several_optimizers(one)
    with pytest.raises(UsageError, match=r"^optim_wrapper: found several optimizers \(backbone, head\), expected one"):
        _refuse_several_optimizers(optim.OptimWrapperDict(backbone=one, head=one))


@pytest.mark.filterwarnings("ignore")
def test_an_optimizer_that_steps_on_no_cpu_is_refused_before_the_state_is_prepared(tmp_path):
    pytest.importorskip("mmengine")
    from emacheck.cli.audit.training import build_runner

    asked = ("_delete_=True", "type=AdamW", "lr=1e-4", "capturable=True")
    options = tuple(f"optim_wrapper.optimizer.{each}" for each in asked)
    request = TrainingRequest(preset="smoke", config=None, cfg_options=options)
    with pytest.raises(UsageError, match=r"(?s)^optim_wrapper.optimizer: found capturable=True, .*capturable=False;"):
        build_runner(request, tmp_path, drawn=False)


def test_a_worker_that_hangs_is_ended(monkeypatch, tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(supervision.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(TrainingError, match="hung: no progress for"):
        audit_in_worker(AuditJob(request=TrainingRequest(preset="smoke", config=None), device="cpu"), timeout=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "module", "audited"),
    [
        ("scale convolution_overrideable by=1e-3 where=tile", "conv", ("--modules", "*layer1*", "--no-end-to-end")),
        ("scale upsample_bilinear2d_backward by=1e-3", "(model)", ()),
    ],
)
def test_a_device_is_audited_and_the_module_with_the_broken_operator_is_named(
    emacheck_cli, simulated_device, fault, module, audited
):
    options = ("--device", "sdaa", "--batches", "1", "--threads", "1", *audited, "--cfg-options", *SLIM)
    done = emacheck_cli("audit", *options, env=simulated_device(fault), timeout=600)
    assert done.code == 1, done
    named = next(line for line in done.out.splitlines() if line.strip().startswith("FAIL")).split()[1]
    assert module in named, done


@pytest.mark.slow
def test_a_healthy_device_passes_the_audit_in_mixed_precision(emacheck_cli, simulated_device):
    # Autocast has other lists of operators on a CPU: with those as the reference the loss would be beyond its limit.
    options = ("--precision", "bf16", "--modules", "decode_head*", "--no-end-to-end", "--batches", "1", "--json")
    options += ("--threads", "1")
    # As the configurations of mixed precision have it; it refuses devices that mmengine does not know.
    options += ("--cfg-options", "optim_wrapper.type=AmpOptimWrapper", "optim_wrapper.loss_scale=dynamic")
    # mmengine turns it on when it trains, and not before.
    options += ("activation_checkpointing=backbone",)
    done = emacheck_cli("audit", "--device", "sdaa", *options, env=simulated_device(), timeout=600)
    assert done.code == 0, done
    report = json.loads(done.out)
    assert "activation_checkpointing of the configuration was not turned on" in report["notes"][0]
    assert report["worst"]["ratio"] < 3
    assert "decode_head.loss_decode" in {each["module"] for each in report["tensors"]}


def test_an_audit_that_the_host_has_no_memory_for_is_refused_before_it_starts(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    batches = [{"inputs": [torch.zeros(3, 64, 128)] * 2}]
    monkeypatch.setattr(host_memory, "ROOT", tmp_path)
    memory.refuse_too_large(batches)  # a system that does not say
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 4000000 kB\n")
    memory.refuse_too_large(batches)
    memory.refuse_too_large(batches, processes=2)
    with pytest.raises(UsageError, match=r"takes about 6\.4 GiB of the host's memory, and 3\.8 GiB are available\. "):
        memory.refuse_too_large(batches, processes=16)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 3500000 kB\n")
    with pytest.raises(UsageError, match=r"takes about 3\.7 GiB of the host's memory, and 3\.3 GiB are available\. "):
        memory.refuse_too_large(batches)
    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    job = AuditJob(request=TrainingRequest(preset="smoke", config=None), device="cpu")
    with pytest.raises(UsageError, match="--modules '\\*' tries nevertheless"):
        _require_possible(job, model, batches)
    for asked in (replace(job, modules="*"), replace(job, modules="(optimizer)")):
        _require_possible(asked, model, batches)
    # Another node prepares the state and audits no batch.
    _require_possible(job, model, [])
    with pytest.raises(UsageError, match="found modules 1, which matches nothing"):
        _require_possible(replace(job, modules="1"), model, batches)
    (tmp_path / "proc/self/status").write_text("VmRSS: 900000 kB\nRssAnon: 500000 kB\n")
    memory.refuse_too_large(batches)  # what is needed includes what is held already
    # Batches are audited one after the other.
    smaller = {"inputs": [torch.zeros(3, 64, 64)] * 2}
    assert memory.memory_needed([smaller, *batches, smaller]) == memory.memory_needed(batches)
