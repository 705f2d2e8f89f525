"""From a preset or a configuration file to the configuration that is trained."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from emacheck.errors import TrainingError, UsageError
from emacheck.train.building import entries
from emacheck.train.overrides import EVALUATION, override
from emacheck.train.request import TrainingRequest

# The crop as (height, width), and the scale before it as (width, height): mmengine's orders.
SMALL = {"smoke": ((64, 128), (512, 256)), "smoke-256x512": ((256, 512), (1024, 512))}
SMALL_SCHEDULE = 100
# How mmengine names a module of custom_imports that it could not import.
FAILED_IMPORT = re.compile(r"Failed to import (\S+)")


def resolve(request: TrainingRequest, run_directory: Path) -> tuple[Any, tuple[str, ...]]:
    """Build the complete mmengine configuration of a request.

    Args:
        request: What is to be trained.
        run_directory: Where mmengine may write its own logs.

    Returns:
        The configuration and notes on what was changed in it, for the provenance.

    Raises:
        UsageError: If the configuration or an override cannot be used.
    """
    config = _load(request)
    notes: list[str] = []
    if request.preset in SMALL:
        _shrink(config, *SMALL[request.preset])
    _train_only(config, request, run_directory, notes)
    if request.data_root is not None:
        _place_data(config, request.data_root)
    override(config, request.cfg_options, notes)
    if config.get("data_preprocessor") is not None:
        # mmengine takes it for a model that has none of its own; the record shows the model's.
        config.model.setdefault("data_preprocessor", config.data_preprocessor)
    config.setdefault("draws", 2)
    _refuse_unusable(config, request)
    _end_after(config, request.iterations)
    _avoid_network(config, notes)
    _log_locally(config, notes)
    _without_workers(config.train_dataloader)
    if request.batch_factor > 1:
        config.train_dataloader.batch_size = config.train_dataloader.get("batch_size", 1) * request.batch_factor
    return config, tuple(notes)


def config_path(request: TrainingRequest) -> Path:
    """Return the configuration file of a request; the presets' files are those of the installed mmsegmentation."""
    if request.config is not None:
        return Path(request.config)
    spec = find_spec("mmseg")
    if spec is None or spec.origin is None:
        raise TrainingError("mmsegmentation is not installed; install the extra: pip install 'emacheck[train]'.")
    size = "769x769" if "769" in str(request.preset) else "512x1024"
    depth = "r101" if "r101" in str(request.preset) else "r50"
    name = f"emanet_{depth}-d8_4xb2-80k_cityscapes-{size}.py"
    return Path(spec.origin).parent / ".mim" / "configs" / "emanet" / name


def _load(request: TrainingRequest) -> Any:
    path = config_path(request)
    if not path.is_file():
        raise UsageError(f"{path}: no such configuration file. Give an mmengine configuration with --config FILE.")
    try:
        config = Config.fromfile(str(path))
    except (Exception, SystemExit) as error:  # a configuration is a program, and may end itself
        raise UsageError(f"{path}: mmengine cannot read this configuration: {_why_unread(error)}") from error
    _require_parts(config, str(path))
    config.setdefault("default_scope", "mmseg")
    return config


def _why_unread(error: BaseException) -> str:
    """Return what kept mmengine from reading a configuration; of a module to import, which one and why."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    named = next((found for each in chain if (found := FAILED_IMPORT.fullmatch(str(each)))), None)
    if isinstance(error, ImportError) and named is not None:
        return (
            f"custom_imports: the module {named[1]} cannot be imported ({type(chain[-1]).__name__}: {chain[-1]}). "
            "Install it, or name the directory that holds it in PYTHONPATH."
        )
    return f"{type(error).__name__}: {error}"


def _require_parts(config: Any, where: str) -> None:
    parts = ("model", "train_dataloader", "train_cfg", "optim_wrapper")
    missing = [key for key in parts if not config.get(key) or not isinstance(config[key], dict)]
    if missing:
        raise UsageError(
            f"{where}: found no {', '.join(missing)}; expected a complete mmengine training configuration, in which "
            "each of them is a dict."
        )


def _refuse_unusable(config: Any, request: TrainingRequest) -> None:
    """Refuse values that would end in a traceback of the training, or that the record would not show.

    Raises:
        UsageError: If there are any.
    """
    _require_parts(config, f"--cfg-options {' '.join(request.cfg_options)}")
    if request.data_root is not None and not _rooted(config):
        raise UsageError(
            f"--data-root {request.data_root}: the configuration's dataset has no data_root that it could replace, and "
            "its data are read from where it says. Add data_root to the dataset, or leave the option out."
        )
    loader = config.train_dataloader
    for key, least in (("batch_size", 1), ("num_workers", 0)):
        value = loader.get(key, least)
        if type(value) is not int or value < least:
            raise UsageError(
                f"train_dataloader.{key}: found {value!r}, expected a whole number of at least {least}. "
                f"Correct it, or give --cfg-options train_dataloader.{key}=2"
            )
    if type(config.draws) is not int or config.draws not in (1, 2):
        raise UsageError(
            f"draws: found {config.draws!r}, expected 1 or 2, the ways of drawing weights and samples that "
            "docs/pairing.md describes. Leave it out for 2."
        )
    randomness = config.get("randomness")
    seed = randomness.get("seed") if isinstance(randomness, dict) else None
    if seed != request.seed:
        raise UsageError(
            f"--cfg-options randomness: found the seed {seed!r}, expected that of the option --seed, {request.seed}, "
            "which the record shows. Leave it out and use --seed."
        )


def _shrink(config: Any, crop: tuple[int, int], scale: tuple[int, int]) -> None:
    """Make EMANet-R50-D8 small enough for a CPU, and every random draw independent of the device."""
    config.model.data_preprocessor.size = crop
    # Dropout masks come from the device's generator and would differ on every device.
    config.model.decode_head.dropout_ratio = 0.0
    config.model.auxiliary_head.dropout_ratio = 0.0
    for transform in config.train_dataloader.dataset.pipeline:
        if transform["type"] == "RandomResize":
            transform["scale"] = scale
        if transform["type"] == "RandomCrop":
            transform["crop_size"] = crop
    config.train_dataloader.num_workers = 0
    config.train_dataloader.persistent_workers = False
    # A schedule that ends within the run, so that a device that gets it wrong shows.
    config.param_scheduler[0].end = SMALL_SCHEDULE


def _avoid_network(config: Any, notes: list[str]) -> None:
    """Drop pretrained weights that would have to be downloaded."""
    for _, owner in entries(config.model):
        for key in ("pretrained", "init_cfg"):
            value = owner.get(key)
            each = value if isinstance(value, list | tuple) else [value]
            absent = [item for item in each if _absent_weights(item)]
            if absent:
                owner[key] = [item for item in each if item not in absent] or None
                notes += [
                    f"pretrained weights {_absent_weights(item)} are not a local file and were not used"
                    for item in absent
                ]
    where = config.get("load_from")
    if isinstance(where, str) and not Path(where).is_file():
        raise UsageError(
            f"load_from: {where} is not a file here, and nothing is downloaded. Give a local file with "
            "--cfg-options load_from=FILE, or load_from=None."
        )


def _absent_weights(value: Any) -> str | None:
    """Return which weights would have to be downloaded: those of ``pretrained`` or of one entry of ``init_cfg``."""
    where = value.get("checkpoint") if isinstance(value, dict) and value.get("type") == "Pretrained" else value
    return where if isinstance(where, str) and not Path(where).is_file() else None


def _log_locally(config: Any, notes: list[str]) -> None:
    """Leave mmengine's own log in the run directory; other backends need packages and send to servers."""
    visualizer = config.get("visualizer")
    if not isinstance(visualizer, dict) or visualizer.get("vis_backends") is None:
        return
    found = [str(backend.get("type")) for _, backend in entries(visualizer["vis_backends"]) if "type" in backend]
    visualizer["vis_backends"] = [{"type": "LocalVisBackend"}]
    notes += [f"visualizer: {name} was not used, LocalVisBackend is" for name in found if name != "LocalVisBackend"]


def _without_workers(loader: Any) -> None:
    """Leave out what torch takes for a mistake if no process of its own loads the data."""
    if loader.get("num_workers", 0) != 0:
        return
    if loader.get("persistent_workers"):
        loader.persistent_workers = False
    for key in ("prefetch_factor", "timeout", "multiprocessing_context"):
        if loader.get(key) is not None:
            loader.pop(key)


def _train_only(config: Any, request: TrainingRequest, run_directory: Path, notes: list[str]) -> None:
    """Train and log every iteration at full precision; no evaluation, no checkpoint, no download."""
    if config.get("resume"):
        notes.append("resume was not used: a run starts from its initial weights, or from those of load_from")
    randomness = config.get("randomness")
    unused = randomness if isinstance(randomness, dict) else {}
    notes += [f"randomness.{key} was not used" for key, value in unused.items() if key != "seed" and value]
    config.work_dir = str(run_directory / "mmengine")
    config.launcher = "none"
    config.resume = False
    config.randomness = {"seed": request.seed}
    config.last_bit_seed = request.last_bit_seed
    for key in EVALUATION:
        config[key] = None
    hooks = config.get("default_hooks") or {}
    config.default_hooks = {
        **{name: hook for name, hook in hooks.items() if name != "visualization"},
        "checkpoint": None,
        "logger": {"type": "LoggerHook", "interval": 1, "log_metric_by_epoch": False},
    }
    config.log_processor = {"type": "LogProcessor", "window_size": 1, "by_epoch": _counts_in_epochs(config.train_cfg)}
    config.env_cfg = {
        "cudnn_benchmark": False,
        "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0},
        "dist_cfg": {"backend": "gloo"},
    }


def _counts_in_epochs(loop: Any) -> bool:
    return bool(loop.get("by_epoch", loop.get("type") == "EpochBasedTrainLoop"))


def _end_after(config: Any, iterations: int) -> None:
    """Let a loop that counts in iterations end after those asked for, with the schedule of the whole training."""
    if _counts_in_epochs(config.train_cfg):
        return
    whole = config.train_cfg.get("max_iters")
    for _, scheduler in entries(config.get("param_scheduler")):
        # mmengine takes a missing end from max_iters, so that fewer iterations would be another schedule.
        if whole is not None and "type" in scheduler and not scheduler.get("by_epoch", True):
            scheduler.setdefault("end", whole)
    config.train_cfg.max_iters = iterations


def _place_data(config: Any, data_root: str) -> None:
    for owner in _rooted(config):
        owner["data_root"] = data_root


def _rooted(config: Any) -> list[Any]:
    return [owner for _, owner in entries(config.train_dataloader.get("dataset")) if "data_root" in owner]
