"""Two healthy runs as any program would log them: a plausible training, chaos that is benign, a writer per format."""

import csv
import io
import json
import math
from dataclasses import dataclass

import numpy as np

from emacheck.judge.noise.rounding import ROUNDOFF

LEVEL = 0.02  # at which the chaos of paired runs levels off


@dataclass(frozen=True, kw_only=True)
class Log:
    """What a log holds and how it is written.

    Attributes:
        length: Iterations of the training.
        every: Iterations between two records, over which each is a mean.
        ranks: How many ranks write.
        norms: Whether gradient norms are logged.
        rates: Whether learning rates are.
        validated: Whether the run is validated in the middle and at the end.
        resumed: Whether it was stopped and resumed, so that some records stand twice.
        precision: What it computed in; only run directories say it.
        clock: What tells its times and paths from those of another run.
    """

    length: int = 100
    every: int = 1
    ranks: int = 1
    norms: bool = True
    rates: bool = True
    validated: bool = False
    resumed: bool = False
    precision: str = "fp32"
    clock: float = 0.0


def training(length, *, ranks=1, seed=0):
    """Metrics of a run whose loss falls and fluctuates, each of shape (ranks, length), in single precision."""
    draw = np.random.default_rng(seed)
    noise = draw.normal(size=(4, ranks, length))
    part = np.linspace(0, 1, length)
    loss = (0.8 + 3.2 * np.exp(-3 * part * min(1, length / 100 + 0.2))) * np.exp(0.05 * noise[0])
    metrics = {
        "loss": loss,
        "loss_aux": 0.4 * loss * np.exp(0.01 * noise[1]),
        "grad_norm": 3 * np.exp(0.2 * noise[2]),
        "acc": 50 + 30 * part + noise[3],
    }
    return {name: single(values) for name, values in metrics.items()}


def single(values):
    return values.astype(np.float32).astype(float)


def chaotic(metrics, precision="fp32", *, seed=1):
    """The same run with benign chaos: rounding at iteration 1, 1e-7 or more at 2, 1e-3 at 20, LEVEL from 100 on."""
    draw, unit = np.random.default_rng(seed), ROUNDOFF[precision]
    known = [(1, unit), (2, max(1e-7, 2 * unit)), (20, min(max(1e-3, 8 * unit), LEVEL)), (100, LEVEL)]
    at, sizes = np.log(np.array(known)).T
    changed = {}
    for name, values in metrics.items():
        size = np.exp(np.interp(np.log(np.arange(1, values.shape[1] + 1)), at, sizes))
        size = np.minimum(20 * size, 10 * LEVEL) if name == "grad_norm" else size
        changed[name] = single(values * (1 + size * np.clip(draw.normal(size=values.shape), -2, 2)))
    return changed


def with_steps_left_out(metrics, *places):
    """The same run where a scaler of fp16 left some steps out: their gradients overflowed, or became NaN of that."""
    norms = metrics["grad_norm"].copy()
    norms[:, list(places)] = [np.nan if place % 2 else np.inf for place in places]
    return {**metrics, "grad_norm": norms}


def rows(metrics, log):
    """Iteration, rank and metrics of each record, in the order in which they are written."""
    places = np.arange(log.every, log.length + 1, log.every)
    means = {
        name: values[:, : len(places) * log.every].reshape(log.ranks, -1, log.every).mean(axis=2)
        for name, values in metrics.items()
        if log.norms or name != "grad_norm"
    }
    draw = np.random.default_rng(int(1000 * log.clock))
    found = []
    for at, iteration in enumerate(places.tolist()):
        for rank in range(log.ranks):
            row = {name: float(values[rank, at]) for name, values in means.items()}
            if log.rates:
                row["lr"] = 0.01 * (1 - iteration / max(2 * log.length, 400)) ** 0.9
            found.append((iteration, rank, {**row, "time": round(0.3 + 0.01 * draw.random() + log.clock, 4)}))
    if not log.resumed:
        return found
    middle, back = places[len(places) // 2], places[len(places) // 2 - max(len(places) // 10, 1)]
    return [row for row in found if row[0] <= middle] + [row for row in found if row[0] > back]


def scores(metrics, log):
    """Scores of the validations, by iteration."""
    ends = {log.length // 2 // log.every * log.every, log.length // log.every * log.every} if log.validated else ()
    level = {end: float(np.mean(metrics["loss"][:, max(end - 20, 0) : end])) for end in ends}
    return {end: {"aAcc": round(80 - loss, 2), "mIoU": round(20 + 2 / loss, 2)} for end, loss in level.items()}


def of_rank_0(metrics, log):
    """Rows of one rank, with the scores that stand behind them."""
    found = scores(metrics, log)
    return [(iteration, row, found.get(iteration, {})) for iteration, rank, row in rows(metrics, log) if rank == 0]


def flat(metrics, log):
    """Rows as tables hold them: without times, the rank beside the iteration where there are several."""
    return [
        {"iteration": at, **({"rank": rank} if log.ranks > 1 else {}), **{n: v for n, v in row.items() if n != "time"}}
        for at, rank, row in rows(metrics, log)
    ]


def printed(row, form=".4f", *, names=("grad_norm", "loss", "loss_aux", "acc"), between="  "):
    return between.join(f"{name}: {row[name]:{form}}" for name in names if name in row)


def run_directory(path, metrics, log):
    path.mkdir()
    config = {"train_dataloader.batch_size": 2}
    said = {"precision": log.precision, "seed": 0, "processes": log.ranks, "draws": 2, "config": config}
    run = {"format_version": 1, "complete": True, "iterations": log.length, "initial_state": "ab" * 32}
    (path / "run.json").write_text(json.dumps({**run, "provenance": {"experiment": said, "seconds": log.clock}}))
    for rank in range(log.ranks):
        lines, skipped = [], 0
        for at, row in ((at, row) for at, whose, row in rows(metrics, log) if whose == rank):
            kept = {name: value for name, value in row.items() if np.isfinite(value)}  # no norm of a step left out
            skipped += len(row) - len(kept)
            if log.precision == "fp16":
                kept["skipped_steps"] = skipped
            lines.append({"iteration": at, "batch": f"{at:04}", "metrics": kept})
        name = f"iterations.rank{rank}.jsonl" if rank else "iterations.jsonl"
        (path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def mmengine_json(metrics, log):
    lines = []
    for at, row, found in of_rank_0(metrics, log):
        lines += [{**row, "data_time": 0.01, "iter": at, "memory": 900, "step": at}]
        lines += [{**found, "step": at}] if found else []
    return "".join(json.dumps(line) + "\n" for line in lines)


def mmengine_text(metrics, log):
    head, lines = "2031/02/03 04:05:06 - mmengine - INFO - ", []
    for at, row, found in of_rank_0(metrics, log):
        rate = f"base_lr: {row['lr']:.4e} lr: {row['lr']:.4e}  " if log.rates else ""
        lines += [f"{head}Iter(train) [{at:>5}/20000]  {rate}eta: 1:02:03  time: {row['time']:.4f}  {printed(row)}"]
        lines += [f"{head}Iter(val) [20/20]    {printed(found, names=('aAcc', 'mIoU'))}  time: 0.0271"] if found else []
    return "\n".join(lines) + "\n"


def mmcv_json(metrics, log):
    lines = [{"env_info": "sys.platform: linux", "seed": 0, "exp_name": f"run at {log.clock}"}]
    for at, row, found in of_rank_0(metrics, log):
        short = {name: round(value, 5) for name, value in row.items()}
        lines += [{"mode": "train", "epoch": 1, "iter": at, "memory": 5, **short}]
        lines += [{"mode": "val", "epoch": 1, "iter": 20, "lr": 0.01, **found}] if found else []
    return "".join(json.dumps(line) + "\n" for line in lines)


def mmcv_text(metrics, log):
    head = "2031-02-03 04:05:06,789 - mmseg - INFO - Iter [{}/800]\t{}eta: 1 day, 5:14:00, time: {:.3f}, memory: 317, "
    return "".join(
        head.format(at, f"lr: {row['lr']:.3e}, " if log.rates else "", row["time"]) + printed(row, between=", ") + "\n"
        for at, row, _ in of_rank_0(metrics, log)
    )


def tcap_text(metrics, log):
    return "".join(
        f"TCAPPDLL 2031-02-03 04:05:06.000007 - Epoch: 0 Iteration: {at - 1}  rank : {rank}  train.loss : "
        f"{row['loss']}  train.ips : {1 / row['time']} imgs/s train.total_time : {row['time']} \n"
        for at, rank, row in rows(metrics, log)
    )


def tcap_json(metrics, log):
    data = [(at, str({"train.loss": str(row["loss"])})) for at, row, _ in of_rank_0(metrics, log)]
    return "".join(
        "TCAPPDLL " + json.dumps({"type": "LOG", "step": [0, at - 1], "data": text}) + "\n" for at, text in data
    )


def trainer_state(metrics, log):
    history = [
        {"epoch": at / 1000, "step": at, "loss": round(row["loss"], 4)}
        | {theirs: row[ours] for ours, theirs in (("lr", "learning_rate"), ("grad_norm", "grad_norm")) if ours in row}
        for at, row, _ in of_rank_0(metrics, log)
    ]
    return json.dumps(
        {"best_metric": None, "log_history": history, "logging_steps": log.every, "max_steps": 1}, indent=2
    )


def csv_table(metrics, log):
    file, table = io.StringIO(), flat(metrics, log)
    writer = csv.DictWriter(file, table[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return file.getvalue()


def csv_of_four_decimals(metrics, log):
    short = {name: np.round(values, 4) for name, values in metrics.items()}
    return csv_table(short, log)


def whitespace_table(metrics, log):
    table = flat(metrics, log)
    lines = ["  ".join(f"{v:.6f}" if isinstance(v, float) else str(v) for v in row.values()) for row in table]
    return "# " + "  ".join(table[0]) + "\n" + "\n".join(lines) + "\n"


def json_lines(metrics, log):
    return "".join(json.dumps(row) + "\n" for row in flat(metrics, log))


def json_document(metrics, log):
    return json.dumps({"config": {"seed": 1}, "logs": flat(metrics, log)}, indent=1)


def free_text(metrics, log):
    return "".join(f"step {at} | {printed(row, between=' | ')}\n" for at, row, _ in of_rank_0(metrics, log))


def array(metrics, log):
    return "".join(f"{row['loss']!r}\n" for _, row, _ in of_rank_0(metrics, log))


def keras(metrics, log):
    records = enumerate(of_rank_0(metrics, log), 1)
    return "".join(
        f"Epoch {epoch}/{log.length}\n 9/9 [====] - 3s - loss: {row['loss']:.4f} - accuracy: {row['acc']:.4f}\n"
        for epoch, (_, row, _) in records
    )


def tensorboard(path, metrics, log):
    from tensorboard.compat.proto import event_pb2
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(event_pb2.Event(wall_time=1 + log.clock, file_version="brain.Event:2").SerializeToString())
        for at, row, found in of_rank_0(metrics, log):
            tags = {f"train/{name}": v for name, v in row.items()} | {f"val/{name}": v for name, v in found.items()}
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in tags.items()])
            writer.write(event_pb2.Event(wall_time=2.0, step=at, summary=summary).SerializeToString())
        writer.flush()


WRITERS = {
    each.__name__: each
    for each in (
        *(run_directory, tensorboard, mmengine_json, mmengine_text, mmcv_json, mmcv_text, tcap_text, tcap_json),
        *(trainer_state, csv_table, csv_of_four_decimals, whitespace_table, json_lines, json_document, free_text),
        *(array, keras),
    )
}
OF_RANKS = ("run_directory", "tcap_text", "csv_table", "csv_of_four_decimals", "whitespace_table", "json_lines")
OF_SINGLE_ITERATIONS = ("run_directory", "tcap_text", "tcap_json", "array")
VALIDATED = ("tensorboard", "mmengine_json", "mmengine_text", "mmcv_json")


def write(path, form, metrics, log):
    """Write a log of a form where none is yet, and return its path."""
    if form in ("run_directory", "tensorboard"):
        WRITERS[form](path, metrics, log)
    else:
        path.write_text(WRITERS[form](metrics, log))
    return path


def possible(form, log):
    """The log as this form can hold it, with as many records as it needs for two."""
    several = log.ranks if form in OF_RANKS else 1
    every = 1 if form in OF_SINGLE_ITERATIONS or math.floor(log.length / log.every) < 2 else log.every
    resumed = log.resumed and form not in ("run_directory", "array", "keras") and log.length // every >= 10
    kept = {"ranks": several, "every": every, "resumed": resumed, "validated": log.validated and form in VALIDATED}
    return Log(**{**vars(log), **kept})
