"""From what a user asks for to the configuration that is trained; nothing is trained here."""

import pytest

from emacheck.errors import UsageError
from emacheck.train.presets import resolve
from emacheck.train.request import TrainingRequest

pytestmark = pytest.mark.upstream
BASE = """
model = dict(type="EncoderDecoder", backbone=dict(type="ResNetV1c", depth=18))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler"), dataset=dict(type="CityscapesDataset")
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01))
train_cfg = dict(type="IterBasedTrainLoop", max_iters=100)
"""


@pytest.fixture
def resolved(tmp_path):
    """Resolve a small configuration with lines added to it, and return the configuration and the notes."""

    def call(lines="", *cfg_options, **fields):
        path = tmp_path / "own.py"
        path.write_text(BASE + lines, encoding="utf-8")
        return resolve(TrainingRequest(preset=None, config=str(path), cfg_options=cfg_options, **fields), tmp_path)

    return call


POLY = 'dict(type="PolyLR", power=0.9, by_epoch=False)'


@pytest.mark.parametrize("schedulers", [POLY, f"[{POLY}]", f"dict(generator=[{POLY}], critic={POLY})"])
def test_a_schedule_without_an_end_is_that_of_the_whole_training_however_few_iterations_are_asked_for(
    resolved, schedulers
):
    few, _ = resolved(f"param_scheduler = {schedulers}", iterations=7)
    many, _ = resolved(f"param_scheduler = {schedulers}", iterations=70)
    assert (few.train_cfg.max_iters, many.train_cfg.max_iters) == (7, 70)
    assert few.param_scheduler == many.param_scheduler
    assert str(few.param_scheduler).count("'end': 100") == schedulers.count("PolyLR")


def test_a_schedule_that_has_an_end_or_counts_in_epochs_is_left_alone(resolved):
    lines = 'param_scheduler = [dict(type="PolyLR", by_epoch=False, end=50), dict(type="StepLR", step_size=1)]'
    config, _ = resolved(lines, iterations=7)
    assert config.param_scheduler == [
        {"type": "PolyLR", "by_epoch": False, "end": 50},
        {"type": "StepLR", "step_size": 1},
    ]


def test_the_length_of_the_whole_training_can_be_overridden(resolved):
    config, _ = resolved(f"param_scheduler = [{POLY}]", "train_cfg.max_iters=400", iterations=7)
    assert (config.param_scheduler[0]["end"], config.train_cfg.max_iters) == (400, 7)


def test_a_loop_that_counts_in_epochs_keeps_its_length(resolved):
    lines = f'train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=3)\nparam_scheduler = [{POLY}]'
    config, _ = resolved(lines, iterations=7)
    assert config.train_cfg == {"type": "EpochBasedTrainLoop", "max_epochs": 3}
    assert "end" not in config.param_scheduler[0]


REMOTE = "https://example.com/x.pth"


@pytest.mark.parametrize("where", [REMOTE, "/nowhere/x.pth"])
def test_weights_to_load_that_are_no_local_file_are_refused_wherever_they_are_named(resolved, where):
    with pytest.raises(UsageError, match=f"load_from: {where} is not a file here"):
        resolved(f"load_from = {where!r}")
    with pytest.raises(UsageError, match=f"load_from: {where} is not a file here"):
        resolved("", f"load_from={where}")


def test_weights_to_load_can_be_left_out_or_replaced_by_an_override(resolved, tmp_path):
    (tmp_path / "x.pth").touch()
    assert resolved(f"load_from = {REMOTE!r}", "load_from=None")[0].load_from is None
    local = str(tmp_path / "x.pth")
    assert resolved(f"load_from = {REMOTE!r}", f"load_from={local}")[0].load_from == local


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        ('model["pretrained"] = "open-mmlab://resnet18_v1c"', ()),
        ("", ("model.pretrained=open-mmlab://resnet18_v1c",)),
        (
            "",
            ("model.backbone.init_cfg.type=Pretrained", "model.backbone.init_cfg.checkpoint=open-mmlab://resnet18_v1c"),
        ),
    ],
)
def test_pretrained_weights_are_never_downloaded_wherever_they_are_named(resolved, lines, options):
    config, notes = resolved(lines, *options)
    assert notes == ("pretrained weights open-mmlab://resnet18_v1c are not a local file and were not used",)
    assert config.model.get("pretrained") is config.model.backbone.get("init_cfg") is None
