"""Reference bundles: what is stored is verified, what is damaged is refused."""

import contextlib
import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import SHIPPED, SMOKE

from emacheck.errors import BundleError, OutputError
from emacheck.reference.bundle import read_bundle
from emacheck.reference.making import claim_name, write_bundle
from emacheck.reference.stored import find_bundle, match_bundles, stored_bundles
from emacheck.regular_file import sha256_of


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A copy of the shipped references, and nothing else in sight."""
    shutil.copytree(SHIPPED, tmp_path / "references")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMACHECK_REFERENCES", str(tmp_path / "references"))
    return tmp_path / "references"


@pytest.fixture
def said(capsys):
    """Call a command and return its exit code, its output and its errors."""

    def call(*arguments):
        from emacheck.cli import invoke

        code = invoke([*arguments])
        return code, *capsys.readouterr()

    return call


def test_the_shipped_reference_holds_100_finite_iterations_with_fingerprints_and_provenance():
    bundle = read_bundle(SHIPPED / SMOKE)
    record = bundle.record
    assert bundle.iterations == 100
    assert [len(repeat.curves["loss"]) for repeat in bundle.repeats] == [100] * len(
        [*(SHIPPED / SMOKE / "repeats").iterdir()]
    )
    assert record.complete
    assert len(record.batches) == 100
    assert record.initial_state is not None
    assert {"loss", "decode.loss_ce", "aux.loss_ce", "lr", "grad_norm", "seconds", "data_seconds"} <= set(record.curves)
    assert bundle.experiment["config"]["optim_wrapper.optimizer.momentum"] == 0.9
    assert record.provenance["versions"]["torch"].startswith("2.13.0")
    # It learns: the last twenty losses lie well below the first twenty.
    losses = record.curves["loss"].values
    assert losses[-20:].mean() < 0.85 * losses[:20].mean()


def test_a_reference_is_found_by_name_and_by_directory(store):
    assert find_bundle(SMOKE).name == SMOKE
    assert find_bundle(str(store / SMOKE)).path == store / SMOKE


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


def test_a_changed_byte_is_found_by_the_commands_that_read_a_reference_as_a_log_too(store, said):
    path = store / SMOKE / "iterations.jsonl"
    path.write_bytes(path.read_bytes().replace(b"4.1595", b"4.1596", 1))
    for command in (["show", store / SMOKE], ["compare", store / SMOKE, SHIPPED / SMOKE]):
        code, shown, error = said(*map(str, command))
        assert (code, shown, "changed or damaged" in error) == (2, "", True), error


def test_a_changed_byte_is_found_in_a_repeat_that_is_given_by_itself(store, said, monkeypatch):
    repeats = store / SMOKE / "repeats"
    assert said("show", str(repeats / "02"))[0] == 0
    path = repeats / "03" / "iterations.jsonl"
    path.write_bytes(path.read_bytes().replace(b"4.1595", b"4.1596", 1))
    (store / "link").symlink_to(repeats / "03")
    monkeypatch.chdir(repeats / "03")
    for place in (repeats / "03", ".", store / "link"):
        code, shown, error = said("compare", str(SHIPPED / SMOKE), str(SHIPPED / SMOKE), "--repeat", str(place))
        assert (code, shown, "changed or damaged" in error) == (2, "", True), error


@pytest.mark.parametrize("run", [".", "repeats/03"])
def test_a_reference_of_a_run_that_cannot_be_one_is_refused_although_its_hashes_fit(store, said, run):
    path, description = store / SMOKE / run / "run.json", store / SMOKE / "bundle.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"complete": true', '"complete": false'), encoding="utf-8")
    listed = json.loads(description.read_text(encoding="utf-8"))
    listed["files"][path.relative_to(store / SMOKE).as_posix()] = sha256_of(path)
    description.write_text(json.dumps(listed), encoding="utf-8")
    code, _, error = said("reference", "verify", SMOKE)
    assert (code, "this run is incomplete" in error) == (2, True), error


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


def test_a_file_outside_of_a_reference_is_refused_and_a_record_that_cannot_be_read_is_damage(store):
    description, run_file = store / SMOKE / "bundle.json", store / SMOKE / "run.json"
    content = json.loads(description.read_text())
    for outside in ("../cpu-fp32/run.json", str(run_file)):
        files = {**content["files"], outside: sha256_of(run_file)}
        description.write_text(json.dumps({**content, "files": files}))
        with pytest.raises(BundleError, match="expected one inside of the bundle"):
            read_bundle(store / SMOKE)
    run_file.write_text("[]")
    description.write_text(json.dumps({**content, "files": {**content["files"], "run.json": sha256_of(run_file)}}))
    with pytest.raises(BundleError, match=r"run\.json"):
        read_bundle(store / SMOKE)


def test_verify_exits_2_and_names_the_damaged_file(store, emacheck_here):
    assert emacheck_here("reference", "verify").code == 0
    (store / SMOKE / "run.json").write_text("{}", encoding="utf-8")
    done = emacheck_here("reference", "verify")
    assert (done.code, "run.json: found SHA-256" in done.err) == (2, True), done


def test_list_and_show_tell_where_a_reference_comes_from(store, emacheck_here):
    assert SMOKE in emacheck_here("reference", "list").out
    shown = emacheck_here("reference", "show", SMOKE).out
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


def test_a_reference_that_has_the_name_of_a_shipped_one_says_that_it_is_another(store):
    (said_so,) = (each for each in find_bundle(SMOKE).record.oddities if "shipped with emacheck" in str(each))
    assert str(said_so).endswith(f"but that of references/{SMOKE}")
    shutil.move(store / SMOKE, store / SMOKE.replace("cpu", "other"))
    for other in (read_bundle(SHIPPED / SMOKE), find_bundle(str(store / SMOKE.replace("cpu", "other")))):
        assert not [each for each in other.record.oddities if "shipped" in str(each)]


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


@pytest.mark.parametrize("file", ["bundle.json", "run.json", "iterations.jsonl"])
@pytest.mark.parametrize("pipe", [True, False])
def test_what_is_no_file_in_a_reference_is_damage_and_not_waited_for(store, said, file, pipe):
    (store / SMOKE / file).unlink()
    if pipe:
        os.mkfifo(store / SMOKE / file)
    else:
        (store / SMOKE / file).symlink_to("/dev/zero")
    code, out, _ = said("reference", "list")
    assert (code, "DAMAGED" in out) == (0, True)
    code, _, error = said("reference", "verify")
    assert (code, file in error) == (2, True)
    with contextlib.suppress(BundleError):
        match_bundles(experiment_name=SMOKE.split("/")[0], precision="fp32", data_hash=None, seed=0, iterations=1)


def test_what_a_reference_says_is_shown_and_never_obeyed(store, said):
    foreign = "x\x1b[2J\n::error::y"
    run = json.loads((store / SMOKE / "run.json").read_text(encoding="utf-8"))
    run["provenance"]["versions"]["torch"] = run["provenance"]["device"]["name"] = foreign
    rows = map(json.loads, (store / SMOKE / "iterations.jsonl").read_text(encoding="utf-8").splitlines())
    shutil.rmtree(store / SMOKE)
    made = store.parent / "made"
    made.mkdir()
    (made / "run.json").write_text(json.dumps(run), encoding="utf-8")
    lines = [json.dumps({**row, "metrics": {**row["metrics"], foreign: 1.0}}) + "\n" for row in rows]
    (made / "iterations.jsonl").write_text("".join(lines), encoding="utf-8")
    write_bundle(made, store, name=SMOKE)
    listed = "\n::error::z"
    shutil.copytree(store / SMOKE, store / "other" / listed)
    description = json.loads((store / SMOKE / "bundle.json").read_text(encoding="utf-8"))
    description["files"][foreign] = foreign
    (store / "other" / listed / "bundle.json").write_text(json.dumps(description), encoding="utf-8")
    for command in (("list",), ("show", SMOKE), ("verify",)):
        _, out, error = said("reference", *command)
        assert "\x1b" not in out + error
        assert not [line for line in (out + error).splitlines() if line.lstrip().startswith("::")]


def test_an_incomplete_run_cannot_become_a_reference(store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(store / SMOKE, run, ignore=shutil.ignore_patterns("bundle.json"))
    header = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**header, "complete": False}), encoding="utf-8")
    with pytest.raises(BundleError, match="this run is incomplete"):
        write_bundle(run, store, name="x/cpu-fp32")
    assert not (store / "x").exists()


def test_a_run_with_a_nan_cannot_become_a_reference(store, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(store / SMOKE, run, ignore=shutil.ignore_patterns("bundle.json"))
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


@pytest.mark.parametrize("left", [".cpu-fp32.replaced", ".cpu-fp32.0123456789abcdef.partial"])
def test_what_a_killed_store_has_left_is_no_reference(store, left):
    shutil.copytree(store / SMOKE, (store / SMOKE).with_name(left))
    (store / SMOKE).with_name(left).joinpath("run.json").write_text("{", encoding="utf-8")
    assert [place.name for place in stored_bundles() if store in place.resolve().parents] == ["cpu-fp32"]


def test_what_a_killed_rewrite_has_left_does_not_stop_the_next_one_and_is_removed(store, tmp_path):
    run = shutil.copytree(store / SMOKE, tmp_path / "run")
    for left in (".cpu-fp32.replaced", ".cpu-fp32.0123456789abcdef.partial"):
        shutil.copytree(store / SMOKE, (store / SMOKE).with_name(left))
    write_bundle(run, store, name=SMOKE, rewrite=True)
    assert [path.name for path in (store / SMOKE).parent.iterdir()] == ["cpu-fp32"]


def test_a_reference_that_a_killed_rewrite_has_only_set_aside_is_put_back_by_the_next_make(store):
    (store / SMOKE).rename((store / SMOKE).with_name(".cpu-fp32.replaced"))
    with pytest.raises(BundleError, match="exists already"), claim_name(store, SMOKE):
        pass
    assert read_bundle(store / SMOKE).iterations == 100
    assert [path.name for path in (store / SMOKE).parent.iterdir()] == ["cpu-fp32"]


def test_an_interrupt_of_a_rewrite_waits_until_the_new_reference_stands_alone(store, tmp_path, monkeypatch):
    run = shutil.copytree(store / SMOKE, tmp_path / "run")
    rename = Path.rename

    def interrupted(path, target):
        signal.raise_signal(signal.SIGINT)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            write_bundle(run, store, name=SMOKE, rewrite=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert read_bundle(store / SMOKE).repeats == ()
    assert [path.name for path in (store / SMOKE).parent.iterdir()] == ["cpu-fp32"]


def test_a_rewrite_that_fails_at_the_end_leaves_the_old_reference_in_place(store, tmp_path, monkeypatch):
    run = shutil.copytree(store / SMOKE, tmp_path / "run")
    before = (store / SMOKE / "bundle.json").read_bytes()
    rename = Path.rename

    def fail(path, target):
        if path.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError):
        write_bundle(run, store, name=SMOKE, rewrite=True)
    assert (store / SMOKE / "bundle.json").read_bytes() == before
    assert [path.name for path in (store / SMOKE).parent.iterdir()] == ["cpu-fp32"]
