"""Facts about real logs that other people wrote; run where EMACHECK_CORPUS names the folder that holds them."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest

from emacheck.errors import LogError
from emacheck.judge import ModelZoo, Outcome
from emacheck.judge.comparison import PairedCurve, compare, pair
from emacheck.logs import read_log
from emacheck.record import Record

CORPUS = os.environ.get("EMACHECK_CORPUS", "")

pytestmark = pytest.mark.skipif(not CORPUS, reason="EMACHECK_CORPUS does not name a folder of real logs")


def record_of(name: str, rank: int | None = None) -> Record:
    return read_log(Path(CORPUS) / name, rank=rank)


def ends(record: Record) -> tuple[int, int, float, int, float]:
    loss = record.curves["loss"]
    first, last = loss.iterations[[0, -1]].tolist()
    return (len(loss), first, float(loss.values[0]), last, float(loss.values[-1]))


def pair_of(reference: str, candidate: str, rank: int | None = None) -> PairedCurve:
    return pair("loss", record_of(reference, rank).curves["loss"], record_of(candidate, rank).curves["loss"])


def means(paired: PairedCurve) -> list[float]:
    relative, absolute = paired.relative_difference, paired.difference
    return [float(np.mean(x)) for x in (relative, absolute, np.abs(relative), np.abs(absolute))]


@pytest.mark.parametrize(
    ("name", "facts", "ranks"),
    [
        ("emanet_cuda.log", (120, 0, 3.9519600868225098, 119, 1.5275863409042358), 1),
        ("emanet_sdaa.log", (112, 0, 3.8050765991210938, 111, 1.890593409538269), 4),
        ("regnet_cuda.log", (105, 0, 6.900539398193359, 104, 6.740754127502441), 1),
        ("regnet_sdaa.excerpt.log", (101, 0, None, 100, 6.819122314453125), 1),
        ("demo_cuda.log", (16, 0, 0.5300281643867493, 15, None), 4),
        ("demo_sdaa.log", (16, 0, 0.5300281643867493, 15, None), 4),
        ("melband_cuda.partA.log", (48, 0, 1.625267744064331, 47, 1.973076581954956), 1),
    ],
)
def test_tcap_logs_hold_these_records_of_rank_0(name, facts, ranks):
    record = record_of(name, rank=0)
    assert record.format == "TCAPPDLL text"
    assert record.ranks == ranks
    assert all(expected in (None, found) for found, expected in zip(ends(record), facts, strict=True))
    assert (f"{ranks} ranks are in the log; rank 0 is shown" in map(str, record.oddities)) == (ranks > 1)


def test_records_that_share_a_line_are_not_lost():
    iterations = record_of("emanet_sdaa.log", rank=0).curves["loss"].iterations
    assert {23, 61, 75, 99, 105} <= set(iterations.tolist())


@pytest.mark.parametrize("name", ["emanet_cuda.log", "emanet_sdaa.log"])
def test_the_means_that_mmengine_wrote_are_not_in_the_curve(name):
    record = record_of(name)
    assert any(oddity.endswith("not part of the curves: 2 left out") for oddity in map(str, record.oddities))
    assert not {1.9376, 1.4712, 1.5378, 1.2374} & set(record.curves["loss"].values.tolist())


@pytest.mark.parametrize(
    ("reference", "candidate", "common", "expected"),
    [
        (
            "emanet_cuda.log",
            "emanet_sdaa.log",
            112,
            [-0.057530848451, -0.255571545767, 0.331348499515, 0.652342349823],
        ),
        (
            "regnet_cuda.log",
            "regnet_sdaa.excerpt.log",
            101,
            [-0.001667727841, -0.011544100129, 0.005464744206, 0.037617990286],
        ),
        ("demo_cuda.log", "demo_sdaa.log", 16, [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_pairs_differ_by_what_was_measured_independently(reference, candidate, common, expected):
    paired = pair_of(reference, candidate, rank=0)
    assert len(paired.iterations) == common
    assert means(paired) == pytest.approx(expected, abs=1e-12)


def test_the_published_card_of_emanet_is_reproduced_to_the_digit_and_explained():
    comparison = compare(record_of("emanet_cuda.log", rank=0), record_of("emanet_sdaa.log", rank=0))
    (finding,) = ModelZoo().check(comparison)
    assert finding.outcome is Outcome.PASS
    assert finding.observed == -0.043414843661227415
    assert "MeanRelativeError: -0.043414843661227415\nMeanAbsoluteError: -0.16929115176200868\n" in finding.message
    assert "passes only because the errors are signed" in finding.message


def test_mmengine_json_and_text_of_one_run_agree_within_the_quantum():
    full, text = (
        record_of("pspnet_fashion_20240413_204032.json.first"),
        record_of("pspnet_fashion_20240413_204032.iter1700-3000.log"),
    )
    assert (full.format, text.format) == ("mmengine JSON", "mmengine text")
    assert full.curves["loss"].iterations.tolist() == list(range(50, 2501, 50))
    assert text.curves["loss"].iterations.tolist() == list(range(1700, 3001, 50))
    assert {full.curves["loss"].window, text.curves["loss"].window} == {0}
    paired = pair("loss", full.curves["loss"], text.curves["loss"])
    assert text.curves["loss"].quantum == 1e-4
    assert np.abs(paired.difference).max() <= 0.5001e-4
    assert "validation records are kept apart from the training curves: 2" in map(str, full.oddities)
    assert "validation records are kept apart from the training curves: 1" in map(str, text.oddities)


def test_mmengine_text_with_two_learning_rates_holds_twelve_records():
    record = record_of("segformer_sdaa_mmengine.excerpt.log")
    assert ends(record) == (12, 15900, 0.179, 16450, 0.1873)
    assert {"lr", "base_lr"} <= set(record.curves)
    assert "validation records are kept apart from the training curves: 1" in map(str, record.oddities)


def test_a_single_mmengine_json_record_is_read():
    assert ends(record_of("vgg11_scalars.json")) == (1, 100, 6.906985712051392, 100, 6.906985712051392)


def test_mmcv_json_holds_these_records():
    record = record_of("potato_None.log.json.first")
    assert record.format == "mmcv JSON"
    assert record.curves["loss"].iterations.tolist() == list(range(10, 651, 10))
    assert record.curves["loss"].window == 10
    assert "validation records are kept apart from the training curves: 3" in map(str, record.oddities)


def test_mmcv_json_with_validation_in_between():
    record = record_of("excerpts/mmseg_271_val_between_train.log.json")
    assert record.curves["loss"].iterations.tolist() == [11950, 12050, 12100, 12150, 12200]
    assert "mIoU" not in record.curves


def test_a_mmengine_record_of_nothing_but_nan_is_read():
    record = record_of("excerpts/mmdet_11893_mmengine_nan.log")
    assert np.isnan(record.curves["loss"].values).tolist() == [True]


def test_the_mean_of_ranks_is_what_was_computed_independently():
    record = record_of("emanet_sdaa.log")
    assert record.ranks == 4
    assert ends(record) == (112, 0, 3.965583324432373, 111, 1.685389906167984)
    assert means(pair_of("emanet_cuda.log", "emanet_sdaa.log")) == pytest.approx(
        [-0.112948406225, -0.332047171159, 0.255713817886, 0.543689149898], abs=1e-12
    )


@pytest.mark.parametrize(
    ("rank", "first", "last"),
    [
        (1, 4.093264579772949, 1.4694160223007202),
        (2, 3.905034065246582, 2.0414586067199707),
        (3, 4.058958053588867, 1.340091586112976),
    ],
)
def test_each_rank_can_be_picked(rank, first, last):
    assert ends(record_of("emanet_sdaa.log", rank=rank)) == (112, 0, first, 111, last)


@pytest.mark.parametrize(
    ("reference", "candidate", "common", "expected"),
    [
        (
            "rexnetCifar100Cuda.log",
            "rexnetCifar100Sdaa.log",
            100,
            [0.159361211594, 0.183738, 0.271476952425, 0.212464],
        ),
        (
            "fer_cuda_loss.first120.json",
            "fer_sdaa_loss.first120.json",
            120,
            [-0.015842836034, -0.045241152247, 0.085895632004, 0.181969975432],
        ),
        ("ecanet_loss.txt#CUDA", "ecanet_loss.txt#SDAA", 100, [0.033699762663, 0.151452, 0.082773304523, 0.545080]),
        ("rpn_loss.txt#CUDA", "rpn_loss.txt#SDAA", 100, [-0.668014191035, -0.486524, 0.683812412915, 0.499220]),
    ],
)
def test_pairs_in_other_formats_differ_by_what_was_measured_independently(reference, candidate, common, expected):
    paired = pair_of(reference, candidate)
    assert len(paired.iterations) == common
    assert means(paired) == pytest.approx(expected, abs=1e-9)


def test_the_validation_of_rexnet_is_a_curve_of_its_own():
    reference, candidate = (record_of(f"rexnetCifar100{name}.log").validation["loss"] for name in ("Cuda", "Sdaa"))
    paired = pair("loss", reference, candidate)
    assert len(paired.iterations) == 100
    expected = [0.118903095647, 0.200848, 0.140578735823, 0.234616]
    assert means(paired) == pytest.approx(expected, abs=1e-9)


def test_a_trainer_state_holds_a_hundred_records_and_a_summary():
    record = record_of("tinyllama_sdaa_trainer_state.json")
    assert ends(record) == (100, 1, 8.4293, 100, 0.1397)
    assert "summaries of the whole training are left out: 1" in map(str, record.oddities)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("segformer_sdaa_mmengine.excerpt.log", [(16000, 70.02)]),
        ("pspnet_fashion_20240413_204032.json.first", [(1000, 4.08), (2000, 5.19)]),
        ("pspnet_fashion_20240413_204032.iter1700-3000.log", [(2000, 5.19)]),
        ("excerpts/mmseg_271_val_between_train.log.json", [(12000, 0.18724)]),
    ],
)
def test_validations_stand_at_their_iteration(name, expected):
    curve = record_of(name).validation["mIoU"]
    assert list(zip(curve.iterations.tolist(), curve.values.round(5).tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("name", "metric", "iterations"),
    [
        ("cmid_5_val_then_train.log", "loss", [4350]),
        ("daformer_11_record_split_over_two_lines.log", "mix.decode.loss_seg", [50, 100, 150, 200]),
        ("mmocr_591_loss_nan.log", "loss", [50, 100, 150, 200]),
        ("mmseg_185_loss_collapses_to_zero.log", "loss", [50, 100, 150]),
        ("mmseg_2300_loss_and_loss_val_same_line.log", "loss", [2600, 2650, 2700]),
    ],
)
def test_excerpts_of_mmcv_text_hold_these_records(name, metric, iterations):
    record = record_of(f"excerpts/{name}")
    assert record.format == "mmcv text"
    assert record.curves[metric].iterations.tolist() == iterations


def test_loss_and_loss_val_of_one_line_are_not_confused():
    record = record_of("excerpts/mmseg_2300_loss_and_loss_val_same_line.log")
    assert record.curves["loss"].values.tolist() == [0.1675, 0.1687, 0.182]
    assert record.validation["loss"].values.tolist() == [0.1805, 0.2181, 0.2777]


def test_headers_tell_the_two_experiments_apart():
    reference, candidate = (record_of(f"emanet_{name}.log").header for name in ("cuda", "sdaa"))
    assert reference["versions.PyTorch"] == "2.7.1+cu126"
    assert reference["config.crop_size"] == "(512, 1024)"
    assert reference["seed"] != candidate["seed"]


@pytest.mark.parametrize(
    "name",
    ["vgg_log_metadata_only.json", "excerpts/mmdet_8654_resumed_head.log", "published_cards.csv", "sealed.tar.xz.enc"],
)
def test_what_holds_no_training_record_is_refused(name):
    with pytest.raises(LogError):
        record_of(name)


def test_every_file_is_read_or_refused_in_words():
    for path in sorted(Path(CORPUS).rglob("*")):
        with contextlib.suppress(LogError):
            assert read_log(path).curves
