"""Which stored reference a run is compared with: the one of its experiment, whatever lies beside it."""

import json

import pytest
from conftest import SHIPPED, SMOKE

from emacheck.errors import BundleError, UsageError
from emacheck.reference.bundle import read_bundle
from emacheck.reference.making import write_bundle
from emacheck.reference.stored import bundle_of, match_bundles
from emacheck.train.request import TrainingRequest
from emacheck.train.worker import refuse_other_experiment


def places(bundles):
    return [bundle.path.resolve() for bundle in bundles]


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


def test_a_reference_is_found_by_what_it_holds(stored):
    assert places(matching()) == [SHIPPED / SMOKE]
    assert matching(data_hash="other") == ()
    assert matching(precision="bf16") == ()


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
