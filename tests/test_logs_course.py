"""The course of a run, its resumes and gaps, and the header of its log."""

import json

from conftest import points, remarks, said
from log_lines import tcap_line as tcap

# --- the course of a run ---------------------------------------------------------------------------------------------


def test_a_resume_is_remarked_with_its_line_and_the_later_record_wins(log):
    record = log("".join(tcap(i, n) for n, i in enumerate([0, 1, 2, 3, 2, 3, 4])))
    assert points(record) == [(0, 0.0), (1, 1.0), (2, 4.0), (3, 5.0), (4, 6.0)]
    assert "line 5: the iteration goes back from 3 to 2, as after a resume" in said(record)
    assert "later record is used: 2, the first is 2" in remarks(record)


def test_of_two_runs_in_one_file_the_last_is_read(log):
    record = log("".join(tcap(i, n) for n, i in enumerate([0, 1, 2, 3, 0, 1])))
    assert points(record) == [(0, 4.0), (1, 5.0)]
    assert (
        "line 5: two runs in one file, for the iteration starts again at 0: the last one, from line 5 on, is read"
        in said(record)
    )


def test_the_validation_of_the_first_run_is_not_that_of_the_last(log):
    record = log(
        "Iter 1 loss 4.5\nIter 2 loss 4.4 val_loss 9.5\nIter 3 loss 4.0\nIter 1 loss 3.5\nIter 2 loss 3.4\n"
        "Iter 3 loss 3.3 val_loss 8.5\n"
    )
    assert points(record) == [(1, 3.5), (2, 3.4), (3, 3.3)]
    assert points(record, validation=True) == [(3, 8.5)]


def test_gaps_and_missing_losses_are_remarked(log):
    record = log("iteration,loss,acc\n1,4.5,1\n2,,1\n3,4.0,1\n6,3.5,1\n7,3.5,1\n8,3.5,1\n")
    assert "line 5: records are missing between the iterations 3 and 6" in said(record)
    assert "line 3: records without a loss: 1, the first is iteration 2" in said(record)


def test_the_logging_interval_is_remarked(log):
    assert "recorded every 10 iterations" in remarks(log("iter,loss\n10,4.5\n20,4.0\n30,3.5\n"))


# --- header ----------------------------------------------------------------------------------------------------------

ENVIRONMENT = """2031/02/03 04:05:06 - mmengine - INFO -
------------------------------------------------------------
System environment:
    sys.platform: linux
    PyTorch: 9.8.7
    PyTorch compiling details: PyTorch built with:
  - GCC 1.2

Runtime environment:
    seed: 4711
------------------------------------------------------------

2031/02/03 04:05:06 - mmengine - INFO - Config:
crop_size = (
    512,
    118.925,
)
model = dict(
    backbone=dict(depth=50, type='ResNet'),
    heads=[
        dict(channels=8),
    ])
optim_wrapper = dict(optimizer=dict(lr=0.01, betas=(0.9, 0.99)))
danger = __import__('os').system('true')
2031/02/03 04:05:07 - mmengine - INFO - Iter(train) [ 1/20]  loss: 4.5000
"""


def test_the_header_of_mmengine_is_read_and_never_evaluated(log):
    header = log(ENVIRONMENT).header
    assert header["seed"] == "4711"
    assert header["versions.PyTorch"] == "9.8.7"
    assert header["environment.sys.platform"] == "linux"
    assert header["config.model.backbone.type"] == "ResNet"
    assert header["config.model.heads.0.channels"] == "8"
    assert header["config.optim_wrapper.optimizer.lr"] == "0.01"
    assert header["config.crop_size"] == "(512, 118.925)"
    assert header["config.danger"].startswith("__import__")


def test_banners_seeds_and_arguments_are_header(log):
    banner = "------+------\n Host IP | 1.2.3.4\n PyTorch      | 2.4.0\n------+------\n"
    text = (
        banner + "Set random seed to 5, deterministic: False\nNamespace(lr=0.1, name='x')\nresumed epoch 3, iter 77\n"
    )
    header = log(text + tcap(0, 4.5)).header
    assert header["versions.PyTorch"] == "2.4.0"
    assert (header["seed"], header["config.lr"], header["config.name"]) == ("5", "0.1", "x")
    assert header["resumed"] == "resumed epoch 3, iter 77"


def test_the_header_of_mmcv_json_is_read(log):
    first = {"env_info": "sys.platform: linux\nPyTorch: 1.9", "seed": 3, "config": "lr = 0.5\nmodel = dict(a=1)\n"}
    header = log(json.dumps(first) + '\n{"mode": "train", "epoch": 1, "iter": 1, "loss": 4.5}\n').header
    assert header == {
        "environment.sys.platform": "linux",
        "versions.PyTorch": "1.9",
        "seed": "3",
        "config.lr": "0.5",
        "config.model.a": "1",
    }


def test_a_header_is_bounded(log):
    text = "2031/02/03 04:05:06 - mmengine - INFO - Config:\n" + "".join(f"a{i} = '{'x' * 90}'\n" for i in range(2500))
    header = log(text + "2031/02/03 04:05:07 - mmengine - INFO - Iter(train) [ 1/20]  loss: 4.5000\n").header
    assert len(header) == 2000
    assert all(len(value) <= 300 for value in header.values())
