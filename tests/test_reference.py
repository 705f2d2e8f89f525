"""Reference bundles: what is stored is verified, what is damaged is refused."""

import errno
import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from emacheck import reference
from emacheck.cli.reference import _default_name
from emacheck.errors import BundleError, OutputError, TrainingError, UsageError
from emacheck.experiment import differences, digest, flatten
from emacheck.reference import (
    _lock,
    bundle_of,
    claim_name,
    find_bundle,
    match_bundles,
    read_bundle,
    stored_bundles,
    write_bundle,
)
from emacheck.train.processes import Processes
from emacheck.train.request import TrainingRequest
from emacheck.train.worker import refuse_other_experiment

SHIPPED = Path(__file__).parent.parent / "references"
SMOKE = "emanet_r50-d8_smoke/cpu-fp32"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A copy of the shipped references, and nothing else in sight."""
    shutil.copytree(SHIPPED, tmp_path / "references")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMACHECK_REFERENCES", str(tmp_path / "references"))
    return tmp_path / "references"


def test_the_shipped_reference_holds_100_finite_iterations_with_fingerprints_and_provenance():
    bundle = read_bundle(SHIPPED / SMOKE)
    record = bundle.record
    assert bundle.iterations == 100
    assert record.complete
    assert len(record.batches) == 100
    assert record.initial_state is not None
    assert {"loss", "decode.loss_ce", "aux.loss_ce", "lr", "grad_norm", "seconds", "data_seconds"} <= set(record.curves)
    assert bundle.experiment["config"]["optim_wrapper.optimizer.momentum"] == 0.9
    assert record.provenance["versions"]["torch"].startswith("2.13.0")
    # It learns: the last twenty losses lie well below the first twenty.
    losses = record.curves["loss"].values
    assert losses[-20:].mean() < 0.85 * losses[:20].mean()


def test_a_reference_is_found_by_name_by_directory_and_by_what_it_holds(store):
    assert find_bundle(SMOKE).name == SMOKE
    assert find_bundle(str(store / SMOKE)).path == store / SMOKE
    assert [bundle.name for bundle in matching()][:1] == [SMOKE]
    assert matching(data_hash="other") == ()
    assert matching(precision="bf16") == ()


def matching(**changed):
    """Return what matches the default training, or one that differs from it."""
    wanted = {"experiment_name": "emanet_r50-d8_smoke", "precision": "fp32", "seed": 0, "iterations": 3}
    data_hash = read_bundle(SHIPPED / SMOKE).experiment["data_hash"]
    return match_bundles(**{**wanted, "data_hash": data_hash, **changed})


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Store references of few iterations that differ from the shipped one, in a folder of their own."""
    monkeypatch.chdir(tmp_path)

    def store(where, *, iterations=3, **changed):
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        lines = (SHIPPED / SMOKE / "iterations.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (run / "iterations.jsonl").write_text("".join(lines[:iterations]), encoding="utf-8")
        header = json.loads((SHIPPED / SMOKE / "run.json").read_text(encoding="utf-8"))
        header["iterations"] = header["provenance"]["planned_iterations"] = iterations
        header["provenance"]["experiment"] |= changed
        (run / "run.json").write_text(json.dumps(header), encoding="utf-8")
        return write_bundle(run, tmp_path / "references", name=where).path

    return store


def places(bundles):
    return [bundle.path.resolve() for bundle in bundles]


def test_a_reference_of_another_seed_hides_no_other_one_of_its_name(stored):
    five = stored(SMOKE, seed=5)
    six = stored("emanet_r50-d8_smoke/six", seed=6)
    assert places(matching()) == [SHIPPED / SMOKE]
    assert places(matching(seed=5)) == [five]
    assert places(matching(seed=6)) == [six]


def test_a_reference_that_holds_too_few_iterations_gives_way_to_one_that_holds_enough(stored):
    short = stored(SMOKE)
    assert places(matching(iterations=3)) == [short, SHIPPED / SMOKE]
    assert places(matching(iterations=100)) == [SHIPPED / SMOKE]
    assert [bundle.iterations for bundle in matching(iterations=101)] == [100]


def test_where_no_reference_has_the_seed_those_of_others_are_left_to_say_what_differs(stored):
    assert [bundle.experiment["seed"] for bundle in matching(seed=7)] == [0]


def test_references_of_other_configurations_are_left_to_the_training_to_tell_apart(stored):
    config = {**read_bundle(SHIPPED / SMOKE).experiment["config"], "optim_wrapper.optimizer.momentum": 0.8}
    other = stored("emanet_r50-d8_smoke/cpu-fp32-momentum", config=config)
    bundles = matching()
    assert places(bundles) == [other, SHIPPED / SMOKE]
    chosen = bundle_of(read_bundle(SHIPPED / SMOKE).experiment, bundles)
    assert chosen.path.resolve() == SHIPPED / SMOKE
    assert bundle_of(read_bundle(other).experiment, bundles).path.resolve() == other
    request = TrainingRequest(preset="smoke", config=None, must_match=tuple(each.experiment for each in bundles))
    for bundle in bundles:
        refuse_other_experiment(request, bundle.experiment)
    neither = {**bundles[0].experiment, "config": {**config, "optim_wrapper.optimizer.momentum": 0.7}}
    with pytest.raises(UsageError, match=r"momentum: reference 0\.[89], candidate 0\.7"):
        refuse_other_experiment(request, neither)


def test_a_request_carries_every_reference_that_it_may_match(tmp_path):
    request = TrainingRequest(preset="smoke", config=None, must_match=({"seed": 0}, {"seed": 1}))
    request.write(tmp_path)
    assert TrainingRequest.read(tmp_path) == request


def test_a_damaged_reference_is_left_out_unless_it_is_the_preferred_one(stored):
    for where in ("another/cpu-fp32", "emanet_r50-d8_smoke/x-fp32", SMOKE):
        with (stored(where) / "iterations.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n")
        if where != SMOKE:
            assert places(matching()) == [SHIPPED / SMOKE]
    with pytest.raises(BundleError, match=r"cpu-fp32/iterations\.jsonl: found SHA-256"):
        matching()


def test_only_a_damaged_reference_of_the_experiment_asked_for_is_in_the_way(stored):
    for where, changed in (
        ("other/x-fp32", {"name": "other"}),
        ("emanet_r50-d8_smoke/cpu-bf16", {"precision": "bf16"}),
    ):
        with (stored(where, **changed) / "iterations.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n")
    (stored("emanet_r50-d8_smoke/unreadable") / "run.json").write_text("{", encoding="utf-8")
    assert places(matching()) == [SHIPPED / SMOKE]
    with pytest.raises(BundleError, match=r"cpu-bf16.*changed or damaged"):
        matching(precision="bf16")
    with pytest.raises(BundleError, match=r"unreadable.*changed or damaged"):
        matching(precision="fp16")


@pytest.mark.parametrize("command", [("reference", "list"), ("reference", "verify"), ("reference", "show", SMOKE)])
def test_a_folder_of_references_that_does_not_exist_is_refused(tmp_path, monkeypatch, said, command):
    monkeypatch.setenv("EMACHECK_REFERENCES", str(tmp_path / "nowhere"))
    code, _, error = said(*command)
    assert (code, f"EMACHECK_REFERENCES={tmp_path / 'nowhere'}: no such directory" in error) == (2, True), error


def test_an_empty_name_of_a_folder_of_references_names_none(monkeypatch):
    monkeypatch.setenv("EMACHECK_REFERENCES", "")
    assert [place.resolve() for place in stored_bundles()][-1] == SHIPPED / SMOKE


def test_a_reference_that_does_not_exist_is_refused_with_the_list_of_those_that_do(store):
    with pytest.raises(BundleError, match=f"Stored references: {SMOKE}"):
        find_bundle("nowhere/cpu-fp32")
    with pytest.raises(BundleError, match="found neither"):
        find_bundle("../references/" + SMOKE)


@pytest.mark.parametrize("file", ["run.json", "iterations.jsonl"])
def test_a_changed_byte_is_found(store, file):
    path = store / SMOKE / file
    path.write_bytes(path.read_bytes().replace(b"4", b"5", 1))
    with pytest.raises(BundleError, match="changed or damaged"):
        find_bundle(SMOKE)


@pytest.mark.parametrize("file", ["run.json", "iterations.jsonl"])
def test_a_missing_file_is_found(store, file):
    (store / SMOKE / file).unlink()
    with pytest.raises(BundleError, match="found SHA-256 nothing"):
        find_bundle(SMOKE)


def test_a_missing_file_is_found_that_the_description_does_not_list_either(store):
    description = store / SMOKE / "bundle.json"
    content = json.loads(description.read_text(encoding="utf-8"))
    del content["files"]["run.json"]
    description.write_text(json.dumps(content), encoding="utf-8")
    (store / SMOKE / "run.json").unlink()
    with pytest.raises(BundleError, match="found SHA-256 nothing"):
        find_bundle(SMOKE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"format_version": 99, "name": "x", "files": {}}', "expected 1"),
        ("[" * 100_000, "cannot be read"),
        ('{"format_version": 1, "name": "x", "files": {"a\\u0000b": "x"}}', "found SHA-256"),
        ('{"format_version": 1, "name": "x", "files": {"a\\ud800": "x"}}', "found SHA-256"),
    ],
)
def test_a_damaged_description_is_refused(store, content, said):
    (store / SMOKE / "bundle.json").write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=said):
        read_bundle(store / SMOKE)


def test_verify_exits_2_and_names_the_damaged_file(store, emacheck_cli):
    assert emacheck_cli("reference", "verify").code == 0
    (store / SMOKE / "run.json").write_text("{}", encoding="utf-8")
    done = emacheck_cli("reference", "verify")
    assert (done.code, "run.json: found SHA-256" in done.err) == (2, True), done


def test_list_and_show_tell_where_a_reference_comes_from(store, emacheck_cli):
    assert SMOKE in emacheck_cli("reference", "list").out
    shown = emacheck_cli("reference", "show", SMOKE).out
    assert '"torch": "2.13.0' in shown
    assert '"seed": 0' in shown


def test_a_damaged_reference_of_another_experiment_is_listed_as_damaged_and_stops_nothing(store, said):
    other = shutil.copytree(store / SMOKE, store / "other" / "x-fp32")
    with (other / "iterations.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    code, listed, _ = said("reference", "list")
    assert code == 0
    assert [line.split()[:2] for line in listed.splitlines() if "DAMAGED" in line] == [["other/x-fp32", "DAMAGED,"]]
    assert SMOKE in listed
    assert said("reference", "verify")[0] == 2


def test_a_reference_that_another_of_its_name_hides_is_listed_with_its_path(store, said):
    _, listed, _ = said("reference", "list")
    hidden = next(line for line in listed.splitlines() if "its name finds the one above" in line)
    assert str(SHIPPED / SMOKE) in hidden


@pytest.mark.parametrize("command", ["show", "verify"])
def test_an_unknown_reference_is_refused_in_the_words_of_the_command(store, said, command):
    code, _, error = said("reference", command, "nowhere/cpu-fp32")
    assert (code, "no reference nowhere/cpu-fp32: found neither" in error) == (2, True), error
    assert "--reference" not in error


def test_a_reference_is_named_by_where_it_is(store):
    moved = shutil.copytree(store / SMOKE, store / "moved" / "here")
    assert find_bundle("moved/here").name == read_bundle(moved).name == "moved/here"
    assert find_bundle("moved/here").record.name == "moved/here"
    assert find_bundle(SMOKE).name == SMOKE


@pytest.mark.parametrize(
    "extra", ["iterations.rank1.jsonl", "repeats/01/iterations.rank2.jsonl", "repeats/09/run.json"]
)
def test_a_record_that_is_not_listed_is_refused(store, extra):
    (store / SMOKE / extra).parent.mkdir(exist_ok=True)
    shutil.copyfile(store / SMOKE / "iterations.jsonl", store / SMOKE / extra)
    with pytest.raises(BundleError, match=f"{extra}: found a record that bundle.json does not list"):
        read_bundle(store / SMOKE)


def test_an_incomplete_run_cannot_become_a_reference(store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(store / SMOKE, run)
    header = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**header, "complete": False}), encoding="utf-8")
    with pytest.raises(BundleError, match="incomplete"):
        write_bundle(run, store, name="x/cpu-fp32")
    assert not (store / "x").exists()


def test_a_run_with_a_nan_cannot_become_a_reference(store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(store / SMOKE, run)
    lines = (run / "iterations.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[7])
    row["metrics"]["grad_norm"] = "NaN"
    lines[7] = json.dumps(row)
    (run / "iterations.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(BundleError, match="NaN or infinity in grad_norm"):
        write_bundle(run, store, name="x/cpu-fp32")


def test_an_existing_reference_is_only_replaced_when_asked_and_then_completely(store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(store / SMOKE, run)
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(run, store, name=SMOKE)
    replaced = write_bundle(run, store, name=SMOKE, rewrite=True)
    assert read_bundle(replaced.path).iterations == 100
    assert sorted(p.name for p in (store / SMOKE).parent.iterdir()) == ["cpu-fp32"]


@pytest.mark.parametrize("left", [".cpu-fp32.replaced", ".bundle-abc"])
def test_what_a_killed_store_has_left_is_no_reference(store, left):
    shutil.copytree(store / SMOKE, (store / SMOKE).with_name(left))
    (store / SMOKE).with_name(left).joinpath("run.json").write_text("{", encoding="utf-8")
    assert [place.name for place in stored_bundles() if store in place.resolve().parents] == ["cpu-fp32"]


def test_what_a_killed_rewrite_has_set_aside_does_not_stop_the_next_one(store, tmp_path):
    run = shutil.copytree(store / SMOKE, tmp_path / "run")
    shutil.copytree(store / SMOKE, (store / SMOKE).with_name(".cpu-fp32.replaced"))
    write_bundle(run, store, name=SMOKE, rewrite=True)
    assert [path.name for path in (store / SMOKE).parent.iterdir()] == ["cpu-fp32"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_rewrite_that_fails_at_the_end_leaves_the_old_reference_in_place(store, tmp_path, monkeypatch, error):
    run = shutil.copytree(store / SMOKE, tmp_path / "run")
    before = (store / SMOKE / "bundle.json").read_bytes()
    rename = Path.rename

    def fail(path, target):
        if path.name.startswith(".bundle-"):
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_bundle(run, store, name=SMOKE, rewrite=True)
    assert (store / SMOKE / "bundle.json").read_bytes() == before
    assert [path.name for path in (store / SMOKE).parent.iterdir()] == ["cpu-fp32"]


def test_differing_fields_are_named_with_both_values():
    ours = {"seed": 0, "precision": "fp32", "config": flatten({"optim_wrapper": {"optimizer": {"momentum": 0.9}}})}
    theirs = {"seed": 0, "config": flatten({"optim_wrapper": {"optimizer": {"momentum": 0.8, "nesterov": True}}})}
    assert differences(ours, ours) == []
    assert differences(ours, theirs) == [
        "precision: reference 'fp32', candidate nothing",
        "optim_wrapper.optimizer.momentum: reference 0.9, candidate 0.8",
        "optim_wrapper.optimizer.nesterov: reference nothing, candidate True",
    ]


def test_what_does_not_decide_the_numbers_does_not_decide_the_experiment():
    one = {"train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 100}, "work_dir": "a", "log_level": "INFO"}
    two = {"train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 50}, "work_dir": "b", "default_hooks": {}}
    assert flatten(one) == flatten(two) == {"train_cfg.type": "IterBasedTrainLoop"}
    place = {"train_dataloader": {"dataset": {"data_root": "/here", "type": "CityscapesDataset"}}}
    assert flatten(place) == {"train_dataloader.dataset.type": "CityscapesDataset"}
    assert digest(flatten(one)) == digest(flatten(two))


def test_whatever_decides_the_schedule_is_part_of_the_experiment():
    def trained_for(epochs, **scheduler):
        loop = {"type": "EpochBasedTrainLoop", "max_epochs": epochs}
        return flatten({"train_cfg": loop, "param_scheduler": [{"type": "PolyLR", **scheduler}]})

    assert trained_for(10) != trained_for(20)
    assert trained_for(10, end=5) == trained_for(20, end=5)
    usual = {"param_scheduler": {"type": "ParamSchedulerHook"}, "logger": {"type": "LoggerHook", "interval": 5}}
    assert flatten({"default_hooks": usual}) == flatten({})
    assert flatten({"default_hooks": {"param_scheduler": None}}) == {"default_hooks.param_scheduler": None}


LOADED_OTHERWISE = {
    "num_workers": 4,
    "persistent_workers": True,
    "pin_memory": True,
    "prefetch_factor": 8,
    "timeout": 9,
}


@pytest.mark.parametrize(
    ("draws", "expected"), [(2, []), (1, ["train_dataloader.num_workers: reference 0, candidate 4"])]
)
def test_another_number_of_workers_is_another_experiment_only_if_samples_are_not_drawn_one_by_one(draws, expected):
    stored = {**read_bundle(SHIPPED / SMOKE).experiment, "draws": draws}
    config = {**stored["config"], **{f"train_dataloader.{key}": value for key, value in LOADED_OTHERWISE.items()}}
    found = differences(stored, {**stored, "config": config})
    assert [line for line in found if "num_workers" in line] == expected
    assert bool(found) == bool(expected)
    config["train_dataloader.sampler.shuffle"] = False
    shuffled = "train_dataloader.sampler.shuffle: reference True, candidate False"
    assert differences(stored, {**stored, "config": config}) == sorted([*found, shuffled])


@pytest.mark.parametrize("processes", [0, -1])
def test_an_impossible_number_of_processes_is_another_experiment_and_no_error(processes):
    two = {"processes": 2, "config": {"train_dataloader.batch_size": 1}}
    other = {"processes": processes, "config": {"train_dataloader.batch_size": 2}}
    for pair in ((two, other), (other, two)):
        assert any(line.startswith("processes: ") for line in differences(*pair))


def test_the_digest_of_a_stored_configuration_is_that_of_what_it_stores():
    provenance = read_bundle(SHIPPED / SMOKE).record.provenance
    assert provenance["config_hash"] == digest(provenance["experiment"]["config"])


@pytest.fixture
def said(capsys):
    """Call a command and return its exit code, its output and its errors."""

    def call(*arguments):
        from emacheck.cli import invoke

        code = invoke([*arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Call ``emacheck reference make`` with a training that writes something and then ends with an error."""

    def call(*errors, meanwhile=lambda: None):
        from emacheck.cli import invoke
        from emacheck.cli import reference as command

        left = iter(errors)

        def train(request, run, **_):
            shutil.copytree(SHIPPED / SMOKE, run, dirs_exist_ok=True)
            meanwhile()
            error = next(left)
            if error is not None:
                raise error(f"the record is in {run}")

        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
        monkeypatch.setattr(command, "train_and_read", train)
        (tmp_path / "scratch").mkdir(exist_ok=True)
        code = invoke(["reference", "make", "--into", str(tmp_path / "store"), "--repeats", str(len(errors) - 1)])
        return code, list((tmp_path / "scratch").iterdir())

    return call


def test_a_reference_is_named_after_what_is_not_the_default():
    def name(processes=1, **fields):
        request = TrainingRequest(**{"preset": "smoke", "config": None, "data_hash": "0" * 64, **fields})
        return _default_name(request, Processes(launched=True, nproc_per_node=processes)).removeprefix(
            "emanet_r50-d8_smoke/"
        )

    assert name() == name(iterations=3) == name(threads=1) == "cpu-fp32"
    assert name(seed=5, precision="bf16") == "cpu-bf16-seed5"
    assert name(processes=2, seed=5) == "cpu-fp32-2-processes-seed5"
    others = [{"cfg_options": ("a=1",)}, {"cfg_options": ("a=2",)}, {"data_root": "/data"}]
    names = [name(**fields) for fields in others]
    assert len({*names, "cpu-fp32"}) == 4
    assert all(re.fullmatch(r"cpu-fp32-[0-9a-f]{8}", each) for each in names)
    assert name(cfg_options=("a=1", "b=2")) == name(cfg_options=("b=2", "a=1", "work_dir=x"))
    assert name(cfg_options=("a=1", "a=2")) != name(cfg_options=("a=2", "a=1"))


@pytest.mark.parametrize("errors", [[TrainingError], [None, TrainingError], [KeyboardInterrupt]])
def test_what_a_failed_training_of_a_reference_has_written_is_where_the_message_says(make, capsys, errors):
    code, (kept,) = make(*errors)
    assert code == 2
    for run in ("run", "repeat-1")[: len(errors)]:
        assert (kept / run / "run.json").is_file()
    if KeyboardInterrupt not in errors:
        assert f"the record is in {kept}" in capsys.readouterr().err


@pytest.mark.parametrize(("errors", "expected"), [([None, None], 0), ([UsageError], 2)])
def test_a_reference_that_is_stored_or_refused_leaves_nothing_behind(make, errors, expected):
    assert make(*errors) == (expected, [])


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_trained(make, tmp_path, capsys):
    (tmp_path / "store").touch()
    assert make(TrainingError) == (2, [])
    assert "cannot be written (Not a directory). Choose another place with --into." in capsys.readouterr().err


def test_a_name_that_is_taken_is_refused_before_anything_is_trained(make, tmp_path, capsys):
    name = "emanet_r50-d8_smoke/cpu-fp32"
    with claim_name(tmp_path / "store", name):
        assert make(TrainingError) == (2, [])
        assert "another emacheck is making this reference" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
    assert make(None) == (0, [])
    assert [path.name for path in (tmp_path / "store" / name).parent.iterdir()] == ["cpu-fp32"]
    assert make(TrainingError) == (2, [])
    assert "exists already" in capsys.readouterr().err


def test_a_name_that_is_let_go_of_while_it_is_claimed_is_claimed_by_one_only(tmp_path, monkeypatch):
    claim = tmp_path / "x" / ".cpu-fp32.claim"
    locked = []

    def lock(file, target):
        if not locked:
            claim.unlink()  # by whoever held it until now
        locked.append(file)
        _lock(file, target)

    monkeypatch.setattr(reference, "_lock", lock)
    with claim_name(tmp_path, "x/cpu-fp32"):
        monkeypatch.undo()
        with pytest.raises(BundleError, match="just now"), claim_name(tmp_path, "x/cpu-fp32"):
            pass
    assert len(locked) == 2


def test_without_locks_a_name_is_claimed_and_a_bundle_that_exists_is_refused(store, monkeypatch):
    monkeypatch.setattr(reference, "fcntl", None)
    with claim_name(store, "x/cpu-fp32"):
        assert not (store / "x" / "cpu-fp32").exists()
    with pytest.raises(BundleError, match="exists already"), claim_name(store, SMOKE):
        pass


def test_a_claim_that_a_killed_process_has_left_is_none(make, tmp_path):
    left = tmp_path / "store" / "emanet_r50-d8_smoke" / ".cpu-fp32.claim"
    left.parent.mkdir(parents=True)
    left.touch()
    assert make(None) == (0, [])


def test_a_reference_of_another_in_the_meantime_is_not_replaced_and_nothing_is_lost(make, tmp_path, capsys):
    target = tmp_path / "store" / "emanet_r50-d8_smoke" / "cpu-fp32"
    code, (kept,) = make(None, meanwhile=target.mkdir)
    assert code == 2
    assert list(target.iterdir()) == []
    assert (kept / "run" / "run.json").is_file()
    assert f"What was trained is kept in {kept}" in capsys.readouterr().err


def test_a_reference_that_cannot_be_stored_is_not_lost(make, tmp_path, capsys):
    def spoil():
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "store").touch()

    code, (kept,) = make(None, meanwhile=spoil)
    assert code == 2
    assert (kept / "run" / "run.json").is_file()
    assert f"What was trained is kept in {kept}" in capsys.readouterr().err
