"""From what a user asks for to the configuration that is trained; nothing is trained here."""

import pytest

from emacheck.errors import UsageError
from emacheck.experiment import flatten
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


def test_only_the_weights_to_download_are_left_out_of_an_initialisation(resolved):
    kept = {"type": "Kaiming", "layer": "Conv2d"}
    lines = f'model["backbone"]["init_cfg"] = [{kept}, dict(type="Pretrained", checkpoint={REMOTE!r})]'
    config, notes = resolved(lines)
    assert config.model.backbone.init_cfg == [kept]
    assert notes == (f"pretrained weights {REMOTE} are not a local file and were not used",)


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


@pytest.mark.parametrize("part", ["model", "train_dataloader", "train_cfg", "optim_wrapper"])
@pytest.mark.parametrize("nothing", ["None", "1"])
def test_an_override_that_leaves_a_needed_part_out_is_refused(resolved, part, nothing):
    with pytest.raises(UsageError, match=f"--cfg-options {part}={nothing}: found no {part}"):
        resolved("", f"{part}={nothing}")
    with pytest.raises(UsageError, match=f"own.py: found no {part}"):
        resolved(f"{part} = {nothing}")


@pytest.mark.parametrize(
    "option",
    [
        *(f"train_dataloader.batch_size={value}" for value in ("0", "-2", "1.5", "two", "None", "True")),
        *(f"train_dataloader.num_workers={value}" for value in ("-1", "None", "0.5")),
        *(f"draws={value}" for value in ("0", "3", "True", "one")),
    ],
)
@pytest.mark.parametrize("factor", [1, 2])
def test_a_value_with_which_nothing_can_be_trained_is_refused_by_name(resolved, option, factor):
    with pytest.raises(UsageError, match=rf"^{option.partition('=')[0]}: found .*, expected "):
        resolved("", option, batch_factor=factor)


def test_a_joined_batch_is_that_many_times_as_large(resolved):
    assert resolved("", batch_factor=3)[0].train_dataloader.batch_size == 6
    assert resolved('del train_dataloader["batch_size"]', batch_factor=3)[0].train_dataloader.batch_size == 3


def test_settings_of_workers_are_left_out_where_there_are_none(resolved):
    from torch.utils.data import DataLoader

    lines = 'train_dataloader.update(persistent_workers=True, prefetch_factor=4, multiprocessing_context="fork")'
    loader = resolved(lines)[0].train_dataloader
    kept = {key: value for key, value in loader.items() if key not in ("sampler", "dataset")}
    assert kept == {"batch_size": 2, "num_workers": 0, "persistent_workers": False}
    assert next(iter(DataLoader([1, 2], **kept))).tolist() == [1, 2]
    loader = resolved(lines, "train_dataloader.num_workers=1")[0].train_dataloader
    assert (loader.persistent_workers, loader.prefetch_factor) == (True, 4)


@pytest.mark.parametrize("options", [(), ("visualizer.name=mine",)])
def test_what_is_logged_stays_on_this_machine(resolved, options):
    lines = (
        'visualizer = dict(type="SegLocalVisualizer", name="visualizer", alpha=0.5,\n'
        '                  vis_backends=[dict(type="LocalVisBackend"),\n'
        '                                dict(type="WandbVisBackend", init_kwargs=dict(project="x"))])'
    )
    config, notes = resolved(lines, *options)
    assert config.visualizer.vis_backends == [{"type": "LocalVisBackend"}]
    assert (config.visualizer.type, config.visualizer.alpha) == ("SegLocalVisualizer", 0.5)
    assert notes == ("visualizer: WandbVisBackend was not used, LocalVisBackend is",)


def test_an_override_cannot_send_a_log_elsewhere(resolved):
    lines = 'visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])'
    config, _ = resolved(lines, "visualizer.vis_backends.0.type=WandbVisBackend")
    assert config.visualizer.vis_backends == [{"type": "LocalVisBackend"}]


@pytest.mark.parametrize("line", ["import sys; sys.exit(3)", "raise SystemExit"])
def test_a_configuration_that_ends_itself_is_refused(resolved, line):
    with pytest.raises(UsageError, match=r"own\.py: mmengine cannot read this configuration: SystemExit"):
        resolved(line)


def test_a_module_of_custom_imports_that_cannot_be_imported_is_named_and_what_it_lacks(resolved, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ported_heads.py").write_text("import torch_nowhere\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        resolved('custom_imports = dict(imports=["json", "ported_heads"], allow_failed_imports=False)')
    said = str(caught.value)
    assert "custom_imports: the module ported_heads cannot be imported (ModuleNotFoundError" in said
    assert "No module named 'torch_nowhere'" in said
    assert "PYTHONPATH" in said
    assert "\n" not in said


@pytest.mark.parametrize("option", ["randomness.seed=5", "randomness=None", "randomness=5", "randomness.seed=None"])
def test_a_seed_that_the_record_would_not_show_is_refused(resolved, option):
    with pytest.raises(UsageError, match="use --seed"):
        resolved("", option)


def test_the_seed_is_that_of_the_option_whatever_a_configuration_file_says(resolved):
    lines = "randomness = dict(seed=7, deterministic=True)"
    assert resolved(lines, seed=3)[0].randomness == {"seed": 3}
    assert resolved(lines, "randomness.seed=3", seed=3)[0].randomness == {"seed": 3}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("optim_wraper.optimizer.lr=0.5", "the configuration has no optim_wraper .* perhaps you mean optim_wrapper"),
        ("work_dir=elsewhere", "has no effect here; use the option --work-dir"),
        ("launcher=pytorch", "has no effect here; use the option --launcher"),
        ("resume=True", "has no effect here; a run starts from the weights that its reference starts from"),
    ],
)
def test_an_override_without_effect_is_refused_with_what_was_perhaps_meant(resolved, option, said):
    with pytest.raises(UsageError, match=rf"--cfg-options {option.partition('=')[0]}: {said}"):
        resolved("", option)


def test_an_override_that_does_not_fit_the_configuration_is_refused(resolved):
    with pytest.raises(
        UsageError, match=r"^--cfg-options optim_wrapper\.optimizer\.lr\.x=1: found something that cannot"
    ):
        resolved("", "optim_wrapper.optimizer.lr.x=1")


@pytest.mark.parametrize(
    "option", ["resume=False", "auto_scale_lr.enable=True", "val_dataloader.dataset.data_root=x", "compile=True"]
)
def test_an_override_of_what_mmengine_reads_is_taken_although_the_configuration_lacks_it(resolved, option):
    resolved("", option)


def test_a_data_root_that_no_dataset_would_read_is_refused(resolved):
    with pytest.raises(UsageError, match="--data-root there: the configuration's dataset has no data_root"):
        resolved(data_root="there")
    option = "train_dataloader.dataset.data_root=there"
    assert resolved("", option, data_root="there")[0].train_dataloader.dataset.data_root == "there"


def test_what_prepares_the_data_is_the_models_wherever_a_configuration_says_it(resolved):
    apart, _ = resolved('data_preprocessor = dict(type="SegDataPreProcessor", mean=[20])')
    inside, _ = resolved('model.update(data_preprocessor=dict(type="SegDataPreProcessor", mean=[20]))')
    assert flatten(apart) == flatten(inside) != flatten(resolved()[0])


def test_what_a_run_leaves_out_of_a_configuration_is_in_its_notes(resolved):
    lines = "resume = True\nrandomness = dict(seed=7, deterministic=True, diff_rank_seed=False)\n"
    config, notes = resolved(lines)
    assert (config.resume, config.randomness) == (False, {"seed": 0})
    assert notes == (
        "resume was not used: a run starts from its initial weights, or from those of load_from",
        "randomness.deterministic was not used",
    )


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("val_cfg.type=ValLoop", "nothing is evaluated"),
        ("default_hooks.checkpoint.interval=5", "nothing is saved"),
        ("default_hooks.visualization.draw=True", "nothing is drawn"),
    ],
)
def test_an_option_for_what_a_run_leaves_out_is_noted_and_changes_nothing(resolved, option, why):
    lines = (
        'default_hooks = dict(checkpoint=dict(type="CheckpointHook"), visualization=dict(type="SegVisualizationHook"))'
    )
    config, notes = resolved(lines, option)
    assert notes == (f"{option.partition('=')[0]} was not used, for {why}",)
    assert config.default_hooks.checkpoint is config.val_cfg is None
    assert "visualization" not in config.default_hooks
