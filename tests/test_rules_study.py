"""The tables of docs/rules-measured.md and docs/verification-power.md are what the stored results give."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "rules_study.json"
sys.path.insert(0, str(ROOT / "benchmarks"))

from rules_page import with_section  # noqa: E402

from emacheck.judge.noise.rounding import AMPLIFICATION, STOCK_AMPLIFICATION  # noqa: E402


def test_the_page_shows_the_stored_result():
    page = (ROOT / "docs" / "rules-measured.md").read_text(encoding="utf-8")
    assert with_section(page, json.loads(RESULT.read_text(encoding="utf-8"))) == page, "run: make rules"


def test_no_benign_training_is_a_false_alarm_of_the_default_rules():
    benign = json.loads(RESULT.read_text(encoding="utf-8"))["benign"]
    assert {row["verdicts"][name] for row in benign.values() for name in row["verdicts"]} == {"PASS"}


def test_the_program_that_makes_the_recorded_trainings_draws_and_validates_as_they_were(monkeypatch, tmp_path):
    pytest.importorskip("mmseg")
    from recorded_training import draw_as_recorded, validate_at_the_end

    from emacheck.train import presets
    from emacheck.train.request import TrainingRequest

    for name in ("resolve", "_train_only"):
        monkeypatch.setattr(presets, name, getattr(presets, name))  # so that both are put back
    draw_as_recorded()
    validate_at_the_end()
    request = TrainingRequest(preset="smoke", config=None, data_root="city", iterations=7)
    config, _ = presets.resolve(request, tmp_path)
    assert (config.draws, config.train_cfg.val_interval, config.val_dataloader.dataset.data_root) == (1, 7, "city")


@pytest.mark.slow
def test_judging_the_recorded_trainings_again_gives_the_stored_result():
    from rules_study import study

    stored = json.loads(RESULT.read_text(encoding="utf-8"))
    simulated = {name: stored[name] for name in ("simulated", "simulated with repeats")}
    assert json.loads(json.dumps({**study(), **simulated})) == stored, "run: make rules"


def test_simulating_the_first_runs_again_gives_the_stored_result():
    from simulated_curves import SEED, SIZES, counted, paired

    draw = np.random.default_rng(SEED)
    stored = json.loads(RESULT.read_text(encoding="utf-8"))["simulated"]["paired"]
    assert counted(lambda: paired(draw, 20, SIZES[0], "white")) == stored[str(SIZES[0])]["white"]["20"], (
        "run: make rules"
    )


def test_simulating_the_first_runs_with_repeats_again_gives_the_stored_result(monkeypatch):
    import simulated_curves

    # Of one kind of noise the first number of repeats comes before all others.
    monkeypatch.setattr(simulated_curves, "NOISES_WITH_REPEATS", ("white",))
    monkeypatch.setattr(simulated_curves, "REPEATS", (0, 2))
    monkeypatch.setattr(simulated_curves, "SIZES_WITH_REPEATS", (0.05,))
    monkeypatch.setattr(simulated_curves, "FAULTS", {})
    found = simulated_curves.simulated_with_repeats()["healthy"]["0.05"]["white"]
    stored = json.loads(RESULT.read_text(encoding="utf-8"))["simulated with repeats"]["healthy"]["0.05"]["white"]
    assert found == {count: stored[count] for count in ("0", "2")}, "run: make rules"


def test_the_first_iterations_are_fitted_to_both_kinds_of_start_and_are_no_wider_than_rounding_up_makes_them():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    fitted = [found["amplification"] for found in result["other starts"] if found["set"] == "calibration"]
    assert len(fitted) == 2
    for metric, found in result["calibration"].items():
        seen = [max(values) for values in zip(found["amplification"], *(each[metric] for each in fitted), strict=True)]
        for limits, largest in ((STOCK_AMPLIFICATION, found["amplification"]), (AMPLIFICATION, seen)):
            for limit, shown in zip(limits[metric], largest, strict=True):
                assert max(shown, 4.0) <= limit * 1.0001
                assert limit <= max(1.1 * shown, 4.0)


def test_benign_variations_from_starting_points_that_no_limit_was_fitted_to_are_no_false_alarms():
    others = [
        found for found in json.loads(RESULT.read_text(encoding="utf-8"))["other starts"] if found["set"] == "reported"
    ]
    assert sum(found["trainings"] for found in others) >= 80
    assert [found["start"] for found in others if found["false alarms"]] == []


@pytest.mark.slow
def test_the_page_on_the_power_of_the_audit_shows_the_stored_results():
    pytest.importorskip("torch")
    from power_page import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page()[0], "run: python benchmarks/audit_power.py --render"


def test_the_page_of_benchmarks_shows_the_stored_results():
    from run_all import PAGE, rendered

    assert PAGE.read_text(encoding="utf-8") == rendered(), "run: python benchmarks/run_all.py --render"


def test_the_table_on_several_processes_shows_the_stored_results():
    from processes_power import PAGE, RESULTS, render

    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    again = "run: python benchmarks/processes_power.py --render"
    assert PAGE.read_text(encoding="utf-8") == render(stored), again


def test_the_table_on_the_noise_of_ranks_shows_the_stored_results_and_none_of_it_is_a_false_alarm():
    from rank_noise import PAGE, RESULTS, render

    from emacheck.judge.rules.ranks import Ranks

    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == render(stored), "run: python benchmarks/rank_noise.py --render"
    assert max(max(pair["ranks"] + pair["late"]) for pair in stored["pairs"].values()) < Ranks().limit


def test_the_training_in_the_picture_of_the_readme_fails_at_its_first_iteration(monkeypatch, tmp_path, capsys):
    import readme_picture

    monkeypatch.setattr(readme_picture, "PICTURE", tmp_path / "picture.png")
    readme_picture.main()
    said = capsys.readouterr().out
    assert (said.startswith("FAIL first_iterations[loss] "), said.endswith(" at iteration 1\n")) == (True, True), said
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
