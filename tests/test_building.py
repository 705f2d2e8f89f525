"""What mmengine cannot build of a user's configuration is refused by the name of its entry."""

import re
from pathlib import Path

import click
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, MODEL_WRAPPERS, MODELS, OPTIM_WRAPPERS

from emacheck.errors import DataError, UsageError
from emacheck.printable import printable
from emacheck.train.building import UnbuildableError, building

pytestmark = pytest.mark.upstream


@pytest.fixture(scope="module", autouse=True)
def mmseg():
    """Register what mmsegmentation brings."""
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=False)


def config_of(root="data/city", **dataset):
    """Return a configuration that trains on a Cityscapes."""
    prefix = {"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"}
    data = {"type": "mmseg.CityscapesDataset", "data_root": root, "data_prefix": prefix, "pipeline": [], **dataset}
    model = {"type": "mmseg.FCNHead", "in_channels": 8, "channels": 8, "num_classes": 2, "loss_decode": [{}]}
    optimizer = {"type": "SGD", "lr": 0.01}
    return Config(
        {
            "model": {"type": "mmseg.EncoderDecoder", "decode_head": model},
            "train_dataloader": {"batch_size": 2, "dataset": {k: v for k, v in data.items() if v is not None}},
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": optimizer},
        }
    )


def refusal(config, build):
    """Return with which words the building of a part is refused."""
    with pytest.raises(UnbuildableError) as caught, building(config):
        build(config)
    return str(caught.value)


def data_of(config):
    return DATASETS.build(config.train_dataloader.dataset)


def head_of(config):
    return MODELS.build(config.model.decode_head)


def test_data_that_are_absent_are_refused_with_the_place_and_the_options_that_set_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    said = refusal(config_of(), data_of)
    assert f"train_dataloader.dataset.data_root: found nothing at {tmp_path}/data/city." in said
    assert "--data-root DIR" in said
    assert "--cfg-options train_dataloader.dataset.data_root=DIR (found 'data/city')" in said
    assert "emacheck data make DIR" in said


def test_a_part_of_the_data_that_is_absent_is_refused_by_its_own_entry(tmp_path):
    said = refusal(config_of(str(tmp_path)), data_of)
    assert f"dataset.data_prefix.img_path: found nothing at {tmp_path}/leftImg8bit/train." in said
    assert "--cfg-options train_dataloader.dataset.data_prefix.img_path=PATH" in said
    (tmp_path / "leftImg8bit/train").mkdir(parents=True)
    said = refusal(config_of(str(tmp_path), ann_file="train.txt"), data_of)
    assert f"dataset.ann_file: found nothing at {tmp_path}/train.txt." in said


def test_data_without_a_root_are_refused_by_the_entry_that_places_them(tmp_path):
    prefix = {"img_path": str(tmp_path / "images")}
    said = refusal(config_of(None, data_prefix=prefix), data_of)
    assert f"dataset.data_prefix.img_path: found nothing at {tmp_path}/images. Say where the data are: --cfg" in said
    assert "--data-root" not in said


def test_data_in_a_dataset_within_another_are_found(tmp_path):
    inner = config_of(str(tmp_path / "nowhere")).train_dataloader.dataset
    config = config_of(None)
    config.train_dataloader.dataset = {"type": "RepeatDataset", "times": 2, "dataset": inner}
    assert "train_dataloader.dataset.dataset.data_root: found nothing" in refusal(config, data_of)


def test_a_directory_without_a_sample_is_refused(tmp_path):
    (tmp_path / "leftImg8bit/train").mkdir(parents=True)
    (tmp_path / "leftImg8bit/train/notes.txt").touch()
    said = refusal(config_of(str(tmp_path)), data_of)
    assert f"{tmp_path}/leftImg8bit/train holds no sample that mmseg.CityscapesDataset takes." in said


def test_data_that_may_not_be_read_are_refused_as_such(tmp_path):
    (tmp_path / "leftImg8bit/train").mkdir(parents=True)
    place = str(tmp_path / "leftImg8bit/train")

    def build(config):
        raise PermissionError(13, "Permission denied", place)

    said = refusal(config_of(str(tmp_path)), build)
    assert (
        said == f"train_dataloader.dataset.data_root: {place} may not be read (Permission denied). Fix its permissions."
    )


@pytest.mark.parametrize("root", ["s3://bucket/city", "https://example.com/city"])
def test_data_on_a_server_are_not_looked_for_here(root):
    with pytest.raises(FileNotFoundError), building(config_of(root)):
        raise FileNotFoundError(2, "No such file or directory", root)


@pytest.mark.parametrize(
    ("change", "build", "said"),
    [
        (
            {"model.decode_head.type": "mmseg.FCNHeadd"},
            head_of,
            "model.decode_head.type: found 'mmseg.FCNHeadd', which nothing has registered as model",
        ),
        (
            {"train_dataloader.dataset.type": "CityscapeDataset"},
            data_of,
            "train_dataloader.dataset.type: found 'CityscapeDataset', which nothing has registered as dataset; perhaps "
            "you mean CityscapesDataset.",
        ),
        (
            {"train_dataloader.dataset.pipeline": [{"type": "Loadd"}]},
            data_of,
            "train_dataloader.dataset.pipeline.0.type: found 'Loadd', which nothing has registered as transform",
        ),
    ],
)
def test_a_type_that_nothing_registers_is_refused_by_its_entry(change, build, said):
    config = config_of()
    config.merge_from_dict(change)
    assert said in refusal(config, build)
    assert "custom_imports = dict(imports=['MODULE'])" in refusal(config, build)


def test_an_optimizer_that_nothing_registers_is_refused_by_its_entry():
    config = config_of()
    config.optim_wrapper.optimizer.type = "SDG"
    said = refusal(config, optimizer_of)
    assert said.startswith("optim_wrapper.optimizer.type: found 'SDG', which nothing has registered as optimizer")
    assert "perhaps you mean" in said
    assert OPTIM_WRAPPERS.get("OptimWrapper") is not None


def test_an_entry_that_its_type_does_not_take_is_refused_by_its_name():
    config = config_of()
    config.model.decode_head.num_clases = 19
    said = refusal(config, head_of)
    assert said.startswith("model.decode_head.num_clases: found an entry that its type does not take (")
    assert "Correct its name, or leave it out." in said


def test_an_entry_of_another_type_is_not_blamed():
    class Own:
        def __init__(self, depth):
            self.depth = depth

    config = config_of()
    config.model.backbone = {"type": "Own", "depth": 50, "norm_cfg": {"type": "BN"}}
    config.model.decode_head.norm_cfg = {"type": "BN"}
    try:
        MODELS.register_module(module=Own)
        said = refusal(config, lambda config: MODELS.build(config.model.backbone))
    finally:
        MODELS.module_dict.pop("Own", None)
    assert said.startswith("model.backbone.norm_cfg: found an entry that its type does not take (")
    with pytest.raises(TypeError), building(config):
        Own(depth=50, norm_cfg={})


def optimizer_of(config):
    import torch
    from mmengine.optim import build_optim_wrapper

    return build_optim_wrapper(torch.nn.Linear(1, 1), config.optim_wrapper)


def backbone_of(config):
    return MODELS.build(config.model.backbone)


@pytest.mark.parametrize(
    ("change", "build", "entry", "said"),
    [
        (
            {"model.backbone": {"type": "mmseg.ResNet", "depth": 51}},
            backbone_of,
            "model.backbone: mmseg.ResNet",
            r"KeyError: 'invalid depth 51 for resnet', raised at /.*/resnet\.py:\d+",
        ),
        # The innermost call is mmengine's own.
        (
            {"model.backbone": {"type": "mmseg.ResNet"}},
            backbone_of,
            "model.backbone: mmseg.ResNet",
            r"TypeError: .* missing 1 required positional argument: 'depth'",
        ),
        # An assertion without words.
        (
            {"model.decode_head.num_convs": -1},
            head_of,
            "model.decode_head: mmseg.FCNHead",
            r"AssertionError: assert num_convs >= 0.*, raised at /.*/fcn_head\.py:\d+",
        ),
        (
            {"optim_wrapper.optimizer.lr": -1},
            optimizer_of,
            "optim_wrapper.optimizer: SGD",
            r"ValueError: Invalid learning rate: -1, raised at /.*/sgd\.py:\d+",
        ),
    ],
)
def test_what_a_type_raises_while_it_is_built_is_refused_by_its_entry(change, build, entry, said):
    config = config_of()
    config.merge_from_dict(change)
    expected = rf"{re.escape(entry)} cannot be built of this entry \({said}\)\. Correct what it speaks of\."
    assert re.fullmatch(expected, refusal(config, build))


@pytest.fixture
def raising(monkeypatch):
    """Register a type that does something while it is built; return a configuration of it and what builds that."""

    def made(act):
        class Acting:
            def __init__(self):
                act()

        monkeypatch.setitem(MODELS.module_dict, "Acting", Acting)
        config = config_of()
        config.model.backbone = {"type": "Acting"}
        return config, backbone_of

    return made


def test_what_a_type_has_made_up_itself_is_refused_by_the_entry_of_that_type(raising):
    said = refusal(*raising(lambda: MODELS.build({"type": "mmseg.ResNet", "depth": 51})))
    assert said.startswith(
        "model.backbone: Acting cannot be built of this entry (KeyError: 'invalid depth 51 for resnet'"
    )


def test_a_defect_of_emacheck_in_what_is_built_is_no_mistake_of_the_configuration(raising):
    config, build = raising(lambda: printable(None))
    with pytest.raises(TypeError), building(config):
        build(config)


def test_a_wrapper_that_moves_the_model_to_a_device_is_not_blamed_for_it(monkeypatch):
    class Wrapping:
        def __init__(self):
            raise RuntimeError("device lost")

    monkeypatch.setitem(MODEL_WRAPPERS.module_dict, "Wrapping", Wrapping)
    config = config_of()
    config.model_wrapper_cfg = {"type": "Wrapping"}
    with pytest.raises(RuntimeError, match="device lost"), building(config):
        MODEL_WRAPPERS.build(config.model_wrapper_cfg)


def test_the_file_of_the_configuration_is_named(tmp_path):
    (tmp_path / "own.py").write_text(config_of(str(tmp_path / "nowhere")).pretty_text, encoding="utf-8")
    config = Config.fromfile(str(tmp_path / "own.py"))
    assert refusal(config, data_of).startswith(f"{tmp_path}/own.py: train_dataloader.dataset.data_root: ")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("invalid depth 51 for resnet"),
        TypeError("f() got an unexpected keyword argument 'nobody_wrote_this'"),
        RuntimeError("device lost"),
        FileNotFoundError(2, "No such file or directory", "/elsewhere/weights.pth"),
        DataError("said already"),
    ],
)
def test_what_no_entry_is_to_blame_for_is_passed_on_as_it_is(error):
    with pytest.raises(type(error)) as caught, building(config_of(str(Path(__file__).parent))):
        raise error
    assert caught.value is error


def described(*arguments):
    """Return the request of a training that a command line describes."""
    from emacheck.cli.training import describe_training, processes_asked_for, training_options

    @click.command()
    @training_options
    def train(*, timeout, **options):
        return describe_training(processes_asked_for(options), **options)

    return train.main(list(map(str, arguments)), standalone_mode=False)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--preset", "smoke-256x512", "--device", "sdaa", "--amp", "--cfg-options", "a=1", "b=2"),
        ("--config", "own.py", "--amp", "--seed", 3, "--iters", 7, "--precision", "bf16"),
    ],
)
def test_by_its_options_alone_a_training_is_known_for_what_it_is(own, arguments, monkeypatch):
    """A node that refuses has no more than these, and must find the others at their rendezvous."""
    from emacheck.cli import training

    monkeypatch.setattr(training, "require_module", lambda _: None)
    given = [own if each == "own.py" else each for each in arguments]
    whole = described(*given)
    monkeypatch.setattr(training, "describe_training", lambda _, **options: training.training_asked_for(options))
    assert described(*given).in_common() == whole.in_common()


@pytest.fixture
def own(tmp_path):
    """A configuration file, which is not read here."""
    path = tmp_path / "own.py"
    path.touch()
    return str(path)


@pytest.mark.parametrize(("name", "found"), [("nowhere", "nothing"), ("own.py", "a file")])
def test_a_data_root_that_is_no_directory_is_refused_at_once(tmp_path, own, name, found):
    with pytest.raises(UsageError, match=rf"^--data-root {tmp_path}/{name}: found {found}, expected the directory"):
        described("--config", own, "--data-root", tmp_path / name)


def test_data_of_another_kind_have_no_hash_and_spoilt_synthetic_ones_are_refused(tmp_path, own, copy):
    (tmp_path / "other").mkdir()
    assert described("--config", own, "--data-root", tmp_path / "other").data_hash is None
    assert described("--config", own, "--data-root", copy).data_hash is not None
    next((copy / "leftImg8bit/train").rglob("*.png")).unlink()
    with pytest.raises(DataError, match="1 missing"):
        described("--config", own, "--data-root", copy)


@pytest.mark.parametrize("length", [None, 0, 200])
def test_synthetic_data_whose_manifest_is_lost_or_cut_off_are_refused(own, copy, length):
    manifest = copy / "manifest.json"
    text = manifest.read_bytes()
    manifest.unlink()
    if length is not None:
        manifest.write_bytes(text[:length])
    with pytest.raises(DataError, match="manifest"):
        described("--config", own, "--data-root", copy)


def test_a_directory_instead_of_a_configuration_is_called_one(tmp_path):
    with pytest.raises(UsageError, match=rf"--config {tmp_path}: found a directory, expected a file"):
        described("--config", tmp_path)


@pytest.mark.training
def test_a_run_whose_data_are_absent_is_refused_before_it_trains_and_leaves_nothing(emacheck_cli, tmp_path):
    from importlib.util import find_spec

    configs = Path(find_spec("mmseg").origin).parent / ".mim" / "configs" / "emanet"
    config = configs / "emanet_r50-d8_4xb2-80k_cityscapes-512x1024.py"
    done = emacheck_cli("run", "--config", config, "--no-audit", "--reference-device", "cpu", "--iters", "2")
    assert done.code == 2
    assert f"found nothing at {tmp_path}/data/cityscapes." in done.err
    assert "--data-root DIR" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.training
def test_an_audit_of_what_cannot_be_built_is_refused_without_a_traceback(emacheck_cli):
    done = emacheck_cli("run", "--reference-device", "cpu", "--cfg-options", "model.decode_head.type=EMAHeadd")
    assert done.code == 2
    assert "model.decode_head.type: found 'EMAHeadd', which nothing has registered as model" in done.err
    assert "--no-audit." not in done.err.splitlines()[-1]
