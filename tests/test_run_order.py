"""What ``emacheck run`` does when a part of it ends badly: what is left, and what is said."""

import contextlib
import errno
import resource

import pytest

from emacheck.audit.findings.result import AuditResult, ModuleFinding
from emacheck.cli.run import _audit_and_train, _choose_bundles
from emacheck.errors import OutputError, TrainingError, UsageError
from emacheck.judge import Outcome
from emacheck.train.launching.hints import hint_of
from emacheck.train.launching.processes import Processes
from emacheck.train.launching.supervision import train_in_worker
from emacheck.train.request import TrainingRequest
from emacheck.train.run_directory import new_run_directory

WRONG = ModuleFinding(
    module="conv", kind="processes", outcome=Outcome.FAIL, phase="backward", introduced=True, message="rank 1 differs"
)


@pytest.mark.parametrize(
    ("fields", "processes", "options"),
    [
        ({}, 1, ""),
        ({"precision": "bf16"}, 1, " --precision bf16"),
        ({"preset": "smoke-256x512", "seed": 5}, 1, " --preset smoke-256x512 --seed 5"),
        ({"iterations": 300}, 2, " --iters 300 --nproc-per-node 2"),
        (
            {"preset": None, "config": "my file.py", "data_root": "/data", "cfg_options": ("a.b=(1, 2)", "c=3")},
            1,
            " --config 'my file.py' --data-root /data --cfg-options 'a.b=(1, 2)' c=3",
        ),
    ],
)
def test_a_run_without_a_reference_names_the_options_that_make_one(fields, processes, options):
    request = TrainingRequest(**{"preset": "smoke", "config": None, "data_hash": "0" * 64, **fields})
    with pytest.raises(UsageError) as caught:
        _choose_bundles(request, Processes(launched=True, nproc_per_node=processes), None)
    expected = f"--reference-device cpu, or store one with: emacheck reference make{options}. What is stored:"
    assert expected in str(caught.value)


def test_a_run_in_a_precision_that_no_cpu_computes_in_names_a_device_and_the_options():
    request = TrainingRequest(preset="smoke", config=None, precision="tf32", seed=1)
    with pytest.raises(UsageError, match="emacheck reference make --device DEVICE --precision tf32 --seed 1"):
        _choose_bundles(request, Processes(), None)


def test_a_run_on_data_that_are_not_known_speaks_of_no_hash():
    with pytest.raises(UsageError, match="fits x in fp32 on data of which no hash is known"):
        _choose_bundles(TrainingRequest(preset=None, config="x.py"), Processes(), None)


def test_a_run_that_ends_before_anything_was_written_leaves_no_directory(tmp_path):
    with pytest.raises(UsageError), new_run_directory(tmp_path / "work_dirs" / "emanet" / "cpu"):
        raise UsageError("refused")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_was_there_before_stays(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_run_directory(tmp_path):
        raise KeyboardInterrupt
    assert tmp_path.is_dir()


def test_what_was_written_stays(tmp_path):
    with contextlib.suppress(TrainingError), new_run_directory(tmp_path / "run"):
        (tmp_path / "run" / "iterations.jsonl").touch()
        raise TrainingError("killed")
    assert (tmp_path / "run" / "iterations.jsonl").is_file()


def test_what_is_in_another_directory_is_not_touched(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(OutputError), new_run_directory(tmp_path):
        pass
    assert (tmp_path / "mine").is_file()


@pytest.mark.parametrize(
    "words",
    ["ModuleNotFoundError: No module named 'mmcv._ext'", "ImportError: libGL.so.1: cannot open shared object file"],
)
def test_a_crash_at_an_import_points_to_the_doctor(words):
    assert "emacheck doctor" in hint_of(f"  | {words}")
    assert hint_of("  | RuntimeError: device lost") == ""


def test_of_two_that_are_about_to_use_one_directory_the_second_is_refused(tmp_path):
    with new_run_directory(tmp_path / "run"):
        with pytest.raises(OutputError, match="found something there already"), new_run_directory(tmp_path / "run"):
            pass
        (tmp_path / "run" / "run.json").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_a_disk_without_room_for_a_request_is_said_with_the_place_and_leaves_no_directory(tmp_path, monkeypatch):
    def full(request, run_directory):
        (run_directory / "request.json").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TrainingRequest, "write", full)
    request, place = TrainingRequest(preset="smoke", config=None), tmp_path / "run"
    with pytest.raises(OutputError) as caught, new_run_directory(place):
        train_in_worker(request, place, progress=lambda *_: None, timeout=1)
    assert str(caught.value).startswith(
        f"{place}: cannot be written (No space left on device), and nothing was trained"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_names_alone_is_said_before_anything_else_is_done(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        said = f"--work-dir {tmp_path / 'run'}: cannot be written"
        with pytest.raises(OutputError, match=said), new_run_directory(tmp_path / "run"):
            raise AssertionError
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def audited(*findings):
    return AuditResult(device="sdaa", precision="fp32", errors=(), findings=findings)


def crashes():
    raise TrainingError("rank 1 was ended by SIGKILL")


@pytest.mark.parametrize("findings", [(WRONG,), ()])
def test_a_training_that_crashes_after_a_failed_audit_says_what_the_audit_found(findings):
    with pytest.raises(TrainingError) as caught:
        _audit_and_train(Processes(), audit=lambda: audited(*findings), reference=lambda: None, candidate=crashes)
    said = str(caught.value)
    assert said.startswith("rank 1 was ended by SIGKILL")
    assert ("The audit before it was FAIL: between the processes: rank 1 differs" in said) == bool(findings)


@pytest.mark.parametrize(("nnodes", "order"), [(1, "audit reference candidate"), (2, "candidate audit reference")])
def test_other_nodes_wait_for_no_audit(nnodes, order):
    done = []
    parts = {name: lambda name=name: done.append(name) or name for name in ("audit", "reference", "candidate")}
    found = _audit_and_train(Processes(launched=True, nnodes=nnodes), **parts)
    assert (found, " ".join(done)) == (("audit", "reference", "candidate"), order)


def test_a_node_without_rank_0_audits_nothing():
    found = _audit_and_train(Processes(nnodes=2), audit=crashes, reference=crashes, candidate=lambda: None)
    assert found == (None, None, None)


@pytest.mark.parametrize("trained", [True, False])
def test_a_refused_training_leaves_nothing_but_what_it_has_trained(tmp_path, monkeypatch, trained):
    from emacheck.train.launching import supervision

    def refuses(program, run_directory, **options):
        for name in ("refusal.txt", "worker.log", "run.json"):
            (run_directory / name).touch()
        (run_directory / "iterations.jsonl").write_text("{}\n" * trained, encoding="utf-8")
        (run_directory / "ranks").mkdir()
        (run_directory / "ranks" / "0.log").touch()
        raise UsageError("refused")

    monkeypatch.setattr(supervision, "run_program", refuses)
    monkeypatch.setattr(supervision, "require_training_packages", lambda: None)
    (tmp_path / "audit.txt").touch()
    request = TrainingRequest(preset="smoke", config=None)
    with pytest.raises(TrainingError if trained else UsageError) as caught:
        supervision.train_in_worker(request, tmp_path, progress=print, timeout=1)
    assert (
        f"refused\nIt had trained before that; the partial record is kept in {tmp_path}." == str(caught.value)
    ) == trained
    left = {each.name for each in tmp_path.iterdir()} - {"audit.txt"}
    written = {"request.json", "refusal.txt", "worker.log", "run.json", "iterations.jsonl", "ranks"}
    assert left == (written if trained else set())
    assert (tmp_path / "audit.txt").exists()
